"""Customers a second that get their lists, beside two rivals and the dense product alone.

One thread each, N = 5, what was bought left out, `because` filled. implicit's top-k is of a plain
matrix factorisation of 64 dimensions and also leaves out what was bought; faiss searches exactly
the vectors that the feature level's scores are products of, and leaves nothing out.
"""

import resource
from collections.abc import Callable

import numpy as np
from scipy import sparse

from rum_core.data.histories import Histories
from rum_core.data.simulated import simulate
from rum_core.ranking.block import Block
from rum_core.ranking.feature_level import FeatureLevel
from rum_core.ranking.item_level import ItemLevel
from rum_core.ranking.ranking import Ranker
from rum_core.settings import load
from tests.benchmarks.bench.row import Row, named, row, seconds
from tests.benchmarks.bench.shop import (
    DIM,
    PURCHASES,
    SIZE,
    SLOTS,
    histories,
    histories_of,
    model,
    trained,
)

MF_DIM = 64
WIDTH = DIM * (1 + SLOTS)
FITTED = 10_000  # customers that a trained model learns from
MANY = 500  # counted transitions an item: the default's most


def measure(small: bool) -> list[Row]:
    """Item level at three sizes of the catalogue, feature level at one."""
    if small:
        rows = [*_item_level(4096, 2000, 1024, 0.01), *_feature_level(2048, 2000, 512, 0.05)]
        return [*rows, _trained(2048, 2000, 1024, 0.05)]
    rows = [*_item_level(131_072, 14_000, 16_384), _trained(131_072, 14_000, 16_384)]
    rows += _feature_level(32_768, 14_000, 4096)
    rows += [*_item_level(131_072, 200_000, 4096), _trained(131_072, 200_000, 4096)]
    rows += [_huge(2048, 1_000_000)]
    return rows


def _rate(level: str, users: int, items: int, neighbours: int = 0) -> float:
    ranker, bought = Ranker(model(level, users, items, neighbours)), histories(users, items)
    if isinstance(ranker.scorer, FeatureLevel):
        ranker.scorer.ranked = 2**40  # as many as make a truncation, which the first call makes
    return users / seconds(lambda: ranker.rank(bought, top_n=5, because=3))


def _trained(users: int, items: int, of_rival: int, least: float | None = None) -> Row:
    """Item level as it is by default, trained shortly on a shop and with all that its purchases
    count."""
    shop = simulate(users, items, PURCHASES)
    settings = load(["--store", "none", "--source.path", "none", "--model.dim", str(DIM)])
    ranker = Ranker(trained(settings, shop, customers=FITTED, epochs=1))
    bought = histories_of(shop)
    rate = len(bought) / seconds(lambda: ranker.rank(bought, top_n=5, because=3))
    what = f"item level as it is by default, trained shortly, {items:,} items"
    found = _beside(what, rate, named("implicit"), _implicit(of_rival, items), 1.0, least)
    return {**found, "note": f"counts decide {_decided(ranker, bought):.1%} of the lists"}


def _decided(ranker: Ranker, bought: Histories) -> float:
    assert isinstance(ranker.scorer, ItemLevel)
    candidates = np.arange(len(ranker.model.catalog), dtype=np.int32)
    block = Block.of(ranker.rows(bought), bought.known(), candidates, exclude_seen=True)
    return float(ranker.scorer.decided(block, 5)[2].mean())


def _product(users: int, items: int, width: int) -> float:
    rng = np.random.default_rng(0)
    left = rng.normal(size=(min(users, 1024), width)).astype(np.float32)
    right = rng.normal(size=(width, items)).astype(np.float32)
    out = np.empty((len(left), items), np.float32)
    return len(left) / seconds(lambda: np.matmul(left, right, out=out))


def _item_level(users: int, items: int, of_rival: int, least: float | None = None) -> list[Row]:
    where = f"{items:,} items"
    plain = _rate("item", users, items)
    found = [
        _beside(f"item level, {where}", plain, named("implicit"), _implicit(of_rival, items), 1.0),
        row(
            "ranking",
            f"item level, {where}",
            plain,
            "customers/s",
            rival=f"the dense product of width {MF_DIM} alone",
            rival_value=_product(users, items, MF_DIM),
            least=least,
        ),
    ]
    if items < 100_000:
        counted = _rate("item", users, items, min(MANY, items // 4))
        what = f"item level with counted transitions of random weights, {where}"
        found.append(_beside(what, counted, named("implicit"), _implicit(of_rival, items), None))
    return found


def _feature_level(users: int, items: int, of_rival: int, least: float | None = None) -> list[Row]:
    rate, what = _rate("feature", users, items), f"feature level, {items:,} items"
    product = _product(users, items, WIDTH)
    return [
        _beside(what, rate, named("faiss-cpu"), _faiss(of_rival, items), 1.5),
        row(
            "ranking",
            what,
            rate,
            "customers/s",
            rival=f"the dense product of width {WIDTH} alone",
            rival_value=product,
            goal=1.0,
            least=least,
            note="replay of the histories and the choice of five included",
        ),
    ]


def _huge(users: int, items: int) -> Row:
    rate = _rate("item", users, items)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    note = f"a block of {users:,}; the process never held more than {peak:.1f} GiB"
    return row("ranking", f"item level, {items:,} items", rate, "customers/s", note=note)


def _beside(
    what: str,
    rate: float,
    rival: str | None,
    measured: Callable[[], float],
    goal: float | None,
    least: float | None = None,
) -> Row:
    if rival is None:
        return row("ranking", what, rate, "customers/s", note="the rival is not installed")
    beside = {"rival": rival, "rival_value": measured(), "goal": goal, "least": least}
    return row("ranking", what, rate, "customers/s", **beside)


def _implicit(users: int, items: int) -> Callable[[], float]:
    def measured() -> float:
        from implicit.cpu.topk import topk  # type: ignore[import-not-found]

        rng, bought = np.random.default_rng(0), histories(users, items)
        owner = np.repeat(np.arange(users), PURCHASES)
        ones = np.ones(len(owner), np.float32)
        seen = sparse.csr_matrix((ones, (owner, bought.items)), shape=(users, items))
        q = rng.normal(0, SIZE, (items, MF_DIM)).astype(np.float32)
        p = rng.normal(0, SIZE, (users, MF_DIM)).astype(np.float32)
        return users / seconds(lambda: topk(q, p, 5, filter_query_items=seen, num_threads=1))

    return measured


def _faiss(users: int, items: int) -> Callable[[], float]:
    def measured() -> float:
        import faiss  # type: ignore[import-not-found]

        faiss.omp_set_num_threads(1)
        scorer = FeatureLevel(model("feature", users, items))
        index = faiss.IndexFlatIP(WIDTH)
        index.add(np.ascontiguousarray(scorer.columns(np.arange(items)).T))
        memory = scorer.replay(histories(users, items)).reshape(users, -1)
        left = np.concatenate([scorer.p, scorer.alpha * memory], axis=1).astype(np.float32)
        return users / seconds(lambda: index.search(left, 5))

    return measured
