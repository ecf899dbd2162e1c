"""Products with a matrix that do not depend on how many rows there are, as those of a BLAS do."""

from typing import Any

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True)
def affine(x: Any, weight: Any, bias: Any) -> Any:
    """x (N, D) -> weight x + bias (N, O) float64, each sum in the order of d."""
    columns = np.ascontiguousarray(weight.T)  # (D, O)
    out = np.empty((x.shape[0], weight.shape[0]))
    for n in prange(x.shape[0]):
        out[n] = bias
        for d in range(x.shape[1]):
            for o in range(weight.shape[0]):
                out[n, o] += x[n, d] * columns[d, o]
    return out


def times(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x (..., D) @ weight.T (..., O), each sum in the order of d."""
    flat = affine(x.reshape(-1, x.shape[-1]), weight, np.zeros(len(weight)))
    return np.asarray(flat.reshape(*x.shape[:-1], len(weight)))
