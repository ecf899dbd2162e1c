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
Times = Callable[[Any, Any], Any]  # x (..., D) @ W.T (..., O)


def by_matmul(x: Any, W: Any) -> Any:
    """As fast as may be: the last bits may depend on how many rows there are."""
    return x @ W.T


@dataclass(frozen=True)
class Merge:
    """p_u = own(p*) + carried(p*, r)."""

    own: Callable[[Any, Tensors, Times], Any]
    carried: Callable[[Any, Any, Tensors, Times], Any]  # linear in its second
    learned: tuple[str, ...] = ()  # the tensors that it takes

    def __call__(self, p: Any, r: Any, tensors: Tensors) -> Any:
        return self.own(p, tensors, by_matmul) + self.carried(p, r, tensors, by_matmul)


def _whole(p: Any, tensors: Tensors, times: Times) -> Any:
    """p*."""
    return p


def _added(p: Any, r: Any, tensors: Tensors, times: Times) -> Any:
    """r."""
    return r


def _multiplied(p: Any, r: Any, tensors: Tensors, times: Times) -> Any:
    """(1 + p*) r, element by element."""
    return (1.0 + p) * r


def _left(p: Any, tensors: Tensors, times: Times) -> Any:
    """p* by the left half of `merge` (D, 2 D)."""
    return times(p, tensors["merge"][:, : p.shape[-1]])


def _right(p: Any, r: Any, tensors: Tensors, times: Times) -> Any:
    """r by its right half."""
    return times(r, tensors["merge"][:, p.shape[-1] :])


MERGES: dict[str, Merge] = {
    # p* + r, the paper's
    "add": Merge(_whole, _added),
    # (1 + p*) (1 + r) - 1: without the ones a first purchase, a new customer and small first values
    # would give nothing
    "product": Merge(_whole, _multiplied),
    # [p*, r] by a learned matrix, for q_i has D dimensions; at first [1, 1]
    "concat": Merge(_left, _right, ("merge",)),
}
