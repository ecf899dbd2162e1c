"""Item-level lists that what is counted decides, with no look at the other items.

The learned part of a score, p* . q_i + alpha READ + b_i, lies within r |q_i| of b_i, r = |p*| +
|alpha| max_k |q_k|: a READ is a mean of products q_k . q_i. Where w log(1 + c s) of a customer's
best N lifts them above all that this allows an item without any count, only items that follow his
purchases are looked at, and the few of which it allows most; of these only the ones that may still
come in are scored, by the operations of `item_level_kernels.exact`. So the cost is that of his
counts, and hardly of the catalogue. Customers of whom this cannot be said are left to the first
pass.
"""

import math
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange

from rum_core.ranking.block import Block
from rum_core.ranking.counted import Counted
from rum_core.ranking.item_level_kernels import gather, learned
from rum_core.ranking.select import contains, insert, replace_least

MORE = 3  # beyond N, of the largest s, that are scored before it is known what else has to be
FAR = 64  # items of the largest reach, which are looked at whether or not they are counted
BENDS = 64  # of the line that holds the reach of all others, at most
DEEPEST = 256  # N at most: an item's place in a list is found by walking through it
EXACT = 64  # rough scores that cost as much as an exact one
TRIED = 64  # users of whom half must be decided, for the others to be tried as well
AT_ONCE = 1024  # users that one thread takes, at most, and
FEWEST = 64  # at least: each time it needs some room for every item


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
    if counted is None or not counted.adds_up or top_n > DEEPEST:
        return items, scores, sure
    candidates = block.candidates
    able = np.zeros(len(norms), dtype=bool)
    able[candidates] = True
    reach = (bias + (1 + abs(memory[4])) * norms.mean() * norms)[candidates]  # of many a customer
    by_reach = candidates[np.argpartition(-reach, min(FAR, len(reach) - 1))]
    largest = (norms[candidates].max(), np.abs(bias[candidates]).max())
    line = _line(norms[by_reach[FAR:]], bias[by_reach[FAR:]])
    tables = (norms, bias, able, by_reach[:FAR], *line, largest, tie_rank)
    seen = (block.seen, block.seen_offsets)
    counts = (counted.rows, counted.decay, counted.mixture)
    most = max(len(candidates) // EXACT, top_n + MORE)
    tried = np.unique(np.linspace(0, users - 1, min(users, TRIED)).astype(np.int64))
    others = np.setdiff1d(np.arange(users), tried, assume_unique=True)
    for some in (tried, others):
        part = max(1, min(AT_ONCE, max(FEWEST, -(-len(some) // get_num_threads()))))
        _decide(some, part, memory, *counts, tables, seen, most, items, scores, sure)
        if 2 * sure[tried].sum() < len(tried):
            sure[:] = False
            break
    return items, scores, sure


def _line(norms: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some |q| and b of which, for any r >= 0, the largest b + r |q| is that of the items at least:
    of those that no other one exceeds in both, or of groups of them the largest of each."""
    order = np.argsort(-norms, kind="stable")
    norms, bias = norms[order], bias[order]
    front = bias > np.concatenate([[-np.inf], np.maximum.accumulate(bias)[:-1]])
    norms, bias = norms[front], bias[front]  # one falls, the other rises
    starts = np.linspace(0, len(norms), min(BENDS, len(norms)) + 1).astype(np.int64)
    return norms[starts[:-1]], bias[starts[1:] - 1]


@njit(cache=True, parallel=True, error_model="numpy")
def _decide(
    users: Any,
    at_once: int,
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
    norms, bias, able, far, line_norms, line_bias, largest, tie_rank = tables
    seen, seen_offsets = barred
    N = lists.shape[1]
    for part in prange(-(-len(users) // at_once)):
        sums, items, s = np.full(len(q), -1.0), np.empty(len(q) + 1, np.int32), np.empty(len(q))
        first_s, first_at = np.empty(N + MORE), np.empty(N + MORE, np.int32)
        for n in range(part * at_once, min((part + 1) * at_once, len(users))):
            u = users[n]
            mine = slots[offsets[u] : offsets[u + 1]]
            start, stop = seen_offsets[u], seen_offsets[u + 1]
            found = _sum_up(mine, rows, decay, far, sums, items, s)
            first_s[:], first_at[:] = 0.0, -1
            for at in range(found):
                if s[at] <= first_s[0] or not able[items[at]]:
                    continue
                if not contains(seen, start, stop, items[at]):
                    replace_least(first_s, first_at, s[at], at)
            if (first_at >= 0).sum() < N:
                continue
            held = gather(q, mine)
            held[:, len(mine)] = p[u]
            z = np.empty(held.shape[1])
            mine_list, scores = lists[u], list_scores[u]
            for at in first_at:
                if at >= 0:
                    i = items[at]
                    v = w * np.log1p(c * s[at])
                    y = learned(q[i], held, len(mine), alpha, beta, z) + bias[i]
                    insert(mine_list, scores, i, np.float32(y + v), tie_rank)
                    s[at] = -1.0
            radius = _radius(p[u], mine, norms, alpha)
            highest, least = -np.inf, scores[N - 1]
            for f in range(len(line_norms)):
                highest = max(highest, line_bias[f] + radius * line_norms[f])
            # what roundings may come to: those of float64 are far less, one to float32 is 2^-24,
            # or 2^-150 of a number that is too small for that
            room = 2.0**-20 * (radius * largest[0] + largest[1] + abs(least)) + 2.0**-140
            if not highest + room < least:
                continue
            # below it even the highest learned part of the others is too little
            enough = math.expm1((least - room - highest) / w) / c
            left = most
            for at in range(found):
                if s[at] < 0.0 or (s[at] < enough and at >= len(far)):
                    continue
                i = items[at]
                v = w * np.log1p(c * s[at])
                reached = v + bias[i] + radius * norms[i] + room
                if reached < scores[N - 1] or not able[i] or contains(seen, start, stop, i):
                    continue
                left -= 1
                if left < 0:
                    break
                y = learned(q[i], held, len(mine), alpha, beta, z) + bias[i]
                insert(mine_list, scores, i, np.float32(y + v), tie_rank)
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
    return math.sqrt(square) + abs(alpha) * longest
