"""Percentile bootstrap over users, for the means of many columns on the same resamples; and the
interval of a rate that holds without a hit too, where the bootstrap's has no width.

Users with the same numbers form a group; a resample of U users draws how often each group occurs,
which has the distribution of drawing the users one by one and costs groups instead of users.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
TAIL = 0.025  # beyond each bound of a 95 % interval
NORMAL = 1.959964  # its bounds, in standard errors
CELLS = 4_000_000  # of the (resamples, groups) counts held at once: 32 MB


def bootstrap(values: Floats, *, resamples: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Mean, lower and upper bound (M,), 95 %, of the columns of values (U, M), one row a user.

    A paired difference of two models is a column: put a - b beside a and b. Which groups there are
    depends on all columns, so the bounds of one move a little with those beside it. NaN without a
    user.
    """
    users, columns = values.shape
    if users == 0:
        nothing = np.full(columns, np.nan)
        return nothing, nothing, nothing
    groups, sizes = np.unique(values, axis=0, return_counts=True)  # (G, M), (G,)
    mean = sizes @ groups / users
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, columns))
    step = max(1, CELLS // len(groups))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = rng.multinomial(users, sizes / users, size=stop - start)  # (step, G)
        means[start:stop] = drawn @ groups / users
    low, high = np.quantile(means, [TAIL, 1 - TAIL], axis=0)
    return mean, low, high


def rate_interval(shares: Floats) -> tuple[float, float]:
    """95 % bounds of the mean of shares (U,), by two hits and misses more (Agresti and Coull)."""
    mean, variance = with_more(shares, 2)
    low, high = mean + NORMAL * np.sqrt(variance) * np.array([-1, 1])
    return max(0.0, float(low)), min(1.0, float(high))


def with_more(shares: Floats, each: int) -> tuple[float, float]:
    """Mean, and its variance, with so many hits and misses more."""
    more = np.concatenate([shares, np.tile([0.0, 1.0], each)])
    return float(more.mean()), float(more.var() / len(more))
