"""Attention, counts and the best of all scores in one pass on a GPU: what READ adds to a score
never leaves the chip.

A program ranks BU users: tile after tile of BI candidates is scored and what beats a user's least
kept score takes its place, unless he may not get it. Numbers are float32. `select.offer_tile` and
`item_level_kernels.py` say the same for a CPU; `reference.py` is for reading. U users, C
candidates, K slots, R items in the block's memories; BU, BI and KEEP are powers of two.
"""

import triton
import triton.language as tl

NOTHING = tl.constexpr(float("-inf"))
LEAST = tl.constexpr(-3.0e36)  # below all w; and a number still, times any beta (100 at most)
LAST = tl.constexpr(2**31 - 1)  # above all items


@triton.jit(do_not_specialize=["U", "steps"])
def offer(
    base, bias, candidates, slots, slots_offsets, met, fading, counted, seen, seen_offsets,
    heap_scores, heap_items, alpha, beta, weight, scale, U, C, steps,
    READ: tl.constexpr, COUNTS: tl.constexpr, KEEP: tl.constexpr, BU: tl.constexpr,
    BI: tl.constexpr,
):  # fmt: skip
    """base (U, C) + b_i; where READ, + alpha sum_k softmax_k(beta w_k) w_k of w = met (R, C) in the
    rows slots[slots_offsets[u] : slots_offsets[u + 1]]; where COUNTS, + weight log(1 + scale s) of
    s = sum_k fading_k counted_k, of fading beside slots and counted (R, C).

    The softmax is made as its slots come: r and e are sums of w exp(beta (w - g)) and of
    exp(beta (w - g)), g the largest w so far.
    """
    users = tl.program_id(0) * BU + tl.arange(0, BU)
    real = users < U
    places = users[:, None].to(tl.int64) * KEEP + tl.arange(0, KEEP)[None, :]
    # who is not real lets nothing in
    scores = tl.load(heap_scores + places, mask=real[:, None], other=float("inf"))
    items = tl.load(heap_items + places, mask=real[:, None], other=-1)
    first = tl.load(seen_offsets + users, mask=real, other=0)
    last = tl.load(seen_offsets + users + 1, mask=real, other=0)
    if READ:
        oldest = tl.load(slots_offsets + users, mask=real, other=0)
        length = tl.load(slots_offsets + users + 1, mask=real, other=0) - oldest
        K = tl.max(length, axis=0)
    for start in range(0, C, BI):
        at = start + tl.arange(0, BI)
        there = at < C
        known = real[:, None] & there[None, :]
        found = tl.load(base + users[:, None].to(tl.int64) * C + at[None, :], mask=known, other=0.0)
        tile = tl.load(candidates + at, mask=there, other=0)
        found += tl.load(bias + tile, mask=there, other=0.0)[None, :]
        if READ:
            g = tl.full((BU, BI), LEAST, tl.float32)
            e = tl.zeros((BU, BI), tl.float32)
            r = tl.zeros((BU, BI), tl.float32)
            s = tl.zeros((BU, BI), tl.float32)
            for k in range(K):
                held = k < length
                row = tl.load(slots + oldest + k, mask=held, other=0)
                on = held[:, None] & there[None, :]
                place = row[:, None].to(tl.int64) * C + at[None, :]
                w = tl.load(met + place, mask=on, other=0.0)
                above = tl.where(held[:, None], beta * (w - g), NOTHING)
                less = tl.exp(-tl.abs(above))
                before = tl.where(above > 0.0, less, 1.0)
                now = tl.where(above > 0.0, 1.0, less)
                e = e * before + now
                r = r * before + now * w
                g = tl.where(above > 0.0, w, g)
                if COUNTS:
                    c = tl.load(counted + place, mask=on, other=0.0)
                    s += tl.load(fading + oldest + k, mask=held, other=0.0)[:, None] * c
            found += alpha * (r / tl.where(e > 0.0, e, 1.0))
            if COUNTS:
                found += weight * tl.log(1.0 + scale * s)
        found = tl.where(known, found, NOTHING)
        scores, items = _keep(found, tile, scores, items, seen, first, last, steps, KEEP, BI)
    tl.store(heap_scores + places, scores, mask=real[:, None])
    tl.store(heap_items + places, items, mask=real[:, None])


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
