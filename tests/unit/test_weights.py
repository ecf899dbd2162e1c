"""Lists at many weights of the memory are those of a model with that weight, ties included."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core.ranking import weights
from rum_core.ranking.ranking import rank
from rum_core.ranking.weights import Weight, lists_at
from tests import oracle
from tests.unit.test_ranking import LEVELS, a_model, quick

ASKED = [Weight(alpha, counts) for counts in (True, False) for alpha in (0.0, 0.3, 1.0, 40.0)]


def asked_of(level: str) -> list[Weight]:
    return [Weight(w.alpha, w.transitions and level == "counted") for w in ASKED]


@quick
@given(
    st.sampled_from(LEVELS),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.01, 1.0]),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
)
def test_they_are_the_lists_of_each_weight(
    level: str, seed: int, size: float, alike: float, exclude_seen: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = a_model(level, rng, size=size, alike=alike, bias=bool(seed % 2))
    lengths = rng.integers(0, 60, 9)  # some know nothing, some have bought nearly all of 40 items
    rows = [rng.integers(-1, 40, length).tolist() for length in lengths]
    rows += [list(range(37)), list(range(40))]  # three items are left, and none
    histories = oracle.histories_of(rows)
    asked = {"top_n": 5, "exclude_seen": exclude_seen}
    with patch.object(weights, "WIDE", 100):  # two users at once
        found = lists_at(model, asked_of(level), histories, **asked)
    assert found.shape == (len(ASKED), 11, 5)
    for weight, items in zip(asked_of(level), found, strict=True):
        np.testing.assert_array_equal(items, rank(weight.of(model), histories, **asked).items)
    if exclude_seen:
        assert (found[:, -2:] == -1).all()


@pytest.mark.parametrize("level", LEVELS)
def test_the_weight_matters(level: str) -> None:
    rng = np.random.default_rng(5)
    model = a_model(level, rng)
    histories = oracle.histories_of([rng.integers(0, 40, 8).tolist() for _ in range(6)])
    found = lists_at(model, asked_of(level), histories, top_n=5, exclude_seen=True)
    assert (found[0] != found[3]).any()
    if level == "counted":
        assert (found[0] != found[4]).any()
