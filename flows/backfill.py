"""The flow `rum backfill`: the nights of a range of dates, one after another.

A night that is published is left as it is, and one that is older than all that are kept is passed
over, so a backfill that was cut off goes on where it was. It stops at the first night that fails:
each one is held against the nights before it.
"""

import argparse
import logging
import sys
import time
from datetime import date, timedelta

from prefect import flow
from prefect.runtime import flow_run

from flows.by_hand import run_by_hand, split_quiet, tell_failure
from flows.nightly import refuse_future, rum
from flows.notices import notification_block, tell
from rum_core.errors import RumError
from rum_core.settings import load
from rum_core.store.layout import Store
from rum_core.store.retention import kept_from

log = logging.getLogger("rum")

PROG = "python -m flows.backfill"


class BackfillError(RumError):
    """A range of dates that holds no night."""


def _run_name() -> str:
    asked = flow_run.parameters
    return f"nights of {asked['first']} to {asked['last']}"


@flow(
    name="rum backfill",
    flow_run_name=_run_name,
    validate_parameters=True,
    on_failure=[tell],
    on_crashed=[tell],
)
def backfill(
    first: date,
    last: date,
    config: str = "",
    force: bool = False,
    notify: str = "",
    settings: tuple[str, ...] = (),
) -> list[str]:
    """The nights of a range of dates, each as it would have been: purchases up to its end.

    Args:
        first: the first night
        last: the last night
        config: settings file (TOML) or a preset's name
        force: do nights again that are already published
        notify: notification block that is told of a failure or crash, e.g. slack-webhook/shop
        settings: further settings as command line words, e.g. ["--train.epochs=3"]

    Returns:
        the paths of the published tables
    """
    log.setLevel(logging.INFO)  # before the first night does so
    if notify:
        notification_block(notify)
    given = [*(["--config", config] if config else []), *settings]
    chosen, tables = load(given, prog=PROG), []
    refuse_future(Store.open(chosen.store), last, force=force or chosen.force)
    for night in nights(first, last):
        oldest = kept_from(Store.open(chosen.store), chosen.keep.nights)
        if oldest and night < oldest:
            log.info("%s is older than the %d nights that are kept", night, chosen.keep.nights)
            continue
        log.info("night of %s", night)
        tables.append(rum(config, night, force=force, settings=settings))
    return tables


def nights(first: date, last: date) -> list[date]:
    """The dates from the first to the last; BackfillError where there is none."""
    if last < first:
        raise BackfillError(f"no night lies from {first} to {last}: give the earlier date first")
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def main(argv: list[str] | None = None) -> int:
    """A backfill by hand: --from DATE --to DATE, and all that a night takes.

    Exit status: 0 done, 2 with one line on stderr that says what to mend, 1 when something broke
    down.
    """
    words, quiet = split_quiet(sys.argv[1:] if argv is None else argv)
    start = time.monotonic()
    try:
        first, last, words = _range(words)
        settings = load(words, prog=PROG, about=f"{main.__doc__}")
        if first is None or last is None or settings.run_date:
            raise BackfillError("give the first night by --from, the last by --to, no run date")
        tables, logfile = run_by_hand(
            settings, last, lambda: backfill(first, last, settings=tuple(words)), quiet=quiet
        )
    except RumError as error:
        return tell_failure(error)
    print(f"\n{len(tables)} nights of {first} to {last} done in {time.monotonic() - start:.0f} s")
    for table in tables[-1:]:
        print(f"last    {table}")
    print(f"log     {logfile}")
    return 0


def _range(words: list[str]) -> tuple[date | None, date | None, list[str]]:
    """The dates of --from and --to, and the other words."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--from", dest="first", type=date.fromisoformat, metavar="DATE")
    parser.add_argument("--to", dest="last", type=date.fromisoformat, metavar="DATE")
    try:
        found, left = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise BackfillError(f"{error}; give dates as YYYY-MM-DD") from None
    return found.first, found.last, left


if __name__ == "__main__":
    raise SystemExit(main())
