"""Figure 4 by hand: what attends to what, and how both patterns are counted."""

import numpy as np
import pytest

from tests.benchmarks.paper.attention import Strips, runs, shares, shuffled, strips_of, strongest
from tests.oracle import histories_of, softmax

# Customer 0: purchases 2 to 5, customer 1: purchases 2 and 3, of two slots; which slot is strongest
SLOT = [1, 1, 0, 1, 1, 0]
FOUND = Strips(
    np.array([[1.0, 0.0] if slot == 0 else [0.0, 1.0] for slot in SLOT]),
    np.array([0, 0, 0, 0, 1, 1]),
    np.array([2, 3, 4, 5, 2, 3]),
)


def test_the_purchases_that_are_attended_to() -> None:
    assert strongest(FOUND).tolist() == [1, 2, 2, 4, 1, 1]


def test_shares_of_both_patterns() -> None:
    """Newest: 3 of 4 and 1 of 2; the same as the one before: 1 of 3 and 1 of 1."""
    found = shares(FOUND, users=3)
    assert found[:2].tolist() == [[0.75, pytest.approx(1 / 3)], [0.5, 1.0]]
    assert np.isnan(found[2]).all()


def test_runs_of_both_patterns() -> None:
    assert runs(FOUND, "one-to-one").tolist() == [1, 2, 0, 1, 1, 0]
    assert runs(FOUND, "one-to-multiple").tolist() == [1, 1, 2, 1, 1, 2]


def test_strips_are_the_attention_over_the_last_slots() -> None:
    q = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    found = strips_of(q, histories_of([[0, 1, 2, 3], [4], [5, 4, 3]]), slots=2, beta=0.7)
    assert found.owner.tolist() == [0, 0, 2]
    assert found.place.tolist() == [2, 3, 2]
    for z, (i, memory) in zip(found.z, [(2, [0, 1]), (3, [1, 2]), (3, [5, 4])], strict=True):
        np.testing.assert_allclose(z, softmax([0.7 * q[i] @ q[j] for j in memory]), rtol=1e-5)


def test_a_shuffled_history_holds_the_same_purchases() -> None:
    histories = histories_of([[0, 1, 2, 3, 4, 5, 6], [9], [7, 8]])
    other = shuffled(histories, seed=1)
    assert [sorted(other[n]) for n in range(3)] == [sorted(histories[n]) for n in range(3)]
    assert other.items.tolist() != histories.items.tolist()
