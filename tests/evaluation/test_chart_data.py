from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from grpo.evaluation import chart_data
from grpo.evaluation.calibration import pit_values, rank_histogram
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast


def evaluate(samples, windows, name="sft"):
    forecast = Forecast(samples=samples, valid=np.isfinite(samples).all(-1))
    return Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=0.0)


def point(prices, windows, name="sft"):
    """Two equal samples per window: the CRPS is the absolute error."""
    return evaluate(np.repeat(np.asarray(prices, dtype=float)[:, None], 2, axis=1), windows, name)


def test_pit_shares_count_the_samples_below(make_windows):
    windows = make_windows([100.0, 100.0], [[101.5], [99.0]])
    samples = np.repeat([[[101.0], [102.0], [103.0], [104.0], [105.0], [106.0], [107.0], [108.0], [109.0]]], 2, axis=0)
    # one and none of nine samples below: PIT in [.1, .2) and [0, .1)
    shares = chart_data.pit_histogram(evaluate(samples, windows), windows).shares
    assert shares.tolist() == [0.5, 0.5, *[0] * 8]


def test_pit_tells_the_true_law_from_a_narrow_one(make_windows):
    rng = np.random.default_rng(1)
    windows = make_windows([100.0] * 800, 100 + rng.standard_normal((800, 1)))
    samples = 100 + rng.standard_normal((800, 19, 1))
    right = chart_data.pit_histogram(evaluate(samples, windows), windows)
    assert abs(right.shares - 0.1).max() < 4 * np.sqrt(0.09 / 800)
    assert right.p_value > 0.01
    # with half the spread a normal truth lies beyond the samples' tenth percentile with P(Z < z_.1 / 2)
    narrow = chart_data.pit_histogram(evaluate(100 + (samples - 100) / 2, windows), windows)
    share = stats.norm.cdf(stats.norm.ppf(0.1) / 2)
    assert narrow.shares[[0, -1]] == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 800))
    assert narrow.p_value < 0.01


def test_the_band_of_independent_windows_is_that_of_the_multinomial():
    counts = np.random.default_rng(5).multinomial(2000, np.full(10, 0.1), size=20_000)
    exact = np.quantile(abs(counts / 2000 - 0.1).max(axis=1), 0.95)
    pit = np.random.default_rng(6).random((2000, 1))
    assert chart_data.uniform_band(pit, np.arange(2000), horizon=1) == pytest.approx(np.full(10, exact), rel=0.1)


def test_stocks_that_move_as_one_widen_the_band():
    pit, dates = np.random.default_rng(6).random((500, 1)), np.arange(500)
    alone = chart_data.uniform_band(pit, dates, horizon=1)
    copies = chart_data.uniform_band(np.repeat(pit, 7, axis=0), np.repeat(dates, 7), horizon=1)
    assert copies == pytest.approx(alone)


def test_a_calibrated_forecast_of_overlapping_windows_stays_in_the_band(make_windows):
    rng, outside, binomially, horizon, days = np.random.default_rng(7), 0, 0, 5, 120
    for _ in range(300):
        price = 100 * np.exp(0.01 * rng.standard_normal(days + horizon).cumsum())
        future = np.stack([price[t + 1 : t + 1 + horizon] for t in range(days)])
        windows = make_windows(price[:days], future)
        steps = 0.01 * rng.standard_normal((days, 39, horizon)).cumsum(axis=2)
        pit = pit_values(evaluate(price[:days, None, None] * np.exp(steps), windows).forecast, windows)
        distance = abs(rank_histogram(pit).sum(axis=0) / pit.size - 0.1)
        outside += (distance > chart_data.uniform_band(pit, windows.context.origin, horizon=horizon)).any()
        binomially += (distance > stats.norm.isf(0.025 / 10) * np.sqrt(0.09 / pit.size)).any()
    assert 1 <= outside <= 26  # 5 % of 300 are 15, give or take three times 3.8
    assert binomially > 150


def test_too_few_dates_have_no_band():
    assert np.isnan(chart_data.uniform_band(np.full((5, 3), 0.5), np.arange(5), horizon=3)).all()


def test_ratios_by_stock_are_sorted_and_hold_the_mean_ratio(make_windows):
    windows = make_windows([100.0] * 6, [[102.0]] * 6, items=["A", "B"] * 3, days=[0, 0, 1, 1, 2, 2])
    walk = point([[100.0]] * 6, windows, "random_walk")  # errors of 2
    sft = point([[99.0], [102.0], [98.0], [101.0], [100.0], [101.0]], windows)  # A: 3, 4, 2; B: 0, 1, 1
    rows = chart_data.crps_by_stock(sft, walk, windows)
    assert [(row.stock, row.num_dates) for row in rows] == [("B", 3), ("A", 3)]
    assert [row.ratio for row in rows] == pytest.approx([2 / 6, 9 / 6])
    assert all(row.low < row.ratio < row.high for row in rows)


def test_the_interval_of_a_stock_is_unknown_on_one_date(make_windows):
    windows = make_windows([100.0], [[102.0, 102.0]])
    walk, sft = point([[100.0, 100.0]], windows, "random_walk"), point([[101.0, 101.0]], windows)
    (row,) = chart_data.crps_by_stock(sft, walk, windows)
    assert row.ratio == pytest.approx(0.5)
    assert np.isnan([row.low, row.high]).all()


def test_the_accumulated_difference_ends_at_the_mean_over_dates(make_windows):
    windows = make_windows([100.0] * 4, [[102.0]] * 4, items=["A", "B", "A", "A"], days=[0, 0, 1, 3])
    walk = point([[100.0]] * 4, windows, "random_walk")
    sft = point([[102.0], [101.0], [99.0], [102.0]], windows)  # differences -2, -1 (one date), +1, -2
    dates, line = chart_data.accumulated_difference(sft, walk, windows)
    assert [str(day)[:10] for day in dates] == ["2020-01-01", "2020-01-02", "2020-01-04"]
    assert line == pytest.approx([-1.5 / 3, -0.5 / 3, -2.5 / 3])


def test_crps_by_step_is_relative_to_the_walk_where_that_is_positive(make_windows):
    windows = make_windows([100.0], [[102.0, 100.0]])
    walk, sft = point([[100.0, 100.0]], windows, "random_walk"), point([[103.0, 101.0]], windows)
    ratios = chart_data.crps_by_step(sft, walk)
    assert ratios[0] == pytest.approx(0.5)
    assert np.isnan(ratios[1])


def test_the_best_rival_is_no_yardstick(make_windows):
    windows = make_windows([100.0], [[102.0]])
    walk, poor = point([[100.0]], windows, "random_walk"), point([[90.0]], windows)
    optimum = point([[102.0]], windows, "optimum")
    assert chart_data.best_rival([walk, poor, optimum]).name == "sft"
    assert chart_data.best_rival([walk, optimum]).name == "random_walk"
