"""Item-level RUM over the whole catalogue (eq 1-4, 6-8) with no softmax a user.

exp(beta q_i . q_j) depends on the two items alone. For a tile of candidates i the rows
E_j = exp(...) and E_j * W_j, W = q_j . q_i, are made once for all items j in the block's memories;
a user's attention read is then a sum of his K rows of E * W over the sum of his rows of E. U users,
K slots, D dimensions, T candidates a tile. Counted transitions (`counted.py`) are mixed in where a
memory has some: score = y + w log(1 + c s) of the learned y. Beside it: `reference.py`.
"""

import math
from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block
from rum_core.ranking.counted import Counted, Sums, nothing
from rum_core.ranking.select import LARGEST, ROUNDING, empty_heaps, exact_top, offer, value_of
from rum_core.store.checkpoint import SavedModel

TILE = 64  # T
RUN = 64  # users that a thread takes at a time
LOWEST = 1e-26  # below it a sum of exps has lost terms: the pair is scored in float64


class ItemLevel:
    """A model's tables in both precisions; made once, ranks any number of blocks."""

    def __init__(self, model: SavedModel) -> None:
        self.counted = Counted(model) if model.config.get("transitions") else None
        self.block_users = 2048 if self.counted else 16_384
        self.q = np.ascontiguousarray(model.tensors["item"], dtype=np.float32)
        self.p = np.ascontiguousarray(model.tensors["user"], dtype=np.float32)
        self.q64 = self.q.astype(np.float64)
        self.norms = np.sqrt((self.q64**2).sum(axis=1))  # (I,)
        self.bias = item_bias(model)
        self.slots = int(model.config["slots"])
        self.alpha = float(model.config["alpha"])
        self.beta = float(model.config["beta"])
        self.tie_rank = model.catalog.tie_rank

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N), scores (U, N), the purchases (U, N, B) with the most attention, and it."""
        memory = _Memory(self, block)
        items, scores = exact_top(memory, block, self.tie_rank, top_n)
        return items, scores, *memory.because(items, scores, because)


def because_of(
    model: ItemLevel, block: Block, items: np.ndarray, scores: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """The purchases (U, N, B) with the most attention for items (U, N), and it: `_Memory.because`
    of lists that were made otherwise."""
    return _Memory(model, block).because(items, scores, most)


class _Memory:
    """A block's memories: slot s of user u holds item slots[offsets[u] + s], oldest first."""

    def __init__(self, model: ItemLevel, block: Block) -> None:
        self.model = model
        self.block = block
        lengths = block.known.lengths
        memory = block.known.spans(np.maximum(lengths - model.slots, 0), lengths)
        self.slots, self.offsets = memory.items, memory.offsets
        self.p = np.where((block.rows >= 0)[:, None], model.p[block.rows], np.float32(0))  # (U, D)
        self.p64 = self.p.astype(np.float64)
        counted = model.counted
        self.sums: Sums = counted.sums(self.slots, self.offsets) if counted else nothing(len(block))

    def keep(self, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m, block = self.model, self.block
        bound = self._bound()
        scores, items = empty_heaps(len(block), most)
        if not np.isfinite(bound).all():
            return items, scores[:, 0], np.full_like(bound, np.inf)
        held, row = np.unique(self.slots, return_inverse=True)
        q_held = m.q[held]  # (R, D)
        exps = np.zeros((len(held), 2, TILE), np.float32)
        next_sum = self.sums.start.copy()
        for start in range(0, len(block.candidates), TILE):
            tile = block.candidates[start : start + TILE]
            q = np.ascontiguousarray(m.q[tile].T)  # (D, T)
            products = q_held @ q  # (R, T)
            guard = np.float32(m.beta) * products.max(axis=0, initial=-np.inf)
            _fill(products, guard, np.float32(m.beta), exps)
            _fold(
                tile,
                self.p @ q,
                exps,
                row,
                self.offsets,
                np.float32(m.alpha),
                m.bias[tile].astype(np.float32),
                (self.p64, m.q64, self.slots, m.alpha, m.beta),
                (block.seen, block.seen_offsets),
                (next_sum, self.sums.stop, self.sums.items, self.sums.values),
                scores,
                items,
            )
        return items, scores[:, 0], bound

    def _bound(self) -> np.ndarray:
        """How far a score of the float32 pass may be from the float64 one, (U,): the rounding of
        dot products (gamma_n |x| |y|), of the exponent and of the sums, each at its worst."""
        m = self.model
        gamma = (m.q.shape[1] + 2) * ROUNDING
        largest = m.norms[self.block.candidates].max()
        held = np.zeros(len(self.block))
        np.maximum.at(
            held, np.repeat(np.arange(len(held)), np.diff(self.offsets)), m.norms[self.slots]
        )
        w = held * largest
        base = np.sqrt((self.p64**2).sum(axis=1)) * largest
        exponent = m.beta * w * (gamma + 3 * ROUNDING) + 100 * ROUNDING
        with np.errstate(over="ignore"):
            relative = np.expm1(exponent) + (m.slots + 16) * ROUNDING
        read = w * (1.25 * gamma + 2.5 * relative)
        bias = np.abs(m.bias).max(initial=0)
        largest_y = base + m.alpha * w + bias
        largest_y = largest_y + self.sums.values.max(initial=0)  # one rounding more
        bound = base * gamma + m.alpha * read + 10 * ROUNDING * largest_y + 1e-30
        too_large = np.maximum(largest_y, m.beta * w) > LARGEST
        return np.where(too_large | (relative > 0.1), np.inf, bound)

    def exact(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        m = self.model
        memory = (self.slots, self.offsets)
        return np.asarray(
            _exact(users, items, self.p64, m.q64, m.bias, memory, self.sums, m.alpha, m.beta)
        )

    def because(
        self, items: np.ndarray, scores: np.ndarray, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distinct purchases with the largest attention (summed over their slots), ties by the more
        recent: items (U, N, B) int32, -1 where there are no more, and weights float32.

        The attention is z; where transitions count, (1 - l) z + l c / sum c, with l the share of
        what was counted in the score: `Counted.blend`.
        """
        m = self.model
        memory = (self.slots, self.offsets)
        z = np.zeros((*items.shape, np.diff(self.offsets).max()))
        _attention(z, items, m.q64, memory, m.beta)
        if m.counted:
            m.counted.blend(z, items, scores, memory, self.sums)
        chosen, weights = _largest(z, memory, most)
        return chosen, weights


@njit(cache=True, parallel=True, error_model="numpy")
def _fill(products: Any, guard: Any, beta: Any, exps: Any) -> None:
    """exps (R, 2, T) of products W (R, T): exp(beta W - guard), and the same times W."""
    for j in prange(products.shape[0]):
        for t in range(products.shape[1]):
            w = products[j, t]
            e = _exp(beta * w - guard[t])
            exps[j, 0, t] = e
            exps[j, 1, t] = e * w


@njit(cache=True, error_model="numpy")
def _exp(x: Any) -> Any:
    """exp of a float32 x <= 0 within 2 units in the last place, 0 below -87: by powers of 2 and the
    polynomial of Cephes' expf, in a form that the compiler turns into vector instructions."""
    x0 = max(x, np.float32(-87.0))
    n = np.floor(x0 * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x0 - n * np.float32(0.693359375)
    r = r - n * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return y * power if x > np.float32(-87.0) else np.float32(0.0)


@njit(cache=True, parallel=True, error_model="numpy")
def _fold(
    tile: Any,
    base: Any,
    exps: Any,
    row: Any,
    offsets: Any,
    alpha: Any,
    bias: Any,
    pair: Any,
    barred: Any,
    counted: Any,
    heap_scores: Any,
    heap_items: Any,
) -> None:
    """Score a tile (T,) for all users and offer it to their heaps. base (U, T) is p* . q."""
    p64, q64, slots, alpha64, beta64 = pair
    seen, seen_offsets = barred
    next_sum, last_sum, sum_items, sum_values = counted
    users, width = len(offsets) - 1, len(tile)
    for run in prange((users + RUN - 1) // RUN):
        over = np.empty(TILE, np.float32)
        under = np.empty(TILE, np.float32)
        for u in range(run * RUN, min((run + 1) * RUN, users)):
            start, stop = offsets[u], offsets[u + 1]
            over[:] = 0
            under[:] = 0
            for s in range(start, stop):
                e = exps[row[s], 0]
                ew = exps[row[s], 1]
                for t in range(TILE):
                    under[t] += e[t]
                    over[t] += ew[t]
            lost = 0
            for t in range(width):
                lost += under[t] < LOWEST
                over[t] = base[u, t] + alpha * (over[t] / under[t]) + bias[t]
            if lost:
                z = np.empty(stop - start)
                for t in range(width):
                    if under[t] < LOWEST:
                        over[t] = bias[t] + _direct(
                            p64[u], q64, slots[start:stop], tile[t], alpha64, beta64, z
                        )
            t = 0
            while next_sum[u] < last_sum[u] and sum_items[next_sum[u]] <= tile[-1]:
                while tile[t] < sum_items[next_sum[u]]:
                    t += 1
                if tile[t] == sum_items[next_sum[u]]:
                    over[t] += sum_values[next_sum[u]]
                next_sum[u] += 1
            offer(
                over[:width],
                tile,
                heap_scores[u],
                heap_items[u],
                seen,
                seen_offsets[u],
                seen_offsets[u + 1],
            )


@njit(cache=True)
def _direct(p: Any, q: Any, slots: Any, i: int, alpha: float, beta: float, z: Any) -> float:
    """The score without bias by the definition, in float64 and a fixed order; z (slots,) is left
    with the attention."""
    base = 0.0
    z[:] = 0.0
    for d in range(q.shape[1]):
        base += p[d] * q[i, d]
        for s in range(len(slots)):
            z[s] += q[i, d] * q[slots[s], d]
    return base + alpha * attend(z, beta)


@njit(cache=True)
def attend(w: Any, beta: float) -> float:
    """sum_k z_k w_k for products w (slots,), which become z = softmax(beta w)."""
    largest = -np.inf
    for s in range(len(w)):
        largest = max(largest, beta * w[s])
    total = 0.0
    for s in range(len(w)):
        total += math.exp(beta * w[s] - largest)
    read = 0.0
    for s in range(len(w)):
        z = math.exp(beta * w[s] - largest) / total
        read += z * w[s]
        w[s] = z
    return read


@njit(cache=True, parallel=True)
def _exact(
    users: Any,
    items: Any,
    p: Any,
    q: Any,
    bias: Any,
    memory: Any,
    sums: Any,
    alpha: float,
    beta: float,
) -> Any:
    """Scores (n, m) float64 of items (n, m) for users (n,), each sum in the order of its index."""
    slots, offsets = memory
    first_sum, last_sum, sum_items, sum_values = sums
    scores = np.empty(items.shape)
    for n in prange(len(users)):
        u = users[n]
        held, filled = _gather(q, slots, offsets[u], offsets[u + 1])
        w = np.empty(filled)
        for c in range(items.shape[1]):
            i = items[n, c]
            if i >= 0:
                base = 0.0
                w[:] = 0.0
                for d in range(q.shape[1]):
                    base += p[u, d] * q[i, d]
                    for s in range(filled):
                        w[s] += q[i, d] * held[d, s]
                learned = base + alpha * attend(w, beta) + bias[i]
                counted = value_of(sum_items, sum_values, first_sum[u], last_sum[u], i)
                scores[n, c] = learned + counted
    return scores


@njit(cache=True)
def _gather(q: Any, slots: Any, start: int, stop: int) -> Any:
    """A user's memory as (D, slots), so that sums over d run side by side for all slots."""
    memory = np.empty((q.shape[1], stop - start))
    for s in range(stop - start):
        for d in range(q.shape[1]):
            memory[d, s] = q[slots[start + s], d]
    return memory, stop - start


@njit(cache=True, parallel=True)
def _attention(z: Any, items: Any, q: Any, memory: Any, beta: float) -> None:
    """z (U, N, K), zeros, of the items of each list over its user's slots, oldest first."""
    slots, offsets = memory
    for u in prange(items.shape[0]):
        held, filled = _gather(q, slots, offsets[u], offsets[u + 1])
        for n in range(items.shape[1]):
            w = z[u, n, :filled]
            for d in range(q.shape[1]):
                for s in range(filled):
                    w[s] += q[items[u, n], d] * held[d, s]
            attend(w, beta)


@njit(cache=True, parallel=True)
def _largest(z: Any, memory: Any, most: int) -> Any:
    """Of attention z (U, N, K) the `most` distinct purchases with the largest."""
    slots, offsets = memory
    chosen = np.full((z.shape[0], z.shape[1], most), -1, np.int32)
    weights = np.zeros((z.shape[0], z.shape[1], most), np.float32)
    for u in prange(z.shape[0]):
        mine = slots[offsets[u] : offsets[u + 1]]
        for n in range(z.shape[1]):
            w = z[u, n, : len(mine)]
            # an item bought twice holds two slots: its newest one takes the attention of all
            for s in range(len(mine) - 1, -1, -1):
                for older in range(s if w[s] >= 0 else 0):
                    if mine[older] == mine[s]:
                        w[s] += w[older]
                        w[older] = -1.0
            for b in range(min(most, len(mine))):
                newest = -1
                for s in range(len(mine) - 1, -1, -1):
                    if w[s] >= 0 and (newest < 0 or np.float32(w[s]) > np.float32(w[newest])):
                        newest = s
                if newest >= 0:
                    chosen[u, n, b] = mine[newest]
                    weights[u, n, b] = w[newest]
                    w[newest] = -1.0
    return chosen, weights
