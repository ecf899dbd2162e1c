"""Feature-level RUM over the whole catalogue (eq 1-4, 9-13): replay, then a matrix product.

z_i = softmax_k(beta q_i . f_k), e_i and a_i depend on the item alone, so a user's memory is a
running product M_k <- M_k (1 - z_ik e_i) + z_ik a_i over his purchases, in float64, and his scores
are < [p*, alpha vec M], [q_i, vec(z_i (x) q_i)] >. Where there are many users the product is of few
dimensions, and whole scores are made of those candidates alone that these do not rule out
(`truncated.py`). U users, K slots, D dimensions, T candidates a tile. Beside it: `reference.py`.
"""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange

from rum_core.data.histories import Histories
from rum_core.models.merge import MERGES
from rum_core.ranking.affine import affine, times
from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block, no_reasons, rows_of
from rum_core.ranking.select import (
    RUN,
    STEP,
    Kept,
    contains,
    empty_heaps,
    exact_top,
    keep_products,
    nothing_kept,
    replace_least,
    score_bound,
)
from rum_core.ranking.truncated import Truncation, pays_after
from rum_core.store.checkpoint import SavedModel
from rum_core.store.memories import Memories

if TYPE_CHECKING:
    from rum_core.ranking.card import Products

TILE = 1024  # candidates at once
SAMPLE = 4096  # users that a truncation is made from, at most
FEW = 1024  # and at least


@dataclass(frozen=True)
class Writes:
    """What a purchase of each item does to a memory, float64."""

    z: np.ndarray  # (I, K) attention
    erase: np.ndarray  # (I, D) e, sigmoid
    add: np.ndarray  # (I, D) a, tanh

    @classmethod
    def of(cls, tensors: dict[str, np.ndarray], beta: float) -> "Writes":
        """The table of a model's items."""
        q = tensors["item"].astype(np.float64)
        logits = beta * affine(q, tensors["feature"].astype(np.float64), np.zeros(1))
        z = np.exp(logits - logits.max(axis=1, keepdims=True))
        erase, add = (
            affine(q, tensors[f"{n}.weight"].astype(np.float64), tensors[f"{n}.bias"])
            for n in ("erase", "add")
        )
        with np.errstate(over="ignore"):
            return cls(z / z.sum(axis=1, keepdims=True), 1 / (1 + np.exp(-erase)), np.tanh(add))


def replay(writes: Writes, start: np.ndarray | None, histories: Histories) -> np.ndarray:
    """Memories (U, K, D) float64 after each user's purchases, from `start` (U, K, D), which is not
    changed; None: from nothing.

    Purchases are written one by one: a prefix and then the rest give the very bits of the whole.
    """
    if start is None:
        memory = np.empty((len(histories), writes.z.shape[1], writes.add.shape[1]))
    else:
        memory = np.array(start, dtype=np.float64, order="C")
    tables = (writes.z, writes.erase, writes.add)
    _replay(memory, start is None, tables, histories.items, histories.offsets)
    return memory


class FeatureLevel:
    """A model's tables in both precisions; made once, ranks any number of blocks."""

    def __init__(self, model: SavedModel) -> None:
        self.q = np.ascontiguousarray(model.tensors["item"], dtype=np.float32)
        self.p = np.ascontiguousarray(model.tensors["user"], dtype=np.float32)
        self.q64 = self.q.astype(np.float64)
        self.bias = item_bias(model)
        self.alpha = float(model.config["alpha"])
        self.merge = MERGES[model.config.get("merge", "add")]
        self.tensors = {n: model.tensors[n].astype(np.float64) for n in self.merge.learned}
        self.writes = Writes.of(model.tensors, float(model.config["beta"]))
        self.z = self.writes.z.astype(np.float32)
        lengths = (self.q64**2).sum(axis=1) * (1 + (self.writes.z**2).sum(axis=1))
        self.norms = np.sqrt(lengths)  # (I,) of [q, vec(z (x) q)]
        self.tie_rank = model.catalog.tie_rank
        self.memories: Memories | None = None  # kept of earlier nights
        self.card: Products | None = None
        self.truncation: Truncation | None = None
        self.tried, self.ranked = False, 0
        memory = self.z.shape[1] * self.q.shape[1]
        self.block_users = max(1, min(16_384, 16_000_000 // memory))

    def use(self, device: str) -> None:
        """`OnDevice.use`."""
        self.card = resolve_name("rum_core.ranking.card:Products")(
            device, self.q, self.bias, self.z
        )

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N) and scores (U, N); features name no purchase, so nothing (U, N, B) after."""
        memory = _Memory(self, block, self.replay(block.known))
        items, scores = exact_top(memory, block, self.tie_rank, top_n)
        return items, scores, *no_reasons(len(block), top_n, because)

    def columns(self, tile: np.ndarray) -> np.ndarray:
        """[q, vec(z (x) q)] (D + K D, T) of a tile."""
        q, z = self.q[tile], self.z[tile]
        outer = (z[:, :, None] * q[:, None, :]).reshape(len(tile), -1)  # (T, K D)
        return np.ascontiguousarray(np.concatenate([q, outer], axis=1).T)

    def truncation_for(self, left: np.ndarray, most: int) -> Truncation | None:
        """The model's truncation, where as many users were ranked as pay for its making, so that
        as many more are to be expected; made from a block of them (U, W)."""
        enough = len(left) >= FEW and self.ranked >= pays_after(left.shape[1], len(self.q))
        if not self.tried and enough:
            self.tried = True
            some = np.linspace(0, len(left) - 1, min(len(left), SAMPLE)).astype(np.int64)
            self.truncation = Truncation.of(left[some], self.columns, len(self.q), most)
        self.ranked += len(left)
        return self.truncation

    def replay(self, known: Histories) -> np.ndarray:
        """Memories (U, K, D) float64 after all purchases, from where they were kept."""
        if self.memories is None:
            return replay(self.writes, None, known)
        start, done = self.memories.start(known)
        memory = replay(self.writes, start, known.spans(done, known.lengths))
        self.memories.keep(known, done, memory)
        return memory


class _Memory:
    """A block's memories after all its purchases: what MERGE makes of them, and of p*."""

    def __init__(self, model: FeatureLevel, block: Block, memory: np.ndarray) -> None:
        self.model, self.block, self.written = model, block, memory  # (U, K, D)
        p = rows_of(model.p, block.rows).astype(np.float64)
        self.p64 = model.merge.own(p, model.tensors, times)
        self.memory = model.merge.carried(p[:, None], memory, model.tensors, times)

    def keep(self, most: int) -> Kept:
        m = self.model
        flat = m.alpha * self.memory.reshape(len(self.block), -1)  # (U, K D)
        left = np.concatenate([self.p64, flat], axis=1)
        length = np.sqrt((left**2).sum(axis=1))
        truncation = None if m.card else m.truncation_for(left, most)
        if truncation is not None:
            return self._keep_truncated(left, length, truncation, most)
        with np.errstate(over="ignore"):
            left = left.astype(np.float32)
        of_items = (length, m.norms, m.bias, m.columns, TILE)
        return keep_products(left, *of_items, self.block, most, m.card)

    def _keep_truncated(
        self, left: np.ndarray, length: np.ndarray, truncation: Truncation, most: int
    ) -> Kept:
        m, block = self.model, self.block
        norm = float(m.norms[block.candidates].max())
        bound = score_bound(left.shape[1], length, norm, m.bias)
        if not np.isfinite(bound).all():
            return nothing_kept(len(block), most, bound)
        scores, items = empty_heaps(len(block), most)
        seen = (block.seen, block.seen_offsets)
        for first in range(0, len(block), RUN):
            some = slice(first, first + RUN)
            whole = left[some].astype(np.float32)
            x, rest, slack = truncation.users(left[some], whole, length[some], norm)
            for start in range(0, len(block.candidates), TILE):
                tile = block.candidates[start : start + TILE]
                _offer(
                    tile,
                    x @ truncation.items[tile].T,
                    m.bias[tile].astype(np.float32),
                    truncation.rest[tile],
                    (rest, slack),
                    (whole, m.q, m.z),
                    first,
                    seen,
                    scores,
                    items,
                )
        return items, scores, bound

    def exact(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        m = self.model
        return np.asarray(
            _exact(users, items, self.p64, self.memory, m.q64, m.writes.z, m.bias, m.alpha)
        )

    def take(self, users: np.ndarray) -> "_Memory":
        return _Memory(self.model, self.block.take(users), self.written[users])


@njit(cache=True, parallel=True, error_model="numpy")
def _offer(
    tile: Any,
    products: Any,
    bias: Any,
    item_rest: Any,
    of_users: Any,
    tables: Any,
    first: int,
    barred: Any,
    heap_scores: Any,
    heap_items: Any,
) -> None:
    """Offer those of a tile (T,) that may be good enough to the heaps of users first, first + 1,
    ...; products (n, T) of the dimensions that are kept; the rest as `Truncation` has it."""
    rest, slack = of_users
    left, q, z = tables
    seen, seen_offsets = barred
    for n in prange(len(products)):
        u = first + n
        for start in range(0, len(tile), STEP):
            stop = min(start + STEP, len(tile))
            group, floor = slice(start, stop), heap_scores[u, 0] - slack[n]
            if not _reach(products[n, group], bias[group], item_rest[group], rest[n], floor):
                continue
            for t in range(start, stop):
                most = products[n, t] + bias[t] + rest[n] * item_rest[t]
                if most > heap_scores[u, 0] - slack[n]:
                    i = tile[t]
                    score = _whole(left[n], q[i], z[i]) + bias[t]
                    if score > heap_scores[u, 0] and not contains(
                        seen, seen_offsets[u], seen_offsets[u + 1], i
                    ):
                        replace_least(heap_scores[u], heap_items[u], score, i)


@njit(cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _reach(products: Any, bias: Any, item_rest: Any, rest: Any, floor: Any) -> int:
    """How many of a few candidates may be above the floor, as the compiler makes vectors of it."""
    found = 0
    for t in range(len(products)):
        found += products[t] + bias[t] + rest * item_rest[t] > floor
    return found


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _whole(left: Any, q: Any, z: Any) -> Any:
    """left . [q, vec(z (x) q)] of a user (D + K D,) and an item's q (D,) and z (K,), float32."""
    D = len(q)
    read = left[:D].copy()
    for k in range(len(z)):
        m = left[D + k * D : 2 * D + k * D]
        for d in range(D):
            read[d] += z[k] * m[d]
    score = np.float32(0.0)
    for d in range(D):
        score += read[d] * q[d]
    return score


@njit(cache=True, parallel=True)
def _replay(memory: Any, empty: bool, tables: Any, items: Any, offsets: Any) -> None:
    """WRITEs of each user in their order; four at a time, so that a number of M is read and kept
    once for all four. Each does the same operations on it as it would alone."""
    z, erase, add = tables
    D = memory.shape[2]
    for u in prange(memory.shape[0]):
        if empty:
            memory[u] = 0.0
        at, stop = offsets[u], offsets[u + 1]
        while at + 4 <= stop:
            g, h, i, j = items[at], items[at + 1], items[at + 2], items[at + 3]
            e_g, e_h, e_i, e_j = erase[g], erase[h], erase[i], erase[j]
            a_g, a_h, a_i, a_j = add[g], add[h], add[i], add[j]
            for k in range(memory.shape[1]):
                m = memory[u, k]
                z_g, z_h, z_i, z_j = z[g, k], z[h, k], z[i, k], z[j, k]
                for d in range(D):
                    x = m[d] * (1.0 - z_g * e_g[d]) + z_g * a_g[d]
                    x = x * (1.0 - z_h * e_h[d]) + z_h * a_h[d]
                    x = x * (1.0 - z_i * e_i[d]) + z_i * a_i[d]
                    m[d] = x * (1.0 - z_j * e_j[d]) + z_j * a_j[d]
            at += 4
        for purchase in range(at, stop):
            i = items[purchase]
            for k in range(memory.shape[1]):
                m = memory[u, k]
                for d in range(D):
                    m[d] = m[d] * (1.0 - z[i, k] * erase[i, d]) + z[i, k] * add[i, d]


@njit(cache=True, parallel=True)
def _exact(
    users: Any, items: Any, p: Any, memory: Any, q: Any, z: Any, bias: Any, alpha: float
) -> Any:
    """Scores (n, m) float64 of items (n, m) for users (n,), each sum in the order of its index."""
    scores = np.empty(items.shape)
    for n in prange(len(users)):
        u = users[n]
        read = np.empty(q.shape[1])
        for c in range(items.shape[1]):
            i = items[n, c]
            if i >= 0:
                read[:] = 0.0
                for k in range(z.shape[1]):
                    for d in range(q.shape[1]):
                        read[d] += z[i, k] * memory[u, k, d]
                score = 0.0
                for d in range(q.shape[1]):
                    score += (p[u, d] + alpha * read[d]) * q[i, d]
                scores[n, c] = score + bias[i]
    return scores
