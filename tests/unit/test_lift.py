"""The holdout beside the others: by hand, and how often the intervals hold what is true."""

from datetime import date

import numpy as np
import pytest

from rum_core.evaluation.lift import Followed, lift_rows


def followed(day: int, users: list[int], hits: list[int], held_out: list[int]) -> Followed:
    flags = (np.array(x, dtype=np.bool_) for x in (hits, held_out))
    return Followed(date(2026, 11, day), np.array(users, dtype=np.int64), *flags)


def test_each_customer_counts_once_for_all_of_his_lists() -> None:
    nights = [
        followed(1, [0, 1, 5, 7], [1, 0, 0, 1], [0, 0, 1, 1]),
        followed(2, [0, 5], [0, 0], [0, 1]),
        followed(3, [], [], []),
        followed(4, [0], [0], [0]),
    ]
    others, held, difference = lift_rows(nights, 5)
    assert [r["model"] for r in (others, held, difference)] == ["others", "holdout", "difference"]
    assert others["value"] == pytest.approx((1 / 3 + 0) / 2)
    assert (others["users"], others["hits"]) == (2, 1)
    assert held["value"] == pytest.approx((0 + 1) / 2)
    assert difference["value"] == pytest.approx(1 / 6 - 1 / 2)
    assert (difference["users"], difference["hits"]) == (4, None)
    assert {r["segment"] for r in (others, held, difference)} == {"lists 2026-11-01 to 2026-11-04"}
    for row in (others, held, difference):
        assert row["ci_low"] < row["value"] < row["ci_high"]


@pytest.mark.parametrize("held_out", [0, 1])
def test_without_a_holdout_or_without_anybody_else_nothing_is_said(held_out: int) -> None:
    assert lift_rows([], 5) == []
    assert lift_rows([followed(1, [0, 1], [1, 0], [held_out] * 2)], 5) == []


@pytest.mark.parametrize(("rate", "of_holdout"), [(0.3, 0.1), (0.1, 0.05), (0.05, 0.05)])
def test_intervals_hold_the_truth_as_often_as_they_say(rate: float, of_holdout: float) -> None:
    """Twenty customers are held out of 400, so that often none of them has a hit."""
    rng, held_out = np.random.default_rng(0), np.arange(400) < 20
    truth = {"others": rate, "holdout": of_holdout, "difference": rate - of_holdout}
    held: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(500):
        hits = rng.random(400) < np.where(held_out, of_holdout, rate)
        for row in lift_rows([Followed(date(2026, 11, 1), np.arange(400), hits, held_out)], 5):
            held[row["model"]].append(row["ci_low"] <= truth[row["model"]] <= row["ci_high"])
    for name, found in held.items():
        assert np.mean(found) > 0.92, name


def test_one_night_is_no_range_of_nights() -> None:
    rows = lift_rows([followed(1, [0, 1], [1, 0], [0, 1])], 5)
    assert {row["segment"] for row in rows} == {"list 2026-11-01"}
