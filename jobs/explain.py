"""Why a customer got his items: history, memory, list, reasons, and the list without memory."""

import argparse
import sys

from jobs.runtime import run_job
from rum_core.errors import RumError
from rum_core.evaluation.customers import Explorer, lists_of
from rum_core.evaluation.explained import summary, tables
from rum_core.evaluation.tables import Table, show
from rum_core.settings import Settings
from rum_core.store.customers import Customers
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import latest_night, published

ABOUT = """Explain the published list of the customer --user ID: his history, what his memory holds
of it, the items and why each is there, and what he would have got without the memory. --run-date
names the night; default: the one that readers are served."""


def explain(settings: Settings, store: Store, user: str) -> None:
    """Print a customer's explanation."""
    if not user:
        raise RumError("say whose list to explain: --user ID")
    (user_id,) = Customers.of(store, [user]).ids
    night = settings.run_date or latest_night(store)
    manifest, lists = published(store, night), lists_of(store, night)
    if manifest is None or lists is None:
        raise StoreError(f"there are no published lists of {night} in {store.root}")
    explorer = Explorer(store, lists, manifest, settings)
    customer = explorer.customer(user_id)
    print(f"customer {show(user)}, night of {night}, model {manifest['model_id']}")
    print("\n".join(summary(customer)))
    for table in tables(customer, dated=settings.source.dated):
        print(f"\n{as_text(table)}")


def as_text(table: Table) -> str:
    """A table as plain text, its columns below each other."""
    rows = [table.head, *([cell.replace("\n", "; ") for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join([table.caption, *(f"  {line.rstrip()}" for line in lines)])


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 explained, 2 with one line on stderr that says what to mend."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--user", default="")
    given, words = own.parse_known_args(sys.argv[1:] if argv is None else argv)

    def work(settings: Settings, store: Store) -> None:
        explain(settings, store, given.user)

    return run_job("explain", ABOUT, work, words)


if __name__ == "__main__":
    raise SystemExit(main())
