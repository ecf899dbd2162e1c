"""The kernels for GPUs: the lists are those of the CPU's kernels.

On a card where there is one, else in Triton's interpreter on a CPU, and compiled for cards.
"""

import os
import subprocess
import sys

import torch

os.environ["TRITON_INTERPRET"] = str(int(not torch.cuda.is_available()))  # before it is loaded

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")  # there is none but for Linux

from rum_core.data.histories import Histories
from rum_core.ranking import card, dense, feature_level, item_level, reference, select
from rum_core.ranking.block import Block
from rum_core.ranking.ranking import Ranker, RankError
from rum_core.ranking.select import Level
from rum_core.store.checkpoint import SavedModel
from tests.unit.test_ranking import LEVELS, a_model, same, some_histories
from tests.unit.test_ranking_models import VECTORS, model_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KINDS = [*LEVELS, *VECTORS]
quick = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


def of_kind(kind: str, rng: np.random.Generator, **size: float) -> SavedModel:
    made = a_model if kind in LEVELS else model_of
    return made(kind, rng, **size)  # type: ignore[operator]


def memory_of(ranker: Ranker, block: Block) -> Level:
    """The level that the scorer makes of a block."""
    scorer = ranker.scorer
    if isinstance(scorer, feature_level.FeatureLevel):
        return feature_level._Memory(scorer, block, scorer.replay(block.known))
    if isinstance(scorer, dense.Dense):
        return dense._Products(scorer, block, scorer.vectors(block))
    assert isinstance(scorer, item_level.ItemLevel)
    return item_level._Memory(scorer, block)


def known(histories: Histories) -> Histories:
    """Those who bought something that the model knows."""
    histories = histories.known()
    return histories.take(np.flatnonzero(histories.lengths > 0))


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 2.0, 30.0]),
    alike=st.sampled_from([0.0, 0.66]),
    top_n=st.integers(1, 12),
    exclude_seen=st.booleans(),
)
def test_lists_are_those_of_the_cpu_and_of_the_reference(
    kind: str, seed: int, size: float, alike: float, top_n: int, exclude_seen: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = of_kind(kind, rng, items=60, users=9, dim=5, size=size, alike=alike, bias=True)
    histories = some_histories(rng, 9, 60, 8)
    asked = {"top_n": top_n, "because": 2, "exclude_seen": exclude_seen}
    asked["candidates"] = rng.random(60) < 0.8  # type: ignore[assignment]
    found = Ranker(model, device=DEVICE).rank(histories, **asked)  # type: ignore[arg-type]
    same(found, Ranker(model).rank(histories, **asked))  # type: ignore[arg-type]
    same(found, reference.rank(model, histories, **asked))  # type: ignore[arg-type]


@contextmanager
def coarse_products() -> Iterator[None]:
    """As another library might have asked of torch for the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_pieces(patch: pytest.MonkeyPatch, numbers: int, tile: int) -> None:
    """Users and candidates in pieces of so many numbers, candidates in whole tiles."""
    patch.setattr(card, "NUMBERS", numbers)
    patch.setattr(card, "CACHED", numbers)
    patch.setattr(card, "ITEMS", tile)


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-3, 0.3, 2.0]),
    beta=st.sampled_from([0.0, 1.0, 20.0]),
    most=st.sampled_from([1, 13, 50]),
    numbers=st.sampled_from([60, 2**26]),
)
def test_what_is_kept_is_the_best_and_its_score_is_within_the_bound(
    kind: str, seed: int, size: float, beta: float, most: int, numbers: int
) -> None:
    rng = np.random.default_rng(seed)
    items, users = 100, 9
    model = of_kind(kind, rng, items=items, users=users, dim=20, size=size, bias=True)
    model = replace(model, config={**model.config, "beta": beta})
    ranker = Ranker(model, device=DEVICE)
    candidates = np.flatnonzero(rng.random(items) < 0.9).astype(np.int32)
    histories = known(some_histories(rng, users, items, 9))
    rows = ranker.rows(histories)
    block = Block.of(rows, histories, candidates, exclude_seen=True)
    memory = memory_of(ranker, block)
    with pytest.MonkeyPatch.context() as patch, coarse_products():
        in_pieces(patch, numbers, 16 if numbers < 2**20 else 128)
        kept, rough, bound = memory.keep(most)
    assert kept.shape[1] >= most
    every = np.broadcast_to(candidates, (len(block), len(candidates)))
    exact = memory.exact(np.arange(len(block)), np.ascontiguousarray(every))
    for u in np.flatnonzero(np.isfinite(bound)):
        seen = block.seen[block.seen_offsets[u] : block.seen_offsets[u + 1]]
        free = ~np.isin(candidates, seen)
        mine = kept[u][kept[u] >= 0]
        assert len(set(mine)) == len(mine) == min(kept.shape[1], free.sum())
        assert set(mine) <= set(candidates[free])
        of_mine = exact[u, np.searchsorted(candidates, mine)]
        assert np.abs(of_mine - rough[u][kept[u] >= 0]).max() <= bound[u]
        others = free & ~np.isin(candidates, mine)
        assert (exact[u, others] <= rough[u].min() + bound[u]).all()
    assert np.isfinite(bound).any()


def test_what_the_card_computes_is_what_is_ranked_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the CPU's kernels: they are not called; and a wide list, which no program holds, is."""
    rng = np.random.default_rng(4)
    calls: list[bool] = []
    offer = card._Heaps.offer

    def told(heaps: card._Heaps, *where: Any) -> None:
        *_, memory = where
        calls.append(isinstance(memory, tuple))
        offer(heaps, *where)

    monkeypatch.setattr(card._Heaps, "offer", told)
    monkeypatch.setattr(item_level.kernels, "fill", None)
    monkeypatch.setattr(select, "offer_tile", None)
    histories = some_histories(rng, 9, 60, 8)
    for kind in KINDS:
        calls.clear()
        model = of_kind(kind, rng, items=60, users=9, dim=5, bias=True)
        Ranker(model, device=DEVICE).rank(histories, top_n=5)
        assert set(calls) == {kind in ("item", "counted")}
    monkeypatch.setattr(item_level, "MOST", 10)
    with pytest.raises(TypeError):
        Ranker(of_kind("item", rng), device=DEVICE).rank(some_histories(rng, 9, 40, 8), top_n=5)


@pytest.mark.parametrize("kind", ["item", "counted", "feature", "mf"])
@pytest.mark.parametrize(("numbers", "tile"), [(60, 16), (700, 32), (2**20, 128)])
def test_pieces_of_users_and_candidates(
    kind: str, numbers: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    model = of_kind(kind, rng, items=90, users=40, dim=5, bias=True)
    histories = some_histories(rng, 40, 90, 9)
    expected = Ranker(model).rank(histories, top_n=5, because=2)
    in_pieces(monkeypatch, numbers, tile)
    pieces, runs = set(), set()
    offer = card._Heaps.offer

    def told(heaps: card._Heaps, start: int, stop: int, base: torch.Tensor, *more: Any) -> None:
        pieces.add((start, stop))
        runs.add(more[:2])
        at_least = max(card.USERS, 0 if kind in ("item", "counted") else len(base)) * tile
        assert base.numel() <= max(numbers, at_least)
        offer(heaps, start, stop, base, *more)

    monkeypatch.setattr(card._Heaps, "offer", told)
    same(Ranker(model, device=DEVICE).rank(histories, top_n=5, because=2), expected)
    assert (len(pieces) > 1) == (numbers < 2**20)
    assert (len(runs) > 1) == (numbers < 2**20 and kind in ("item", "counted"))


def test_the_kernels_compile_for_cards() -> None:
    """To machine code, by the assembler that Triton brings: it needs no card."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.unit.compiling"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    kinds = [line.split() for line in done.stdout.splitlines()]
    assert len(kinds) == 12
    for name, shared, size in kinds:
        assert int(shared) <= 48 * 1024, name  # what any card has
        assert int(size) > 0, name


@pytest.mark.parametrize("kind", ["itemknn", "ease"])
def test_a_model_without_kernels_is_refused(kind: str) -> None:
    model = model_of(kind, np.random.default_rng(0))
    with pytest.raises(RankError, match=r"^recommend.device = gpu, but .* has no kernels"):
        Ranker(model, device=DEVICE)
