"""Every bound of the gate: kept at it, broken beyond it, not asked where nothing is to compare."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rum_core.evaluation.facts import Facts
from rum_core.evaluation.gate import judge
from rum_core.evaluation.measure import intervals
from rum_core.evaluation.metrics import METRICS
from rum_core.evaluation.steps import gate_note, gate_table
from rum_core.settings import Gate

EXACT = Gate(metric_drop=0.0)
MANY = 10**12  # of which chance is nothing


def interval(low: float, high: float) -> dict[str, float]:
    return {"value": (low + high) / 2, "ci_low": low, "ci_high": high}


LAST = Facts(
    night="2024-01-01",
    model_id="m",
    snapshot="s",
    protocol={"k": 5},
    metrics={"ndcg": interval(0.2, 0.3), "hit_rate": interval(0.4, 0.5)},
    lead={"ndcg": interval(0.01, 0.02)},
    coverage=0.5,
    lists=MANY,
    popular=0.0,
    customers=1000,
    items=500,
    purchases=10_000,
    lines=MANY,
    rejected=0.0,
    standing=1.0,
    new_purchases=1000,
    known=0.75,
    known_of=MANY,
    head=0.5,
    head_of=MANY,
)
FORMER = [LAST] * 3
TONIGHT = replace(LAST, night="2024-01-02")


def broken(tonight: Facts, former: list[Facts] | None = None, bounds: Gate = EXACT) -> list[str]:
    checks = judge(tonight, FORMER if former is None else former, bounds)
    return [check.name for check in checks if not check.passed]


AT_AND_BEYOND: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "ndcg",
        {"metrics": {"ndcg": interval(0.1, 0.2)}},
        {"metrics": {"ndcg": interval(0.1, 0.199)}},
    ),
    (
        "hit_rate",
        {"metrics": {"hit_rate": interval(0.1, 0.4)}},
        {"metrics": {"hit_rate": interval(0.1, 0.399)}},
    ),
    ("lead", {"lead": {"ndcg": interval(-1, 0)}}, {"lead": {"ndcg": interval(-1, -0.0001)}}),
    ("coverage", {"coverage": 0.125}, {"coverage": 0.1249}),
    ("popular lists", {"popular": 0.1}, {"popular": 0.1001}),
    ("customers", {"customers": 900}, {"customers": 899}),
    ("items", {"items": 450}, {"items": 449}),
    ("purchases", {"purchases": 9000}, {"purchases": 8999}),
    ("purchases found again", {"standing": 0.9}, {"standing": 0.8999}),
    ("unusable lines", {"rejected": 0.03}, {"rejected": 0.0301}),
    ("new purchases", {"new_purchases": 50}, {"new_purchases": 49}),
    ("items known before", {"known": 0.375}, {"known": 0.374}),
    ("popular items", {"head": 0.25}, {"head": 0.249}),
]


@pytest.mark.parametrize(("name", "at", "beyond"), AT_AND_BEYOND)
def test_a_bound_is_kept_at_it_and_broken_beyond(
    name: str, at: dict[str, Any], beyond: dict[str, Any]
) -> None:
    assert broken(replace(TONIGHT, **at)) == []
    assert broken(replace(TONIGHT, **beyond)) == [name]


def test_every_check_is_among_those_tried_at_their_bound() -> None:
    assert {c.name for c in judge(TONIGHT, FORMER, EXACT)} == {name for name, *_ in AT_AND_BEYOND}


def test_what_is_not_comparable_is_not_compared() -> None:
    worse = replace(TONIGHT, metrics={"ndcg": interval(0, 0.1)}, protocol={"k": 10})
    assert broken(worse) == []
    assert broken(replace(worse, protocol={"k": 5})) == ["ndcg"]
    first = replace(worse, coverage=0.0, customers=1, known=0.0, rejected=1.0)
    assert [check.name for check in judge(first, [], EXACT)] == ["lead"]
    assert broken(replace(TONIGHT, known=0.0), FORMER[:2]) == []  # two nights are not the usual
    assert broken(replace(TONIGHT, new_purchases=0, known=None, head=None)) == []  # a quiet night
    assert broken(replace(TONIGHT, lead={})) == []  # MostPopular itself


def test_the_usual_is_a_median_so_one_odd_night_does_not_move_it() -> None:
    odd = replace(LAST, known=0.0, new_purchases=10**9)
    assert broken(TONIGHT, [LAST, odd, LAST, LAST]) == []
    assert broken(replace(TONIGHT, known=0.3), [LAST, odd, LAST]) == ["items known before"]


def test_nights_without_a_purchase_do_not_make_few_usual() -> None:
    quiet = replace(LAST, new_purchases=0, known=None, head=None)
    weeks = [LAST, *[quiet] * 6] * 3
    assert broken(replace(TONIGHT, new_purchases=50), weeks) == []
    assert broken(replace(TONIGHT, new_purchases=1), weeks) == ["new purchases"]
    assert broken(replace(TONIGHT, new_purchases=1), weeks[7:]) == []  # two weeks are not the usual


def test_a_few_customers_and_lines_are_chance() -> None:
    few = replace(TONIGHT, popular=0.3, lists=10, rejected=0.1, lines=10)
    few = replace(few, known=0.2, known_of=5, head=0.0, head_of=5)
    assert broken(few) == []
    many = replace(few, lists=10_000, lines=10_000, known_of=10_000, head_of=10_000)
    assert broken(many) == [
        "unusable lines",
        "items known before",
        "popular items",
        "popular lists",
    ]


def of_hits(hits: int, users: int) -> dict[str, dict[str, Any]]:
    """The held-out metrics of so many customers, of whom so many have a hit, at the first place."""
    values = np.zeros((users, len(METRICS)))
    values[:hits, [METRICS.index("hit_rate"), METRICS.index("ndcg")]] = [1.0, 0.34]
    rows = intervals({"rum": values}, resamples=1000, seed=0)["rum"]
    return {row["metric"]: row for row in rows}


@pytest.mark.parametrize("users", [60, 100, 200])
def test_a_night_without_a_hit_is_stopped_where_it_is_beyond_chance(users: int) -> None:
    none = replace(TONIGHT, metrics=of_hits(0, users))
    for before, stopped in ((4, []), (25, ["hit_rate"])):
        last = replace(LAST, metrics=of_hits(before, users))
        assert broken(none, [last], Gate()) == stopped
    assert "ndcg" not in {check.name for check in judge(none, [last], Gate())}


def test_the_report_shows_each_check_and_that_the_gate_was_off() -> None:
    checks = judge(replace(TONIGHT, coverage=0.1), FORMER, EXACT)
    record = {
        "enabled": False,
        "against": "2024-01-01",
        "checks": [vars(check) for check in checks],
    }
    table = gate_table(record)
    assert table is not None
    assert [row[0] for row in table.rows if row[1] == "no"] == ["coverage"]
    assert any("10.00 %, less than 12.50 %" in row[2] for row in table.rows)
    assert "off" in gate_note(record)
    assert "off" not in gate_note({**record, "enabled": True})
    assert gate_table(None) is None
