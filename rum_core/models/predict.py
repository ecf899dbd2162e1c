"""PREDICT, eq 4: p_u and an item q_i become a score, before the item's bias.

The paper takes the inner product and says that a network would do. Each function takes p_u and q
(..., D) and the model's tensors, torch's or numpy's.
"""

from collections.abc import Callable, Mapping
from typing import Any

Predict = Callable[[Any, Any, Mapping[str, Any]], Any]


def inner(p: Any, q: Any, tensors: Mapping[str, Any]) -> Any:
    """p_u . q_i, the paper's."""
    return (p * q).sum(-1)


def network(p: Any, q: Any, tensors: Mapping[str, Any]) -> Any:
    """`product` . (p_u * q_i) + `out` . relu(`hidden` [p_u, q_i] + `hidden_bias`).

    One hidden layer of D units beside a weighted inner product. At first `product` is 1 and `out`
    0: it starts as the inner product.
    """
    H, D = tensors["hidden"], p.shape[-1]
    h = p @ H[:, :D].T + q @ H[:, D:].T + tensors["hidden_bias"]
    return (p * q * tensors["product"]).sum(-1) + (h * (h > 0) * tensors["out"]).sum(-1)


PREDICTS: dict[str, Predict] = {"inner": inner, "network": network}
