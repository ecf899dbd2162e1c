"""The counted part of a READ: w log(1 + c s_ui), s_ui = sum_k decay^age c_ki over a user's memory.

Most items get nothing from it, so a block holds it sparsely: user u's are at[start[u] : stop[u]],
items ascending, in float64 and summed from the newest slot on. U users, S slots.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from rum_core.models.item_weights import by_item
from rum_core.ranking.bias import boost_of
from rum_core.ranking.select import value_of
from rum_core.store.checkpoint import SavedModel

RUN = 64  # users that a thread takes at a time


class Sums(NamedTuple):
    """Of every user of a block: which items his memory speaks for, and w log(1 + c s)."""

    start: np.ndarray  # (U,) int64
    stop: np.ndarray  # (U,) int64
    items: np.ndarray  # int32
    values: np.ndarray  # float64


class Counted:
    """A model's transitions c, rows sorted by item, and how they are mixed in."""

    def __init__(self, model: SavedModel) -> None:
        names = ("indptr", "indices", "weights")
        t = {name: model.tensors[f"transitions.{name}"] for name in names}
        indptr, indices, weights = by_item(t)
        self.rows = (indptr, indices, weights.astype(np.float64))
        self.mixture = tuple(float(value) for value in model.tensors["mixture"])  # w, c
        self.decay = float(model.config["decay"])
        self.boost = boost_of(model)  # (I,)

    def sums(self, slots: np.ndarray, offsets: np.ndarray) -> Sums:
        """Of the memories slots[offsets[u] : offsets[u + 1]], oldest first."""
        lengths = np.diff(self.rows[0])[slots]
        start = np.concatenate([[0], np.cumsum(lengths)])[offsets]
        return Sums(*_sums(slots, offsets, start, self.rows, self.decay, self.mixture))

    def blend(
        self,
        z: np.ndarray,
        items: np.ndarray,
        scores: np.ndarray,
        memory: tuple[np.ndarray, np.ndarray],
        sums: Sums,
    ) -> None:
        """Turn attention z (U, N, K) of lists into (1 - l) z + l c / sum c, in place.

        l = v / (v + |y|) is the share of what was counted, v, in a score y + v, without the shop's
        boost; memory: slots and offsets.
        """
        scores = scores - self.boost[items]
        _blend(z, items, scores, memory, sums, self.rows, self.decay)


def nothing(users: int) -> Sums:
    """Sums of a model without transitions."""
    none = np.zeros(users, np.int64)
    return Sums(none, none, np.zeros(0, np.int32), np.zeros(0))


@njit(cache=True, parallel=True)
def _sums(slots: Any, offsets: Any, start: Any, rows: Any, decay: float, mixture: Any) -> Any:
    indptr, indices, weights = rows
    users = len(offsets) - 1
    stop = start[:-1].copy()
    items = np.empty(start[-1], np.int32)
    values = np.zeros(start[-1])  # gaps stay 0
    for run in prange((users + RUN - 1) // RUN):
        sums = np.zeros(len(indptr) - 1)
        touched = np.zeros(len(indptr) - 1, np.bool_)
        for u in range(run * RUN, min((run + 1) * RUN, users)):
            weight = 1.0
            at = start[u]
            for s in range(offsets[u + 1] - 1, offsets[u] - 1, -1):
                for n in range(indptr[slots[s]], indptr[slots[s] + 1]):
                    i = indices[n]
                    if not touched[i]:
                        touched[i] = True
                        items[at] = i
                        at += 1
                    sums[i] += weight * weights[n]
                weight *= decay
            items[start[u] : at].sort()
            for n in range(start[u], at):
                values[n] = mixture[0] * np.log1p(mixture[1] * sums[items[n]])
                sums[items[n]] = 0.0
                touched[items[n]] = False
            stop[u] = at
    return start[:-1], stop, items, values


@njit(cache=True, parallel=True)
def _blend(
    z: Any, items: Any, scores: Any, memory: Any, sums: Any, rows: Any, decay: float
) -> None:
    slots, offsets = memory
    start, stop, of, values = sums
    indptr, indices, weights = rows
    for u in prange(len(items)):
        mine = slots[offsets[u] : offsets[u + 1]]
        parts = np.empty(len(mine))
        for n in range(items.shape[1]):
            i = items[u, n]
            counted = value_of(of, values, start[u], stop[u], i)
            if counted <= 0.0:
                continue
            share = counted / (counted + abs(scores[u, n] - counted))
            weight, total = 1.0, 0.0
            for s in range(len(mine) - 1, -1, -1):
                first, last = indptr[mine[s]], indptr[mine[s] + 1]
                parts[s] = weight * value_of(indices, weights, first, last, i)
                total += parts[s]
                weight *= decay
            if total > 0.0:
                for s in range(len(mine)):
                    z[u, n, s] = (1.0 - share) * z[u, n, s] + share * parts[s] / total
