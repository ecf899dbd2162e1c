"""Lists that what is counted decides: those of the reference, never in doubt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rum_core.ranking import item_level, item_level_counted, reference
from rum_core.ranking.block import Block
from rum_core.ranking.item_level import ItemLevel
from rum_core.ranking.ranking import Ranker
from rum_core.store.checkpoint import SavedModel
from tests.unit.test_ranking import a_model, quick, same, some_histories

Decided = tuple[np.ndarray, np.ndarray, np.ndarray]


def a_counting_model(
    rng: np.random.Generator, *, weight: float, size: float, alike: float = 0.0
) -> SavedModel:
    """Counted transitions of this weight beside learned numbers of this size."""
    model = a_model("counted", rng, items=150, users=30, size=size, bias=True, alike=alike)
    mixture = np.array([weight, 2.5], np.float32)
    return replace(model, tensors={**model.tensors, "mixture": mixture})


def decided(model: SavedModel, block: Block, top_n: int) -> Decided:
    scorer = Ranker(model).scorer
    assert isinstance(scorer, ItemLevel)
    return scorer.decided(block, top_n)


def a_block(
    model: SavedModel, rng: np.random.Generator, *, users: int = 30, longest: int = 9
) -> tuple[Block, np.ndarray]:
    """Users with something to go by, and which items (I,) bool may be recommended."""
    items = len(model.catalog)
    histories = some_histories(rng, users, items, longest).known()
    histories = histories.take(np.flatnonzero(histories.lengths > 0))
    able = rng.random(items) < 0.9
    rows = Ranker(model).rows(histories)
    candidates = np.flatnonzero(able).astype(np.int32)
    return Block.of(rows, histories, candidates, exclude_seen=bool(rng.integers(2))), able


@quick
@given(
    seed=st.integers(0, 10**6),
    weight=st.sampled_from([-5.0, 0.0, 0.5, 4.0, 60.0, 1e4]),
    rate=st.sampled_from([0.1, 2.5]),
    size=st.sampled_from([0.02, 0.3, 2.0]),
    config=st.sampled_from([{}, {"alpha": 0.0}, {"alpha": -3.0}, {"beta": 20.0, "decay": 0.1}]),
    alike=st.sampled_from([0.0, 0.5]),
    far=st.sampled_from([0, 5, 64, 200]),
    at_once=st.sampled_from([7, 1024]),
    top_n=st.integers(1, 9),
)
def test_what_is_decided_is_the_list_of_the_reference(
    seed: int,
    weight: float,
    rate: float,
    size: float,
    config: dict[str, float],
    alike: float,
    far: int,
    at_once: int,
    top_n: int,
) -> None:
    rng = np.random.default_rng(seed)
    model = a_counting_model(rng, weight=weight, size=size, alike=alike)
    mixture = {"mixture": np.array([weight, rate], np.float32)}
    model = replace(model, config=model.config | config, tensors=model.tensors | mixture)
    block, able = a_block(model, rng, users=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_level_counted, "FAR", far)
        patch.setattr(item_level_counted, "AT_ONCE", at_once)
        items, scores, sure = decided(model, block, top_n)
    asked = {"top_n": top_n, "exclude_seen": bool(len(block.seen)), "candidates": able}
    wanted = reference.rank(model, block.known, **asked)
    np.testing.assert_array_equal(items[sure], wanted.items[sure])
    np.testing.assert_array_equal(scores[sure], wanted.scores[sure])


def test_counts_decide_where_they_are_large_and_not_where_they_are_small() -> None:
    shares = []
    for weight in (0.01, 1e3):
        rng = np.random.default_rng(3)
        model = a_counting_model(rng, weight=weight, size=0.3)
        block, _ = a_block(model, rng, users=300)
        shares.append(decided(model, block, 5)[2].mean())
    assert shares[0] == 0.0
    assert 0.8 < shares[1] < 1.0  # some follow too few items, or none


def test_a_user_without_enough_counted_items_is_left_to_the_first_pass() -> None:
    rng = np.random.default_rng(5)
    model = a_counting_model(rng, weight=1e3, size=0.1)
    block, able = a_block(model, rng, users=200)
    followed = [
        len(set(np.flatnonzero(reference.counted(model, mine) > 0)) & set(np.flatnonzero(able)))
        for mine in np.split(block.known.items, block.known.offsets[1:-1])
    ]
    *_, sure = decided(model, block, 5)
    few = np.array(followed) < 5
    assert few.any()
    assert not sure[few].any()


@pytest.mark.parametrize("far", [0, 1])
@pytest.mark.parametrize("by", ["bias", "vector"])
def test_an_item_that_the_learned_part_alone_lifts_is_looked_at_or_decides_nothing(
    by: str, far: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_level_counted, "FAR", far)
    rng = np.random.default_rng(8)
    model, lifted = a_counting_model(rng, weight=50.0, size=0.05), 149
    block, _ = a_block(model, rng, users=100)
    block = replace(block, candidates=np.arange(150, dtype=np.int32))
    assert decided(model, block, 5)[2].any()
    followed = model.tensors["transitions.indices"]
    weights = np.where(followed == lifted, 0, model.tensors["transitions.weights"])
    tensors = {**model.tensors, "transitions.weights": weights.astype(np.float32)}
    name, value = ("item_bias", 1e3) if by == "bias" else ("item", 1e3)
    tensors[name] = tensors[name].copy()
    tensors[name][lifted] = value
    model = replace(model, tensors=tensors)
    items, _, sure = decided(model, block, 5)
    assert sure.any() == (far > 0)
    asked = {"top_n": 5, "exclude_seen": bool(len(block.seen))}
    wanted = reference.rank(model, block.known, **asked)
    np.testing.assert_array_equal(items[sure], wanted.items[sure])
    assert (items[sure] == lifted).any() == (far > 0)


def test_where_exact_scores_are_too_many_the_first_pass_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    model = a_counting_model(rng, weight=30.0, size=0.5)
    block, _ = a_block(model, rng, users=300)
    few = decided(model, block, 5)[2].mean()
    monkeypatch.setattr(item_level_counted, "EXACT", 1)  # as many as there are items
    assert few < decided(model, block, 5)[2].mean()


@pytest.mark.parametrize("broken", ["negative", "twice"])
def test_counts_that_no_bound_holds_for_decide_nothing(broken: str) -> None:
    """An item that stands twice in a row counts by its last entry alone."""
    rng = np.random.default_rng(1)
    model = a_counting_model(rng, weight=1e3, size=0.1)
    tensors = dict(model.tensors)
    name = "transitions.weights" if broken == "negative" else "transitions.indices"
    tensors[name] = tensors[name].copy()
    row = np.flatnonzero(np.diff(tensors["transitions.indptr"]) > 1)[-1]
    at = tensors["transitions.indptr"][row]
    tensors[name][at] = -1e-3 if broken == "negative" else tensors[name][at + 1]
    model = replace(model, tensors=tensors)
    assert not decided(model, a_block(model, rng)[0], 5)[2].any()


@pytest.mark.parametrize("k", [1, 3, 8, 20])
def test_scores_too_small_for_float32_are_allowed_for(k: int) -> None:
    """They are rounded by half of the least number, however small they are."""
    rng = np.random.default_rng(k)
    model = a_counting_model(rng, weight=k * 2.0**-149, size=0.0)
    histories = some_histories(rng, 100, 150, 9)
    asked = {"top_n": 5, "because": 2}
    same(Ranker(model).rank(histories, **asked), reference.rank(model, histories, **asked))


def test_weights_that_decide_some_and_none_give_the_lists_of_each() -> None:
    """And they share a first pass: one over all, one over those whom some weight left."""
    rng = np.random.default_rng(6)
    model = a_counting_model(rng, weight=1.0, size=0.3)
    block, _ = a_block(model, rng, users=300)
    weights = [0.01, 0.1, 6.0, 12.0, 1e3]
    with pytest.MonkeyPatch.context() as patch:
        passes: list[tuple[int, int]] = []
        first_pass = item_level._first_pass

        def counted(memories: Sequence[Any], most: int) -> Any:
            passes.append((len(memories), len(memories[0].block)))
            return first_pass(memories, most)

        patch.setattr(item_level, "_first_pass", counted)
        scorer = Ranker(model).scorer
        found = item_level.items_by_weight(scorer, block, 5, weights)  # type: ignore[arg-type]
        assert passes[0] == (2, len(block))
        assert passes[1][0] == 3
        assert passes[1][1] < len(block)
    for weight, items in zip(weights, found, strict=True):
        mixed = {"mixture": np.array([weight, 2.5], np.float32)}
        alone = Ranker(replace(model, tensors={**model.tensors, **mixed})).scorer
        np.testing.assert_array_equal(items, alone.lists(block, 5, 0)[0])


def test_the_reach_of_many_items_is_held_by_a_few() -> None:
    rng = np.random.default_rng(0)
    norms = np.sort(rng.random(500))[::-1]
    for bias in (np.sort(rng.normal(size=500)), rng.normal(size=500)):  # all on the front, or few
        line_norms, line_bias = item_level_counted._line(norms, bias)
        assert len(line_norms) <= item_level_counted.BENDS
        for r in (0.0, 0.1, 3.0, 1e3):
            reach = (bias + r * norms).max()
            assert reach <= (line_bias + r * line_norms).max() <= reach + 0.3 + 0.05 * r


def test_lists_and_reasons_are_those_of_the_reference_decided_or_not() -> None:
    rng = np.random.default_rng(4)
    model = a_counting_model(rng, weight=8.0, size=0.3)
    histories = some_histories(rng, 400, 150, 9)
    block, _ = a_block(model, np.random.default_rng(4), users=400)
    assert 0.05 < decided(model, block, 5)[2].mean() < 0.95
    asked = {"top_n": 5, "because": 2}
    same(Ranker(model).rank(histories, **asked), reference.rank(model, histories, **asked))
