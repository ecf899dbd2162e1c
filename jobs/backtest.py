"""What schedule and settings are worth: past nights walked again, measured on what followed.

The shop's tables stay as they are. Each training and the nights that it serves are one piece of
work whose figures wait in the store until all are done, so a backtest that was killed goes on from
there when it is started again.
"""

import logging
from datetime import date
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from jobs.runtime import run_job
from jobs.work import over_work, ray_at_need
from rum_core.backtest.replay import REPLAYED, replay
from rum_core.backtest.rows import backtest_table
from rum_core.backtest.shown import as_text, plot
from rum_core.backtest.walk import Walk
from rum_core.data.snapshots import Snapshot, latest_snapshot, load_snapshot, read_histories
from rum_core.settings import Settings
from rum_core.store.backtests import read_backtest, table_path, write_backtest
from rum_core.store.layout import Store, StoreError, fingerprint
from rum_core.store.sweep import BEGUN
from rum_core.training.recipe import recipe_of

log = logging.getLogger("rum")

ABOUT = """Walk the past nights from --backtest.first to --backtest.last on the newest snapshot up
to the run date: train at each interval of --backtest.every, make every night's lists from what was
bought by then, and measure them on the days that followed. Tonight's candidates and rules are left
out. Table and plot go to backtests/ of the store. Killed and started again within 30 days it goes
on, with the same --run-date: without one it begins anew after each night, on that night's
snapshot."""
VERSION = 1  # of how nights are walked: another one makes another backtest


def backtest(settings: Settings, store: Store) -> None:
    """Do what is still to do; writes table, plot and what they are of."""
    walk = Walk.of(settings)
    for field in settings.model.unused():
        log.warning("model.%s means nothing to %s: ignored", field, settings.model.name)
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    name = backtest_id(settings, walk, snapshot)
    table = None if settings.force else read_backtest(store, name)
    if table is None:
        parts = _parts(settings, store, snapshot, walk, f"{BEGUN}/{name}")
        table = backtest_table(settings, walk, parts)
        write_backtest(store, name, table, plot(table), _about(settings, walk, snapshot))
        store.remove(f"{BEGUN}/{name}")
    else:
        log.info("backtest %s is already there", name)
    print(as_text(table))
    log.info("%d nights: %s", len(walk.nights), store.full(table_path(name)))


def backtest_id(settings: Settings, walk: Walk, snapshot: Snapshot) -> str:
    """The name of a backtest: equal names, equal figures."""
    stands_for = [VERSION, _about(settings, walk, snapshot)]
    days = f"{walk.first}-to-{walk.last}"
    return f"{settings.model.name}-{days}-{fingerprint(stands_for)}"


def _about(settings: Settings, walk: Walk, snapshot: Snapshot) -> dict[str, Any]:
    """What the figures depend on."""
    chosen = settings.recommend
    return {
        "first": walk.first.isoformat(),
        "last": walk.last.isoformat(),
        "every": list(walk.every),
        "snapshot": snapshot.id,
        "dataset": settings.dataset,
        "recipe": recipe_of(settings),
        "recommend": [chosen.top_n, chosen.exclude_seen],
        "evaluate": [settings.evaluate.follow_days, settings.evaluate.resamples],
        "code_version": version("rum-nightly"),
    }


def _parts(
    settings: Settings, store: Store, snapshot: Snapshot, walk: Walk, folder: str
) -> dict[date, pa.Table]:
    """What came of each training, by its night; those that are not in the folder are made."""
    trainings = walk.trainings()
    left = [day for day in trainings if not store.exists(_part(folder, day))]
    done = len(trainings) - len(left)
    log.info(
        "%d nights from %s to %s: %d trainings, %d of them are done",
        *(len(walk.nights), walk.first, walk.last, len(trainings), done),
    )

    def work(trained: date) -> None:
        everyone = read_histories(store, snapshot.id)
        found = replay(settings, everyone, snapshot, trained, trainings[trained])
        store.write_table(_part(folder, trained), found)

    if left:
        with ray_at_need():
            over_work(work, [{"trained": day} for day in left], seconds=60 * len(left))
    parts = {}
    for day in trainings:
        parts[day] = store.read_table(_part(folder, day))
        if parts[day].schema != REPLAYED:
            raise StoreError(f"{store.full(_part(folder, day))} is damaged: delete it and go on")
    return parts


def _part(folder: str, trained: date) -> str:
    return f"{folder}/{trained.isoformat()}.parquet"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 with one line on stderr that says what to mend."""
    return run_job("backtest", ABOUT, backtest, argv)


if __name__ == "__main__":
    raise SystemExit(main())
