"""`memory.replay_feature` on a CPU: one pass forward and one back, a customer at a time.

torch's operations make a dozen small arrays a WRITE. B users, L purchases, K slots, D dimensions.
"""

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable


def replayed(M: Tensor, z: Tensor, e: Tensor, a: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The memory before each of L WRITEs, and after the last: (B, L, K, D) and (B, K, D), of M
    (B, K, D), z (B, L, K), e and a (B, L, D), all `kernels.usable`, and real (B, L) bool, False for
    padding, which leaves the memory as it is. ValueError for shapes that do not fit."""
    B, K, D = M.shape
    L = z.shape[1]
    if z.shape != (B, L, K) or not e.shape == a.shape == (B, L, D) or real.shape != (B, L):
        raise ValueError(f"{M.shape}, {z.shape}, {e.shape}, {a.shape}, {real.shape} do not fit")
    z = z * real[..., None]  # a WRITE with z = 0 changes nothing
    found: tuple[Tensor, Tensor] = _Replayed.apply(M, z, e, a)  # type: ignore[no-untyped-call]
    return found


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, M: Tensor, z: Tensor, e: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        z, e, a = z.contiguous(), e.contiguous(), a.contiguous()
        before, after = torch.empty(len(M), z.shape[1], *M.shape[1:]), M.contiguous().clone()
        _forward(after.numpy(), z.numpy(), e.numpy(), a.numpy(), before.numpy())
        ctx.save_for_backward(before, z, e, a)
        return before, after

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dbefore: Tensor, dafter: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        before, z, e, a = (t.numpy() for t in ctx.saved_tensors)
        dM = dafter.contiguous().clone()
        dz, de, da = (np.zeros_like(array) for array in (z, e, a))
        given = dbefore.contiguous().numpy()
        _backward(before, z, e, a, given, dM.numpy(), dz, de, da)
        return dM, torch.from_numpy(dz), torch.from_numpy(de), torch.from_numpy(da)


@njit(cache=True, parallel=True)
def _forward(M: Any, z: Any, e: Any, a: Any, before: Any) -> None:
    for b in prange(len(M)):
        for t in range(z.shape[1]):
            for k in range(M.shape[1]):
                before[b, t, k] = M[b, k]
                _write(z[b, t, k], e[b, t], a[b, t], M[b, k])


@njit(cache=True, parallel=True)
def _backward(
    before: Any, z: Any, e: Any, a: Any, dbefore: Any, dM: Any, dz: Any, de: Any, da: Any
) -> None:
    """dM (B, K, D), the gradient of the memory after all, becomes that of the memory at first."""
    for b in prange(len(dM)):
        for t in range(z.shape[1] - 1, -1, -1):
            for k in range(dM.shape[1]):
                z_k, rows = z[b, t, k], (e[b, t], a[b, t])
                dz[b, t, k] = _of_z(before[b, t, k], *rows, dM[b, k])
                _of_write(
                    z_k, before[b, t, k], rows[0], dbefore[b, t, k], dM[b, k], de[b, t], da[b, t]
                )


@njit(cache=True, fastmath={"contract"})
def _write(z: Any, e: Any, a: Any, m: Any) -> None:
    """WRITE of one slot, eq 12 and 14: m (D,) <- m (1 - z e) + z a."""
    for d in range(len(m)):
        m[d] = m[d] * (np.float32(1.0) - z * e[d]) + z * a[d]


@njit(cache=True, fastmath={"contract", "reassoc"})
def _of_z(m: Any, e: Any, a: Any, dm: Any) -> Any:
    total = np.float32(0.0)
    for d in range(len(m)):
        total += dm[d] * (a[d] - m[d] * e[d])
    return total


@njit(cache=True, fastmath={"contract"})
def _of_write(z: Any, m: Any, e: Any, given: Any, dm: Any, de: Any, da: Any) -> None:
    """Add to de and da (D,), and make dm that of m, the slot before; given: what its READ has."""
    for d in range(len(m)):
        scaled = z * dm[d]
        da[d] += scaled
        de[d] -= scaled * m[d]
        dm[d] += given[d] - scaled * e[d]
