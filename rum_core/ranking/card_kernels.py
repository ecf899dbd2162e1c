"""Scores and the best of them in one pass on a GPU: scores never leave the chip.

A program ranks BU users: tile after tile of BI candidates is scored and what beats a user's least
kept score takes its place, unless he may not get it. Scores are float32 sums of float32 products.
`select.keep_products` and `item_level.py` say the same for a CPU; `reference.py` is for reading.
U users, C candidates, K slots, D dimensions, taken DP at a time; DP and KEEP are powers of two.
"""

import triton
import triton.language as tl

NOTHING = tl.constexpr(float("-inf"))
LEAST = tl.constexpr(-3.0e38)  # below all exponents; its differences are numbers
LAST = tl.constexpr(2**31 - 1)  # above all items


@triton.jit
def products(
    left, q, z, bias, candidates, seen, seen_offsets, heap_scores, heap_items,
    U, C, K, D, steps,
    DP: tl.constexpr, KEEP: tl.constexpr, BU: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """p . q_i + sum_k z_ik m_k . q_i + b_i of left [p, m_1, ...] (U, D + K D), q (I, D) and z (I,
    K); of no memory where K = 0."""
    users = tl.program_id(0) * BU + tl.arange(0, BU)
    real = users < U
    row = left + users.to(tl.int64) * (D + K * D)
    places = _places(users, KEEP)
    scores, items = _kept(heap_scores, heap_items, places, real)
    first, last = _barred(seen_offsets, users, real)
    for start in range(0, C, BI):
        at = start + tl.arange(0, BI)
        tile = tl.load(candidates + at, mask=at < C, other=0)
        q_tile = q + tile.to(tl.int64) * D
        found = _product(row, real, q_tile, at < C, D, DP, BU, BI)
        for k in range(K):
            z_tile = tl.load(z + tile.to(tl.int64) * K + k, mask=at < C, other=0.0)
            met = _product(row + (k + 1) * D, real, q_tile, at < C, D, DP, BU, BI)
            found += z_tile[None, :] * met
        found += tl.load(bias + tile, mask=at < C, other=0.0)[None, :]
        found = tl.where((at < C)[None, :] & real[:, None], found, NOTHING)
        scores, items = _keep(found, tile, scores, items, seen, first, last, steps, KEEP, BI)
    tl.store(heap_scores + places, scores, mask=real[:, None])
    tl.store(heap_items + places, items, mask=real[:, None])


@triton.jit
def attention(
    p, slots, q, bias, counted, candidates, seen, seen_offsets, heap_scores, heap_items,
    alpha, beta, weight, scale, U, C, K, D, steps,
    COUNTS: tl.constexpr, DP: tl.constexpr, KEEP: tl.constexpr, BU: tl.constexpr,
    BI: tl.constexpr,
):  # fmt: skip
    """p . q_i + alpha sum_k softmax_k(beta w_k) w_k + b_i with w_k = q_i . q of slots (U, K), -1
    where a slot is empty; and weight log(1 + scale s) of counted s (U, C), where COUNTS.

    The softmax is made as its slots come: r and e are sums of w exp(beta w - g) and of
    exp(beta w - g), g the largest exponent so far.
    """
    users = tl.program_id(0) * BU + tl.arange(0, BU)
    real = users < U
    row = p + users.to(tl.int64) * D
    places = _places(users, KEEP)
    scores, items = _kept(heap_scores, heap_items, places, real)
    first, last = _barred(seen_offsets, users, real)
    for start in range(0, C, BI):
        at = start + tl.arange(0, BI)
        tile = tl.load(candidates + at, mask=at < C, other=0)
        q_tile = q + tile.to(tl.int64) * D
        g = tl.full((BU, BI), LEAST, tl.float32)
        e = tl.zeros((BU, BI), tl.float32)
        r = tl.zeros((BU, BI), tl.float32)
        for k in range(K):
            slot = tl.load(slots + users.to(tl.int64) * K + k, mask=real, other=-1)
            held = slot >= 0
            w = _product(q + slot.to(tl.int64) * D, held, q_tile, at < C, D, DP, BU, BI)
            larger = tl.maximum(g, beta * w)
            grown = tl.where(held[:, None], larger, g)
            before = tl.exp(g - grown)
            now = tl.where(held[:, None], tl.exp(beta * w - larger), 0.0)
            e = e * before + now
            r = r * before + now * w
            g = grown
        found = _product(row, real, q_tile, at < C, D, DP, BU, BI)
        found += alpha * (r / tl.where(e > 0.0, e, 1.0))
        found += tl.load(bias + tile, mask=at < C, other=0.0)[None, :]
        if COUNTS:
            known = real[:, None] & (at < C)[None, :]
            s = counted + users[:, None].to(tl.int64) * C + at[None, :]
            found += weight * tl.log(1.0 + scale * tl.load(s, mask=known, other=0.0))
        found = tl.where((at < C)[None, :] & real[:, None], found, NOTHING)
        scores, items = _keep(found, tile, scores, items, seen, first, last, steps, KEEP, BI)
    tl.store(heap_scores + places, scores, mask=real[:, None])
    tl.store(heap_items + places, items, mask=real[:, None])


@triton.jit
def _places(users, KEEP: tl.constexpr):
    """Where the heaps of users (BU,) lie (BU, KEEP)."""
    return users[:, None].to(tl.int64) * KEEP + tl.arange(0, KEEP)[None, :]


@triton.jit
def _kept(heap_scores, heap_items, places, real):
    """Scores and items (BU, KEEP) that are kept so far; who is not real lets nothing in."""
    scores = tl.load(heap_scores + places, mask=real[:, None], other=float("inf"))
    return scores, tl.load(heap_items + places, mask=real[:, None], other=-1)


@triton.jit
def _barred(seen_offsets, users, real):
    """Where the items begin and end (BU,) that users may not get."""
    first = tl.load(seen_offsets + users, mask=real, other=0)
    return first, tl.load(seen_offsets + users + 1, mask=real, other=0)


@triton.jit
def _product(
    rows, real, q_tile, there, D, DP: tl.constexpr, BU: tl.constexpr, BI: tl.constexpr
):  # fmt: skip
    """x . q_i (BU, BI) of x at pointers rows (BU,) and q at q_tile (BI,), zero where they are not
    real or not there. What the chip holds of both does not grow with D."""
    found = tl.zeros((BU, BI), tl.float32)
    for start in range(0, D, DP):
        d = start + tl.arange(0, DP)
        of_x, of_q = real[:, None] & (d < D)[None, :], there[None, :] & (d < D)[:, None]
        x = tl.load(rows[:, None] + d[None, :], mask=of_x, other=0.0)
        y = tl.load(q_tile[None, :] + d[:, None], mask=of_q, other=0.0)
        found += tl.dot(x, y, input_precision="ieee")
    return found


@triton.jit
def _keep(
    found, tile, scores, items, seen, first, last, steps, KEEP: tl.constexpr, BI: tl.constexpr
):  # fmt: skip
    """Put those of `found` (BU, BI) that beat the least of scores (BU, KEEP), and are not among
    seen[first:last] of their user, in its place, the best first."""
    place = tl.arange(0, KEEP)[None, :]
    column = tl.arange(0, BI)[None, :]
    best, least = tl.max(found, axis=1), tl.min(scores, axis=1)
    while tl.max((best > least).to(tl.int32), axis=0) > 0:
        at = tl.argmax(found, axis=1)
        item = tl.sum(tl.where(column == at[:, None], tile[None, :], 0), axis=1)
        low, high = first, last
        for _ in range(steps):  # the first of seen[first:last] that is not below the item
            middle = (low + high) // 2
            below = (low < high) & (tl.load(seen + middle, mask=low < high, other=LAST) < item)
            low, high = tl.where(below, middle + 1, low), tl.where(below, high, middle)
        barred = tl.load(seen + low, mask=low < last, other=-1) == item
        better = (best > least) & ~barred
        put = better[:, None] & (place == tl.argmin(scores, axis=1)[:, None])
        scores = tl.where(put, best[:, None], scores)
        items = tl.where(put, item[:, None], items)
        found = tl.where(column == at[:, None], NOTHING, found)
        best, least = tl.max(found, axis=1), tl.min(scores, axis=1)
    return scores, items
