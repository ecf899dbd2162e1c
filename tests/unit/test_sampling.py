"""Negatives: never what the user bought, uniform over the rest, the same from the same seed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rum_core.training.sampling import (
    Bought,
    counts_for,
    own_negatives,
    own_popular,
    shared_negatives,
    shared_popular,
)
from tests.oracle import histories_of

ITEMS = 9
lists = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=20), min_size=1)


@given(lists, st.integers(1, 5), st.integers(0, 9))
def test_own_negatives_were_not_bought(bought: list[list[int]], n: int, seed: int) -> None:
    users = np.repeat(np.arange(len(bought)), 3)
    table = Bought.of(histories_of(bought), ITEMS)
    items, exist = own_negatives(table, users, n, np.random.default_rng(seed))
    for user, row, there in zip(users, items, exist, strict=True):
        free = set(range(ITEMS)) - set(bought[user])
        assert there.all() == bool(free)
        assert not there.any() or set(row.tolist()) <= free
    again, _ = own_negatives(table, users, n, np.random.default_rng(seed))
    assert (items == again).all()


def test_own_negatives_are_uniform_over_the_rest() -> None:
    table = Bought.of(histories_of([[1], [0, 2, 2, 8, 5]]), ITEMS)
    items, _ = own_negatives(table, np.ones(30_000, np.int64), 1, np.random.default_rng(0))
    seen, counts = np.unique(items, return_counts=True)
    assert seen.tolist() == [1, 3, 4, 6, 7]
    assert abs(counts / 30_000 - 0.2).max() < 0.01  # four standard errors


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 9))
def test_shared_negatives_are_distinct(items: int, n: int, seed: int) -> None:
    drawn = shared_negatives(items, n, np.random.default_rng(seed))
    assert len(drawn) == min(items, n)
    assert (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < items


@given(lists, st.integers(1, ITEMS))
def test_shared_negatives_count_for_those_who_did_not_buy_them(
    bought: list[list[int]], n: int
) -> None:
    table = Bought.of(histories_of(bought), ITEMS)
    shared = shared_negatives(ITEMS, n, np.random.default_rng(n))
    users = np.arange(len(bought))[::-1]
    expected = [[item not in bought[user] for item in shared] for user in users]
    assert (counts_for(table, users, shared) == np.array(expected)).all()


def test_popular_negatives_follow_the_power_of_popularity_and_spare_what_was_bought() -> None:
    histories = histories_of([[0, 1], [0, 1, 2], [0], [0, 3, 3]])  # by users: 4, 2, 1, 1
    bought = Bought.of(histories, 6)
    rng = np.random.default_rng(0)
    expected = np.array([4, 2, 1, 1, 0, 0]) ** 0.75
    expected = expected / expected.sum()
    np.testing.assert_allclose(bought.popularity, expected)
    items, counts = own_popular(bought, np.repeat(np.arange(4), 500), 10, rng)
    np.testing.assert_allclose(np.bincount(items.ravel(), minlength=6) / 20000, expected, atol=0.02)
    for user in range(4):
        mine = slice(500 * user, 500 * user + 500)
        np.testing.assert_array_equal(counts[mine], ~np.isin(items[mine], histories[user]))
    assert shared_popular(bought, 10, rng).tolist() == [0, 1, 2, 3]
    drawn = [shared_popular(bought, 1, rng)[0] for _ in range(2000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=6) / 2000, expected, atol=0.05)
