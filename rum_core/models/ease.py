"""EASE (Steck, 2019): each item as a linear function of the others, in closed form.

B minimises |X - X B|^2 + l2 |B|^2 with a zero diagonal: with P = (X'X + l2)^-1,
B_ij = -P_ij / P_jj. X (U, I) says who bought what. P is dense, so the catalogue is bounded.
"""

import numpy as np
from scipy import linalg

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.errors import RumError
from rum_core.models.item_weights import Tensors, as_tensors, bought
from rum_core.settings import Settings

MOST_ITEMS = 30_000  # of which P takes 7 GiB


class TooManyItems(RumError):  # noqa: N818
    """The catalogue is too large for a dense matrix of it."""


def fit(histories: Histories, catalog: Catalog, settings: Settings) -> Tensors:
    """Row i of the weights is B_i. Items that nobody bought have none."""
    known = np.unique(histories.items)
    if len(known) > MOST_ITEMS:
        raise TooManyItems(
            f"ease inverts a matrix of {len(known)} x {len(known)} items, more than {MOST_ITEMS}: "
            "use model.name = itemknn or seqknn"
        )
    X = bought(histories, len(catalog))[:, known]
    gram = (X.T @ X).toarray()
    gram[np.diag_indices_from(gram)] += settings.model.ease_l2
    P = linalg.inv(gram, overwrite_a=True, check_finite=False)
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0.0)
    i, j = np.nonzero(B)
    if len(i) > len(known) * settings.model.neighbours:
        size = np.abs(B)
        least = np.partition(size, -settings.model.neighbours, axis=1)
        i, j = np.nonzero((size >= least[:, -settings.model.neighbours, None]) & (B != 0))
    return as_tensors(known[i], known[j], B[i, j], catalog, settings.model.neighbours)
