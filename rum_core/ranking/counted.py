"""The counted part of a READ: w log(1 + c s_ui), s_ui = sum_k decay^age c_ki over a user's memory.

U users, K slots of each, R items in the memories, T candidates a tile. What is exact is in float64
and summed from the newest slot on.
"""

from copy import copy
from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.float32 import OF_LOG
from rum_core.models.item_weights import by_item
from rum_core.ranking.bags import Bags
from rum_core.ranking.bfloat16 import short
from rum_core.ranking.bias import boost_of
from rum_core.ranking.select import LARGEST, ROUNDING, value_of
from rum_core.store.checkpoint import SavedModel

NO_ROWS = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))


class Counted:
    """A model's transitions c, rows sorted by item, and how they are mixed in."""

    def __init__(self, model: SavedModel) -> None:
        names = ("indptr", "indices", "weights")
        indptr, indices, weights = by_item({n: model.tensors[f"transitions.{n}"] for n in names})
        self.rows = (indptr, indices, weights.astype(np.float32, copy=False))
        self.adds_up = _adds_up(*self.rows)
        w, c = model.tensors["mixture"]
        self.mixture = (float(w), float(c))
        self.decay = float(model.config["decay"])
        self.boost = boost_of(model)  # (I,)

    def weighing(self, weight: float) -> "Counted":
        """The same with another weight w."""
        other = copy(self)
        other.mixture = (weight, self.mixture[1])
        return other

    def tiles(
        self, held: np.ndarray, row: np.ndarray, offsets: np.ndarray, candidates: np.ndarray
    ) -> "Tiles":
        """s of memories, tile after tile: slot n holds item held[row[n]]."""
        age = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(len(row)) - 1
        return Tiles(self, held, Bags(row, offsets, self.decay**age), candidates)

    def most(self, slots: int) -> float:
        """The largest v of a memory of so many slots; infinite where s or c s may be too large for
        float32."""
        s = self.rows[2].max(initial=0) * (self.decay ** np.arange(slots)).sum()
        if max(s, self.mixture[1] * s) > LARGEST:
            return np.inf
        return float(self.mixture[0] * np.log1p(self.mixture[1] * s))

    def error(self, slots: int) -> float:
        """How far v may be above that of a first pass in float32, at its worst, which on a CPU
        allows for bfloat16 already (`UP_COUNTS`).

        s is off by slots + 3 roundings at most, 1 + c s by two more, and log adds its own.
        """
        of_s = self.mixture[0] * (slots + 8) * ROUNDING
        return float(of_s + (OF_LOG + 4 * ROUNDING) * self.most(slots))

    def blend(
        self,
        z: np.ndarray,
        items: np.ndarray,
        scores: np.ndarray,
        memory: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Turn attention z (U, N, K) of lists into (1 - l) z + l c / sum c, in place.

        l = v / (v + |y|) is the share of what was counted, v, in a score y + v, without the shop's
        boost; memory: slots and offsets.
        """
        scores = scores - self.boost[items]
        _blend(z, items, scores, memory, self.rows, self.decay, self.mixture)


def _adds_up(indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> bool:
    """Whether s is the sum of all entries, none below 0: no row has an item twice, of which the
    last one would count alone."""
    rises = np.diff(indices) > 0
    rises[indptr[(indptr > 0) & (indptr < len(indices))] - 1] = True
    return bool(rises.all() and (weights >= 0).all())


class Tiles:
    """s of a block's memories in bfloat16, for one tile of its candidates after another."""

    def __init__(
        self, counted: Counted, held: np.ndarray, bags: Bags, candidates: np.ndarray
    ) -> None:
        self.counted, self.held, self.bags, self.candidates = counted, held, bags, candidates
        indptr = counted.rows[0]
        self.next = indptr[held]  # (R,) the first entry of each row that no tile has had yet
        self.place = np.full(len(indptr) - 1, -1, np.int32)  # (I,) of an item among the candidates
        self.place[candidates] = np.arange(len(candidates))

    def table(self, start: int, width: int) -> np.ndarray:
        """c (R, width), as bits of bfloat16, of the candidates from `start` on, which must follow
        those before."""
        table = np.zeros((len(self.held), width), np.uint16)
        tile = self.candidates[start : start + width]
        _spread(self.held, self.next, self.counted.rows, self.place, start, tile[-1], table)
        return table


@njit(cache=True, parallel=True)
def _spread(
    held: Any, next_: Any, rows: Any, place: Any, start: int, last: int, table: Any
) -> None:
    """Write the entries of each held item's row, up to item `last`, into its row of a table."""
    indptr, indices, weights = rows
    for r in prange(len(held)):
        n, stop = next_[r], indptr[held[r] + 1]
        while n < stop and indices[n] <= last:
            t = place[indices[n]] - start
            if t >= 0:
                table[r, t] = short(weights[n])
            n += 1
        next_[r] = n


@njit(cache=True)
def counted_sum(slots: Any, rows: Any, decay: float, i: int) -> float:
    """s of a memory (S,), oldest slot first, for item i."""
    indptr, indices, weights = rows
    weight, s = 1.0, 0.0
    for k in range(len(slots) - 1, -1, -1):
        s += weight * value_of(indices, weights, indptr[slots[k]], indptr[slots[k] + 1], i)
        weight *= decay
    return s


@njit(cache=True, parallel=True)
def _blend(
    z: Any, items: Any, scores: Any, memory: Any, rows: Any, decay: float, mixture: Any
) -> None:
    slots, offsets = memory
    indptr, indices, weights = rows
    for u in prange(len(items)):
        mine = slots[offsets[u] : offsets[u + 1]]
        parts = np.empty(len(mine))
        for n in range(items.shape[1]):
            i = items[u, n]
            weight, total = 1.0, 0.0
            for s in range(len(mine) - 1, -1, -1):
                first, last = indptr[mine[s]], indptr[mine[s] + 1]
                parts[s] = weight * value_of(indices, weights, first, last, i)
                total += parts[s]
                weight *= decay
            counted = mixture[0] * np.log1p(mixture[1] * total)
            if counted <= 0.0:
                continue
            share = counted / (counted + abs(scores[u, n] - counted))
            for s in range(len(mine)):
                z[u, n, s] = (1.0 - share) * z[u, n, s] + share * parts[s] / total
