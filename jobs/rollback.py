"""Serve the lists of an earlier night again, and withdraw those of the newer ones."""

import logging

from jobs.runtime import run_job
from rum_core.errors import RumError
from rum_core.settings import Settings
from rum_core.store.layout import Store
from rum_core.store.lock import night_lock
from rum_core.store.rollback import roll_back
from rum_core.store.sweep import sweep

log = logging.getLogger("rum")

ABOUT = """Serve the lists of the night --run-date again. Newer nights are moved to withdrawn/ with
their records, evaluations and reports; --run-date of a withdrawn night brings it back."""


def rollback(settings: Settings, store: Store) -> None:
    """Roll the store back to the run date."""
    if settings.run_date is None:
        raise RumError("say which night to go back to: --run-date YYYY-MM-DD")
    with night_lock(store):
        sweep(store)
        gone = roll_back(store, settings.run_date)
    said = f"withdrawn: {', '.join(map(str, gone))}" if gone else "no night is withdrawn for it"
    log.info("readers are served the lists of %s; %s", settings.run_date, said)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    return run_job("rollback", ABOUT, rollback, argv)


if __name__ == "__main__":
    raise SystemExit(main())
