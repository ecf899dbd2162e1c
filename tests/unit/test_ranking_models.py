"""Lists of the models beside RUM against the reference: ties, cold users, reasons, any batching."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rum_core.models.item_weights import as_tensors
from rum_core.models.registry import MODELS, OF_NEIGHBOURS
from rum_core.ranking import reference
from rum_core.ranking.neighbours import _explain
from rum_core.ranking.ranking import rank
from rum_core.store.checkpoint import SavedModel, load_model, save_model
from rum_core.store.layout import Store
from tests.unit.test_ranking import (
    a_model,
    assert_any_batching_gives_the_same_bits,
    same,
    some_histories,
    users_in_float64,
)

VECTORS = ["mf", "fpmc", "dream", "sasrec"]
NAMES = [*VECTORS, *OF_NEIGHBOURS]
quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def model_of(
    name: str,
    rng: np.random.Generator,
    *,
    items: int = 40,
    users: int = 6,
    dim: int = 5,
    size: float = 1.0,
    alike: float = 0.0,
    bias: bool = True,
) -> SavedModel:
    """Random float32 parameters; a share `alike` of the items ties with another."""
    base = a_model(
        "item", rng, items=items, users=users, dim=dim, size=size, alike=alike, bias=bias
    )
    t = base.tensors
    if name in OF_NEIGHBOURS:
        count = 4 * items
        pairs = np.unique(rng.integers(0, items * items, count))
        i, j = pairs // items, pairs % items
        weights = rng.normal(0.3, 1, len(pairs)) * size
        weights = np.where(rng.random(len(pairs)) < alike, np.round(weights), weights)
        tensors = as_tensors(i[i != j], j[i != j], weights[i != j], base.catalog, 1000)
        return replace(base, config={"model": name, "decay": 0.8}, tensors=tensors)
    drawn = {
        "mf": {},
        "fpmc": {"last": (items, dim), "next": (items, dim)},
        "dream": {"read.weight": (dim, dim), "read.bias": (dim,), "carry.weight": (dim, dim)},
        "sasrec": dict.fromkeys(("query", "key", "value", "inner", "outer"), (2, dim, dim))
        | {"inner_bias": (2, dim), "outer_bias": (2, dim), "position": (4, dim)}
        | {"norm_scale": (5, dim), "norm_shift": (5, dim)},
    }[name]
    tensors = {n: v for n, v in t.items() if n != "user" or name in ("mf", "fpmc")}
    tensors |= {n: rng.normal(0, size, shape).astype(np.float32) for n, shape in drawn.items()}
    if name == "fpmc":  # what ties in q ties in r
        tensors["next"] = np.where(t["item"] == t["item"][0], t["item"][0], tensors["next"])
    return replace(base, config={"model": name, "window": 4}, tensors=tensors)


@pytest.mark.parametrize("name", NAMES)
@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 2.0, 30.0]),
    alike=st.sampled_from([0.0, 0.3, 0.66]),
    bias=st.booleans(),
    exclude_seen=st.booleans(),
    masked=st.booleans(),
    top_n=st.integers(1, 12),
    because=st.integers(0, 4),
)
def test_fast_equals_reference(
    name: str,
    seed: int,
    size: float,
    alike: float,
    bias: bool,
    exclude_seen: bool,
    masked: bool,
    top_n: int,
    because: int,
) -> None:
    rng = np.random.default_rng(seed)
    items = int(rng.integers(14, 150))
    model = model_of(name, rng, items=items, size=size, alike=alike, bias=bias)
    histories = some_histories(rng, 9, items, 12)
    candidates = None
    if masked:
        candidates = rng.random(items) < 0.5
        candidates[:12] = True
    asked = {"top_n": top_n, "exclude_seen": exclude_seen, "because": because}
    fast = rank(model, histories, candidates=candidates, **asked)
    same(fast, reference.rank(model, histories, candidates=candidates, **asked))


@pytest.mark.parametrize("name", NAMES)
def test_any_batching_gives_the_same_bits(name: str) -> None:
    rng = np.random.default_rng(3)
    model = model_of(name, rng, items=300, users=80, alike=0.2)
    assert_any_batching_gives_the_same_bits(model, some_histories(rng, 80, 300, 20), rng)


@pytest.mark.parametrize("name", VECTORS)
def test_the_rough_pass_decides_for_nearly_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    model = model_of(name, rng, items=2000, users=200, dim=32, size=0.3)
    assert users_in_float64(model, some_histories(rng, 200, 2000, 30), monkeypatch) <= 4


@pytest.mark.parametrize("size", [1e12, 1e18])
@pytest.mark.parametrize("name", ["mf", "fpmc", *OF_NEIGHBOURS])
def test_parameters_beyond_float32_products_still_rank(name: str, size: float) -> None:
    rng = np.random.default_rng(1)
    model = model_of(name, rng, size=size)
    histories = some_histories(rng, 9, 40, 6)
    same(rank(model, histories, top_n=5), reference.rank(model, histories, top_n=5))


def test_reasons_take_twice_as_long_for_a_history_twice_as_long() -> None:
    class Counted(list[int]):
        looks = 0

        def __getitem__(self, at: int) -> int:  # type: ignore[override]
            self.looks += 1
            return super().__getitem__(at)

    weights = (np.arange(201), np.arange(200), np.ones(200))  # each item speaks for itself
    looks = []
    for length in (100, 200):
        history, newest = Counted(range(length)), np.empty(200, np.int64)
        chosen, shares = np.full((3, 2), -1), np.zeros((3, 2))
        _explain.py_func(np.array([7, 8, 9]), history, weights, 1.0, newest, chosen, shares)
        assert chosen[:, 0].tolist() == [7, 8, 9]
        looks.append(history.looks)
    assert looks[1] <= 2 * looks[0]


def test_who_is_in_no_table_gets_what_is_known_of_him() -> None:
    """MF knows a user by his row alone; every other model by what he bought."""
    rng = np.random.default_rng(0)
    histories = some_histories(rng, 30, 40, 10)
    bought = histories.known().lengths > 0
    guest = np.array([user.startswith("guest") for user in histories.user_ids.to_pylist()])
    assert (guest & bought).any()
    for name in NAMES:
        source = rank(model_of(name, rng, users=30), histories, top_n=5).source
        expected = bought & ~guest if MODELS[name].by_row else bought
        assert np.array_equal(source == name, expected), name


def test_items_that_nothing_speaks_for_go_by_popularity() -> None:
    rng = np.random.default_rng(0)
    model = model_of("itemknn", rng)
    none = np.zeros(0, np.int64)
    tensors = as_tensors(none, none, np.zeros(0), model.catalog, 5)
    histories = some_histories(rng, 9, 40, 6)
    lists = rank(replace(model, tensors=tensors), histories, top_n=5)
    popular = rank(replace(model, config={"model": "popular"}), histories, top_n=5)
    np.testing.assert_array_equal(lists.items, popular.items)
    assert (lists.because_items == -1).all()


@pytest.mark.parametrize("name", [*NAMES, "popular"])
def test_a_model_is_stored_and_read_whole(name: str, tmp_path) -> None:
    rng = np.random.default_rng(0)
    model = model_of(name if name in NAMES else "mf", rng)
    if name == "popular":
        model = replace(model, config={"model": "popular"}, tensors={})
    store = Store.open(str(tmp_path))
    save_model(store, model)
    histories = some_histories(rng, 9, 40, 6)
    again = load_model(store, "m")
    same(rank(model, histories, top_n=5), rank(again, histories, top_n=5))
