"""The figures of a backtest: each night's, and those of all nights, with intervals.

Over all nights a customer counts once: his mean over the nights on which he counts for every
interval, then the mean over customers. The bootstrap draws customers, so an interval knows that
neighbouring nights are measured on the same people; intervals are compared customer by customer.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.backtest.walk import BacktestError, Walk
from rum_core.evaluation.following import PUBLISHED
from rum_core.evaluation.measure import Row, intervals
from rum_core.evaluation.metrics import METRICS, Floats
from rum_core.ranking.ranking import POPULAR
from rum_core.settings import Settings


def backtest_table(settings: Settings, walk: Walk, parts: Mapping[date, pa.Table]) -> pa.Table:
    """schema.BACKTESTS from what `replay` said of each training."""
    how = {"resamples": settings.evaluate.resamples, "seed": settings.train.seed}
    by_night = {every: _by_night(walk, parts, every) for every in walk.every}
    rows = [*_nights(settings, walk, by_night, how), *_all(settings, walk, parts, by_night, how)]
    same = dict.fromkeys(schema.BACKTESTS.names) | {
        "dataset": settings.dataset,
        "k": settings.recommend.top_n,
    }
    return pa.Table.from_pylist([same | row for row in rows], schema=schema.BACKTESTS)


def _by_night(walk: Walk, parts: Mapping[date, pa.Table], every: int) -> dict[date, pa.Table]:
    """What an interval's lists came to, by night."""
    found = {}
    for night in walk.nights:
        part = parts[walk.trained_on(night, every)]
        found[night] = part.filter(pc.equal(part["night"], night.isoformat()))
    return found


def _nights(
    settings: Settings, walk: Walk, by_night: dict[int, dict[date, pa.Table]], how: dict[str, int]
) -> Iterator[Row]:
    for night in walk.nights:
        for every in walk.every:
            table = by_night[every][night]
            if not len(table):
                continue
            trained = walk.trained_on(night, every)
            trains = trained == night
            mine = {
                "every": every,
                "trained_on": trained.isoformat(),
                "trainings": int(trains),
                "train_seconds": _seconds(table, "train_seconds") if trains else 0.0,
                "rank_seconds": _seconds(table, "rank_seconds"),
            }
            values = {name: _values(table, name) for name in (PUBLISHED, POPULAR)}
            found = intervals(values, **how)
            about: list[tuple[str, dict[str, Any]]] = [(PUBLISHED, mine)]
            about += [(POPULAR, {})] if every == walk.every[0] else []
            for name, said in about:
                model = settings.model.name if name == PUBLISHED else name
                plain = {"night": night.isoformat(), "model": model, **said}
                yield from ({**plain, **row} for row in found[name])


def _all(
    settings: Settings,
    walk: Walk,
    parts: Mapping[date, pa.Table],
    by_night: dict[int, dict[date, pa.Table]],
    how: dict[str, int],
) -> Iterator[Row]:
    """Figures over all nights, and what each interval has over the shortest."""
    tables = {every: pa.concat_tables(by_night[every].values()) for every in walk.every}
    days = {night.isoformat(): n for n, night in enumerate(walk.nights)}
    keys = {every: _keys(table, days) for every, table in tables.items()}
    shared = keys[walk.every[0]]
    for every in walk.every[1:]:
        shared = np.intersect1d(shared, keys[every])
    if not len(shared):
        raise BacktestError(
            f"nobody who had a list bought anything new in the days after it, from {walk.first} to "
            f"{walk.last}: give other nights, or more evaluate.follow_days"
        )
    _, owner = np.unique(shared // len(days), return_inverse=True)

    def means(every: int, name: str) -> Floats:
        order = np.argsort(keys[every])
        at = order[np.searchsorted(keys[every], shared, sorter=order)]
        values = _values(tables[every], name)[at]
        sums = np.zeros((owner.max() + 1, len(METRICS)))
        np.add.at(sums, owner, values)
        return np.asarray(sums / np.bincount(owner)[:, None])

    least = walk.every[0]
    figures: dict[tuple[int | None, int | None], Floats] = {(None, None): means(least, POPULAR)}
    for every in walk.every:
        figures[every, None] = means(every, PUBLISHED)
        if every != least:
            figures[every, least] = figures[every, None] - figures[least, None]
    found = intervals({str(key): values for key, values in figures.items()}, **how)
    for days_between, against in figures:
        plain: Row = {"every": days_between, "against": against, "model": settings.model.name}
        if days_between is None:
            plain["model"] = POPULAR
        elif against is None:
            trained = {walk.trained_on(night, days_between) for night in walk.nights}
            nights = by_night[days_between].values()
            plain["trainings"] = len(trained)
            plain["train_seconds"] = sum(_seconds(parts[t], "train_seconds") for t in trained)
            plain["rank_seconds"] = sum(_seconds(night, "rank_seconds") for night in nights)
        hits = {"hits": None} if against is not None else {}
        yield from ({**plain, **row, **hits} for row in found[str((days_between, against))])


def _keys(table: pa.Table, days: dict[str, int]) -> np.ndarray:
    """A number for each customer and night (rows,), a customer's together."""
    night = np.array([days[name] for name in table["night"].to_pylist()], dtype=np.int64)
    return np.asarray(table["user"].to_numpy() * len(days) + night)


def _values(table: pa.Table, name: str) -> Floats:
    """METRICS of each row (rows, 6)."""
    flat = [chunk.flatten().to_numpy() for chunk in table[name].chunks]
    return np.concatenate([np.zeros(0), *flat]).reshape(-1, len(METRICS))


def _seconds(table: pa.Table, name: str) -> float:
    """The seconds that all rows of a training or night name alike; 0 where nobody counted."""
    return float(table[name][0].as_py()) if len(table) else 0.0
