"""Statistics against loops over single windows and single days."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from scipy import stats

from preprocessing.scaling import StandardNorm
from preprocessing.statistics import (
    MIN_VOLATILITY,
    ewma_volatility,
    lag_autocorrelations,
    past_statistics,
    trailing_volatility,
    window_statistics,
    yang_zhang_volatility,
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
        line = stats.linregress(np.arange(30), window)
        assert got["trend"][row] == pytest.approx(line.slope, rel=1e-10)
        assert got["trend_r2"][row] == pytest.approx(line.rvalue**2, rel=1e-9)
        assert got["trend_direction"][row] == (1 if line.slope > 0 else -1)
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


@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_a_straight_line_has_its_slope_as_trend(slope: float) -> None:
    got = window_statistics((100 + slope * np.arange(30))[None])
    assert got["trend"][0] == pytest.approx(slope, rel=1e-13)
    assert got["trend_r2"][0] == pytest.approx(1, abs=1e-12)
    assert got["trend_direction"][0] == np.sign(slope)


def test_a_symmetric_window_has_no_trend() -> None:
    """A hill: the rise and the fall cancel, but for rounding."""
    got = window_statistics(np.array([[0.1, 0.3, 0.7, 0.3, 0.1]]))
    assert got["trend_direction"][0] == 0
    assert got["trend_r2"][0] == pytest.approx(0, abs=1e-25)


@pytest.mark.parametrize("price", [0.1, 100.0, 1 / 3])
def test_a_constant_window_has_no_autocorrelation_and_the_least_volatility(price: float) -> None:
    constant = np.full((1, 30), price)
    assert (lag_autocorrelations(constant) == 0).all()
    got = window_statistics(constant)
    assert got["trend"][0] == pytest.approx(0, abs=1e-12)
    assert (got["trend_r2"][0], got["trend_direction"][0]) == (0, 0)
    assert trailing_volatility(constant)[0] == MIN_VOLATILITY
    assert yang_zhang_volatility(constant, constant, constant, constant)[0] == MIN_VOLATILITY
    assert (ewma_volatility(constant[0])[1:] == MIN_VOLATILITY).all()


def test_a_short_window_has_fewer_lags() -> None:
    """Of L bars the lags up to L - 2; where the window has fewer than three, the rest are 0."""
    assert lag_autocorrelations(WINDOWS[:, :10]).shape == (40, 8)
    np.testing.assert_allclose(
        lag_autocorrelations(WINDOWS[:, :12])[:, 9],
        [autocorrelation(window[:12], 10) for window in WINDOWS],
        rtol=1e-10,
    )
    four = np.array([[1.0, 4.0, 2.0, 5.0]])  # around 3: -2, 1, -1, 2, of variance 10
    np.testing.assert_allclose(lag_autocorrelations(four), [[-0.5, 0.4]])
    got = window_statistics(four)
    assert [got[f"top_lag_{rank}"][0] for rank in (1, 2, 3)] == [1, 2, 0]
    assert [got[f"top_lag_{rank}_correlation"][0] for rank in (1, 2, 3)] == pytest.approx([-0.5, 0.4, 0])
    with pytest.raises(ValueError, match="at least 3 bars; got 2"):
        window_statistics(np.ones((1, 2)))


def test_trailing_volatility_is_the_root_mean_square_log_return() -> None:
    for window, got in zip(WINDOWS, trailing_volatility(WINDOWS), strict=True):
        returns = [np.log(b / a) for a, b in itertools.pairwise(window)]
        assert got == pytest.approx(np.sqrt(sum(r * r for r in returns) / 29), rel=1e-12)


def test_ewma_volatility_is_the_weighted_mean_of_all_squared_returns() -> None:
    got = ewma_volatility(PAST)
    assert np.isnan(got[0])
    for t in range(1, len(PAST)):
        squared = np.diff(np.log(PAST[: t + 1])) ** 2
        weights = [0.94**age for age in range(t)]
        want = sum(w * r for w, r in zip(weights, squared[::-1], strict=True)) / sum(weights)
        assert got[t] == pytest.approx(np.sqrt(want), rel=1e-10)


def test_ewma_volatility_takes_six_percent_of_each_day() -> None:
    """A single move of 10 % after a long calm: the variance is .06 .01 that day, and 94 % of it the next."""
    got = ewma_volatility(np.exp(np.append(np.zeros(500), [0.1, 0.1])))
    np.testing.assert_allclose(got[-2:], [np.sqrt(0.06) * 0.1, np.sqrt(0.06 * 0.94) * 0.1], rtol=1e-9)


def test_yang_zhang_volatility_equals_a_loop() -> None:
    o, h, l, c = simulated_days(windows=5, days=12, sigma=0.02, jump=0.5, drift=0.0)  # noqa: E741
    for row, got in enumerate(yang_zhang_volatility(o, h, l, c)):
        overnight = [np.log(o[row, t] / c[row, t - 1]) for t in range(1, 12)]
        intraday = [np.log(c[row, t] / o[row, t]) for t in range(1, 12)]
        within = [
            np.log(h[row, t] / c[row, t]) * np.log(h[row, t] / o[row, t])
            + np.log(l[row, t] / c[row, t]) * np.log(l[row, t] / o[row, t])
            for t in range(1, 12)
        ]
        k = 0.34 / (1.34 + 12 / 10)
        variance = statistics.variance(overnight) + k * statistics.variance(intraday)
        assert got == pytest.approx(np.sqrt(variance + (1 - k) * sum(within) / 11), rel=1e-10)


def test_yang_zhang_volatility_in_closed_form() -> None:
    """Without opening jumps, closes that alternate by +-s around one open and bars that hold no more than both."""
    days, s = 9, 0.03
    rise = np.where(np.arange(days) % 2 == 1, s, 0.0)  # the closes: 0, s, 0, s, ..
    close = np.exp(rise)[None]
    opening = np.concatenate([[1.0], close[0, :-1]])[None]
    got = yang_zhang_volatility(opening, np.maximum(opening, close), np.minimum(opening, close), close)
    # every bar ends at one of its ends, so V_rs is 0; V_o is 0; V_c of n = 8 moves +-s is s^2 8 / 7
    k = 0.34 / (1.34 + 9 / 7)
    assert got[0] == pytest.approx(s * np.sqrt(k * 8 / 7), rel=1e-12)


def simulated_days(
    *, windows: int, days: int, sigma: float, jump: float, drift: float, steps: int = 1
) -> tuple[np.ndarray, ...]:
    """Bars [windows, days] of Brownian log prices with `jump` of the daily variance overnight.

    The highest point of each of the `steps` pieces of a day is drawn from the exact law of a Brownian bridge's
    maximum, the lowest likewise, so that the ranges have no error of discretisation.
    """
    rng = np.random.default_rng(1)
    overnight = sigma * np.sqrt(jump) * rng.standard_normal((windows, days))
    piece = sigma**2 * (1 - jump) / steps
    moves = np.sqrt(piece) * rng.standard_normal((windows, days, steps)) + drift / steps
    path = np.concatenate([np.zeros((windows, days, 1)), np.cumsum(moves, axis=2)], axis=2)
    first, last = path[..., :-1], path[..., 1:]
    above, below = (np.sqrt((last - first) ** 2 - 2 * piece * np.log(rng.random(moves.shape))) for _ in range(2))
    high, low = ((first + last + above) / 2).max(2), ((first + last - below) / 2).min(2)
    opening = np.cumsum(overnight + np.pad(path[:, :-1, -1], ((0, 0), (1, 0))), axis=1)
    return tuple(np.exp(opening + values) for values in (np.zeros_like(high), high, low, path[..., -1]))


@pytest.mark.parametrize("drift", [0.0, 0.02])
@pytest.mark.parametrize("jump", [0.0, 0.3])
def test_yang_zhang_is_unbiased_and_sharper_than_closes(drift: float, jump: float) -> None:
    """Whatever the drift and the jumps; and its variance is several times smaller than that of close to close."""
    sigma, days = 0.02, 21
    o, h, l, c = simulated_days(windows=4000, days=days, sigma=sigma, jump=jump, drift=drift, steps=20)  # noqa: E741
    variance = yang_zhang_volatility(o, h, l, c) ** 2
    close_to_close = np.diff(np.log(c), axis=1).var(axis=1, ddof=1)
    error = 4 / np.sqrt(4000)
    assert abs(variance.mean() - sigma**2) < error * variance.std()
    assert abs(close_to_close.mean() - sigma**2) < error * close_to_close.std()
    assert variance.var() < close_to_close.var() / 3


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
