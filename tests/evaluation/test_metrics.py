from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import scoringrules
from scipy import stats

from grpo.evaluation import metrics
from grpo.evaluation.metrics import (
    INTERVALS,
    PINBALL_LEVELS,
    WindowScores,
    central_intervals,
    fair_crps,
    fair_energy_score,
    score_windows,
    straight_line_share,
    summarise,
    summarise_by,
    summarise_steps,
    training_scale,
)
from grpo.evaluation.protocol import Forecast


def forecast_of(samples) -> Forecast:
    samples = np.asarray(samples, dtype=float)
    return Forecast(samples=samples, valid=np.isfinite(samples).all(-1))


@pytest.mark.parametrize("num_samples", [2, 3, 10, 101])
def test_fair_scores_agree_with_scoringrules(num_samples):
    rng = np.random.default_rng(num_samples)
    samples, truth = rng.standard_normal((4, num_samples, 5)), rng.standard_normal((4, 5))
    samples[0, 1] = samples[0, 0]  # ties
    crps = scoringrules.crps_ensemble(truth, samples, m_axis=1, estimator="fair")
    energy = scoringrules.es_ensemble(truth, samples, m_axis=1, v_axis=2, estimator="fair")
    np.testing.assert_allclose(fair_crps(samples, truth), crps, rtol=1e-12)
    np.testing.assert_allclose(fair_energy_score(samples, truth), energy, rtol=1e-12)


def test_fair_scores_by_hand():
    samples = np.array([[[1.0, 0.0], [4.0, 4.0]]])  # distance 3 at the first step, 5 as a path
    truth = np.array([[2.0, 0.0]])
    # |1-2|, |4-2| -> 1.5 - 3/2;  0, 4 -> 2 - 4/2
    np.testing.assert_allclose(fair_crps(samples, truth), [[0.0, 0.0]], atol=1e-15)
    # ||(-1, 0)||, ||(2, 4)|| -> (1 + sqrt 20) / 2 - 5/2
    np.testing.assert_allclose(fair_energy_score(samples, truth), [(1 + np.sqrt(20)) / 2 - 2.5])


def test_fair_crps_is_unbiased_for_a_gaussian_whatever_the_number_of_samples():
    # Gneiting and Raftery (2007), eq. 21
    z, num_windows = 0.7, 40_000
    exact = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    for num_samples in (2, 5):
        samples = np.random.default_rng(0).standard_normal((num_windows, num_samples, 1))
        scores = fair_crps(samples, np.full((num_windows, 1), z))
        error = scores.std() / np.sqrt(num_windows)
        assert abs(scores.mean() - exact) < 3.5 * error
        # the unfair estimate, with S instead of S - 1 in the pair term, is this much larger
        assert 1 / np.sqrt(np.pi) / num_samples > 7 * error


def test_fair_scores_need_two_samples():
    with pytest.raises(ValueError, match="2 or more; got 1"):
        fair_crps(np.zeros((1, 1, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="2 or more; got 1"):
        fair_energy_score(np.zeros((1, 1, 1)), np.zeros((1, 1)))


def test_interval_ends_are_order_statistics():
    samples = np.arange(1.0, 40.0)[None, :, None]  # 1..39: p (S + 1) = 40 p
    lower, upper = central_intervals(samples)
    np.testing.assert_allclose(lower[0, :, 0], [10, 4, 1])
    np.testing.assert_allclose(upper[0, :, 0], [30, 36, 39])


def test_intervals_of_a_calibrated_forecast_cover_their_level():
    draws = np.random.default_rng(1).standard_normal((30_000, 20))
    lower, upper = central_intervals(draws[:, :19, None])
    truth = draws[:, None, 19:]
    covered = ((lower <= truth) & (truth <= upper)).mean(axis=(0, 2))
    # 19 samples reach 90 % at most; NumPy's default quantiles would cover 45 and 72 %
    np.testing.assert_allclose(covered, [0.5, 0.8, 0.9], atol=0.01)


def test_straight_lines_in_price_and_in_log_price():
    line, curve, flat = [1.0, 1.1, 1.2, 1.3], [1.0, 1.1, 1.21, 1.331], [2.0, 2.0, 2.0, 2.0]
    assert straight_line_share(np.array([[line, curve, flat, [1.0, 1.1, 1.2, 1.31]]])) == pytest.approx([0.75])


def test_scores_of_a_small_forecast_by_hand(make_windows):
    windows = make_windows([100.0, 50.0], [[101.0, 103.0], [50.0, 48.0]])
    samples = [
        [[100, 102], [97, 104], [102, 106]],  # percent: 0 2, -3 4, 2 6
        [[51, 51], [51, 51], [51, 51]],  # percent: 2 2 three times
    ]
    scores = score_windows(forecast_of(samples), windows)
    # truth in percent: 1 3 and 0 -4; pair terms of the first window: (3 + 2 + 5) / 6 and (2 + 4 + 2) / 6
    np.testing.assert_allclose(scores.crps, [[6 / 3 - 5 / 3, 5 / 3 - 4 / 3], [2, 6]], atol=1e-12)
    np.testing.assert_allclose(scores.absolute_error, [[1, 1], [2, 6]], atol=1e-12)
    np.testing.assert_allclose(scores.squared_error, [[(4 / 3) ** 2, 1], [4, 36]], atol=1e-12)
    np.testing.assert_allclose(scores.direction_hit, [1, 0])
    np.testing.assert_allclose(scores.always_up_hit, [1, 0])
    np.testing.assert_allclose(scores.straight, [1, 1])  # two steps are always a line
    # 50 % interval of three samples: the smallest and the largest; of three equal ones: a point
    np.testing.assert_allclose(scores.width[:, 0], [[5, 4], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(scores.covered[:, 0], [[1, 1], [0, 0]])
    summary = summarise(scores)
    assert summary["mae"] == pytest.approx(10 / 4)
    assert summary["rmse"] == pytest.approx(np.sqrt((16 / 9 + 41) / 4))
    assert summary["crps"] == pytest.approx((1 / 3 + 1 / 3 + 2 + 6) / 4)
    assert summary["coverage_50"] == pytest.approx(0.5)
    assert set(summary) >= {f"{kind}_{round(100 * level)}" for kind in ("coverage", "width") for level in INTERVALS}


def test_no_move_is_half_a_hit(make_windows):
    windows = make_windows([100.0, 100.0], [[101.0], [100.0]])
    scores = score_windows(forecast_of([[[100], [100]], [[101], [102]]]), windows)
    np.testing.assert_allclose(scores.direction_hit, [0.5, 0.5])
    np.testing.assert_allclose(scores.always_up_hit, [1, 0.5])


def test_scores_do_not_depend_on_the_price_level(make_windows):
    samples = np.array([[[99.0, 103.0], [104.0, 98.0], [100.5, 101.0]]])
    scale = np.array([1.5])
    dollars = score_windows(forecast_of(samples), make_windows([100.0], [[101.0, 97.0]]), scale)
    cents = score_windows(forecast_of(100 * samples), make_windows([10_000.0], [[10_100.0, 9_700.0]]), scale)
    assert summarise(cents) == pytest.approx(summarise(dollars))


def test_an_invalid_sample_counts_as_the_last_close(make_windows):
    windows = make_windows([100.0], [[110.0, 120.0, 90.0]])
    nothing = [np.nan] * 3
    with_hole = score_windows(forecast_of([[[105, 110, 95], nothing, [101, 99, 98]]]), windows)
    filled = score_windows(forecast_of([[[105, 110, 95], [100, 100, 100], [101, 99, 98]]]), windows)
    np.testing.assert_allclose(with_hole.valid, [2 / 3])
    np.testing.assert_allclose(filled.valid, [1])
    for name in ("crps", "energy", "absolute_error", "squared_error", "covered", "width", "straight"):
        np.testing.assert_array_equal(getattr(with_hole, name), getattr(filled, name))


def test_a_path_that_overflows_scores_infinitely_badly(make_windows):
    windows = make_windows([1e-3], [[1e-3, 1e-3]])
    scores = score_windows(forecast_of([[[1e306, 1e306], [1e306, 1e306], [1e-3, 1e-3]]]), windows)
    for name in ("crps", "energy", "squared_error", "percentage_error", "symmetric_percentage_error"):
        assert np.isinf(getattr(scores, name)).all()
        assert (getattr(scores, name) > 0).all()


@pytest.mark.parametrize("future", [np.nan, np.inf, 0.0, -1.0])
def test_a_truth_without_meaning_is_refused(make_windows, future):
    with pytest.raises(ValueError, match="finite and positive"):
        score_windows(forecast_of([[[1.0], [1.0]]]), make_windows([1.0], [[future]]))


@pytest.fixture
def random_scores(make_windows):
    """Windows that take several blocks, with ties and invalid samples; and their forecast."""
    rng = np.random.default_rng(7)
    windows = make_windows(np.full(50, 20.0), 20 * np.exp(0.02 * rng.standard_normal((50, 4))))
    samples = np.round(20 * np.exp(0.02 * rng.standard_normal((50, 301, 4))), 2)
    samples[rng.random((50, 301)) < 0.1] = np.nan
    assert samples[0].size * 50 > metrics._BLOCK_VALUES
    return forecast_of(samples), windows


@pytest.mark.parametrize("num_samples", [2, 3, 7, 38, 39, 100, 101])
def test_quantiles_and_median_are_those_of_numpy_to_the_bit(make_windows, num_samples):
    rng = np.random.default_rng(num_samples)
    prices = np.round(100 * np.exp(0.03 * rng.standard_normal((6, num_samples, 3))), 1)
    scores = score_windows(forecast_of(prices), make_windows(np.full(6, 100.0), np.full((6, 3), 100.0)))
    moves = 100 * (prices / 100.0 - 1)
    np.testing.assert_array_equal(scores.median_move, np.median(moves, axis=1))
    tail = (1 - np.array(INTERVALS)) / 2
    for ends, levels in zip(central_intervals(moves), (tail, 1 - tail), strict=True):
        expected = np.quantile(moves, levels, axis=1, method="weibull")
        np.testing.assert_array_equal(ends, np.moveaxis(expected, 0, 1))


def test_a_window_scores_the_same_to_the_bit_whatever_lies_beside_it(random_scores):
    forecast, windows = random_scores
    together = score_windows(forecast, windows)
    rows = np.array([41, 3, 17])
    apart = score_windows(forecast_of(forecast.samples[rows]), windows.take(rows))
    for field in fields(WindowScores):
        np.testing.assert_array_equal(getattr(together.take(rows), field.name), getattr(apart, field.name))


def test_equal_samples_have_no_spread_at_all():
    # through the Gram matrix the pair distances would come out near 1e-8 of the norm
    rng = np.random.default_rng(0)
    samples = np.repeat(rng.standard_normal((5, 1, 10)), 30, axis=1)
    truth = samples[:, 0].copy()
    np.testing.assert_array_equal(fair_energy_score(samples, truth), 0)
    truth[:, 0] += 3
    np.testing.assert_allclose(fair_energy_score(samples, truth), 3, rtol=1e-14)


def test_relative_and_scaled_errors_by_hand(make_windows):
    windows = make_windows([100.0, 50.0], [[80.0, 125.0], [50.0, 60.0]])
    # medians 100 100 and 55 45; means in percent of the last close 0 0 and 10 -10
    samples = [[[95, 90], [105, 110]], [[55, 40], [55, 50]]]
    scores = score_windows(forecast_of(samples), windows, np.array([4.0, 5.0]))
    np.testing.assert_allclose(scores.percentage_error, [[25, 20], [10, 25]])
    np.testing.assert_allclose(
        scores.symmetric_percentage_error, [[2000 / 90, 2500 / 112.5], [500 / 52.5, 1500 / 52.5]]
    )
    np.testing.assert_allclose(scores.scaled_error, [[5, 6.25], [2, 6]])
    summary = summarise(scores)
    assert summary["mape"] == pytest.approx(20)
    assert summary["mase"] == pytest.approx((5 + 6.25 + 2 + 6) / 4)
    # realised moves -20 25 0 20, errors of the mean 20 25 10 30
    assert summary["r2"] == pytest.approx(1 - (400 + 625 + 100 + 900) / (400 + 625 + 400))
    assert np.isnan(summarise(score_windows(forecast_of(samples), windows))["mase"])


def test_pinball_loss_by_hand_and_against_scoringrules(make_windows):
    samples = np.arange(81.0, 100.0)  # moves -19..-1; the quantile p is 20 p - 20
    windows = make_windows([100.0], [[90.0]])
    scores = score_windows(forecast_of(samples[None, :, None]), windows)
    expected = [0.05 * 9, 0.1 * 8, 0.25 * 5, 0, 0.25 * 5, 0.1 * 8, 0.05 * 9]
    np.testing.assert_allclose(scores.pinball[0, :, 0], expected, atol=1e-12)
    quantiles, levels = 20 * np.array(PINBALL_LEVELS) - 20, np.array(PINBALL_LEVELS)
    np.testing.assert_allclose(scores.pinball[0, :, 0], scoringrules.quantile_score(-10, quantiles, levels), atol=1e-12)
    assert summarise(scores)["pinball"] == pytest.approx(np.mean(expected))


def test_the_scale_of_mase_is_the_mean_change_in_training(make_windows):
    train = make_windows([10.0, 12.0, 7.0], [[12.0, 0.5], [9.0, 0.5], [8.0, 0.5]], items=["A", "A", "B"])
    windows = make_windows([20.0, 50.0, 5.0], [[1.0], [1.0], [1.0]], items=["B", "A", "A"])
    # A changes by 2 and 3, B by 1
    np.testing.assert_allclose(training_scale(train, windows), [100 * 1 / 20, 100 * 2.5 / 50, 100 * 2.5 / 5])
    with pytest.raises(ValueError, match="C has no training window"):
        training_scale(train, make_windows([1.0], [[1.0]], items=["C"]))


def test_one_step_alone_is_scored_like_a_horizon_of_one(random_scores):
    forecast, windows = random_scores
    scores = score_windows(forecast, windows)
    third = np.where(forecast.valid[:, :, None], forecast.samples[:, :, 2:3], np.nan)
    truth = type(windows.truth)(future=windows.truth.future[:, 2:3], dates=windows.truth.dates[:, 2:3])
    alone = score_windows(forecast_of(third), type(windows)(context=windows.context, truth=truth))
    for field in set(WindowScores.__dataclass_fields__) - {"straight"}:
        np.testing.assert_allclose(getattr(scores.at_step(3), field), getattr(alone, field), rtol=1e-9, atol=1e-12)
    table = summarise_steps(scores)
    assert table.index.tolist() == [1, 2, 3, 4]
    assert table.loc[3, "energy"] == pytest.approx(summarise(alone)["energy"])
    assert table["crps"].mean() == pytest.approx(summarise(scores)["crps"])


def test_a_table_by_stock_pools_to_the_whole(random_scores):
    scores = score_windows(*random_scores)
    keys = np.array(["B", "A", "C", "A", "B"] * 10)
    table = summarise_by(scores, keys)
    assert table.index.tolist() == ["A", "B", "C"]
    assert table.loc["C", "mae"] == pytest.approx(scores.absolute_error[2::5].mean())
    assert (table["crps"] * [20, 20, 10]).sum() / 50 == pytest.approx(summarise(scores)["crps"])


def test_the_median_of_a_hundred_samples_costs_its_share_of_absolute_error():
    # E|y - m| for y ~ N(0, 1) is m (2 Phi(m) - 1) + 2 phi(m); the exact median, 0, gives sqrt(2 / pi)
    medians = np.median(np.random.default_rng(0).standard_normal((20_000, 100)), axis=1)
    error = medians * (2 * stats.norm.cdf(medians) - 1) + 2 * stats.norm.pdf(medians)
    excess = error.mean() / np.sqrt(2 / np.pi) - 1
    assert excess == pytest.approx(np.pi / 400, rel=0.05)
