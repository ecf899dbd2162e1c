"""Items by the items they were bought with: cosine item-kNN, and a directed one.

Both give `weights` (I, I): row i says how much a purchase of i speaks for each item j. A user's
score of j is the sum over his purchases, each weighted by decay^age (ranking/neighbours.py).
"""

import numpy as np
from scipy import sparse

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.models.item_weights import Tensors, as_tensors, bought
from rum_core.settings import Settings


def fit_cosine(histories: Histories, catalog: Catalog, settings: Settings) -> Tensors:
    """|U_i and U_j| / (sqrt(|U_i| |U_j|) + shrink) of the users U_i who bought i."""
    X = bought(histories, len(catalog))
    common = (X.T @ X).tocoo()
    users = np.asarray(X.sum(axis=0)).ravel()
    off = common.row != common.col
    i, j, n = common.row[off], common.col[off], common.data[off]
    cosine = n / (np.sqrt(users[i] * users[j]) + settings.model.shrink)
    return as_tensors(i, j, cosine, catalog, settings.model.neighbours)


def fit_directed(histories: Histories, catalog: Catalog, settings: Settings) -> Tensors:
    """How often j came after i, at most `gap` purchases later, / (n_i n_j)^popularity_power.

    Directed: what follows what. n_i purchases of i.
    """
    items, model = histories.items, settings.model
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    first, second = [], []
    for gap in range(1, min(model.gap, len(items) - 1) + 1):
        same = (owner[gap:] == owner[:-gap]) & (items[gap:] != items[:-gap])
        first.append(items[:-gap][same])
        second.append(items[gap:][same])
    i, j = (np.concatenate([np.zeros(0, items.dtype), *each]) for each in (first, second))
    shape = (len(catalog), len(catalog))
    pairs = sparse.coo_array((np.ones(len(i)), (i, j)), shape=shape)
    pairs.sum_duplicates()
    n = np.bincount(items, minlength=len(catalog)).astype(np.float64)
    i, j = pairs.coords
    weights = pairs.data / (n[i] * n[j]) ** model.popularity_power
    return as_tensors(i, j, weights, catalog, model.neighbours)
