"""RUM with another MERGE at item level, or a network: every candidate in float64, one by one.

The tables of `item_level.py` hold no more where a slot gives each user something else (a product),
nor those of either level where a network stands behind. The contract is theirs: the score rounded
to float32, ties by the tie rank; a user's list depends on nobody else. Slower, in bounded memory.
MERGE is linear in what was read (`models/merge.py`) and so is a network's hidden layer before its
relu: what they make of p* and of each slot is made once a user. U users, S filled slots or K
features, D dimensions.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.models.merge import MERGES
from rum_core.ranking.affine import affine, times
from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block, no_reasons, rows_of
from rum_core.ranking.feature_level import Writes, replay
from rum_core.ranking.item_level import ItemLevel, because_of
from rum_core.ranking.item_level_kernels import LANES, attend, meet
from rum_core.ranking.select import contains, insert
from rum_core.store.checkpoint import SavedModel


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
        self.merge, self.tensors = MERGES[config.get("merge", "add")], t
        self.network = config.get("predict", "inner") == "network"
        self.hidden = np.zeros((0, 0))
        if self.network:  # the item's part of the hidden layer
            self.hidden = affine(self.q, t["hidden"][:, D:], t["hidden_bias"])
        self.block_users = max(1, min(4096, 4_000_000 // (self.slots * D)))

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N) and scores (U, N); of the item level also the purchases (U, N, B) with the
        most attention, and it."""
        memory, filled, z = self._memory(block)
        items, scores = _rank(
            (memory, filled, z, self.alpha, self.beta),
            self._merged(rows_of(self.p, block.rows), memory),
            (self.q, self.bias, self.hidden, self.tensors.get("out", np.zeros(0))),
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

    def _merged(self, p: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, ...]:
        """What p* (U, D) and slots (U, S, D) become for the product with q_i, and for the hidden
        layer."""
        t = self.tensors
        own = self.merge.own(p, t, times)
        carried = self.merge.carried(p[:, None], memory, t, times)
        if not self.network:
            return own, carried, own[:, :0], carried[:, :, :0]
        of_user = t["hidden"][:, : p.shape[1]]
        hidden = times(own, of_user), times(carried, of_user)
        return own * t["product"], carried * t["product"], *hidden


@njit(cache=True, parallel=True)
def _rank(
    memory: Any,
    merged: Any,
    of_items: Any,
    candidates: Any,
    barred: Any,
    tie_rank: Any,
    top_n: int,
) -> Any:
    M, filled, of_item, alpha, beta = memory
    own, carried, hidden_own, hidden_carried = merged
    q, bias, hidden, out = of_items
    seen, offsets = barred
    items = np.full((len(own), top_n), -1, np.int32)
    scores = np.full((len(own), top_n), -np.inf, np.float32)
    for u in prange(len(own)):
        slots, units = filled[u], np.empty(len(out))
        held, read = _turned(M[u, :slots]), _turned(carried[u, :slots])
        w, v = np.empty(held.shape[1]), np.empty(held.shape[1])
        for i in candidates:
            if contains(seen, offsets[u], offsets[u + 1], i):
                continue
            if len(of_item):
                w[:slots] = of_item[i]
            else:
                meet(q[i], held, w)
                attend(w[:slots], beta)
            meet(q[i], read, v)
            score = bias[i]
            for d in range(q.shape[1]):
                score += q[i, d] * own[u, d]
            for s in range(slots):
                score += alpha * w[s] * v[s]
            for h in range(len(units)):
                units[h] = hidden[i, h] + hidden_own[u, h]
            for s in range(slots if len(units) else 0):
                for h in range(len(units)):
                    units[h] += alpha * w[s] * hidden_carried[u, s, h]
            for h in range(len(units)):
                score += out[h] * max(units[h], 0.0)
            insert(items[u], scores[u], i, np.float32(score), tie_rank)
    return items, scores


@njit(cache=True)
def _turned(slots: Any) -> Any:
    """Slots (S, D) as `meet` takes them: (D, S), with zeros up to a number of LANES."""
    S, D = slots.shape
    turned = np.zeros((D, -(-S // LANES) * LANES))
    turned[:, :S] = slots.T
    return turned
