"""The user memory of the paper, section 4: READ and WRITE of both levels.

B users, L purchases of each in order, S filled slots, K slots, C candidates, D dimensions. PREDICT
needs of a READ only its product with q_i, sum_k z_ik v_k, so READ gives that; v_k = m_k . q_i, or
what MERGE makes of m_k times q_i (`merge`). `read_item` and `read_feature` are the equations;
`read_shared` is the item-level READ of candidates that a batch shares, at every purchase at once
and without any (L, K, C) array (`windows` is the same on a CPU, where v is w).
"""

import torch
from torch import Tensor

from rum_core.models.windows import SPREAD


def window(length: int, slots: int, device: torch.device | None = None) -> Tensor:
    """Which purchases j are in the item-level memory when purchase t is scored: (L, L) bool [t, j].

    WRITE of the item level keeps the last K: those of t - K <= j < t (section 4.2.2).
    """
    t = torch.arange(length, device=device)
    return (t[None, :] < t[:, None]) & (t[None, :] >= t[:, None] - slots)


def read_item(w: Tensor, v: Tensor, filled: Tensor, beta: float) -> Tensor:
    """READ, item level, eq 6-8: sum_k z_k v_k (..., S), z of w_k = q_i . m_k, over filled slots.

    Where no slot is filled (..., S) the memory contributes 0.
    """
    return (attend(w, filled, beta) * v).sum(dim=-1)


def attend(w: Tensor, filled: Tensor, beta: float) -> Tensor:
    """The attention of READ, item level, eq 6-7: z (..., S) of w_k = q_i . m_k over filled slots.

    All 0 where no slot is filled.
    """
    some = filled.any(dim=-1, keepdim=True)
    logits = (beta * w).masked_fill(~filled & some, -torch.inf)
    return torch.where(some, torch.softmax(logits, dim=-1), 0.0)


def read_shared(w: Tensor, v: Tensor, inside: Tensor, beta: float) -> Tensor:
    """READ, item level, of shared candidates at every purchase: (B, L, C).

    w: (B, L, C), q_i . q_j of purchase j and candidate i, v alike; inside: (L, L), see `window`. A
    window's sums are of rows of E v and of E = exp(beta w - guard). Where w
    spreads so far that a window's sum could vanish, each window gets its own softmax.
    """
    scaled = beta * w.detach()
    guard = scaled.amax(dim=1, keepdim=True)  # (B, 1, C)
    if bool((guard - scaled.amin(dim=1, keepdim=True)).max() > SPREAD):
        return _read_windows(w, v, inside, beta)
    E = torch.exp(beta * w - guard)  # (B, L, C)
    band = inside.to(w.dtype)
    numerator, denominator = band @ (E * v), band @ E
    empty = ~inside.any(dim=1)  # (L,): nothing bought before
    return numerator / (denominator + empty[:, None].to(w.dtype))


def _read_windows(w: Tensor, v: Tensor, inside: Tensor, beta: float) -> Tensor:
    """`read_shared` by one softmax a window, a purchase at a time: never vanishes, slower."""
    rows = []
    for t in range(w.shape[1]):
        held, read = (x[:, inside[t]].transpose(1, 2) for x in (w, v))  # (B, C, S)
        filled = torch.ones(held.shape[-1], dtype=torch.bool, device=w.device)
        some = len(filled) > 0
        rows.append(read_item(held, read, filled, beta) if some else torch.zeros_like(w[:, t]))
    return torch.stack(rows, dim=1)


def address(q: Tensor, F: Tensor, beta: float) -> Tensor:
    """Attention over the latent features, eq 9: z (..., K) of items q (..., D), F (K, D)."""
    return torch.softmax(beta * q @ F.T, dim=-1)


def erase(q: Tensor, E: Tensor, b_e: Tensor) -> Tensor:
    """The erase vector, eq 11: e (..., D)."""
    return torch.sigmoid(torch.nn.functional.linear(q, E, b_e))


def add(q: Tensor, A: Tensor, b_a: Tensor) -> Tensor:
    """The add vector, eq 13: a (..., D)."""
    return torch.tanh(torch.nn.functional.linear(q, A, b_a))


def read_feature(q: Tensor, z: Tensor, M: Tensor) -> Tensor:
    """READ, feature level, eq 10: sum_k z_k m_k . q (...) of q (..., D), z (..., K), M (..., K, D).

    z depends on the item alone, so this is one inner product of vec(M) and vec(z (x) q).
    """
    return (torch.einsum("...kd,...d->...k", M, q) * z).sum(dim=-1)


def read_feature_shared(q: Tensor, z: Tensor, M: Tensor) -> Tensor:
    """`read_feature` of shared candidates q (C, D), z (C, K) for every M (..., K, D): (..., C)."""
    outer = (z[:, :, None] * q[:, None, :]).flatten(1)  # (C, K D)
    return M.flatten(-2) @ outer.T


def write_feature(M: Tensor, z: Tensor, e: Tensor, a: Tensor) -> Tensor:
    """WRITE, feature level, eq 12 and 14: M (..., K, D) <- M (1 - z e) + z a."""
    z_k = z[..., :, None]
    return M * (1 - z_k * e[..., None, :]) + z_k * a[..., None, :]


def replay_feature(
    M: Tensor, z: Tensor, e: Tensor, a: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """The memory before each of L WRITEs, and after the last: (B, L, K, D) and (B, K, D).

    M: (B, K, D) at the start; z (B, L, K), e and a (B, L, D) of the purchases; real: (B, L) bool,
    False for padding at a row's end, which leaves the memory as it is.
    """
    z = z * real[..., None]  # a WRITE with z = 0 changes nothing
    before = []
    for t in range(z.shape[1]):
        before.append(M)
        M = write_feature(M, z[:, t], e[:, t], a[:, t])
    return torch.stack(before, dim=1), M
