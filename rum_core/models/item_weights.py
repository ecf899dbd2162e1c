"""What the item-to-item models share: who bought what, and their weights as they are stored.

Stored are CSR tensors `indptr` (I + 1,) int64, `indices` int32 and `weights` float32 of row i, a
purchase, and `item_bias` (I,), a last resort: items that nothing speaks for go by popularity.
"""

import numpy as np
from scipy import sparse

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories

LAST_RESORT = 1e-6  # the score of an item with all purchases and no neighbour

Tensors = dict[str, np.ndarray]


def bought(histories: Histories, items: int) -> sparse.csr_array:
    """X (U, I) float64: 1 where a user bought an item, however often."""
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    X = sparse.csr_array(
        (np.ones(len(owner)), (owner, histories.items)), shape=(len(histories), items)
    )
    X.data[:] = 1.0  # the constructor summed repeats
    return X


def by_item(tensors: Tensors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`indptr`, `indices` and `weights` with each row in the order of its items."""
    indptr, indices, weights = (tensors[name] for name in ("indptr", "indices", "weights"))
    size = len(indptr) - 1
    rows = sparse.csr_array((weights, indices, indptr), shape=(size, size))
    if rows.has_sorted_indices:
        return indptr, indices, weights
    rows = rows.sorted_indices()
    return indptr, rows.indices.astype(indices.dtype), rows.data


def as_tensors(
    i: np.ndarray, j: np.ndarray, weights: np.ndarray, catalog: Catalog, neighbours: int
) -> Tensors:
    """The `neighbours` weights of each row i with the largest size; equal ones by the tie rank.

    `catalog` counts the purchases that the model may know.
    """
    order = np.lexsort((catalog.tie_rank[j], -np.abs(weights), i))
    i, j, weights = i[order], j[order], weights[order]
    indptr = np.searchsorted(i, np.arange(len(catalog) + 1))
    kept = (np.arange(len(i)) - indptr[i] < neighbours) & (weights != 0)
    return as_sorted_tensors(i[kept], j[kept], weights[kept], catalog)


def as_sorted_tensors(
    i: np.ndarray, j: np.ndarray, weights: np.ndarray, catalog: Catalog
) -> Tensors:
    """`as_tensors` of weights that are in its order, none of them 0 and no row too long."""
    share = catalog.purchases / max(1, catalog.purchases.sum())
    return {
        "indptr": np.searchsorted(i, np.arange(len(catalog) + 1)).astype(np.int64),
        "indices": j.astype(np.int32),
        "weights": weights.astype(np.float32),
        "item_bias": (LAST_RESORT * share).astype(np.float32),
    }
