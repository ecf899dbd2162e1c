"""The bootstrap against scipy's, and the identities it must keep."""

import numpy as np
import pytest
from scipy import stats

from rum_core.evaluation import significance
from rum_core.evaluation.significance import bootstrap, rate_interval


def test_agrees_with_scipy_within_monte_carlo_error() -> None:
    rng = np.random.default_rng(5)
    values = np.stack([rng.random(300) < 0.1, rng.choice([0, 0.2, 0.5], 300)], axis=1).astype(float)
    mean, low, high = bootstrap(values, resamples=20_000, seed=1)
    for column in range(2):
        theirs = stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=20_000, method="percentile", rng=2
        )
        spread = values[:, column].std() / np.sqrt(300)
        assert mean[column] == pytest.approx(values[:, column].mean())
        assert low[column] == pytest.approx(theirs.confidence_interval.low, abs=0.07 * spread)
        assert high[column] == pytest.approx(theirs.confidence_interval.high, abs=0.07 * spread)


def test_order_of_users_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 3, (50, 4)) / 3
    whole = bootstrap(values, resamples=100, seed=3)
    monkeypatch.setattr(significance, "CELLS", 7)
    for ours, theirs in zip(whole, bootstrap(values[::-1], resamples=100, seed=3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_paired_difference_is_narrower_than_the_two_apart() -> None:
    rng = np.random.default_rng(1)
    a = rng.random(400)
    b = a - 0.01 * rng.random(400)  # always a little worse than a
    _, low, high = bootstrap(np.stack([a, b, a - b], axis=1), resamples=500, seed=0)
    assert low[2] > 0
    assert high[2] - low[2] < 0.1 * (high[0] - low[0])


def test_one_user_and_none() -> None:
    assert [float(v[0]) for v in bootstrap(np.array([[0.4]]), resamples=100, seed=0)] == [0.4] * 3
    assert all(np.isnan(v).all() for v in bootstrap(np.zeros((0, 2)), resamples=100, seed=0))


def test_the_interval_of_a_rate_is_that_of_agresti_and_coull() -> None:
    """Of 60 customers and none with a hit as of 64 and two: p + 1.96 sqrt(p (1 - p) / 64)."""
    p = 2 / 64
    high = p + 1.959964 * (p * (1 - p) / 64) ** 0.5
    assert rate_interval(np.zeros(60)) == pytest.approx((0, high))
    assert rate_interval(np.ones(60)) == pytest.approx((1 - high, 1))
