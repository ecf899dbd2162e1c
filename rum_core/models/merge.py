"""MERGE, eq 3: the intrinsic embedding p* and what was READ, r = alpha sum_k z_k m_k, become p_u.

The paper adds them and says that it tried others. Each function takes p* and r (..., D) and the
model's tensors, torch's or numpy's. All start near the sum.
"""

from collections.abc import Callable, Mapping
from typing import Any

Merge = Callable[[Any, Any, Mapping[str, Any]], Any]


def add(p: Any, r: Any, tensors: Mapping[str, Any]) -> Any:
    """p* + r, the paper's."""
    return p + r


def product(p: Any, r: Any, tensors: Mapping[str, Any]) -> Any:
    """Element by element (1 + p*) (1 + r) - 1. Without the ones a first purchase, a new customer
    and small first values would give nothing."""
    return (1.0 + p) * (1.0 + r) - 1.0


def concat(p: Any, r: Any, tensors: Mapping[str, Any]) -> Any:
    """[p*, r] by a learned `merge` (D, 2 D), for q_i has D dimensions; at first [1, 1]."""
    W, D = tensors["merge"], p.shape[-1]
    return p @ W[:, :D].T + r @ W[:, D:].T


MERGES: dict[str, Merge] = {"add": add, "product": product, "concat": concat}
