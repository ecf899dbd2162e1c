"""Counted transitions: what was bought after what, by how many purchases later.

A pair (i, j) of one customer, j bought `gap` purchases after i, weighs gap_decay^(gap - 1); the
other way round, i after j, it weighs that times `backward`. The weight of i for j is the sum over
customers / (n_i^from_power n_j^to_power), with n_i the purchases of i. Rows are counted one by one,
so memory holds no more than the weights that are kept.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models.item_weights import Tensors, as_sorted_tensors, by_item
from rum_core.settings import Model, Settings

RUN = 1024  # items that a thread takes at a time


def weights_of(histories: Histories, catalog: Catalog, model: Model) -> Tensors:
    """The weights as stored, of these purchases; `catalog` counts them for the last resort."""
    n = np.bincount(histories.items, minlength=len(catalog))
    ways = 2 if model.backward else 1
    room = np.minimum(ways * model.gap * n, min(model.neighbours, len(catalog)))
    i, j, weights = _rows(
        histories.items,
        histories.offsets,
        (np.argsort(histories.items, kind="stable"), _starts(n)),
        _starts(room),
        catalog.tie_rank,
        model.gap_decay ** np.arange(model.gap),
        (model.backward, model.from_power, model.to_power),
    )
    kept = weights > 0
    return as_sorted_tensors(i[kept], j[kept], weights[kept], catalog)


def tensors_of(histories: Histories, catalog: Catalog, model: Model) -> Tensors:
    """The weights under the names that RUM stores them by, rows in the order of their items."""
    names = ("indptr", "indices", "weights")
    rows = by_item(weights_of(histories, catalog, model))
    return {f"transitions.{name}": row for name, row in zip(names, rows, strict=True)}


def fit(histories: Histories, catalog: Catalog, settings: Settings) -> Tensors:
    """seqknn: the transitions alone."""
    return weights_of(histories, catalog, settings.model)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@njit(cache=True, parallel=True)
def _rows(
    items: Any, offsets: Any, places: Any, room: Any, tie_rank: Any, decay: Any, powers: Any
) -> Any:
    """Row, item and weight (room[-1],) of the largest weights of each row, the largest first, equal
    ones by the tie rank; weight 0 where there are no more. places: where each item was bought, and
    where the next item's begin."""
    bought_at, first_place = places
    backward, from_power, to_power = powers
    size = len(first_place) - 1
    row, found = np.empty((2, room[-1]), np.int32)
    weights = np.zeros(room[-1])
    for run in prange((size + RUN - 1) // RUN):
        sums = np.zeros(size)
        touched = np.empty(size, np.int32)
        for i in range(run * RUN, min((run + 1) * RUN, size)):
            count = 0
            for n in range(first_place[i], first_place[i + 1]):
                at = bought_at[n]
                owner = np.searchsorted(offsets, at, side="right") - 1
                first = max(offsets[owner], at - len(decay))
                last = min(offsets[owner + 1], at + len(decay) + 1)
                for other in range(first if backward > 0 else at + 1, last):
                    j = items[other]
                    weight = decay[abs(other - at) - 1] * (1.0 if other > at else backward)
                    if j == i or weight == 0.0:
                        continue
                    if sums[j] == 0.0:
                        touched[count] = j
                        count += 1
                    sums[j] += weight
            mine = touched[:count]
            mine = mine[np.argsort(tie_rank[mine])]
            of_mine = np.empty(count)
            for c in range(count):
                j = mine[c]
                n_i, n_j = first_place[i + 1] - first_place[i], first_place[j + 1] - first_place[j]
                of_mine[c] = sums[j] / (n_i**from_power * n_j**to_power)
                sums[j] = 0.0
            best = np.argsort(-of_mine, kind="mergesort")  # the tie rank decides between equals
            for c in range(min(count, room[i + 1] - room[i])):
                row[room[i] + c] = i
                found[room[i] + c] = mine[best[c]]
                weights[room[i] + c] = of_mine[best[c]]
    return row, found, weights
