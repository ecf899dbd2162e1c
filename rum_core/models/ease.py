"""EASE (Steck, 2019): each item as a linear function of the others, in closed form.

B minimises |X - X B|^2 + l2 |B|^2 with a zero diagonal: with P = (X'X + l2)^-1,
B_ij = -P_ij / P_jj. X (U, I) says who bought what. P is dense, so the catalogue is bounded.
"""

import numpy as np
from scipy import linalg, sparse

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.errors import RumError
from rum_core.models.item_weights import Tensors, as_tensors, bought
from rum_core.settings import Settings

MOST_ITEMS = 30_000  # of which P takes 7 GiB


class TooManyItemsError(RumError):
    """The catalogue is too large for a dense matrix of it."""


def fit(histories: Histories, catalog: Catalog, settings: Settings) -> Tensors:
    """Row i of the weights is B_i. Items that nobody bought have none."""
    known = np.unique(histories.items)
    if len(known) > MOST_ITEMS:
        raise TooManyItemsError(
            f"ease inverts a matrix of {len(known)} x {len(known)} items, more than {MOST_ITEMS}: "
            "use model.name = itemknn or seqknn"
        )
    X = bought(histories, len(catalog))[:, known]
    P = precision(X, settings.model.ease_l2)
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0.0)
    i, j = np.nonzero(B)
    if len(i) > len(known) * settings.model.neighbours:
        size = np.abs(B)
        least = np.partition(size, -settings.model.neighbours, axis=1)
        i, j = np.nonzero((size >= least[:, -settings.model.neighbours, None]) & (B != 0))
    return as_tensors(known[i], known[j], B[i, j], catalog, settings.model.neighbours)


def precision(X: sparse.csr_array, l2: float) -> np.ndarray:
    """P = (X'X + l2)^-1 (I, I). Only the shorter side of X is inverted: with fewer users than items
    P = (1 - X' (X X' + l2)^-1 X) / l2 (Woodbury)."""
    users, items = X.shape
    gram = (X.T @ X if items <= users else X @ X.T).toarray()
    gram[np.diag_indices_from(gram)] += l2
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    if items <= users:
        return np.asarray(inverse)
    P = -(X.T @ (X.T @ inverse).T)  # the inverse is symmetric
    P[np.diag_indices_from(P)] += 1.0
    return np.asarray(P / l2)
