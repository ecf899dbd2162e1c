"""The kernels of `item_level.py`: the first pass over a tile of candidates, and what is exact.

U users, K slots, D dimensions, R items in the block's memories, T candidates a tile.
"""

import math
from typing import Any

import numpy as np
from numba import njit, prange, uint64

from rum_core.float32 import exp_float32, log_float32
from rum_core.ranking.bfloat16 import UNIT, long, short
from rum_core.ranking.counted import counted_sum
from rum_core.ranking.select import LARGEST, contains, replace_least

LANES = 8  # slots of a memory that are met at once in float64
AT_ONCE = 64  # users that one thread takes
LOWEST = 1e-26  # below it a sum of exps has lost terms: the pair is scored in float64
# a READ, above the least product of its tile, is a quotient of two sums of bfloat16 numbers that
# are rounded once more: each of these four roundings may take 2^-8 of it, and float32 sums of at
# most 1,024 slots (model.slots) 2^-13
UP = np.float32(1 + 4 * UNIT + 2.0**-12)
# s is a sum of products of two bfloat16 numbers that is rounded once more: three such roundings
UP_COUNTS = np.float32(1 + 3 * UNIT + 2.0**-12)


@njit(cache=True, parallel=True, error_model="numpy")
def fill(products: Any, beta: Any, exps: Any) -> Any:
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
def offer_tile(
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
    """Offer a tile (T,) to the heaps (M, U, most) of users (first, last) by the most it can score
    in each of M models, which differ in w alone.

    Flat, for the compiler makes no vectors of rows: base (n, width): p* . q, as bits; read (n, 2
    width): the sums of what `fill` gives, as bits, and its low (width,); counts: s (n, T), as bits,
    or (0,) where nothing is counted; mixture: w (M,), none below 0, and c.
    """
    slots, offsets, p64, q64, alpha64, beta64 = memory
    seen, seen_offsets = barred
    first, last = users
    T, alpha, up = len(tile), np.float32(alpha64), np.float32(alpha64) * UP
    ws, c = mixture
    rest = bias + alpha * low[:T]  # all of a score but the product and the READ above low
    for part in prange(-(-(last - first) // AT_ONCE)):
        learned, followed = np.empty(T, np.float32), np.zeros(T, np.float32)
        rough, above = np.empty(T, np.float32), np.empty(T, np.float32)
        for n in range(part * AT_ONCE, min((part + 1) * AT_ONCE, last - first)):
            u, start = first + n, 2 * n * width
            _base(base, n * width, rest, learned)
            if len(counts):
                _logs(counts, n * T, c, followed)
            for m in range(len(ws)):
                w, kept_scores, kept_items = ws[m], heap_scores[m, u], heap_items[m, u]
                _mix(learned, w, followed, rough)
                floor = max(kept_scores[0], np.float32(-LARGEST))
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
                        most += w * followed[t]
                    elif (rough[t] - kept_scores[0]) * exps + up * over <= 0.0:
                        continue  # the floor has risen since
                    else:
                        most = rough[t] + up * over / exps
                    if most > kept_scores[0] and not contains(
                        seen, seen_offsets[u], seen_offsets[u + 1], tile[t]
                    ):
                        replace_least(kept_scores, kept_items, most, tile[t])


@njit(cache=True)
def _base(base: Any, start: int, rest: Any, rough: Any) -> None:
    """rough (T,): the numbers of `base` from `start` on and the rest (T,) of a score."""
    for t in range(len(rough)):  # an unsigned place is not looked at: it never counts from the end
        rough[t] = long(base[uint64(start) + uint64(t)]) + rest[t]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _logs(counts: Any, start: int, c: Any, followed: Any) -> None:
    """followed (T,): the most that log(1 + c s) can be of the s in `counts` from `start` on."""
    scale = c * UP_COUNTS
    for t in range(len(followed)):
        s = long(counts[uint64(start) + uint64(t)])
        followed[t] = log_float32(np.float32(1.0) + scale * s)


@njit(cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _mix(learned: Any, w: Any, followed: Any, rough: Any) -> None:
    """rough (T,): all of a score but the READ above low."""
    for t in range(len(rough)):
        rough[t] = learned[t] + w * followed[t]


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
def exact(
    users: Any, items: Any, bias: Any, memory: Any, rows: Any, decay: float, mixture: Any
) -> Any:
    """Scores (n, m) float64 of items (n, m) for users (n,), each sum in the order of its index."""
    slots, offsets, p, q, alpha, beta = memory
    scores = np.empty(items.shape)
    for n in prange(len(users)):
        u = users[n]
        mine = slots[offsets[u] : offsets[u + 1]]
        held = gather(q, mine)
        held[:, len(mine)] = p[u]
        w = np.empty(held.shape[1])
        for c in range(items.shape[1]):
            i = items[n, c]
            if i >= 0:
                score = learned(q[i], held, len(mine), alpha, beta, w) + bias[i]
                counted = 0.0
                if len(rows[0]):
                    followed = counted_sum(mine, rows, decay, i)
                    counted = mixture[0] * np.log1p(mixture[1] * followed)
                scores[n, c] = score + counted
    return scores


@njit(cache=True, parallel=True)
def parts(items: Any, memory: Any, rows: Any, decay: float, mixture: Any) -> Any:
    """What scores of all users (U,) for items (C,) are made of, by the operations of `exact`:
    p* . q, the READ and what is counted, (U, C) float64 each."""
    slots, offsets, p, q, _, beta = memory
    indptr, indices, weights = rows
    base, read, counted = np.zeros((3, len(offsets) - 1, len(items)))
    place = np.full(len(q), -1, np.int64)
    for c in range(len(items)):
        place[items[c]] = c
    for u in prange(len(offsets) - 1):
        mine = slots[offsets[u] : offsets[u + 1]]
        held = gather(q, mine)
        held[:, len(mine)] = p[u]
        w = np.empty(held.shape[1])
        for c in range(len(items)):
            meet(q[items[c]], held, w)
            base[u, c] = w[len(mine)]
            read[u, c] = attend(w[: len(mine)], beta)
        weight = 1.0
        for k in range(len(mine) - 1 if len(indptr) else -1, -1, -1):
            for n in range(indptr[mine[k]], indptr[mine[k] + 1]):
                c = place[indices[n]]
                if c >= 0:
                    counted[u, c] += weight * weights[n]
            weight *= decay
        for c in range(len(items) if len(indptr) else 0):
            counted[u, c] = mixture[0] * np.log1p(mixture[1] * counted[u, c])
    return base, read, counted


@njit(cache=True)
def learned(q: Any, held: Any, slots: int, alpha: float, beta: float, w: Any) -> Any:
    """p* . q + alpha READ of an item's q (D,), for what `gather` gives of so many slots with p*
    after them."""
    meet(q, held, w)
    base = w[slots]
    return base + alpha * attend(w[:slots], beta)


@njit(cache=True)
def gather(q: Any, slots: Any) -> Any:
    """A user's memory as (D, slots), so that sums over d run side by side for all slots, with zeros
    after them: a column for p*, and up to as many as the compiler takes at once."""
    memory = np.zeros((q.shape[1], -(-(len(slots) + 1) // LANES) * LANES))
    for s in range(len(slots)):
        for d in range(q.shape[1]):
            memory[d, s] = q[slots[s], d]
    return memory


@njit(cache=True)
def meet(q: Any, held: Any, w: Any) -> None:
    """w_k = q . q_k of an item's q (D,) and what `gather` gives, each sum in the order of d."""
    w[:] = 0.0
    for d in range(len(q)):
        for s in range(len(w)):
            w[s] += q[d] * held[d, s]


@njit(cache=True, parallel=True)
def attention(z: Any, items: Any, q: Any, memory: Any, beta: float) -> None:
    """z (U, N, K), zeros, of the items of each list over its user's slots, oldest first."""
    slots, offsets = memory
    for u in prange(items.shape[0]):
        mine = slots[offsets[u] : offsets[u + 1]]
        held = gather(q, mine)
        w = np.empty(held.shape[1])
        for n in range(items.shape[1]):
            meet(q[items[u, n]], held, w)
            attend(w[: len(mine)], beta)
            z[u, n, : len(mine)] = w[: len(mine)]


@njit(cache=True, parallel=True)
def largest(z: Any, memory: Any, most: int) -> Any:
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
