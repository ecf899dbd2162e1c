"""Ranking and training on a GPU: not among the usual sections, for it needs a card.

First pass: what `Level.keep` asks of a card (N = 5, what was bought left out), from arrays of the
host to arrays of the host, beside its multiplications alone at the rate that the card gives a plain
product of float32 matrices. Whole lists and training: beside the same on all cores of the machine.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from rum_core.data.histories import Histories
from rum_core.ranking import dense, feature_level, item_level
from rum_core.ranking.block import Block
from rum_core.ranking.ranking import Ranker
from rum_core.ranking.select import MARGIN
from rum_core.store.checkpoint import SavedModel
from rum_core.training.loop import fit
from rum_core.training.step import Worker
from tests.benchmarks.bench import training
from tests.benchmarks.bench.row import Row, row, seconds
from tests.benchmarks.bench.shop import DIM, SIZE, SLOTS, histories, model

CARD = "cuda"
TOP_N = 5
MF_DIM = 64
MANY = 500  # counted transitions an item
REPEATS = 2  # of an epoch
SHOP = {"users": 6000, "items": 5000}
ALONE = "all cores without the card"
SIDE = 8192  # of the matrices
CHUNK = 4096  # users of a product at once: 14,000 scores of each are 230 MB
KINDS = {"item": (SLOTS, 0), "counted": (SLOTS, MANY), "feature": (SLOTS, 0), "mf": (0, 0)}
NAMES = {
    "item": "item level",
    "counted": "item level with counted transitions",
    "feature": "feature level",
    "mf": f"mf of {MF_DIM} dimensions",
}


def measure(small: bool) -> list[Row]:
    """Raises RuntimeError of torch where there is no card."""
    users = 16_384 if small else 131_072
    rate = product_rate()
    rows = [
        row(
            "card",
            f"product of float32 matrices, {SIDE} a side",
            rate / 1e12,
            "TFLOP/s",
            note=torch.cuda.get_device_name(),
        )
    ]
    rows += [first_pass(kind, users, 14_000, rate) for kind in KINDS]
    rows.append(first_pass("item", users // 4, 200_000, rate))
    rows.append(first_pass("item", users // 16, 1_000_000, rate))
    rows += [whole_lists(kind, users // 2, 14_000) for kind in KINDS]
    return rows + epoch_rows(training.simulated_shop(**({} if small else SHOP)))


def product_rate() -> float:
    """Operations a second of a product of float32 matrices, without TF32."""
    torch.set_float32_matmul_precision("highest")
    a, b = (torch.randn(SIDE, SIDE, device=CARD) for _ in range(2))

    def product() -> None:
        a @ b
        torch.cuda.synchronize()

    return 2 * SIDE**3 / seconds(product)


def of_kind(kind: str, users: int, items: int) -> SavedModel:
    if kind != "mf":
        return model("feature" if kind == "feature" else "item", users, items, KINDS[kind][1])
    base, rng = model("item", users, items), np.random.default_rng(1)
    for name, size in (("item", items), ("user", users)):
        base.tensors[name] = rng.normal(0, SIZE, (size, MF_DIM)).astype(np.float32)
    base.config.update(model="mf", dim=MF_DIM)
    return base


def keeper(ranker: Ranker, bought: Histories, most: int) -> tuple[int, Callable[[], Any]]:
    """How many customers the scorer's first pass takes, and that pass on the card."""
    scorer: Any = ranker.scorer
    bought = bought.take(np.arange(min(len(bought), scorer.block_users)))
    every = np.arange(len(ranker.model.catalog), dtype=np.int32)
    block = Block.of(ranker.rows(bought), bought, every, exclude_seen=True)
    if isinstance(scorer, item_level.ItemLevel):
        m = item_level._Memory(scorer, block)
        assert scorer.card is not None
        return len(block), partial(scorer.card.keep, m.p, m.slots, m.offsets, block, most)
    if isinstance(scorer, feature_level.FeatureLevel):
        memory = scorer.replay(bought).reshape(len(block), -1)
        left = np.concatenate([scorer.p[block.rows], scorer.alpha * memory], axis=1)
    else:
        assert isinstance(scorer, dense.Dense)
        left = scorer.vectors(block)
    assert scorer.card is not None
    return len(block), partial(scorer.card.keep, left.astype(np.float32), block, most)


def first_pass(kind: str, users: int, items: int, rate: float) -> Row:
    ranker = Ranker(of_kind(kind, users, items), device=CARD)
    at_once, keep = keeper(ranker, histories(users, items), TOP_N + MARGIN)
    dim, slots = (MF_DIM if kind == "mf" else DIM), KINDS[kind][0]
    operations = 2 * (slots + 1) * dim * items
    value = at_once / seconds(keep)
    note = f"{at_once:,} customers at once, {value * operations / 1e12:.1f} TFLOP/s"
    if kind == "mf":
        note += f"; torch's product and top-k alone: {product_and_top(at_once, items):,.0f}"
    return row(
        "card",
        f"first pass, {NAMES[kind]}, {items:,} items",
        value,
        "customers/s",
        rival="its multiplications at the card's rate",
        rival_value=rate / operations,
        note=note,
    )


def product_and_top(users: int, items: int) -> float:
    """Customers a second of torch's product of width 64 and top-k, nothing left out."""
    p, q = (torch.randn(n, MF_DIM, device=CARD) for n in (users, items))

    def work() -> None:
        for some in p.split(CHUNK):
            torch.topk(some @ q.T, TOP_N + MARGIN, sorted=False)
        torch.cuda.synchronize()

    return users / seconds(work)


def whole_lists(kind: str, users: int, items: int) -> Row:
    made, bought = of_kind(kind, users, items), histories(users, items)
    rankers = [Ranker(made, device=device) for device in (CARD, None)]
    lists = [ranker.rank(bought, top_n=TOP_N, because=3) for ranker in rankers]
    for name in ("items", "scores", "because_items", "because_weights"):
        np.testing.assert_array_equal(*(getattr(each, name) for each in lists), err_msg=name)
    of_card, of_cpu = (
        users / seconds(partial(ranker.rank, bought, top_n=TOP_N, because=3), repeats=3)
        for ranker in rankers
    )
    return row(
        "card",
        f"whole lists with reasons, {NAMES[kind]}, {items:,} items",
        of_card,
        "customers/s",
        rival=ALONE,
        rival_value=of_cpu,
        note=f"{users:,} customers, whose lists are the same on both",
    )


def epoch_rows(log: training.Log) -> list[Row]:
    """Purchases a second of an epoch."""
    rows = []
    for name in ("item level", "feature level", training.SASREC):
        settings = training.settings_of(name, epochs=2 + REPEATS, patience=0)
        taken = {}
        for device in (CARD, "cpu"):
            states = fit(settings, log.histories, log.catalog, Worker(device=torch.device(device)))
            next(states)
            taken[device] = seconds(partial(next, states), REPEATS)
        purchases = len(log.train.items)
        rows.append(
            row(
                "card",
                f"training, {name}, one epoch",
                purchases / taken[CARD],
                "purchases/s",
                rival=ALONE,
                rival_value=purchases / taken["cpu"],
                note=f"{log.name}, {purchases:,} purchases, D={DIM}, K={SLOTS}, "
                f"{training.NEGATIVES:,} shared negatives",
            )
        )
    return rows
