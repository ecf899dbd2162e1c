"""The sampled softmax of losses.py on a CPU: one pass forward and one back.

N purchases, C negatives, G rows of which negatives count: purchase n has row n // (N / G).
"""

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from rum_core.float32 import exp_float32
from rum_core.models.kernels import FAST


def sampled_softmax(positive: Tensor, negative: Tensor, counts: Tensor) -> Tensor:
    """-log of exp(y_i) / (exp(y_i) + sum_j exp(y_j)) over the negatives j that count: (N,) of
    positive (N,), negative (N, C) and counts (G, C) bool, such as are `kernels.usable`; ValueError
    for other shapes."""
    (N, C), G = negative.shape, len(counts)
    if positive.shape != (N,) or counts.shape != (G, C) or (N and (G == 0 or N % G)):
        raise ValueError(f"{positive.shape}, {negative.shape} and {counts.shape} do not fit")
    loss: Tensor = _SampledSoftmax.apply(positive, negative, counts)  # type: ignore[no-untyped-call]
    return loss


class _SampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positive: Tensor, negative: Tensor, counts: Tensor) -> Tensor:
        positive, negative, counts = (t.contiguous() for t in (positive, negative, counts))
        whole, loss = torch.empty(positive.shape), torch.empty(positive.shape)
        ctx.save_for_backward(positive, negative, counts, whole)
        scores = positive.numpy(), negative.numpy()
        _forward(scores[0], scores[1], counts.numpy(), whole.numpy(), loss.numpy())
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        positive, negative, counts, whole = (t.numpy() for t in ctx.saved_tensors)
        of_positive, of_negative = torch.empty(positive.shape), torch.empty(negative.shape)
        of_loss, found = given.contiguous().numpy(), (of_positive.numpy(), of_negative.numpy())
        _backward(positive, negative, counts, whole, of_loss, found[0], found[1])
        return of_positive, of_negative, None


@njit(cache=True, parallel=True)
def _forward(positive: Any, negative: Any, counts: Any, whole: Any, loss: Any) -> None:
    each = len(positive) // max(1, len(counts))
    for n in prange(len(positive)):
        most = _largest(negative[n], counts[n // each], positive[n])
        others = float(_sum(negative[n], counts[n // each], most))
        ahead = float(most) - float(positive[n])  # of the positive: 0 where none is above it
        above = math.log(others + math.exp(-ahead)) if ahead > 0.0 else math.log1p(others)
        loss[n] = ahead + above + _amiss(negative[n])
        whole[n] = float(most) + above


@njit(cache=True, parallel=True)
def _backward(
    positive: Any,
    negative: Any,
    counts: Any,
    whole: Any,
    given: Any,
    dpositive: Any,
    dnegative: Any,
) -> None:
    each = len(positive) // max(1, len(counts))
    for n in prange(len(positive)):
        dpositive[n] = given[n] * math.expm1(min(0.0, float(positive[n]) - float(whole[n])))
        _shares(negative[n], counts[n // each], whole[n], given[n], dnegative[n])


@njit(cache=True, fastmath={"reassoc"})
def _amiss(negative: Any) -> Any:
    """0, or nan where a number is not finite: the other functions are compiled as if all were."""
    total = np.float32(0.0)
    for c in range(len(negative)):
        total += negative[c] * np.float32(0.0)
    return total


@njit(cache=True, fastmath=FAST)
def _largest(negative: Any, counts: Any, positive: Any) -> Any:
    most = positive
    for c in range(len(negative)):
        most = max(most, negative[c] if counts[c] else positive)
    return most


@njit(cache=True, fastmath=FAST | {"reassoc"})
def _sum(negative: Any, counts: Any, most: Any) -> Any:
    total = np.float32(0.0)
    for c in range(len(negative)):
        total += exp_float32(negative[c] - most) if counts[c] else np.float32(0.0)
    return total


@njit(cache=True, fastmath=FAST)
def _shares(negative: Any, counts: Any, whole: Any, given: Any, out: Any) -> None:
    for c in range(len(negative)):
        share = exp_float32(min(np.float32(0.0), negative[c] - whole))
        out[c] = given * share if counts[c] else np.float32(0.0)
