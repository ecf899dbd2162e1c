"""Dropout that is the same whoever computes it: the mask is a hash of the step and of the place.

A mask drawn from a generator would depend on how users are spread over workers. This one depends
on the step's key, a layer, an item, its position and a dimension alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_ODD = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB)
_BITS = 24  # of the uniform numbers


@dataclass(frozen=True)
class Noise:
    """Of one step. rate: share of entries that are dropped, the others grow to make up for it."""

    key: int = 0
    rate: float = 0.0

    def drop(self, x: Tensor, tokens: Tensor, layer: int) -> Tensor:
        """x (B, L, D) of purchases `tokens` (B, L), with this layer's own mask."""
        if not self.rate:
            return x
        device = x.device
        place = torch.arange(tokens.shape[1], device=device)
        seed = _mix(torch.tensor(self.key + layer, device=device))
        at = _mix(_mix(tokens * _ODD[0] + seed) + place * _ODD[1])  # (B, L)
        entry = _mix(at[..., None] + torch.arange(x.shape[-1], device=device) * _ODD[2])
        uniform = entry & (2**_BITS - 1)
        kept = (uniform >= self.rate * 2**_BITS).to(x.dtype)
        dropped: Tensor = x * kept / (1 - self.rate)
        return dropped


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64, up to the sign of its shifts: every bit depends on every bit."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _ODD[1]
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _ODD[2]
    return x ^ (x >> 31 & (1 << 33) - 1)
