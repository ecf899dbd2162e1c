"""MERGE, eq 3: the intrinsic embedding p* and what was READ, r = alpha sum_k z_k m_k, become p_u.

The paper adds them and says that it tried others. Each of these is a part of p* alone and one that
is linear in r, p_u = own(p*) + carried(p*, r), so that p_u . q_i is own . q_i + alpha sum_k z_ik
carried(m_k) . q_i: no candidate needs a vector of its own. Functions take p* and r (..., D) and the
model's tensors, torch's or numpy's. All start near the sum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Merge:
    """p_u = own(p*) + carried(p*, r)."""

    own: Callable[[Any, Tensors], Any]
    carried: Callable[[Any, Any, Tensors], Any]  # linear in its second

    def __call__(self, p: Any, r: Any, tensors: Tensors) -> Any:
        return self.own(p, tensors) + self.carried(p, r, tensors)


def alone(p: Any, tensors: Tensors) -> Any:
    """p*."""
    return p


def added(p: Any, r: Any, tensors: Tensors) -> Any:
    """p* + r, the paper's."""
    return r


def multiplied(p: Any, r: Any, tensors: Tensors) -> Any:
    """Element by element (1 + p*) (1 + r) - 1. Without the ones a first purchase, a new customer
    and small first values would give nothing."""
    return (1.0 + p) * r


def left_half(p: Any, tensors: Tensors) -> Any:
    """[p*, r] by a learned `merge` (D, 2 D), for q_i has D dimensions; at first [1, 1]."""
    return p @ tensors["merge"][:, : p.shape[-1]].T


def right_half(p: Any, r: Any, tensors: Tensors) -> Any:
    """The other half of it."""
    return r @ tensors["merge"][:, p.shape[-1] :].T


MERGES: dict[str, Merge] = {
    "add": Merge(alone, added),
    "product": Merge(alone, multiplied),
    "concat": Merge(left_half, right_half),
}
