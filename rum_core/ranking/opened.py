"""RUM with another MERGE or PREDICT than the paper's: every candidate in float64, one by one.

What a user reads for an item is a vector here, not a product with q_i, so the short cuts of
`item_level.py` and `feature_level.py` do not hold. The contract is theirs: each sum in the order of
its index, the score rounded to float32, ties by the tie rank; a user's list depends on nobody else.
Many times slower, in bounded memory. S filled slots or K features, D dimensions.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block, no_reasons, rows_of
from rum_core.ranking.feature_level import Writes, replay
from rum_core.ranking.item_level import ItemLevel, because_of
from rum_core.ranking.item_level_kernels import attend
from rum_core.ranking.select import contains, insert
from rum_core.store.checkpoint import SavedModel

MERGED = {"add": 0, "product": 1, "concat": 2}  # as the kernel knows them


class Opened:
    """A model's tables; made once, ranks any number of blocks."""

    def __init__(self, model: SavedModel) -> None:
        t = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
        config, D = model.config, t["item"].shape[1]
        self.q, self.p = t["item"], t["user"]
        self.bias = item_bias(model)
        self.alpha, self.beta = float(config["alpha"]), float(config["beta"])
        self.slots, self.tie_rank = int(config["slots"]), model.catalog.tie_rank
        self.item = ItemLevel(model) if config["level"] == "item" else None
        self.writes = None if self.item else Writes.of(model.tensors, self.beta)
        nothing = np.zeros((D, 2 * D))
        self.merge = (MERGED[config.get("merge", "add")], t.get("merge", nothing))
        one, zero = np.ones(D), np.zeros(D)
        self.predict = (
            config.get("predict", "inner") == "network",
            t.get("product", one),
            t.get("hidden", nothing),
            t.get("hidden_bias", zero),
            t.get("out", zero),
        )
        self.block_users = max(1, min(4096, 16_000_000 // (self.slots * D)))

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N) and scores (U, N); of the item level also the purchases (U, N, B) with the
        most attention, and it."""
        p = rows_of(self.p, block.rows)
        memory, filled, z = self._memory(block)
        items, scores = _rank(
            (p, self.q, self.bias),
            (memory, filled, z, self.alpha, self.beta),
            self.merge,
            self.predict,
            block.candidates,
            (block.seen, block.seen_offsets),
            self.tie_rank,
            top_n,
        )
        if self.item is None:
            return items, scores, *no_reasons(len(block), top_n, because)
        return items, scores, *because_of(self.item, block, items, scores, because)

    def _memory(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M (U, S, D), slots filled (U,), and z (I, K) if it is of the item alone, else (0, 0)."""
        users, D = len(block), self.q.shape[1]
        if self.writes is not None:
            memory = replay(self.writes, None, block.known)
            return memory, np.full(users, self.slots), self.writes.z
        last = block.known.last(self.slots)
        memory = np.zeros((users, self.slots, D))
        owner = np.repeat(np.arange(users), last.lengths)
        memory[owner, np.arange(len(owner)) - last.offsets[owner]] = self.q[last.items]
        return memory, last.lengths, np.zeros((0, 0))


@njit(cache=True, parallel=True)
def _rank(
    tables: Any,
    memory: Any,
    merge: Any,
    predict: Any,
    candidates: Any,
    barred: Any,
    tie_rank: Any,
    top_n: int,
) -> Any:
    p, q, bias = tables
    seen, offsets = barred
    items = np.full((len(p), top_n), -1, np.int32)
    scores = np.full((len(p), top_n), -np.inf, np.float32)
    for u in prange(len(p)):
        r = np.empty(q.shape[1])
        v = np.empty(q.shape[1])
        for i in candidates:
            if not contains(seen, offsets[u], offsets[u + 1], i):
                _read(memory, u, q[i], i, r)
                _merge(p[u], r, merge, v)
                score = np.float32(_predict(v, q[i], predict) + bias[i])
                insert(items[u], scores[u], i, score, tie_rank)
    return items, scores


@njit(cache=True)
def _read(memory: Any, u: int, q_i: Any, i: int, r: Any) -> None:
    """r (D,) = alpha sum_k z_ik m_k."""
    M, filled, of_item, alpha, beta = memory
    z = np.empty(filled[u])
    if len(of_item):
        z[:] = of_item[i]
    else:
        for s in range(filled[u]):
            z[s] = 0.0
            for d in range(len(q_i)):
                z[s] += q_i[d] * M[u, s, d]
        attend(z, beta)
    r[:] = 0.0
    for s in range(filled[u]):
        for d in range(len(r)):
            r[d] += z[s] * M[u, s, d]
    for d in range(len(r)):
        r[d] *= alpha


@njit(cache=True)
def _merge(p: Any, r: Any, merge: Any, v: Any) -> None:
    kind, W = merge
    D = len(v)
    for d in range(D):
        if kind == 0:
            v[d] = p[d] + r[d]
        elif kind == 1:
            v[d] = (1.0 + p[d]) * (1.0 + r[d]) - 1.0
        else:
            v[d] = 0.0
            for c in range(D):
                v[d] += W[d, c] * p[c]
            for c in range(D):
                v[d] += W[d, D + c] * r[c]


@njit(cache=True)
def _predict(v: Any, q_i: Any, predict: Any) -> float:
    network, product, hidden, hidden_bias, out = predict
    D = len(v)
    score = 0.0
    for d in range(D):
        score += product[d] * v[d] * q_i[d]
    if network:
        for h in range(D):
            unit = hidden_bias[h]
            for d in range(D):
                unit += hidden[h, d] * v[d]
            for d in range(D):
                unit += hidden[h, D + d] * q_i[d]
            score += out[h] * max(unit, 0.0)
    return score
