"""exp and log of float32 numbers, in forms that numba's compiler turns into vector instructions."""

from typing import Any

import numpy as np
from numba import njit

OF_LOG = 2.0**-20  # relative error of `log_float32`, several times what tests find


@njit(cache=True, error_model="numpy")
def exp_float32(x: Any) -> Any:
    """exp of a float32 x <= 0 within 2 units in the last place, 0 below -87: by powers of 2 and the
    polynomial of Cephes' expf, in a form that the compiler turns into vector instructions."""
    x0 = max(x, np.float32(-87.0))
    n = np.floor(x0 * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x0 - n * np.float32(0.693359375)
    r = r - n * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return y * power if x > np.float32(-87.0) else np.float32(0.0)


@njit(cache=True, error_model="numpy")
def log_float32(y: Any) -> Any:
    """log of a float32 y >= 1: powers of 2 and the polynomial of Cephes' logf, in a form that the
    compiler turns into vector instructions."""
    bits = np.float32(y).view(np.int32)
    n = np.int32(bits >> 23) - np.int32(127)
    m = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32)  # 1 <= m < 2
    large = m > np.float32(1.41421356)
    m = m * np.float32(0.5) if large else m
    e = np.float32(n + np.int32(1)) if large else np.float32(n)
    x = m - np.float32(1.0)
    z = x * x
    p = np.float32(7.0376836292e-2)
    p = p * x - np.float32(1.1514610310e-1)
    p = p * x + np.float32(1.1676998740e-1)
    p = p * x - np.float32(1.2420140846e-1)
    p = p * x + np.float32(1.4249322787e-1)
    p = p * x - np.float32(1.6668057665e-1)
    p = p * x + np.float32(2.0000714765e-1)
    p = p * x - np.float32(2.4999993993e-1)
    p = p * x + np.float32(3.3333331174e-1)
    found = x * z * p + e * np.float32(-2.12194440e-4) - np.float32(0.5) * z
    return x + found + e * np.float32(0.693359375)
