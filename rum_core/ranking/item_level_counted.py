"""Item-level lists that what is counted decides, with no look at the other items.

The learned part of a score, p* . q_i + alpha READ + b_i, lies within r |q_i| of b_i, r = |p*| +
alpha max_k |q_k|: a READ is a mean of products q_k . q_i. Where w log(1 + c s) of a customer's best
N lifts them above all that this allows an item without any count, only items that follow
his purchases are looked at, and the few of which it allows most; of these only the ones that may
still come in are scored, by the operations of `item_level_kernels.exact`. So the cost is that of
his counts and not of the catalogue. Customers of whom this cannot be said are left to the first
pass.
"""

import math
from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.ranking.block import Block
from rum_core.ranking.counted import Counted
from rum_core.ranking.item_level_kernels import gather, learned
from rum_core.ranking.select import contains, insert, replace_least

FIRST = 3  # beyond N, those of the largest s, that are scored before it is known what else has to
LONG = 64  # items of the largest reach, which are looked at whether or not they are counted
EXACT = 64  # rough scores that cost as much as an exact one
ASKED = 64  # users of whom half must be decided, for the others to be asked as well
AT_ONCE = 1024  # users that one thread takes


def of_counts(
    counted: Counted | None,
    memory: tuple[Any, ...],
    norms: np.ndarray,
    bias: np.ndarray,
    block: Block,
    tie_rank: np.ndarray,
    top_n: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists (U, N) int32, their scores (U, N) float32, and whose (U,) bool are decided: those of
    the others hold nothing to go by.

    counted: None where nothing is; memory: slots, offsets, p* and q in float64, alpha, beta;
    norms, bias: |q_i| and b_i (I,).
    """
    users = len(block)
    items = np.full((users, top_n), -1, np.int32)
    scores = np.full((users, top_n), -np.inf, np.float32)
    sure = np.zeros(users, dtype=bool)
    if counted is None:
        return items, scores, sure
    w, c = counted.mixture
    if w <= 0 or c <= 0 or counted.rows[2].min(initial=np.inf) < 0:
        return items, scores, sure
    able = np.zeros(len(norms), dtype=bool)
    able[block.candidates] = True
    reach = bias + (1 + memory[4]) * norms.mean() * norms  # of a customer like many
    by_reach = block.candidates[np.argsort(-reach[block.candidates], kind="stable")]
    most_of_others = _longest(norms, bias, by_reach[LONG:])
    largest = (norms[block.candidates].max(), np.abs(bias[block.candidates]).max())
    tables = (norms, bias, able, by_reach[:LONG], *most_of_others, largest, tie_rank)
    seen = (block.seen, block.seen_offsets)
    counts = (counted.rows, counted.decay, counted.mixture)
    most = max(len(block.candidates) // EXACT, top_n + FIRST)
    asked = np.unique(np.linspace(0, users - 1, min(users, ASKED)).astype(np.int64))
    others = np.setdiff1d(np.arange(users), asked, assume_unique=True)
    for some in (asked, others):
        _decide(some, memory, *counts, tables, seen, most, items, scores, sure)
        if 2 * sure[asked].sum() < len(asked):
            sure[:] = False
            break
    return items, scores, sure


def _longest(
    norms: np.ndarray, bias: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """|q_i| and b_i of the items that no other one exceeds in both: b + r |q| is largest, for any
    r >= 0, at one of them."""
    order = items[np.lexsort((-bias[items], -norms[items]))]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(bias[order])[:-1]])
    front = order[bias[order] > before]
    return norms[front], bias[front]


@njit(cache=True, parallel=True, error_model="numpy")
def _decide(
    users: Any,
    memory: Any,
    rows: Any,
    decay: float,
    mixture: Any,
    tables: Any,
    barred: Any,
    most: int,
    lists: Any,
    list_scores: Any,
    sure: Any,
) -> None:
    """Fill the lists of these users (n,) that are decided by at most `most` exact scores."""
    slots, offsets, p, q, alpha, beta = memory
    w, c = mixture
    norms, bias, able, long_items, front_norms, front_bias, largest, tie_rank = tables
    seen, seen_offsets = barred
    N = lists.shape[1]
    for part in prange(-(-len(users) // AT_ONCE)):
        sums, items, s = np.full(len(q), -1.0), np.empty(len(q) + 1, np.int32), np.empty(len(q))
        first_s, first_at = np.empty(N + FIRST), np.empty(N + FIRST, np.int32)
        for n in range(part * AT_ONCE, min((part + 1) * AT_ONCE, len(users))):
            u = users[n]
            mine = slots[offsets[u] : offsets[u + 1]]
            start, stop = seen_offsets[u], seen_offsets[u + 1]
            found = _sum_up(mine, rows, decay, long_items, sums, items, s)
            first_s[:], first_at[:] = 0.0, -1
            for at in range(found):
                if s[at] <= first_s[0] or not able[items[at]]:
                    continue
                if not contains(seen, start, stop, items[at]):
                    replace_least(first_s, first_at, s[at], at)
            held = gather(q, mine)
            held[:, len(mine)] = p[u]
            z = np.empty(held.shape[1])
            mine_list, scores = lists[u], list_scores[u]
            for at in first_at:
                if at >= 0:
                    i = items[at]
                    of_counts = w * np.log1p(c * s[at])
                    score = learned(q[i], held, len(mine), alpha, beta, z) + bias[i]
                    insert(mine_list, scores, i, np.float32(score + of_counts), tie_rank)
                    s[at] = -1.0
            radius = _radius(p[u], mine, norms, alpha)
            highest, least = -np.inf, scores[N - 1]
            for f in range(len(front_norms)):
                highest = max(highest, front_bias[f] + radius * front_norms[f])
            # what roundings may come to: those of float64 are far less, one to float32 is 2^-24
            room = 2.0**-20 * (radius * largest[0] + largest[1] + abs(least))
            if not highest + room < least:  # a list that is not full has -inf
                continue
            # below it even the highest learned part of the others is too little
            enough = math.expm1((least - room - highest) / w) / c
            left = most
            for at in range(found):
                if s[at] < enough and (at >= len(long_items) or s[at] < 0.0):
                    continue
                i = items[at]
                of_counts = w * np.log1p(c * s[at])
                reached = of_counts + bias[i] + radius * norms[i] + room
                if reached < scores[N - 1] or not able[i] or contains(seen, start, stop, i):
                    continue
                left -= 1
                if left < 0:
                    break
                score = learned(q[i], held, len(mine), alpha, beta, z) + bias[i]
                insert(mine_list, scores, i, np.float32(score + of_counts), tie_rank)
            sure[u] = left >= 0


@njit(cache=True)
def _sum_up(mine: Any, rows: Any, decay: float, some: Any, sums: Any, items: Any, s: Any) -> int:
    """How many items are some given ones or follow a memory (S,), oldest slot first: these, the
    given ones first, and s of each as `counted_sum` gives it. sums (I,): -1 before and after."""
    indptr, indices, weights = rows
    found, weight = len(some), 1.0
    for n in range(len(some)):
        items[n] = some[n]
        sums[some[n]] = 0.0
    for k in range(len(mine) - 1, -1, -1):
        for n in range(indptr[mine[k]], indptr[mine[k] + 1]):
            before = sums[indices[n]]
            items[found] = indices[n]  # without a branch that nobody can foresee
            found += before < 0.0
            sums[indices[n]] = max(before, 0.0) + weight * weights[n]
        weight *= decay
    for at in range(found):
        s[at] = sums[items[at]]
        sums[items[at]] = -1.0
    return found


@njit(cache=True)
def _radius(p: Any, mine: Any, norms: Any, alpha: float) -> float:
    """r of a user."""
    square, longest = 0.0, 0.0
    for d in range(len(p)):
        square += p[d] * p[d]
    for k in range(len(mine)):
        longest = max(longest, norms[mine[k]])
    return math.sqrt(square) + alpha * longest
