"""Numbers of 16 bits: the upper half of a float32's, kept as uint16 where numpy and numba see them.

They halve what a first pass moves, and processors that multiply them do it three times as fast.
"""

from typing import Any

import numpy as np
import torch
from numba import njit

UNIT = 2.0**-8  # unit roundoff
NATIVE = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
FLUSHED = 2.0**-126  # what is below it, the least normal number, may count as zero


@njit(cache=True)
def short(x: Any) -> Any:
    """The bits of the bfloat16 number nearest to a float32 x >= 0."""
    return np.uint16((np.int32(np.float32(x).view(np.int32)) + 0x8000) >> 16)


@njit(cache=True)
def long(bits: Any) -> Any:
    """The float32 of a bfloat16's bits."""
    return np.int32(np.int32(bits) << 16).view(np.float32)


class RoundedProducts:
    """x . y of the rows of one x (U, D) float32 with many y."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = _rounded(x)

    def of(self, first: int, last: int, y: np.ndarray, out: np.ndarray) -> None:
        """Rows first to last times y (D, T) float32 into out (last - first, T) uint16."""
        found = torch.from_numpy(out).view(torch.bfloat16)
        if NATIVE:
            torch.mm(self.x[first:last], _rounded(y), out=found)
        else:
            found.copy_(self.x[first:last] @ _rounded(y))


def lost(x: np.ndarray) -> np.ndarray:
    """Length (n,) float64 of what is taken off the rows of x (n, D) float32 before a product."""
    if not NATIVE:
        return np.zeros(len(x))
    rest = x.astype(np.float64) - _rounded(x).double().numpy()
    return np.asarray(np.sqrt((rest**2).sum(axis=1)))


def product_error(
    x: np.ndarray, lost_x: np.ndarray, y: float, lost_y: float, width: int
) -> np.ndarray:
    """How far a product of `RoundedProducts` may be from x . y (n,), beside the roundings of
    float32, by the lengths of x (n,) and y, of what they lost, and their D: with x' for what is
    left of x, x . y = x' . y' + (x - x') . y + x' . (y - y'), and the product is rounded."""
    left = x + lost_x
    flushed = FLUSHED * width * (1 + left + y + lost_y)
    return np.asarray(lost_x * y + left * lost_y + UNIT * left * (y + lost_y) + flushed)


def _rounded(x: np.ndarray) -> torch.Tensor:
    """In the numbers that the products are made of."""
    whole = torch.from_numpy(np.ascontiguousarray(x))
    return whole.bfloat16() if NATIVE else whole
