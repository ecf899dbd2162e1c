"""A backtest's walk, its figures by hand, and that a night sees nothing of what came later."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from rum_core.backtest.replay import REPLAYED, lists_of, model_of
from rum_core.backtest.rows import backtest_table
from rum_core.backtest.shown import as_text
from rum_core.backtest.walk import Walk
from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.data.simulated import Shop, simulate
from rum_core.data.snapshots import Snapshot, midnight_after
from rum_core.evaluation.metrics import METRICS
from rum_core.ranking.ranking import Ranker
from rum_core.settings import Settings, from_dict

DAY = date(2026, 11, 10)


def in_days(count: int) -> date:
    return DAY + timedelta(days=count)


def test_each_interval_trains_on_its_nights_and_a_training_is_made_once() -> None:
    walk = Walk(DAY, in_days(6), (2, 3))
    assert [walk.trained_on(night, 3) for night in walk.nights] == [
        *3 * [DAY],
        *3 * [in_days(3)],
        in_days(6),
    ]
    assert walk.trainings() == {
        DAY: [DAY, in_days(1), in_days(2)],
        in_days(2): [in_days(2), in_days(3)],
        in_days(3): [in_days(3), in_days(4), in_days(5)],
        in_days(4): [in_days(4), in_days(5)],
        in_days(6): [in_days(6)],
    }


def snapshot_of(shop: Shop) -> tuple[Histories, Snapshot]:
    """The whole log of a simulated shop, as a snapshot holds it."""
    counts = np.bincount(shop.item, minlength=len(shop.names))
    bought = np.flatnonzero(counts)
    ids = pa.array(shop.names).take(pa.array(bought))
    catalog = Catalog.from_ids(ids, counts[bought])
    items = catalog.index_of(pa.array(shop.names))[shop.item]
    users, lengths = np.unique(shop.user, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    names = pa.array([f"u{user}" for user in users])
    everyone = Histories(names, offsets, items, shop.time)
    return everyone, Snapshot("all", catalog, [], len(users), len(items))


def other_future(shop: Shop, night: date) -> Shop:
    """The same purchases up to the end of a night; afterwards other items, some of them new."""
    rng = np.random.default_rng(1)
    later = shop.time >= midnight_after(night)
    names = [*shop.names, *(f"new-{n}" for n in range(20))]
    items = np.where(later, rng.integers(len(names), size=len(later)), shop.item)
    return replace(shop, item=items, names=names)


@pytest.mark.parametrize("name", ["rum", "seqknn"])
@pytest.mark.parametrize("split", ["user", "time"])
def test_another_future_leaves_the_lists_of_a_night_as_they_are(name: str, split: str) -> None:
    small = {"epochs": 2, "patience": 1, "negatives": 20}
    settings = from_dict(
        {
            "source": {"columns": {"time": "time"}},
            "history": {"split": split},
            "model": {"name": name, "dim": 8},
            "train": small,
            "evaluate": {"follow_days": 12},
        }
    )
    shop = simulate(users=60, items=40, purchases=12, days=40)
    trained, night = in_days(-2), DAY

    def listed(shop: Shop) -> list[dict[str, object]]:
        everyone, snapshot = snapshot_of(shop)
        ranker = Ranker(model_of(settings, everyone, snapshot, trained))
        return lists_of(settings, everyone, snapshot, ranker, night).to_pylist()

    lists = listed(shop)
    assert len(lists) > 100
    assert listed(other_future(shop, night)) == lists
    assert listed(other_future(shop, in_days(-3))) != lists  # what the model and the night knew


def part(rows: list[tuple[int, int, float]]) -> pa.Table:
    """(night, user, metric value) of a training, MostPopular always 0.5."""
    return pa.Table.from_pylist(
        [
            {
                "night": in_days(night).isoformat(),
                "user": user,
                "published": [value] * len(METRICS),
                "popular": [0.5] * len(METRICS),
                "train_seconds": 2.0,
                "rank_seconds": 0.25,
            }
            for night, user, value in rows
        ],
        schema=REPLAYED,
    )


def by_hand() -> tuple[Settings, pa.Table]:
    """Customer 1 counts on both nights, customer 2 on the second, customer 3 for one interval."""
    settings = from_dict({"evaluate": {"resamples": 100}, "backtest": {"every": [1, 2]}})
    walk = Walk(DAY, in_days(1), (1, 2))
    parts = {
        DAY: part([(0, 1, 1.0), (1, 1, 0.0), (1, 2, 0.25)]),
        in_days(1): part([(1, 1, 0.5), (1, 2, 0.0), (1, 3, 1.0)]),
    }
    return settings, backtest_table(settings, walk, parts)


def test_figures_by_hand() -> None:
    _, table = by_hand()
    rows = [row for row in table.to_pylist() if row["metric"] == "hit_rate"]
    nights = {(r["night"], r["every"]): (r["value"], r["users"]) for r in rows if r["night"]}
    assert nights == {
        (DAY.isoformat(), 1): (1.0, 1),
        (DAY.isoformat(), 2): (1.0, 1),
        (DAY.isoformat(), None): (0.5, 1),
        (in_days(1).isoformat(), 1): (0.5, 3),
        (in_days(1).isoformat(), 2): (0.125, 2),
        (in_days(1).isoformat(), None): (0.5, 3),
    }
    whole = {(r["every"], r["against"]): r for r in rows if r["night"] is None}
    means = {key: row["value"] for key, row in whole.items()}
    assert means == {
        (None, None): 0.5,
        (1, None): (0.75 + 0.0) / 2,
        (2, None): (0.5 + 0.25) / 2,
        (2, 1): 0.0,
    }
    assert {row["users"] for row in whole.values()} == {2}
    assert (whole[2, 1]["ci_low"], whole[2, 1]["ci_high"]) == (-0.25, 0.25)  # 1: -0.25, 2: +0.25
    assert (whole[1, None]["trainings"], whole[1, None]["train_seconds"]) == (2, 4.0)
    assert (whole[2, None]["trainings"], whole[2, None]["train_seconds"]) == (1, 2.0)
    assert whole[1, None]["rank_seconds"] == 0.5


def test_the_text_has_a_line_an_interval() -> None:
    lines = as_text(by_hand()[1]).splitlines()
    assert [line.split()[0] for line in lines] == ["every", "1", "2", "popular"]
    assert "0.000 [-25.000, 25.000]" in lines[2]
    assert "37.500" in lines[1]
