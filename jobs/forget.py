"""Take customers out of everything that the store holds, and prove it by a search of all of it."""

import argparse
import logging
import sys

from jobs.runtime import run_job
from rum_core.errors import RumError
from rum_core.settings import Settings
from rum_core.store.customers import Customers
from rum_core.store.forget import forget
from rum_core.store.layout import Store, StoreError
from rum_core.store.lock import night_lock
from rum_core.store.search import search
from rum_core.store.sweep import sweep

log = logging.getLogger("rum")

ABOUT = """Forget the customer --user ID (may be given more than once): his lines, rejected lines,
histories, memory, user row of every model, published and withdrawn lists, samples in reports, and
his id in logs; staged lists and unfinished trainings go altogether. Then the whole store is
searched for him. Item embeddings that were trained with him stay until the next training, and the
counts of old catalogues and evaluations as they were; the log's own files are the shop's. In
rejected lines and logs an id that is a number is that number wherever it stands. Run it while no
job runs; cut off, run it again."""
SHOWN = 20  # places: one screen


def forget_all(store: Store, names: list[str]) -> None:
    """Forget customers; StoreError where something of them is left."""
    if not names:
        raise RumError("say whom to forget: --user ID, more than once for more customers")
    customers = Customers.of(store, names)
    with night_lock(store):
        sweep(store)
        gone = forget(store, customers)
        log.info("forgot %d customers: files changed: %s", len(names), gone)
        files, left = search(store, customers)
    for place in left[:SHOWN]:
        print(f"left in {place}")
    if left:
        raise StoreError(
            f"searched {files} files of {store.root}: {len(left)} still tell of the customers, "
            f"first {left[0]}; mend or delete these and run it again"
        )
    log.info("searched %d files: nothing is left", files)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done and proven, 2 with one line on stderr that says what to mend."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--user", action="append", default=[])
    given, words = own.parse_known_args(sys.argv[1:] if argv is None else argv)

    def work(_: Settings, store: Store) -> None:
        forget_all(store, given.user)

    return run_job("forget", ABOUT, work, words)


if __name__ == "__main__":
    raise SystemExit(main())
