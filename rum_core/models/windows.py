"""`memory.read_shared` on a CPU, with what a score adds to it: one pass forward and one back.

A tile of candidates of one customer at a time, so that what is made of it stays in a core's cache;
torch's operations pass over arrays of (B, L, C) a dozen times instead. B users, L purchases, C
candidates, K slots.
"""

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from rum_core.float32 import exp_float32
from rum_core.models.kernels import FAST

TILE = 64
SPREAD = 60.0  # of beta q_i . m_k: beyond it exp(-spread) leaves the normal float32 numbers


def window_scores(w: Tensor, base: Tensor, slots: int, alpha: float, beta: float) -> Tensor:
    """base + alpha READ (B, L, C) of w = q_i . q_j (B, L, C) and base = p* . q_i (B, C); the READ
    of purchase t is of those of t - K <= j < t, and 0 where there is none. Both are `usable`;
    ValueError for shapes that do not fit."""
    B, L, C = w.shape
    if base.shape != (B, C) or L == 0 or slots < 1:
        raise ValueError(f"{w.shape}, {base.shape} and {slots} slots do not fit")
    y: Tensor = _WindowScores.apply(w, base, slots, alpha, beta)  # type: ignore[no-untyped-call]
    return y


class _WindowScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, base: Tensor, slots: int, alpha: float, beta: float) -> Tensor:
        w, y = w.contiguous(), torch.empty(w.shape)
        ctx.save_for_backward(w)
        ctx.how = slots, np.float32(alpha), np.float32(beta)
        slots, of_read, of_w = ctx.how
        _forward(w.numpy(), base.contiguous().numpy(), slots, of_read, of_w, y.numpy())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (w,) = ctx.saved_tensors
        dw, dbase = torch.empty(w.shape), torch.empty(len(w), w.shape[2])
        slots, alpha, beta = ctx.how
        dy = dy.contiguous()
        _backward(w.numpy(), dy.numpy(), slots, alpha, beta, dw.numpy(), dbase.numpy())
        return dw, dbase, None, None, None


@njit(cache=True, parallel=True)
def _forward(W: Any, base: Any, slots: int, alpha: Any, beta: Any, Y: Any) -> None:
    for b in prange(len(W)):
        _scores(W[b], base[b], slots, alpha, beta, Y[b])


@njit(cache=True, parallel=True)
def _backward(W: Any, dY: Any, slots: int, alpha: Any, beta: Any, dW: Any, dbase: Any) -> None:
    for b in prange(len(W)):
        _gradients(W[b], dY[b], slots, alpha, beta, dW[b], dbase[b])


@njit(cache=True)
def _scores(W: Any, base: Any, slots: int, alpha: Any, beta: Any, Y: Any) -> None:
    """Of one customer: W and Y (L, C), base (C,)."""
    L, C = W.shape
    w, e, n = _rows(L), _rows(L), _rows(L)
    under, over = _rows(1)[0], _rows(1)[0]
    for start in range(0, C, TILE):
        tile = slice(start, min(start + TILE, C))
        wide = _exps(W[:, tile], beta, w, e, n)
        under[:], over[:] = 0.0, 0.0
        Y[0, tile] = base[tile]
        for t in range(1, L):
            _window(t, slots, e, under)
            _window(t, slots, n, over)
            _score(base[tile], alpha, over, under, Y[t, tile])
        if wide:
            for c in range(tile.stop - start):
                for t in range(1, L):
                    held = w[max(0, t - slots) : t, c]
                    read = (_attention(held, beta) * held).sum()
                    Y[t, start + c] = base[start + c] + alpha * read


@njit(cache=True)
def _gradients(W: Any, dY: Any, slots: int, alpha: Any, beta: Any, dW: Any, dbase: Any) -> None:
    """Of one customer. d READ / d w_j = z_j (1 + beta (w_j - READ)), of each purchase j summed over
    the windows that hold it."""
    L, C = W.shape
    w, e, n, of_e, of_n = _rows(L), _rows(L), _rows(L), _rows(L), _rows(L)
    under, over = _rows(1)[0], _rows(1)[0]
    for start in range(0, C, TILE):
        tile = slice(start, min(start + TILE, C))
        wide = _exps(W[:, tile], beta, w, e, n)
        under[:], over[:] = 0.0, 0.0
        dbase[tile] = dY[0, tile]
        for t in range(1, L):
            _window(t, slots, e, under)
            _window(t, slots, n, over)
            _of_sums(dY[t, tile], alpha, over, under, of_n[t], of_e[t], dbase[tile])
        under[:], over[:] = 0.0, 0.0
        dW[L - 1, tile] = 0.0
        for j in range(L - 2, -1, -1):
            _windows_with(j, slots, of_n, over)
            _windows_with(j, slots, of_e, under)
            _of_product(w[j], e[j], beta, over, under, dW[j, tile])
        if wide:
            for c in range(tile.stop - start):
                dW[:, start + c] = 0.0
                for t in range(1, L):
                    first = max(0, t - slots)
                    held = w[first:t, c]
                    z = _attention(held, beta)
                    change = z * (1 + beta * (held - (z * held).sum()))
                    dW[first:t, start + c] += alpha * dY[t, start + c] * change


@njit(cache=True)
def _rows(n: int) -> Any:
    """(n, T) zeros. One array of them all, taken apart, would not compile to vectors."""
    return np.zeros((n, TILE), np.float32)


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _score(base: Any, alpha: Any, over: Any, under: Any, y: Any) -> None:
    for c in range(len(y)):
        y[c] = base[c] + alpha * (over[c] / under[c])


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _of_sums(dy: Any, alpha: Any, over: Any, under: Any, of_n: Any, of_e: Any, dbase: Any) -> None:
    """Gradients of a window's two sums, whose quotient is its READ; base adds up over windows."""
    for c in range(len(dy)):
        dbase[c] += dy[c]
        of_n[c] = alpha * dy[c] / under[c]
        of_e[c] = -of_n[c] * (over[c] / under[c])


@njit(cache=True, fastmath=FAST)
def _of_product(w: Any, e: Any, beta: Any, over: Any, under: Any, dw: Any) -> None:
    for c in range(len(dw)):
        dw[c] = e[c] * (over[c] + beta * (under[c] + over[c] * w[c]))


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _exps(tile: Any, beta: Any, w: Any, e: Any, n: Any) -> bool:
    """w (L, T) of a tile (L, t), e = exp(beta w - guard) with the guard a column's largest
    exponent, and n = e w; whether a column spreads so far that a window's sum could vanish."""
    L, width = tile.shape
    guard = np.full(TILE, -np.inf, np.float32)
    low = np.full(TILE, np.inf, np.float32)
    for j in range(L):
        w[j, :width] = tile[j]
    for j in range(L):
        for c in range(TILE):
            guard[c] = max(guard[c], beta * w[j, c])
            low[c] = min(low[c], beta * w[j, c])
    for j in range(L):
        for c in range(TILE):
            e[j, c] = exp_float32(beta * w[j, c] - guard[c])
            n[j, c] = e[j, c] * w[j, c]
    return bool((guard - low)[:width].max() > np.float32(SPREAD))


@njit(cache=True, fastmath=FAST)
def _window(t: int, slots: int, rows: Any, total: Any) -> None:
    """Make `total` (T,), the sum of rows in the window of t - 1, that of the window of t."""
    first = t - 1
    if t > slots:  # nothing is taken away again, which would not be exact
        total[:] = 0.0
        first = t - slots
    for j in range(first, t):
        for c in range(TILE):
            total[c] += rows[j, c]


@njit(cache=True, fastmath=FAST)
def _windows_with(j: int, slots: int, rows: Any, total: Any) -> None:
    """Make `total` (T,), the sum of rows t of windows that hold j + 1, that of those with j."""
    last = j + 2
    if j + slots < len(rows) - 1:
        total[:] = 0.0
        last = j + slots + 1
    for t in range(j + 1, last):
        for c in range(TILE):
            total[c] += rows[t, c]


@njit(cache=True)
def _attention(held: Any, beta: Any) -> Any:
    """z of a window's products (S,), by their own largest."""
    e = np.exp(beta * held - (beta * held).max())
    return e / e.sum()
