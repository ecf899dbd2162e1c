"""Losses of a purchase against its negatives: scores in, one value a purchase out.

All have one signature: positive (...,), negative (..., C), and which negatives count (..., C) bool.
A loss is summed over purchases, as in eq 5.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rum_core.models.kernels import usable
from rum_core.training.softmax import sampled_softmax

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def bce(positive: Tensor, negative: Tensor, counts: Tensor) -> Tensor:
    """Binary cross-entropy, eq 5: -log s(y_i) - sum_j log(1 - s(y_j))."""
    return -logsigmoid(positive) - torch.where(counts, logsigmoid(-negative), 0.0).sum(dim=-1)


def bpr(positive: Tensor, negative: Tensor, counts: Tensor) -> Tensor:
    """Pairs: -sum_j log s(y_i - y_j)."""
    margin = positive[..., None] - negative
    return -torch.where(counts, logsigmoid(margin), 0.0).sum(dim=-1)


def softmax(positive: Tensor, negative: Tensor, counts: Tensor) -> Tensor:
    """Sampled softmax: -log of the positive's share of exp(y) among itself and the negatives."""
    whole = negative.shape[:-1] == positive.shape  # and not one score for all of a customer's
    alike = counts.shape == negative.shape or counts.shape[-2:-1] == (1,)
    if usable(positive, negative) and whole and alike:
        flat = (t.reshape(-1, t.shape[-1]) for t in (negative, counts))
        return sampled_softmax(positive.flatten(), *flat).view(positive.shape)
    none = torch.finfo(negative.dtype).min / 2  # finite, so that all of them may be left out
    others = torch.logsumexp(negative.masked_fill(~counts, none), dim=-1)
    return torch.logaddexp(positive, others) - positive


LOSSES: dict[str, Loss] = {"bce": bce, "bpr": bpr, "softmax": softmax}
SHARED = frozenset({"softmax"})  # losses whose negatives a whole batch shares
