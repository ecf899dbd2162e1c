"""Counted transitions: what was bought after what, by how many purchases later.

A pair (i, j) of one customer, j bought `gap` purchases after i, weighs gap_decay^(gap - 1); the
other way round, i after j, it weighs that times `backward`. The weight of i for j is the sum over
customers / (n_i^from_power n_j^to_power), with n_i the purchases of i.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models.item_weights import Tensors, as_tensors
from rum_core.settings import Model, Settings


class Pairs(NamedTuple):
    """Pairs of purchases of one customer, one entry each."""

    owner: np.ndarray  # (N,) int64 position of the customer
    i: np.ndarray  # (N,) the item that speaks
    j: np.ndarray  # (N,) the item that it speaks for
    weight: np.ndarray  # (N,) float64


def pairs_of(items: np.ndarray, owner: np.ndarray, model: Model) -> Pairs:
    """All pairs of histories laid end to end: items (L,) and whose they are, owner (L,)."""
    owners, first, second, weights = [], [], [], []
    for gap in range(1, min(model.gap, len(items) - 1) + 1):
        same = (owner[gap:] == owner[:-gap]) & (items[gap:] != items[:-gap])
        i, j, whose = items[:-gap][same], items[gap:][same], owner[gap:][same]
        for one, other, share in ((i, j, 1.0), (j, i, model.backward)):
            if share:
                owners.append(whose)
                first.append(one)
                second.append(other)
                weights.append(np.full(len(one), share * model.gap_decay ** (gap - 1)))
    none = np.zeros(0, items.dtype)
    return Pairs(
        np.concatenate([np.zeros(0, np.int64), *owners]),
        np.concatenate([none, *first]),
        np.concatenate([none, *second]),
        np.concatenate([np.zeros(0), *weights]),
    )


def counted(histories: Histories, items: int, model: Model) -> sparse.csr_array:
    """Sums of pairs (I, I) float64 over all customers, row i what follows i."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    pairs = pairs_of(histories.items, owner, model)
    return sparse.csr_array((pairs.weight, (pairs.i, pairs.j)), shape=(items, items))


def weights_of(histories: Histories, catalog: Catalog, model: Model) -> Tensors:
    """The weights as stored, of the purchases that `catalog` counts."""
    sums = counted(histories, len(catalog), model).tocoo()
    n = np.bincount(histories.items, minlength=len(catalog)).astype(np.float64)
    i, j = sums.coords
    weights = sums.data / (n[i] ** model.from_power * n[j] ** model.to_power)
    return as_tensors(i, j, weights, catalog, model.neighbours)


def tensors_of(histories: Histories, catalog: Catalog, model: Model) -> Tensors:
    """The weights under the names that RUM stores them by."""
    weights = weights_of(histories, catalog, model)
    return {f"transitions.{name}": weights[name] for name in ("indptr", "indices", "weights")}


def fit(histories: Histories, catalog: Catalog, settings: Settings) -> Tensors:
    """seqknn: the transitions alone."""
    return weights_of(histories, catalog, settings.model)
