"""Statistics against loops over single windows and single days."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from preprocessing.scaling import StandardNorm
from preprocessing.statistics import (
    MIN_VOLATILITY,
    lag_autocorrelations,
    past_statistics,
    trailing_volatility,
    window_statistics,
)

RNG = np.random.default_rng(5)
WINDOWS = 50 * np.exp(np.cumsum(0.02 * RNG.standard_normal((40, 30)), axis=1))
PAST = 50 * np.exp(np.cumsum(0.02 * RNG.standard_normal(120)))


def test_window_statistics_equal_a_loop_over_windows() -> None:
    got = window_statistics(WINDOWS)
    for row, window in enumerate(WINDOWS):
        assert got["min"][row] == min(window)
        assert got["min_timestep"][row] == list(window).index(min(window))
        assert got["max"][row] == max(window)
        assert got["max_timestep"][row] == list(window).index(max(window))
        assert got["mean"][row] == pytest.approx(sum(window) / 30, rel=1e-13)
        ordered = sorted(window)
        median = (ordered[14] + ordered[15]) / 2
        assert got["median"][row] == median
        assert got["median_timestep"][row] == min(range(30), key=lambda t: (abs(window[t] - median), t))
        assert got["trend"][row] == pytest.approx(stats.linregress(np.arange(30), window).slope, rel=1e-10)
        correlation = {lag: autocorrelation(window, lag) for lag in range(1, 11)}
        top = sorted(correlation, key=lambda lag: -abs(correlation[lag]))[:3]
        assert [got[f"top_lag_{rank}"][row] for rank in (1, 2, 3)] == top
        for rank in (1, 2, 3):
            assert got[f"top_lag_{rank}_correlation"][row] == pytest.approx(correlation[top[rank - 1]], rel=1e-10)


def autocorrelation(window: np.ndarray, lag: int) -> float:
    mean = sum(window) / len(window)
    products = sum((window[t] - mean) * (window[t - lag] - mean) for t in range(lag, len(window)))
    return products / sum((value - mean) ** 2 for value in window)


def test_an_alternating_window_by_hand() -> None:
    window = np.array([[1.0, 3.0] * 6])  # 12 bars around 2: lag k keeps 12 - k products of (-1)^k, over 12
    np.testing.assert_allclose(lag_autocorrelations(window)[0], [(-1) ** k * (12 - k) / 12 for k in range(1, 11)])
    got = window_statistics(window)
    assert (got["min_timestep"][0], got["max_timestep"][0], got["median"][0]) == (0, 1, 2)
    assert [got[f"top_lag_{rank}"][0] for rank in (1, 2, 3)] == [1, 2, 3]


def test_a_straight_line_has_its_slope_as_trend() -> None:
    assert window_statistics(np.arange(5.0, 65.0, 2.0)[None])["trend"][0] == pytest.approx(2.0, rel=1e-13)


@pytest.mark.parametrize("price", [0.1, 100.0, 1 / 3])
def test_a_constant_window_has_no_autocorrelation_and_the_least_volatility(price: float) -> None:
    constant = np.full((1, 30), price)
    assert (lag_autocorrelations(constant) == 0).all()
    assert window_statistics(constant)["trend"][0] == pytest.approx(0, abs=1e-12)
    assert trailing_volatility(constant)[0] == MIN_VOLATILITY


def test_a_window_must_be_longer_than_the_lags() -> None:
    with pytest.raises(ValueError, match="longer than 11 bars; got 11"):
        window_statistics(np.ones((1, 11)))


def test_trailing_volatility_is_the_root_mean_square_log_return() -> None:
    for window, got in zip(WINDOWS, trailing_volatility(WINDOWS), strict=True):
        returns = [np.log(b / a) for a, b in itertools.pairwise(window)]
        assert got == pytest.approx(np.sqrt(sum(r * r for r in returns) / 29), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_past_statistics_equal_a_loop_over_days(scale: float) -> None:
    got = past_statistics(PAST * scale)
    for t in range(2, len(PAST)):
        log_price = np.log(PAST[: t + 1] * scale)
        returns = np.diff(log_price)
        assert got["past_mean"][t] == pytest.approx(np.exp(log_price.mean()), rel=1e-10)
        assert got["past_std"][t] == pytest.approx(log_price.std(), rel=1e-8)
        assert got["past_ar1"][t] == pytest.approx(stats.linregress(log_price[:-1], log_price[1:]).slope, rel=1e-7)
        assert got["past_volatility"][t] == pytest.approx(np.sqrt((returns**2).mean()), rel=1e-10)
        assert got["past_drift"][t] == pytest.approx(returns.mean(), rel=1e-8, abs=1e-12)


def test_past_statistics_of_a_constant_price() -> None:
    got = past_statistics(np.full(50, 7.0))
    np.testing.assert_allclose(got["past_mean"], 7.0)
    assert (got["past_std"] == 0).all()
    assert (got["past_ar1"][1:] == 1).all()
    assert (got["past_volatility"][1:] == MIN_VOLATILITY).all()
    assert (got["past_drift"][1:] == 0).all()


def test_standard_norm_and_its_inverse() -> None:
    norm = StandardNorm.fit(np.array([1.0, 3.0]))
    assert (norm.mean, norm.std) == (2.0, 1.0)
    assert norm.transform(np.array([0.0, 2.0, 5.0])).tolist() == [-2.0, 0.0, 3.0]
    norm = StandardNorm.fit(PAST)
    assert (norm.mean, norm.std) == pytest.approx((PAST.mean(), PAST.std()), rel=1e-14)
    np.testing.assert_allclose(norm.inverse(norm.transform(WINDOWS)), WINDOWS, rtol=1e-14)


def test_standard_norm_of_a_constant_and_of_nothing() -> None:
    assert StandardNorm.fit(np.array([4.0, 4.0])) == StandardNorm(4.0, 1.0)
    with pytest.raises(ValueError, match="no bar lies in the training span"):
        StandardNorm.fit(np.array([]))
