"""Cosine item-kNN: items by the items they were bought with (the directed one: transitions.py).

`weights` (I, I): row i says how much a purchase of i speaks for each item j. A user's score of j is
the sum over his purchases, each weighted by decay^age (ranking/neighbours.py).
"""

import numpy as np

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
