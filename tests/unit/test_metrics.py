"""Metrics: hand-computed values, and a slow oracle written from the definitions."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core.data.histories import Histories
from rum_core.evaluation import metrics


def histories(rows: list[list[int]]) -> Histories:
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    items = np.array([i for r in rows for i in r], dtype=np.int32)
    users = pa.array([f"u{n}" for n in range(len(rows))])
    return Histories(users, offsets, items, np.zeros(len(items), dtype=np.int64))


def measured(lists: list[list[int]], targets: list[list[int]]) -> np.ndarray:
    wanted = histories(targets)
    places = metrics.hit_places(np.array(lists), wanted)
    return metrics.per_user(places, wanted.lengths)


def slow(ranked: list[int], targets: list[int]) -> list[float]:
    """The definitions, one user, one place at a time. -1 is an item nobody knows."""
    n, gains = len(ranked), [float(i >= 0 and i in targets) for i in ranked]
    hits = sum(gains)
    p, r = hits / n, hits / len(targets)
    dcg = sum((2**g - 1) / math.log2(j + 1) for j, g in enumerate(gains, start=1))
    z = sum(1 / math.log2(j + 1) for j in range(1, n + 1))
    z_user = sum(1 / math.log2(j + 1) for j in range(1, min(n, len(targets)) + 1))
    f1 = 2 * p * r / (p + r) if hits else 0.0
    return [p, r, f1, float(hits > 0), dcg / z, dcg / z_user]


def test_a_list_worked_out_by_hand() -> None:
    # hits at places 1 and 3 of 5; four targets, one of them unknown to the model
    found = measured([[7, 1, 9, 2, 3]], [[9, 7, 40, -1]])[0]
    z = 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5) + 1 / math.log2(6)
    assert found[:4] == pytest.approx([2 / 5, 2 / 4, 4 / 9, 1])
    assert found[4] == pytest.approx(1.5 / z)
    assert found[5] == pytest.approx(1.5 / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)))


def test_no_hit_is_zero_everywhere_and_a_perfect_list_is_one() -> None:
    found = measured([[1, 2], [3, 4]], [[5], [4, 3]])
    assert found[0].tolist() == [0] * 6
    assert found[1] == pytest.approx([1] * 6)


def test_the_two_ndcg_differ_by_the_achievable_dcg() -> None:
    *_, ndcg, ndcg_user = measured([[1, 2, 3]], [[1]])[0]
    assert ndcg_user == pytest.approx(1)
    assert ndcg == pytest.approx(1 / (1 + 1 / math.log2(3) + 1 / 2))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    users, n = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    item = st.integers(0, 12)
    lists, targets = [], []
    for _ in range(users):
        ranked = draw(st.lists(item, max_size=n, unique=True))
        lists.append(ranked + [-1] * (n - len(ranked)))
        wanted = draw(st.lists(item, max_size=9, unique=True))
        targets.append(wanted + [-1] * draw(st.integers(0 if wanted else 1, 2)))
    return lists, targets


@given(cases())
def test_agrees_with_the_slow_oracle(case: tuple[list[list[int]], list[list[int]]]) -> None:
    lists, targets = case
    expected = [slow(ranked, wanted) for ranked, wanted in zip(lists, targets, strict=True)]
    np.testing.assert_allclose(measured(lists, targets), expected, atol=1e-12)


def test_catalogue_metrics_by_hand() -> None:
    counts = metrics.recommended_counts(np.array([[0, 1], [0, -1]]), items=4)
    assert counts.tolist() == [2, 1, 0, 0]
    assert metrics.coverage(counts) == 0.5
    # sorted 0 0 1 2: (-3*0 - 1*0 + 1*1 + 3*2) / (4 * 3)
    assert metrics.gini(counts) == pytest.approx(7 / 12)
    assert metrics.gini(np.array([3, 3, 3])) == 0
    # the tenth of 4 items is 1 item; of the two most bought, item 1 wins the tie
    share = metrics.popular_share(counts, np.array([9, 9, 1, 0]), np.array([1, 0, 2, 3]))
    assert share == pytest.approx(1 / 3)
