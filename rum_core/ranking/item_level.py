"""Item-level RUM over the whole catalogue (eq 1-4, 6-8) with no softmax a user.

exp(beta q_i . q_j) depends on the two items alone. For a tile of candidates i the rows
E_j = exp(...) and E_j W_j, W = q_j . q_i, are made once for all items j in the block's memories;
a user's READ is then a sum of his K rows of E W over the sum of his rows of E. Both are kept in
bfloat16, and what that may be off is added: the first pass ranks by the most that a READ can be.
So is p* . q_i, whose error is in the bound. Counted transitions (`counted.py`) come on top: score =
y + w log(1 + c s) of the learned y. U users, K slots, D dimensions, R items in the block's
memories, T candidates a tile. Beside it: `reference.py`.
"""

import math
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange, uint64

from rum_core.float32 import exp_float32, log_float32
from rum_core.ranking.bags import Bags
from rum_core.ranking.bfloat16 import UNIT, Products, long, lost, product_error, short
from rum_core.ranking.bias import item_bias
from rum_core.ranking.block import Block, no_reasons
from rum_core.ranking.counted import NO_ROWS, Counted, counted_sum
from rum_core.ranking.select import (
    LARGEST,
    MOST,
    ROUNDING,
    WIDE,
    contains,
    empty_heaps,
    exact_top,
    nothing_kept,
    replace_least,
)
from rum_core.store.checkpoint import SavedModel

if TYPE_CHECKING:
    from rum_core.ranking.card import Attention

BLOCK = 262_144  # users at once
HELD = 2**19  # R at most: some kilobytes each
TILE = 128  # T
MET = 8192  # items of memories whose products are made at once, near the processor
RUN = 4096  # users whose sums are at hand at a time
ASKED = 64  # users whom an order of the candidates is made for
LANES = 16  # slots of a memory that are met at once in float64
AT_ONCE = 64  # of them that one thread takes
LOWEST = 1e-26  # below it a sum of exps has lost terms: the pair is scored in float64
# a READ, above the least product of its tile, is a quotient of two sums of bfloat16 numbers that
# are rounded once more: each of these four roundings may take 2^-8 of it, and float32 sums of at
# most 1,024 slots (model.slots) 2^-13
UP = np.float32(1 + 4 * UNIT + 2.0**-12)


class ItemLevel:
    """A model's tables in both precisions; made once, ranks any number of blocks."""

    def __init__(self, model: SavedModel) -> None:
        self.counted = Counted(model) if model.config.get("transitions") else None
        self.q = np.ascontiguousarray(model.tensors["item"], dtype=np.float32)
        self.p = np.ascontiguousarray(model.tensors["user"], dtype=np.float32)
        self.q64 = self.q.astype(np.float64)
        self.norms = np.sqrt((self.q64**2).sum(axis=1))  # (I,)
        self.lost = lost(self.q)
        self.bias = item_bias(model)
        self.slots = int(model.config["slots"])
        # what is made once a tile is made for all users of a block, and a row for each item held
        self.block_users = BLOCK if len(self.q) <= HELD else max(1, min(BLOCK, HELD // self.slots))
        self.alpha = float(model.config["alpha"])
        self.beta = float(model.config["beta"])
        self.tie_rank = model.catalog.tie_rank
        self.card: Attention | None = None

    def use(self, device: str) -> None:
        """`OnDevice.use`."""
        self.card = resolve_name("rum_core.ranking.card:Attention")(
            device, self.q, self.bias, alpha=self.alpha, beta=self.beta, counted=self.counted
        )

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

    def keep(self, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m, block = self.model, self.block
        on_card = m.card is not None and most <= MOST
        bound = self._bound(on_card)
        if not np.isfinite(bound).all():
            return nothing_kept(len(block), most, bound)
        if m.card is not None and on_card:
            return *m.card.keep(self.p, self.slots, self.offsets, block, most), bound
        scores, items = empty_heaps(len(block), most)
        held = np.flatnonzero(np.bincount(self.slots, minlength=len(m.q)))
        row = (np.cumsum(np.bincount(held, minlength=len(m.q))) - 1)[self.slots]
        q_held = m.q[held]  # (R, D)
        tiles = None
        if m.counted:
            tiles = m.counted.tiles(held, row, self.offsets, block.candidates)
        counts, mixture = np.zeros((0, 0), np.float32), (0.0, 0.0)
        met = np.empty((len(held), TILE), np.float32)  # W
        exps = np.zeros((len(held), 2, TILE), np.uint16)
        reads = Bags(row, self.offsets)
        memory = (self.slots, self.offsets, self.p64, m.q64, m.alpha, m.beta)
        seen = (block.seen, block.seen_offsets)
        products, base = Products(self.p), np.zeros((min(RUN, len(block)), TILE), np.uint16)
        # what is counted comes in the order of items
        candidates = block.candidates if tiles else self._likely_first()
        for start in range(0, len(candidates), TILE):
            tile = candidates[start : start + TILE]
            q = np.ascontiguousarray(m.q[tile].T)  # (D, T)
            for first in range(0, len(held), MET):
                rows = slice(first, first + MET)
                np.matmul(q_held[rows], q, out=met[rows, : len(tile)])
            low = _fill(met[:, : len(tile)], np.float32(m.beta), exps)
            table = exps.reshape(len(held), -1)
            bias = m.bias[tile].astype(np.float32)
            followed = tiles.table(start, len(tile)) if tiles else counts
            for first in range(0, len(block), RUN):
                last = min(first + RUN, len(block))
                if tiles:
                    counts, mixture = tiles.bags.sums(followed, first, last), tiles.counted.mixture
                products.of(first, last, q, base[: last - first, : len(tile)])
                read = reads.sums(table, first, last)
                given = (base.ravel(), read.ravel(), low, bias, counts.ravel(), mixture)
                _offer(tile, TILE, *given, (first, last), memory, seen, scores, items)
        return items, scores, bound

    def _likely_first(self) -> np.ndarray:
        """The candidates, those first that many users may well get: the least that is kept then
        rises early, and fewer of the others have to be looked at."""
        m, candidates = self.model, self.block.candidates
        scores = self.p[:: max(1, len(self.p) // ASKED)] @ m.q[candidates].T
        hopes = scores.mean(axis=0) + 2 * scores.std(axis=0) + m.bias[candidates]
        return candidates[np.argsort(-hopes)]

    def _bound(self, on_card: bool) -> np.ndarray:
        """How far a score may be above the rough one, whose READ allows for bfloat16 already, (U,):
        the rounding of dot products (gamma_n |x| |y|), of the exponent and of the sums, each at its
        worst, and what is lost of numbers too small for float32 or bfloat16 where `LOWEST` lets
        them in. On a card the softmax is made as its slots come, which rounds each term once more
        a slot, and exp and log are off by 2^-22."""
        m = self.model
        gamma = (m.q.shape[1] + 2) * ROUNDING
        largest = m.norms[self.block.candidates].max()
        held = np.zeros(len(self.block))
        np.maximum.at(
            held, np.repeat(np.arange(len(held)), np.diff(self.offsets)), m.norms[self.slots]
        )
        w = held * largest
        length = np.sqrt((self.p64**2).sum(axis=1))
        base = length * largest
        exponent = m.beta * w * (gamma + 3 * ROUNDING) + 100 * ROUNDING
        if on_card:
            exponent = 2 * exponent + 16 * m.slots * ROUNDING
        with np.errstate(over="ignore"):
            relative = np.expm1(exponent) + (m.slots + 16) * ROUNDING
        read = w * (1.25 * gamma + 2.5 * relative)
        bias = np.abs(m.bias).max(initial=0)
        largest_y = base + m.alpha * w + bias
        counted = 0.0
        if m.counted:
            largest_y = largest_y + m.counted.most(m.slots)
            counted = m.counted.error(m.slots)
            if on_card:
                counted += 16 * ROUNDING * (m.counted.mixture[0] + m.counted.most(m.slots))
        tiny = (m.alpha * (m.slots + 1) * 2.0**-133 + 2.0**-146) / LOWEST
        bound = counted + base * gamma + m.alpha * read + 32 * ROUNDING * largest_y + tiny
        if not on_card:
            lost_q = float(m.lost[self.block.candidates].max())
            bound += product_error(length, lost(self.p), largest, lost_q, m.q.shape[1])
        too_large = np.maximum(largest_y, m.beta * w) > LARGEST
        return np.where(too_large | (relative > 0.1), np.inf, bound)

    def exact(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        m = self.model
        memory = (self.slots, self.offsets, self.p64, m.q64, m.alpha, m.beta)
        rows = m.counted.rows if m.counted else NO_ROWS
        decay, mixture = (m.counted.decay, m.counted.mixture) if m.counted else (0.0, (0.0, 0.0))
        return np.asarray(_exact(users, items, m.bias, memory, rows, decay, mixture))

    def take(self, users: np.ndarray) -> "_Memory":
        return _Memory(self.model, self.block.take(users))

    def because(
        self, items: np.ndarray, scores: np.ndarray, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distinct purchases with the largest attention (summed over their slots), ties by the more
        recent: items (U, N, B) int32, -1 where there are no more, and weights float32.

        The attention is z; where transitions count, (1 - l) z + l c / sum c, with l the share of
        what was counted in the score: `Counted.blend`.
        """
        m, N = self.model, items.shape[1]
        chosen, weights = no_reasons(len(items), N, most)
        at_once = max(1, WIDE // (N * m.slots)) if most else len(items)
        for first in range(0, len(items) if most else 0, at_once):
            run = slice(first, first + at_once)
            start, stop = self.offsets[[first, min(first + at_once, len(items))]]
            memory = (self.slots[start:stop], self.offsets[first : first + at_once + 1] - start)
            z = np.zeros((*items[run].shape, m.slots))
            _attention(z, items[run], m.q64, memory, m.beta)
            if m.counted:
                m.counted.blend(z, items[run], scores[run], memory)
            chosen[run], weights[run] = _largest(z, memory, most)
        return chosen, weights


@njit(cache=True, parallel=True, error_model="numpy")
def _fill(products: Any, beta: Any, exps: Any) -> Any:
    """exps (R, 2, T) of products W (R, t), as the bits of bfloat16: exp(beta W - guard), and the
    same times W - low. The guard is a column's largest exponent, low (T,) its least product."""
    low = np.full(exps.shape[2], np.inf, np.float32)
    guard = np.full(exps.shape[2], -np.inf, np.float32)
    for j in range(products.shape[0]):
        for t in range(products.shape[1]):
            low[t] = min(low[t], products[j, t])
            guard[t] = max(guard[t], beta * products[j, t])
    for j in prange(products.shape[0]):
        for t in range(products.shape[1]):
            w = products[j, t]
            e = exp_float32(beta * w - guard[t])
            exps[j, 0, t] = short(e)
            exps[j, 1, t] = short(e * (w - low[t]))
    return low


@njit(cache=True, parallel=True, error_model="numpy")
def _offer(
    tile: Any,
    width: int,
    base: Any,
    read: Any,
    low: Any,
    bias: Any,
    counts: Any,
    mixture: Any,
    users: Any,
    memory: Any,
    barred: Any,
    heap_scores: Any,
    heap_items: Any,
) -> None:
    """Offer a tile (T,) to the heaps of users (first, last) by the most it can score.

    Flat, for the compiler makes no vectors of rows: base (n, width): p* . q, as bits; read (n, 2
    width): the sums of what `_fill` gives, as bits, and its low (width,); counts: s (n, T), or (0,)
    where nothing is counted.
    """
    slots, offsets, p64, q64, alpha64, beta64 = memory
    seen, seen_offsets = barred
    first, last = users
    T, alpha, up = len(tile), np.float32(alpha64), np.float32(alpha64) * UP
    w, c = np.float32(mixture[0]), np.float32(mixture[1])
    rest = bias + alpha * low[:T]  # all of a score but the product and the READ above low
    for part in prange(-(-(last - first) // AT_ONCE)):
        rough, above = np.empty(T, np.float32), np.empty(T, np.float32)
        for n in range(part * AT_ONCE, min((part + 1) * AT_ONCE, last - first)):
            u, start = first + n, 2 * n * width
            _base(base, n * width, rest, rough)
            if len(counts):
                _count(counts, n * T, w, c, rough)
            floor = max(heap_scores[u, 0], np.float32(-LARGEST))
            left = _above(rough, read, start, width, up, floor, above)
            for t in range(T):
                if left == 0:
                    break
                if above[t] <= 0.0:
                    continue
                left -= 1
                exps, over = long(read[start + t]), long(read[start + width + t])
                if exps < LOWEST:
                    mine = slots[offsets[u] : offsets[u + 1]]
                    z = np.empty(len(mine))
                    most = bias[t] + _direct(p64[u], q64, mine, tile[t], alpha64, beta64, z)
                    if len(counts):
                        most += w * log_float32(np.float32(1.0) + c * counts[n * T + t])
                elif (rough[t] - heap_scores[u, 0]) * exps + up * over <= 0.0:
                    continue  # the floor has risen since
                else:
                    most = rough[t] + up * over / exps
                if most > heap_scores[u, 0] and not contains(
                    seen, seen_offsets[u], seen_offsets[u + 1], tile[t]
                ):
                    replace_least(heap_scores[u], heap_items[u], most, tile[t])


@njit(cache=True)
def _base(base: Any, start: int, rest: Any, rough: Any) -> None:
    """rough (T,): the numbers of `base` from `start` on and the rest (T,) of a score."""
    for t in range(len(rough)):  # an unsigned place is not looked at: it never counts from the end
        rough[t] = long(base[uint64(start) + uint64(t)]) + rest[t]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _count(counts: Any, start: int, w: Any, c: Any, rough: Any) -> None:
    """Add w log(1 + c s) of the s in `counts` from `start` on to rough (T,)."""
    for t in range(len(rough)):
        s = counts[uint64(start) + uint64(t)]
        rough[t] += w * log_float32(np.float32(1.0) + c * s)


@njit(cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _above(rough: Any, read: Any, start: int, width: int, up: Any, floor: Any, above: Any) -> int:
    """How many candidates may be above the floor, rough + up over / under > floor, or have lost
    terms: those whose `above` (T,) is positive. Without the division."""
    found = 0
    for t in range(len(rough)):
        exps = long(read[uint64(start) + uint64(t)])
        over = long(read[uint64(start + width) + uint64(t)])
        more = (rough[t] - floor) * exps + up * over
        above[t] = np.float32(1.0) if exps < np.float32(LOWEST) else more
        found += above[t] > np.float32(0.0)
    return found


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
    exps, total = np.empty(len(w)), 0.0
    for s in range(len(w)):
        exps[s] = math.exp(beta * w[s] - largest)
        total += exps[s]
    read = 0.0
    for s in range(len(w)):
        z = exps[s] / total
        read += z * w[s]
        w[s] = z
    return read


@njit(cache=True, parallel=True)
def _exact(
    users: Any, items: Any, bias: Any, memory: Any, rows: Any, decay: float, mixture: Any
) -> Any:
    """Scores (n, m) float64 of items (n, m) for users (n,), each sum in the order of its index."""
    slots, offsets, p, q, alpha, beta = memory
    scores = np.empty(items.shape)
    for n in prange(len(users)):
        u = users[n]
        mine = slots[offsets[u] : offsets[u + 1]]
        held = _gather(q, mine)
        w = np.empty(held.shape[1])
        for c in range(items.shape[1]):
            i = items[n, c]
            if i >= 0:
                base = 0.0
                for d in range(q.shape[1]):
                    base += p[u, d] * q[i, d]
                _meet(q[i], held, w)
                learned = base + alpha * attend(w[: len(mine)], beta) + bias[i]
                counted = 0.0
                if len(rows[0]):
                    followed = counted_sum(mine, rows, decay, i)
                    counted = mixture[0] * np.log1p(mixture[1] * followed)
                scores[n, c] = learned + counted
    return scores


@njit(cache=True)
def _gather(q: Any, slots: Any) -> Any:
    """A user's memory as (D, slots), so that sums over d run side by side for all slots, with zeros
    up to as many as the compiler takes at once."""
    memory = np.zeros((q.shape[1], -(-len(slots) // LANES) * LANES))
    for s in range(len(slots)):
        for d in range(q.shape[1]):
            memory[d, s] = q[slots[s], d]
    return memory


@njit(cache=True)
def _meet(q: Any, held: Any, w: Any) -> None:
    """w_k = q . q_k of an item's q (D,) and what `_gather` gives."""
    w[:] = 0.0
    for d in range(len(q)):
        for s in range(len(w)):
            w[s] += q[d] * held[d, s]


@njit(cache=True, parallel=True)
def _attention(z: Any, items: Any, q: Any, memory: Any, beta: float) -> None:
    """z (U, N, K), zeros, of the items of each list over its user's slots, oldest first."""
    slots, offsets = memory
    for u in prange(items.shape[0]):
        mine = slots[offsets[u] : offsets[u + 1]]
        held = _gather(q, mine)
        w = np.empty(held.shape[1])
        for n in range(items.shape[1]):
            _meet(q[items[u, n]], held, w)
            attend(w[: len(mine)], beta)
            z[u, n, : len(mine)] = w[: len(mine)]


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
