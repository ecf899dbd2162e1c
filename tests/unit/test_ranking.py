"""Lists against the oracle, the reference and hand-made cases: ties, cold users, any batching."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.evaluation.measure import contenders
from rum_core.float32 import OF_LOG, log_float32
from rum_core.ranking import bfloat16, feature_level, item_level, reference, select, truncated
from rum_core.ranking.bags import Bags
from rum_core.ranking.bfloat16 import long, short
from rum_core.ranking.block import Block
from rum_core.ranking.feature_level import Writes, replay
from rum_core.ranking.item_level_kernels import UP_COUNTS
from rum_core.ranking.ranking import Ranker, RankError, Ranking, rank
from rum_core.store.checkpoint import SavedModel
from tests import oracle

LEVELS = ["item", "feature", "counted"]  # the last: item level with transitions
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def a_model(
    level: str,
    rng: np.random.Generator,
    *,
    items: int = 40,
    users: int = 6,
    dim: int = 5,
    slots: int = 3,
    size: float = 1.0,
    beta: float = 1.0,
    bias: bool = False,
    alike: float = 0.0,
) -> SavedModel:
    """Random float32 parameters; a share `alike` of the items has one embedding, another zeros."""
    shapes = {"user": (users, dim), "item": (items, dim)}
    if level == "feature":
        shapes |= {"feature": (slots, dim), "erase.weight": (dim, dim), "add.weight": (dim, dim)}
        shapes |= {"erase.bias": (dim,), "add.bias": (dim,)}
    if bias:
        shapes["item_bias"] = (items,)
    tensors = {n: rng.normal(0, size, shape).astype(np.float32) for n, shape in shapes.items()}
    fate = rng.random(items)
    tensors["item"][fate < alike] = tensors["item"][0]
    tensors["item"][(fate >= alike) & (fate < 1.5 * alike)] = 0
    if bias:
        tensors["item_bias"][fate < 1.5 * alike] = 0.25
    counts = level == "counted"
    if counts:
        tensors |= some_transitions(rng, items)
        level = "item"
    ids = pa.array([f"item {i}" for i in range(items)])
    config = {"model": "rum", "level": level, "dim": dim, "slots": slots, "alpha": 0.7}
    config |= {"beta": beta, "item_bias": bias, "transitions": counts, "decay": 0.7}
    user_ids = pa.array([f"user {u}" for u in range(users)])
    purchases = rng.integers(0, 4, items)
    return SavedModel("m", config, tensors, Catalog.from_ids(ids, purchases), user_ids, {})


def some_transitions(rng: np.random.Generator, items: int) -> dict[str, np.ndarray]:
    """Rows of none to many items, in no order, many of one weight; some follow nothing."""
    rows = [
        rng.choice(items, rng.integers(0, items // 2) * (rng.random() < 0.7), replace=False)
        for _ in range(items)
    ]
    weights = rng.choice([0.25, 1.0, 3e-3], sum(map(len, rows))).astype(np.float32)
    return {
        "transitions.indptr": np.cumsum([0, *map(len, rows)]),
        "transitions.indices": np.concatenate(rows).astype(np.int32),
        "transitions.weights": weights,
        "mixture": np.array([1.4, 2.5], np.float32),
    }


def some_histories(rng: np.random.Generator, users: int, items: int, longest: int) -> Histories:
    """Jagged histories with repeats and unknown items; every third user is in no model."""
    lengths = rng.integers(0, longest + 1, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = pa.array([f"{'user' if u % 3 else 'guest'} {u}" for u in range(users)])
    bought = rng.integers(-1, items, offsets[-1]).astype(np.int32)
    return Histories(ids, offsets, bought, np.arange(offsets[-1]))


def same(left: Ranking, right: Ranking) -> None:
    for name in ("items", "scores", "because_items", "source", "complete"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    np.testing.assert_allclose(left.because_weights, right.because_weights, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("level", [*LEVELS, "network"])
def test_a_model_whose_customers_are_all_forgotten_still_ranks(level: str) -> None:
    rng = np.random.default_rng(0)
    model = a_model("item" if level == "network" else level, rng)
    if level == "network":  # of any MERGE and PREDICT, by another scorer
        model = replace(model, config={**model.config, "merge": "product"})
    tensors = {**model.tensors, "user": model.tensors["user"][:0]}
    empty = replace(model, tensors=tensors, users=model.users.slice(0, 0))
    histories = some_histories(rng, 9, 40, 8)
    strangers = pa.array([f"guest {u}" for u in range(9)])
    same(
        rank(empty, histories, top_n=5, because=2),
        rank(model, replace(histories, user_ids=strangers), top_n=5, because=2),
    )


@pytest.mark.parametrize("level", LEVELS)
@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 2.0, 30.0]),
    beta=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_no_score_is_above_what_the_first_pass_allows(
    level: str, seed: int, size: float, beta: float
) -> None:
    """`Level.keep`: what is not kept scores no more than the floor and the bound."""
    rng = np.random.default_rng(seed)
    items, users = 150, 12
    model = a_model(level, rng, items=items, users=users, size=size, beta=beta, bias=True)
    histories = some_histories(rng, users, items, 9).known()
    histories = histories.take(np.flatnonzero(histories.lengths > 0))
    ranker = Ranker(model)
    candidates = np.flatnonzero(rng.random(items) < 0.9).astype(np.int32)
    block = Block.of(ranker.rows(histories), histories, candidates, exclude_seen=True)
    assert_nothing_above_the_floor(ranker, block)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("d", [1, 4, 12])
def test_no_score_is_above_what_a_truncated_pass_allows(d: int, scale: float) -> None:
    rng = np.random.default_rng(2)
    model = a_model("feature", rng, items=150, users=40, size=0.3, bias=True)
    model.tensors["user"][:, 0] *= scale  # second moments that lie far apart
    histories = some_histories(rng, 40, 150, 9).known()
    histories = histories.take(np.flatnonzero(histories.lengths > 0))
    ranker = Ranker(model)
    block = Block.of(
        ranker.rows(histories), histories, np.arange(150, dtype=np.int32), exclude_seen=True
    )
    with truncated_to(d):
        bound = assert_nothing_above_the_floor(ranker, block)
        assert ranker.scorer.truncation is not None  # type: ignore[attr-defined]
    assert np.isfinite(bound).all()


def assert_nothing_above_the_floor(ranker: Ranker, block: Block) -> np.ndarray:
    scorer = ranker.scorer
    if isinstance(scorer, feature_level.FeatureLevel):
        memory = feature_level._Memory(scorer, block, scorer.replay(block.known))
    else:
        memory = item_level._Memory(scorer, block)
    kept, rough, bound = memory.keep(13)
    floor = rough.min(axis=1)
    known = block.known
    for u in np.flatnonzero(np.isfinite(bound)):
        bought = known.items[known.offsets[u] : known.offsets[u + 1]]
        free = np.setdiff1d(block.candidates, bought)
        mine = kept[u][kept[u] >= 0]
        assert set(mine) <= set(free)
        others = np.setdiff1d(free, mine).astype(np.int32)
        if len(others) and len(mine) == 13:
            assert memory.exact(np.array([u]), others[None]).max() <= floor[u] + bound[u]
    return np.asarray(bound)


@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 30.0]),
    alike=st.sampled_from([0.0, 0.66]),
    exclude_seen=st.booleans(),
)
def test_lists_by_many_weights_at_once_are_those_by_each(
    seed: int, size: float, alike: float, exclude_seen: bool
) -> None:
    """Of several tiles, parts and blocks, or of few items, which may be too few for a list; where
    one weight is too large for float32 too."""
    rng = np.random.default_rng(seed)
    items, users, longest = (400, 300, 12) if seed % 4 < 2 else (30, 40, 60)
    model = a_model("counted", rng, items=items, users=users, size=size, alike=alike, bias=True)
    histories = some_histories(rng, users, items, longest)
    histories = histories.take(np.flatnonzero(histories.known().lengths > 0))
    weights = [0.0, 0.5, 8.0, 32.0] + [1e30] * (seed % 2)
    asked = {"top_n": 5, "exclude_seen": exclude_seen}
    ranker = Ranker(model)
    ranker.scorer.block_users = 130
    found = ranker.items_by_weight(histories, weights, **asked)
    for weight, items in zip(weights, found, strict=True):
        mixed = {"mixture": np.array([weight, 2.5], np.float32)}
        alone = replace(model, tensors={**model.tensors, **mixed})
        np.testing.assert_array_equal(items, rank(alone, histories, **asked).items)


@contextmanager
def truncated_to(d: int) -> Iterator[None]:
    """Truncations to d dimensions, from the first users on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_level, "FEW", 0)
        patch.setattr(feature_level, "pays_after", lambda *given: 0)
        patch.setattr(truncated, "TRIED", 1)
        patch.setattr(truncated, "_width", lambda *given: d)
        yield


@pytest.mark.parametrize("d", [1, 4, 12])
@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 2.0]),
    alike=st.sampled_from([0.0, 0.66]),
    top_n=st.integers(1, 12),
)
def test_truncated_products_give_the_lists_of_whole_ones(
    d: int, seed: int, size: float, alike: float, top_n: int
) -> None:
    """However few dimensions are kept, and however few users R was chosen by."""
    rng = np.random.default_rng(seed)
    model = a_model("feature", rng, items=150, users=40, size=size, alike=alike, bias=True)
    histories = some_histories(rng, 40, 150, 9)
    whole = Ranker(model)
    ranker = Ranker(model)
    with truncated_to(d):
        found = ranker.rank(histories, top_n=top_n)
    assert isinstance(ranker.scorer, feature_level.FeatureLevel)
    assert ranker.scorer.truncation is not None
    assert ranker.scorer.truncation.first.shape == (20, d)
    same(found, whole.rank(histories, top_n=top_n))


def test_a_truncation_keeps_what_carries_the_scores() -> None:
    """Of z that hardly differ D dimensions are enough; of random directions none are."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(60, 4))
    x, v = rng.normal(size=(200, 4)) @ basis.T, rng.normal(size=(900, 4)) @ basis.T
    x, v = (values + rng.normal(0, 1e-4, values.shape) for values in (x, v))
    narrow = truncated.Truncation.of(x, lambda tile: v[tile].T.astype(np.float32), 900, 13)
    assert narrow is not None
    assert narrow.first.shape == (60, truncated.WIDTHS)
    x, v = rng.normal(size=(200, 60)), rng.normal(size=(900, 60))
    assert truncated.Truncation.of(x, lambda t: v[t].T.astype(np.float32), 900, 13) is None


def test_the_bytes_of_bfloat16_round_to_the_nearest() -> None:
    x = np.abs(np.random.default_rng(0).normal(0, 10.0 ** np.arange(-30, 31)[:, None], (61, 500)))
    x = x.astype(np.float32).ravel()
    back = np.array([bfloat16.long(bfloat16.short(value)) for value in x], np.float32)
    assert np.abs(back / x - 1).max() <= 2.0**-8


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_products_of_bfloat16_are_within_their_bound(
    native: bool, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As this machine makes them, and as one does that has no such numbers."""
    monkeypatch.setattr(bfloat16, "NATIVE", native)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, size, (300, 50)), rng.normal(0, 1, (40, 50)) * rng.random((40, 1))
    x[:40] = y * size  # as far along each other as can be
    x, y = x.astype(np.float32), y.astype(np.float32)
    out = np.zeros((300, 64), np.uint16)
    bfloat16.RoundedProducts(x).of(0, 300, np.ascontiguousarray(y.T), out[:, :40])
    found = (out[:, :40].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    lengths, lost = np.linalg.norm(x.astype(np.float64), axis=1), bfloat16.lost(x)
    assert (lost > 0).all() == native
    assert (lost <= bfloat16.UNIT * lengths).all()
    for j, item in enumerate(y):
        length, of_item = np.linalg.norm(item), bfloat16.lost(y[j : j + 1])[0]
        bound = bfloat16.product_error(lengths, lost, float(length), float(of_item), 50)
        bound += 52 * select.ROUNDING * lengths * length
        off = np.abs(found[:, j] - x.astype(np.float64) @ item)
        assert (off <= bound).all()
        assert off.max() > 0.02 * bound.max()


@pytest.mark.parametrize("level", ["item", "counted"])
def test_lists_are_the_same_where_a_processor_has_no_such_numbers(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    model = a_model(level, rng, items=400, users=40, dim=12, bias=True, alike=0.3)
    histories = some_histories(rng, 40, 400, 9)
    monkeypatch.setattr(bfloat16, "NATIVE", True)
    expected = rank(model, histories, top_n=5, because=2)
    monkeypatch.setattr(bfloat16, "NATIVE", False)
    same(rank(model, histories, top_n=5, because=2), expected)
    same(reference.rank(model, histories, top_n=5, because=2), expected)


@pytest.mark.parametrize("slots", [1, 2, 7, 1024])
@pytest.mark.parametrize("decay", [0.5, 0.85, 1.0])
def test_sums_of_counts_are_within_what_is_allowed_for(slots: int, decay: float) -> None:
    """No s is above its bfloat16 one times UP_COUNTS, and some would be above it without."""
    rng = np.random.default_rng(slots)
    users, items = 40, 33
    counts = rng.lognormal(size=(60, items)).astype(np.float32)
    table = np.vectorize(short, otypes=[np.uint16])(counts)
    rows, offsets = rng.integers(0, 60, users * slots), np.arange(users + 1) * slots
    fading = np.tile(decay ** np.arange(slots)[::-1].astype(np.float64), users)
    rough = np.vectorize(long)(Bags(rows, offsets, fading).sums(table, 0, users))
    terms = fading[:, None] * counts[rows].astype(np.float64)
    exact = terms.reshape(users, slots, items).sum(axis=1)
    assert (exact <= rough.astype(np.float64) * float(UP_COUNTS)).all()
    assert (exact > rough).any()


def test_counts_beyond_float32_are_scored_whole() -> None:
    rng = np.random.default_rng(0)
    model = a_model("counted", rng, bias=True)
    huge = {**model.tensors, "transitions.weights": model.tensors["transitions.weights"] * 1e38}
    model = replace(model, tensors=huge)
    histories = some_histories(rng, 9, 40, 8)
    same(rank(model, histories, top_n=5), reference.rank(model, histories, top_n=5))


def test_logarithm_in_float32() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([1 + 10.0 ** rng.uniform(-7, 0, 20_000), 10.0 ** rng.uniform(0, 30, 20_000)])
    y = np.concatenate([[1.0, 2.0, 1.4142135, 1.4142137], y]).astype(np.float32)
    found = np.array([log_float32(value) for value in y], np.float64)
    exact = np.log(y.astype(np.float64))
    assert found[0] == 0
    assert (np.abs(found - exact) <= OF_LOG / 4 * exact).all()


@pytest.mark.parametrize("level", LEVELS)
@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 2.0, 30.0]),
    beta=st.sampled_from([0.0, 1.0, 20.0]),
    alike=st.sampled_from([0.0, 0.3, 0.66]),
    bias=st.booleans(),
    exclude_seen=st.booleans(),
    masked=st.booleans(),
    top_n=st.integers(1, 12),
    because=st.integers(0, 4),
)
def test_fast_equals_reference(
    level: str,
    seed: int,
    size: float,
    beta: float,
    alike: float,
    bias: bool,
    exclude_seen: bool,
    masked: bool,
    top_n: int,
    because: int,
) -> None:
    rng = np.random.default_rng(seed)
    items = int(rng.integers(14, 200))
    model = a_model(level, rng, items=items, size=size, beta=beta, alike=alike, bias=bias)
    histories = some_histories(rng, 9, items, 12)
    candidates = None
    if masked:
        candidates = rng.random(items) < 0.5
        candidates[:12] = True
    asked = {"top_n": top_n, "exclude_seen": exclude_seen, "because": because}
    fast = rank(model, histories, candidates=candidates, **asked)
    same(fast, reference.rank(model, histories, candidates=candidates, **asked))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_lists_and_weights_equal_the_oracle(level: str, alike: float) -> None:
    rng = np.random.default_rng(7)
    model = a_model(level, rng, items=90, users=8, dim=6, slots=4, alike=alike, bias=True)
    histories = some_histories(rng, 8, 90, 15)
    ranking = rank(model, histories, top_n=5, because=20)
    rows = {user: row for row, user in enumerate(model.users.to_pylist())}
    for u, user in enumerate(histories.user_ids.to_pylist()):
        history = [int(i) for i in histories[u] if i >= 0]
        if not history:
            assert ranking.source[u] == "popular"
            continue
        scores = oracle.score_user(model.tensors, model.config, rows.get(user), history)
        expected = oracle.top_n(scores, model.catalog.hashes, 5, set(history))
        assert ranking.items[u].tolist() == expected
        np.testing.assert_array_equal(ranking.scores[u], scores[expected].astype(np.float32))
        if level == "feature":
            assert (ranking.because_items[u] == -1).all()
            continue
        for n, item in enumerate(expected):
            z = oracle.reasons(model.tensors, model.config, item, history, scores[item])
            weight: dict[int, float] = {}
            for slot, z_k in zip(history[-4:], z, strict=True):
                weight[slot] = weight.get(slot, 0.0) + z_k
            filled = ranking.because_items[u, n] >= 0
            found = dict(
                zip(
                    ranking.because_items[u, n, filled].tolist(),
                    ranking.because_weights[u, n, filled].tolist(),
                    strict=True,
                )
            )
            assert found == pytest.approx(weight, rel=1e-6)
            assert sum(found.values()) == pytest.approx(1)
            assert (np.diff(ranking.because_weights[u, n]) <= 0).all()


def assert_any_batching_gives_the_same_bits(
    model: SavedModel, histories: Histories, rng: np.random.Generator
) -> None:
    ranker, users = Ranker(model), len(histories)
    whole = ranker.rank(histories, top_n=5, because=3)
    for size in (1, 7, users - 1):
        shuffled = rng.permutation(users)
        for start in range(0, users, size):
            some = shuffled[start : start + size]
            part = ranker.rank(histories.take(some), top_n=5, because=3)
            for name in ("items", "scores", "because_items", "because_weights", "source"):
                np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])


@pytest.mark.parametrize("level", LEVELS)
def test_any_batching_gives_the_same_bits(level: str) -> None:
    rng = np.random.default_rng(3)
    model = a_model(level, rng, items=300, users=40, alike=0.2)
    assert_any_batching_gives_the_same_bits(model, some_histories(rng, 40, 300, 30), rng)


@pytest.mark.parametrize("level", [*LEVELS, "truncated"])
def test_many_runs_of_users_give_the_lists_of_the_reference(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels take a few users at a time: the second such run as the first."""
    for module in (item_level, feature_level, select):
        monkeypatch.setattr(module, "RUN", 7)
    monkeypatch.setattr(item_level, "MET", 5)
    monkeypatch.setattr(item_level, "SCORED", 11)
    monkeypatch.setattr(item_level, "WIDE", 150)
    rng = np.random.default_rng(4)
    model = a_model(level.replace("truncated", "feature"), rng, items=200, users=60)
    histories = some_histories(rng, 60, 200, 9)
    with truncated_to(8) if level == "truncated" else nullcontext():
        found = rank(model, histories, top_n=5, because=3)
    same(found, reference.rank(model, histories, top_n=5, because=3))


@pytest.mark.parametrize("alpha", [1.0, 1e-15, 1e-25])
def test_sums_too_small_for_float32_are_allowed_for(alpha: float) -> None:
    """Of exps that are just above what is scored in float64."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = a_model("item", rng, items=300, users=2, size=2.0, beta=20.0, slots=2)
        model.config["alpha"] = alpha
        histories = some_histories(rng, 30, 300, 3)
        same(rank(model, histories, top_n=4), reference.rank(model, histories, top_n=4))


@pytest.mark.parametrize("alpha", [1.0, 1e4])
def test_products_too_small_for_bfloat16_are_allowed_for(alpha: float) -> None:
    """One that holds a large item makes the exps of the others tiny."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        q = np.zeros((200, 3), np.float32)
        q[:, 0] = rng.uniform(0.590, 0.597)
        largest = rng.uniform(0.9, 1.1)
        q[:, 1] = largest * rng.uniform(0.95, 0.995, 200)
        q[7, 1] = largest
        q[:3] = [[1, 0, 0], [0, 1e-14, 0], [0, -1e-14, 0]]
        model = a_model("item", rng, items=200, users=1, dim=3, slots=1, beta=100.0)
        model.config["alpha"] = alpha
        model.tensors.update({"item": q, "user": np.zeros((1, 3), np.float32)})
        bought = np.arange(3, dtype=np.int32)
        histories = Histories(pa.array(["x", "y", "z"]), np.arange(4), bought, np.arange(3))
        able = np.arange(200) >= 3
        found = rank(model, histories, top_n=5, candidates=able)
        same(found, reference.rank(model, histories, top_n=5, candidates=able))


@pytest.mark.parametrize("mixture", [[0.0, 10.0], [1.0, 0.0], [1.4, 2.5]])
def test_reasons_where_nothing_is_added_by_counting(mixture: list[float]) -> None:
    rng = np.random.default_rng(0)
    model = a_model("counted", rng, items=60, alike=0.66)
    model.tensors["mixture"] = np.array(mixture, np.float32)
    histories = some_histories(rng, 9, 60, 12)
    given = {"top_n": 5, "because": 3}
    same(rank(model, histories, **given), reference.rank(model, histories, **given))


@pytest.mark.parametrize("level", LEVELS)
def test_a_thousand_items_alike_go_by_their_hash(level: str) -> None:
    rng = np.random.default_rng(5)
    model = a_model(level, rng, items=1500, alike=0.6)
    histories = some_histories(rng, 12, 1500, 8)
    ranking = rank(model, histories, top_n=5)
    ties = np.diff(ranking.scores, axis=1) == 0
    assert ties.any()
    assert (np.diff(model.catalog.tie_rank[ranking.items], axis=1)[ties] > 0).all()
    same(ranking, reference.rank(model, histories, top_n=5))


@pytest.mark.parametrize("top_n", [1, 5, 40])
def test_long_and_short_lists_of_all_scores_are_sorted_alike(
    top_n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(top_n)
    histories = some_histories(rng, 30, 40, 9).known()
    candidates = np.flatnonzero(rng.random(40) < 0.8).astype(np.int32)
    block = Block.of(np.arange(30), histories, candidates, exclude_seen=True)
    scores = rng.integers(0, 4, (30, len(candidates))) / 2.0  # many ties
    asked = (scores, block, rng.permutation(40), top_n)
    filled = select.top_of_all(*asked)
    monkeypatch.setattr(select, "SHORT", 0)
    for left, right in zip(filled, select.top_of_all(*asked), strict=True):
        np.testing.assert_array_equal(left, right)


def users_in_float64(
    model: SavedModel, histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> int:
    """How many users' whole catalogue is scored in float64."""
    widened = []
    top_of_all = select.top_of_all

    def counted(scores: np.ndarray, *more: Any) -> object:
        widened.append(len(scores))
        return top_of_all(scores, *more)

    monkeypatch.setattr(select, "top_of_all", counted)
    rank(model, histories, top_n=5)
    return sum(widened)


@pytest.mark.parametrize(("size", "dim", "slots"), [(0.3, 32, 10), (0.05, 128, 20)])
@pytest.mark.parametrize("level", LEVELS)
def test_the_rough_passes_decide_for_nearly_all(
    level: str, size: float, dim: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error bound is tight enough, of first embeddings too, whose attention is flat."""
    rng = np.random.default_rng(11)
    model = a_model(level, rng, items=2000, users=200, dim=dim, slots=slots, size=size)
    assert users_in_float64(model, some_histories(rng, 200, 2000, 30), monkeypatch) <= 4


@pytest.mark.parametrize("level", LEVELS)
def test_one_user_beyond_float32_costs_no_other(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(11)
    model = a_model(level, rng, items=500, users=100, dim=32, slots=10, size=0.3)
    histories = some_histories(rng, 100, 500, 30)
    model.tensors["user"][1] *= 1e31
    assert 1 <= users_in_float64(model, histories, monkeypatch) <= 4
    same(rank(model, histories, top_n=5), reference.rank(model, histories, top_n=5))


@quick
@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1))
def test_replay_of_a_prefix_and_the_rest_is_replay_of_the_whole(seed: int, cut: float) -> None:
    rng = np.random.default_rng(seed)
    model = a_model("feature", rng, items=30)
    writes = Writes.of(model.tensors, 1.0)
    histories = some_histories(rng, 5, 30, 20).known()
    middle = (histories.lengths * cut).astype(np.int64)
    zeros = np.zeros((5, 3, 5))
    prefix = replay(writes, zeros, histories.spans(np.zeros_like(middle), middle))
    rest = replay(writes, prefix, histories.spans(middle, histories.lengths))
    np.testing.assert_array_equal(rest, replay(writes, zeros, histories))
    for u in range(5):
        expected = oracle.replay(model.tensors, model.config, histories[u].tolist())
        np.testing.assert_allclose(rest[u], expected, rtol=1e-12, atol=1e-14)


def test_alpha_zero_is_matrix_factorisation() -> None:
    rng = np.random.default_rng(0)
    model = a_model("item", rng)
    model = replace(model, config=model.config | {"alpha": 0.0})
    histories = some_histories(rng, 6, 40, 10)
    ranking = rank(model, histories, top_n=40, exclude_seen=False)
    p, q = (model.tensors[n].astype(np.float64) for n in ("user", "item"))
    for u in range(6):
        if ranking.source[u] == "rum" and u % 3:
            order = oracle.top_n(q @ p[u], model.catalog.hashes, 40)
            assert ranking.items[u].tolist() == order


def test_a_user_who_bought_nearly_all_gets_no_list() -> None:
    model = a_model("item", np.random.default_rng(0), items=10)
    bought = np.array([*range(6), 0, 1], dtype=np.int32)
    histories = Histories(pa.array(["a", "b"]), np.array([0, 6, 8]), bought, np.zeros(8, np.int64))
    ranking = rank(model, histories, top_n=5)
    assert ranking.complete.tolist() == [False, True]
    assert (ranking.items[0] == -1).all()
    assert rank(model, histories, top_n=5, exclude_seen=False).complete.all()


def test_too_few_candidates_are_refused_in_one_line() -> None:
    model = a_model("item", np.random.default_rng(0), items=10)
    nobody = some_histories(np.random.default_rng(0), 0, 10, 0)
    with pytest.raises(RankError, match=r"only 3 items .*top_n = 5"):
        rank(model, nobody, top_n=5, candidates=np.arange(10) < 3)


def test_a_diverged_model_is_refused() -> None:
    model = a_model("feature", np.random.default_rng(0))
    model.tensors["add.bias"][2] = np.nan
    with pytest.raises(RankError, match=r"add\.bias holds NaN"):
        Ranker(model)
    with pytest.raises(RankError, match="'tree'"):
        Ranker(replace(model, config={"model": "tree"}))


@pytest.mark.parametrize("size", [1e12, 1e18])
@pytest.mark.parametrize("level", LEVELS)
def test_parameters_beyond_float32_products_still_rank(level: str, size: float) -> None:
    rng = np.random.default_rng(1)
    model = a_model(level, rng, size=size)
    histories = some_histories(rng, 9, 40, 6)
    same(rank(model, histories, top_n=5), reference.rank(model, histories, top_n=5))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_bound_that_overflows_is_no_warning(level: str) -> None:
    """Where alpha is 0, what attention may be off by is 0 times infinity."""
    rng = np.random.default_rng(1)
    model = a_model(level, rng, size=1e8)
    model = replace(model, config={**model.config, "alpha": 0.0})
    histories = some_histories(rng, 9, 40, 6)
    same(rank(model, histories, top_n=5), reference.rank(model, histories, top_n=5))


@pytest.mark.parametrize("level", LEVELS)
def test_the_rival_without_memory_is_matrix_factorisation(level: str) -> None:
    rng = np.random.default_rng(11)
    model = a_model(level, rng, items=60, users=9, bias=True)
    histories = some_histories(rng, 9, 60, 10)
    without = contenders(model, model.catalog.purchases)["rum alpha=0"]
    plain = replace(model, config={"model": "mf"})
    known = histories.take(np.isin(histories.user_ids.to_pylist(), model.users).nonzero()[0])
    left, right = rank(without, known, top_n=5), rank(plain, known, top_n=5)
    np.testing.assert_array_equal(left.items, right.items)
    np.testing.assert_array_equal(left.scores, right.scores)
