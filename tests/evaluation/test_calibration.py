from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from grpo.evaluation.calibration import LEVELS, pit_values, rank_histogram, reliability, uniformity
from grpo.evaluation.protocol import Forecast


def forecast_of(samples) -> Forecast:
    samples = np.asarray(samples, dtype=float)
    return Forecast(samples=samples, valid=np.isfinite(samples).all(-1))


def gaussian_windows(make_windows, *, spread=1.0, shift=0.0, num_samples=9, count=20_000):
    """One step ahead, truth 100 + z; samples 100 + shift + spread z."""
    rng = np.random.default_rng(0)
    windows = make_windows([100.0] * count, 100 + rng.standard_normal((count, 1)))
    return forecast_of(100 + shift + spread * rng.standard_normal((count, num_samples, 1))), windows


def test_ranks_by_hand(make_windows):
    windows = make_windows([100.0] * 3, [[101.0], [100.0], [90.0]])
    samples = [[[99], [100], [102]], [[100], [np.nan], [101]], [[95], [95], [95]]]
    uniform = np.random.default_rng(4).random((3, 1))[:, 0]
    # two below; two equal (the invalid one counts as the last close) and one above; none below
    expected = [(2 + uniform[0]) / 4, 3 * uniform[1] / 4, uniform[2] / 4]
    np.testing.assert_allclose(pit_values(forecast_of(samples), windows, seed=4)[:, 0], expected)


def test_ranks_agree_with_scipy_over_several_blocks(make_windows):
    rng = np.random.default_rng(1)
    windows = make_windows([20.0] * 30, np.round(20 + rng.standard_normal((30, 4)), 1))
    samples = np.round(20 + rng.standard_normal((30, 501, 4)), 1)
    pit = pit_values(forecast_of(samples), windows, seed=2)
    uniform = np.random.default_rng(2).random((30, 4))
    for window in range(0, 30, 7):
        for step in range(4):
            values, truth = samples[window, :, step], windows.truth.future[window, step]
            below = stats.percentileofscore(values, truth, "strict") / 100 * 501
            upto = stats.percentileofscore(values, truth, "weak") / 100 * 501
            expected = (below + uniform[window, step] * (upto - below + 1)) / 502
            assert pit[window, step] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decimals", [8, 0])
def test_ranks_of_a_calibrated_forecast_are_uniform_even_with_ties(make_windows, decimals):
    forecast, windows = gaussian_windows(make_windows, num_samples=3)
    rounded = forecast_of(np.round(forecast.samples, decimals))
    future = np.round(windows.truth.future, decimals)
    windows = replace(windows, truth=replace(windows.truth, future=future))
    pit = pit_values(rounded, windows)[:, 0]
    assert stats.kstest(pit, "uniform").pvalue > 0.01
    counts = rank_histogram(pit[:, None], bins=7)[0]
    assert counts == pytest.approx(np.full(7, 20_000 / 7), abs=4 * np.sqrt(20_000 / 7))
    observed = reliability(pit[:, None])[:, 0]
    assert observed == pytest.approx(LEVELS, abs=4 * 0.5 / np.sqrt(20_000))


def test_a_narrow_forecast_has_a_valley_and_covers_as_a_gaussian_does(make_windows):
    pit = pit_values(*gaussian_windows(make_windows, spread=0.5, num_samples=999, count=4000))
    observed = reliability(pit, [0.5, 0.9])[:, 0]
    expected = 2 * stats.norm.cdf(0.5 * stats.norm.ppf([0.75, 0.95])) - 1
    np.testing.assert_allclose(observed, expected, atol=4 * 0.5 / np.sqrt(4000))
    counts = rank_histogram(pit, bins=4)[0]
    outer = 4000 * stats.norm.cdf(0.5 * stats.norm.ppf(0.25))
    assert counts == pytest.approx([outer, 2000 - outer, 2000 - outer, outer], abs=4 * np.sqrt(1000))


def test_histogram_counts_per_step_and_keeps_the_ends():
    pit = np.array([[0.0, 0.999], [0.1, 0.5], [0.25, 1.0]])
    assert rank_histogram(pit, bins=4).tolist() == [[2, 1, 0, 0], [0, 0, 1, 2]]


def test_reliability_by_hand():
    pit = np.array([[0.5], [0.3], [0.9], [0.02]])  # central intervals of 0, 40, 80, 96 % reach them
    assert reliability(pit, [0.3, 0.5, 0.85, 0.99])[:, 0].tolist() == [0.25, 0.5, 0.75, 1.0]


def overlapping_ranks(rng: np.random.Generator, num_dates: int, horizon: int, stocks: int) -> np.ndarray:
    """[D * stocks, 1] uniform ranks of moves that overlap in time and share a factor."""
    total = np.zeros((num_dates, stocks))
    for columns in (stocks, 1):
        shocks = np.cumsum(rng.standard_normal((num_dates + horizon, columns)), axis=0)
        total = total + (shocks[horizon:] - shocks[:-horizon]) / np.sqrt(2 * horizon)
    return stats.norm.cdf(total).reshape(-1, 1)


@pytest.mark.parametrize(("horizon", "num_dates", "stocks"), [(1, 60, 1), (5, 80, 1), (5, 80, 3)])
def test_size_of_the_test_of_uniformity(horizon, num_dates, stocks):
    rng, count = np.random.default_rng(horizon), 250
    dates = np.repeat(np.arange(num_dates), stocks).astype("datetime64[D]")
    ranks = [overlapping_ranks(rng, num_dates, horizon, stocks) for _ in range(count)]
    size = np.mean([uniformity(pit, dates, horizon=horizon, num_resamples=150).p_value < 0.05 for pit in ranks])
    error = np.sqrt(0.05 * 0.95 / count)
    assert 0.05 - 3 * error < size < 0.08 + 3 * error
    if horizon > 1:  # chi-square takes the windows for independent
        counts = np.array([rank_histogram(pit)[0] for pit in ranks])
        assert np.mean(stats.chisquare(counts, axis=1).pvalue < 0.05) > 0.2


@pytest.mark.parametrize("wrong", [{"spread": 0.6}, {"spread": 1.6}, {"shift": 0.5}])
def test_a_wrong_forecast_is_found_out(make_windows, wrong):
    forecast, windows = gaussian_windows(make_windows, **wrong, num_samples=100, count=200)
    result = uniformity(pit_values(forecast, windows), windows.context.origin, horizon=1)
    assert result.p_value < 0.01
    assert (result.num_dates, result.reason) == (200, "")


def test_uniformity_statistic_by_hand_with_unequal_dates():
    # ranks of three windows on two dates: F(u) - u at u = .05 (i + 1)
    pit, dates = np.array([[0.12], [0.5], [0.77]]), np.array([0, 0, 1], dtype="datetime64[D]")
    levels = np.array(LEVELS)
    distance = ((levels >= 0.12).astype(float) + (levels >= 0.5) + (levels >= 0.77)) / 3 - levels
    assert uniformity(pit, dates, horizon=1).statistic == pytest.approx(2 * np.mean(distance**2))


def test_repeating_every_window_changes_nothing():
    rng = np.random.default_rng(0)
    pit, dates = rng.random((90, 2)), np.repeat(np.arange(30), 3).astype("datetime64[D]")
    once, twice = (uniformity(np.tile(pit, (n, 1)), np.tile(dates, n), horizon=2, seed=1) for n in (1, 2))
    assert twice.p_value == once.p_value
    assert twice.statistic == pytest.approx(once.statistic)


def test_too_few_dates_are_said():
    pit, dates = np.full((8, 1), 0.5), np.arange(8).astype("datetime64[D]")
    result = uniformity(pit, dates, horizon=5)
    assert np.isnan(result.p_value)
    assert result.reason == "8 dates are too few for a horizon of 5"
    # all ranks alike: nothing varies, and nothing could be further from uniform
    assert uniformity(pit, dates, horizon=1).p_value < 0.01
