from __future__ import annotations

import numpy as np
import pytest
import scoringrules
from scipy import stats

from grpo.evaluation.metrics import (
    INTERVALS,
    central_intervals,
    fair_crps,
    fair_energy_score,
    score_windows,
    straight_line_share,
    summarise,
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
    dollars = score_windows(forecast_of(samples), make_windows([100.0], [[101.0, 97.0]]))
    cents = score_windows(forecast_of(100 * samples), make_windows([10_000.0], [[10_100.0, 9_700.0]]))
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
    for name in ("crps", "energy", "squared_error"):
        assert np.isinf(getattr(scores, name)).all()
        assert (getattr(scores, name) > 0).all()


@pytest.mark.parametrize("future", [np.nan, np.inf, 0.0, -1.0])
def test_a_truth_without_meaning_is_refused(make_windows, future):
    with pytest.raises(ValueError, match="finite and positive"):
        score_windows(forecast_of([[[1.0], [1.0]]]), make_windows([1.0], [[future]]))
