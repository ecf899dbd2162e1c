"""Exact top-N in two passes: a float32 pass keeps a few candidates a user, a float64 pass decides.

The score of an item is its float64 value rounded to float32; lists go by (-score, tie rank). What
the first pass leaves out scores no more than its floor and `bound`; where that could change a list,
more candidates are kept, and where that is not enough either, the user's whole catalogue is scored
in float64. So a list never depends on batches, tiles or threads, ties included.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numba import njit, prange, uint64

from rum_core.ranking.block import Block

if TYPE_CHECKING:
    from rum_core.ranking.card import Products

MARGIN = 11  # candidates kept beyond N
DEEPER = 128  # where those were not enough
AHEAD = 2  # beyond N that are scored exactly before it is known what else has to be
SHORT = 64  # N up to which a list is filled item by item
WIDE = 2_000_000  # (user, item) pairs scored at once in float64
MOST = 256  # kept candidates a user, at most, where a GPU ranks: it holds them in registers
STEP = 16
FEW = 32  # ascending numbers that are looked through one by one
RUN = 1024  # users of a product at once
ROUNDING = 2.0**-24  # unit roundoff of float32
LARGEST = 1e30  # products above it could overflow in float32: everything is scored in float64


# items (U, most) int32, -1 where there are no more; rough scores (U, most) float32; bound (U,)
Kept = tuple[np.ndarray, np.ndarray, np.ndarray]


class Level(Protocol):
    """A way to score one block: roughly for all candidates, exactly for some."""

    def keep(self, most: int) -> Kept:
        """The best by rough score, whose least no other candidate's exceeds, and how far a score
        may be above its rough one, infinite where nothing is known."""

    def exact(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Scores (n, m) float64 of items (n, m) for users (n,) of the block; any for item -1."""

    def take(self, users: np.ndarray) -> "Level":
        """Of the users at these positions alone."""


def exact_top(
    level: Level, block: Block, tie_rank: np.ndarray, top_n: int, margin: int = MARGIN
) -> tuple[np.ndarray, np.ndarray]:
    """Lists (U, N) int32 and their scores (U, N) float32; -1 and -inf at the end of the list of a
    user who has fewer candidates."""
    kept, rough, bound = level.keep(top_n + margin)
    users, floor = np.arange(len(block)), rough.min(axis=1)
    kept, scores = _decided(level, kept, rough, bound, top_n)
    items, scores = best(kept, scores, tie_rank, top_n)
    known = np.isfinite(bound)
    with np.errstate(invalid="ignore"):
        doubtful = ~known | (_rounded(floor + bound) >= scores[:, -1])
    doubtful |= items[:, -1] < 0
    again = users[doubtful & known] if margin < DEEPER else users[:0]
    if len(again):
        found = exact_top(level.take(again), block.take(again), tie_rank, top_n, DEEPER)
        items[again], scores[again] = found
        doubtful[again] = False
    wide = users[doubtful]
    at_once = max(1, WIDE // len(block.candidates))
    for start in range(0, len(wide), at_once):
        some = wide[start : start + at_once]
        every = np.broadcast_to(block.candidates, (len(some), len(block.candidates)))
        items[some], scores[some] = top_of_all(
            level.exact(some, every), block.take(some), tie_rank, top_n
        )
    return items, scores


def top_of_all(
    scores: np.ndarray, block: Block, tie_rank: np.ndarray, top_n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lists (U, N) and their scores (U, N), as `exact_top` gives them, by scores (U, C) float64 of
    all candidates."""
    found = np.full((len(block), top_n), -1, np.int32)
    values = np.full((len(block), top_n), -np.inf, np.float32)
    if top_n <= SHORT:
        barred = (block.seen, block.seen_offsets)
        _insert_all(_rounded(scores), block.candidates, *barred, tie_rank, found, values)
        return found, values
    for user, row in enumerate(_rounded(scores)):
        seen = block.seen[block.seen_offsets[user] : block.seen_offsets[user + 1]]
        free = ~np.isin(block.candidates, seen, assume_unique=True)
        chosen, best_values = _top(block.candidates[free], row[free], tie_rank, top_n)
        found[user, : len(chosen)], values[user, : len(chosen)] = chosen, best_values
    return found, values


def _decided(
    level: Level, kept: np.ndarray, rough: np.ndarray, bound: np.ndarray, top_n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Those kept (U, most), the best by rough score first, and their scores, -inf where they are
    not among the best N for sure: these are not scored in float64."""
    order = np.argsort(-rough, axis=1)
    kept, rough = (np.take_along_axis(array, order, axis=1) for array in (kept, rough))
    users, ahead = np.arange(len(kept)), min(top_n + AHEAD, kept.shape[1])
    scores = np.full(kept.shape, -np.inf, np.float32)
    scores[:, :ahead] = _rounded(level.exact(users, np.ascontiguousarray(kept[:, :ahead])))
    scores[kept < 0] = -np.inf
    nth = np.partition(scores[:, :ahead], -top_n, axis=1)[:, -top_n]
    with np.errstate(invalid="ignore"):
        may = _rounded(rough + bound[:, None])[:, ahead:] >= nth[:, None]
    rest = np.where(may | ~np.isfinite(bound)[:, None], kept[:, ahead:], -1)
    some = np.flatnonzero((rest >= 0).any(axis=1))
    later = _rounded(level.exact(some, rest[some]))
    scores[some, ahead:] = np.where(rest[some] >= 0, later, -np.inf)
    return kept, scores


def nothing_kept(users: int, most: int, bound: np.ndarray) -> Kept:
    """What `Level.keep` says where it could not look at a block with such users: all are doubtful,
    and those of a finite bound are asked for once more without the others."""
    return empty_heaps(users, most)[1], np.full((users, most), np.inf, np.float32), bound


def _top(
    items: np.ndarray, scores: np.ndarray, tie_rank: np.ndarray, top_n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best N of items (C,), all where there are fewer, by scores (C,) float32."""
    last = max(0, len(scores) - top_n)
    nth = np.partition(scores, last)[last] if len(scores) else 0
    enough = np.flatnonzero(scores >= nth)
    chosen, values = best(items[None, enough], scores[None, enough], tie_rank, top_n)
    return chosen[0], values[0]


def best(
    items: np.ndarray, scores: np.ndarray, tie_rank: np.ndarray, top_n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first N of each row of items (U, C) in the order of (-score, tie rank)."""
    ties = np.where(items < 0, len(tie_rank), tie_rank[items])
    order = np.lexsort((ties, -scores), axis=-1)[:, :top_n]
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _rounded(scores: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return scores.astype(np.float32)


def keep_products(
    left: np.ndarray,
    length: np.ndarray,
    norms: np.ndarray,
    bias: np.ndarray,
    columns: Callable[[np.ndarray], np.ndarray],
    tile: int,
    block: Block,
    most: int,
    card: "Products | None",
) -> Kept:
    """`Level.keep` of scores left . v_i + b_i: left (U, W) float32 of these lengths (U,), v_i of
    `norms` (I,), bias (I,); columns: v (W, T) float32 of the items of a tile (T,), which a card
    has in its own way."""
    bound = score_bound(left.shape[1], length, float(norms[block.candidates].max()), bias)
    if not np.isfinite(bound).all():
        return nothing_kept(len(block), most, bound)
    if card is not None and most <= MOST:
        return *card.keep(left, block, most), bound
    scores, items = empty_heaps(len(block), most)
    seen = (block.seen, block.seen_offsets)
    for start in range(0, len(block.candidates), tile):
        some = block.candidates[start : start + tile]
        right = columns(some)
        for first in range(0, len(block), RUN):
            rough = left[first : first + RUN] @ right  # (RUN, T)
            offer_tile(some, rough, bias[some].astype(np.float32), first, *seen, scores, items)
    return items, scores, bound


def score_bound(width: int, length: np.ndarray, norm: float, bias: np.ndarray) -> np.ndarray:
    """How far x . v_i + b_i in float32, of x (U, width) of these lengths (U,) and items no longer
    than `norm`, may be from its float64 value (U,); infinite where it could overflow."""
    largest = length * norm + np.abs(bias).max(initial=0)
    error = (width + 12) * ROUNDING * largest + 1e-30
    return np.where(largest > LARGEST, np.inf, error)


def empty_heaps(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (..., most) float32 and items (..., most) int32 of heaps whose root is the least
    score."""
    return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32)


@njit(cache=True)
def offer(
    scores: Any, items: Any, heap_scores: Any, heap_items: Any, seen: Any, start: int, stop: int
) -> None:
    """Put each of items (T,) that beats the least kept one, and is not in seen[start:stop], into a
    user's heap (most,)."""
    width = len(items)
    for first in range(0, width, STEP):
        last = min(first + STEP, width)
        better = 0
        for t in range(first, last):
            better += scores[t] > heap_scores[0]
        if better:
            for t in range(first, last):
                if scores[t] > heap_scores[0] and not contains(seen, start, stop, items[t]):
                    replace_least(heap_scores, heap_items, scores[t], items[t])


@njit(cache=True, parallel=True)
def offer_tile(
    tile: Any,
    rough: Any,
    bias: Any,
    first: int,
    seen: Any,
    seen_offsets: Any,
    heap_scores: Any,
    heap_items: Any,
) -> None:
    """Offer a tile (T,) to the heaps of users first, first + 1, ...; rough (n, T) is without b."""
    for n in prange(rough.shape[0]):
        u = first + n
        for t in range(len(tile)):
            rough[n, t] += bias[t]
        offer(
            rough[n],
            tile,
            heap_scores[u],
            heap_items[u],
            seen,
            seen_offsets[u],
            seen_offsets[u + 1],
        )


@njit(cache=True)
def contains(values: Any, start: int, stop: int, wanted: int) -> bool:
    """Whether values[start:stop], ascending, hold `wanted`."""
    while stop - start > FEW:
        middle = (start + stop) >> 1
        if values[middle] <= wanted:
            start = middle
        else:
            stop = middle
    found = 0
    for at in range(stop - start):  # by vectors: no branch that nobody can foresee
        found += values[uint64(start) + uint64(at)] == wanted
    return found > 0


@njit(cache=True)
def value_of(items: Any, values: Any, start: int, stop: int, wanted: int) -> float:
    """Of items[start:stop], ascending, the value of the wanted one; 0 where it is not there."""
    at, left = uint64(start), uint64(stop - start)
    while left > uint64(1):  # halved without a branch that nobody can foresee
        half = left >> uint64(1)
        at += half if items[at + half] <= wanted else uint64(0)
        left -= half
    return float(values[at]) if left and items[at] == wanted else 0.0


@njit(cache=True)
def insert(items: Any, scores: Any, item: int, score: Any, tie_rank: Any) -> None:
    """Put an item into a user's list (N,), which is in the order of (-score, tie rank)."""
    at = len(items)
    while at > 0 and (
        items[at - 1] < 0
        or score > scores[at - 1]
        or (score == scores[at - 1] and tie_rank[item] < tie_rank[items[at - 1]])
    ):
        at -= 1
    if at < len(items):
        for later in range(len(items) - 1, at, -1):
            items[later] = items[later - 1]
            scores[later] = scores[later - 1]
        items[at] = item
        scores[at] = score


@njit(cache=True, parallel=True)
def _insert_all(
    scores: Any,
    candidates: Any,
    seen: Any,
    seen_offsets: Any,
    tie_rank: Any,
    lists: Any,
    list_scores: Any,
) -> None:
    """Put the candidates (C,) that a user may get into his list, by scores (U, C)."""
    for u in prange(len(scores)):
        for c in range(len(candidates)):
            if scores[u, c] >= list_scores[u, -1] and not contains(
                seen, seen_offsets[u], seen_offsets[u + 1], candidates[c]
            ):
                insert(lists[u], list_scores[u], candidates[c], scores[u, c], tie_rank)


@njit(cache=True)
def replace_least(scores: Any, items: Any, score: float, item: int) -> None:
    """Put an item in the place of the least of a heap (most,)."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= len(scores):
            break
        if child + 1 < len(scores) and scores[child + 1] < scores[child]:
            child += 1
        if scores[child] >= score:
            break
        scores[at] = scores[child]
        items[at] = items[child]
        at = child
    scores[at] = score
    items[at] = item
