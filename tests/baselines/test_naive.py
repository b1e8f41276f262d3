from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from baselines.statistical.naive import (
    RandomWalk,
    RandomWalkConfig,
    RandomWalkDrift,
    RandomWalkPanelDrift,
    SeasonalNaive,
    SeasonalNaiveConfig,
    StraightLine,
)
from preprocessing.errors import UserError
from preprocessing.statistics import MIN_VOLATILITY
from preprocessing.windows import FEATURES, Context, Truth, WindowSet
from tests.baselines.series import fit, random_walk, windows_of

HORIZON = 4


def make_windows(items, last, future_last, volatility=0.02, past_volatility=0.01):
    count = len(items)
    features = np.zeros((count, len(FEATURES)))
    features[:, FEATURES.index("volatility")] = volatility
    features[:, FEATURES.index("past_volatility")] = past_volatility
    origin = np.datetime64("1969-12-30", "ns") + np.arange(count).astype("timedelta64[D]")
    future = np.repeat(np.asarray(future_last, dtype=float)[:, None], HORIZON, axis=1)
    return WindowSet(
        context=Context(
            item_id=tuple(items),
            origin=origin,
            past=np.full((count, 6, 1), np.asarray(last, dtype=float)[:, None, None]),
            features=features,
        ),
        truth=Truth(future=future, dates=origin[:, None] + np.arange(1, HORIZON + 1).astype("timedelta64[D]")),
    )


TRAIN = make_windows(["A", "B", "A"], [100, 10, 50], [102, 9, 50])


@pytest.mark.parametrize("weight, variance", [(0.5, (0.02**2 + 0.01**2) / 2), (1.0, 0.02**2), (0.0, 0.01**2)])
def test_law_of_the_random_walk(weight, variance):
    forecaster = fit(RandomWalk, TRAIN, RandomWalkConfig(recent_weight=weight))
    samples = forecaster.predict(TRAIN.context, horizon=HORIZON, num_samples=40_000, seed=1).samples
    logs = np.log(samples[1] / 10)  # [S, H] window 1 closed at 10
    steps = np.diff(logs, axis=1, prepend=0) / np.sqrt(variance)
    tolerance = 4 / np.sqrt(40_000)
    np.testing.assert_allclose(np.cov(steps.T), np.eye(HORIZON), atol=1.5 * tolerance)
    np.testing.assert_allclose(np.median(steps, axis=0), 0, atol=1.3 * tolerance)
    assert stats.kstest(steps[:, -1], "norm").pvalue > 1e-3


def test_paths_of_a_random_walk_are_correlated_as_one():
    samples = fit(RandomWalk, TRAIN).predict(TRAIN.context, horizon=HORIZON, num_samples=40_000, seed=1).samples
    days = np.arange(1, HORIZON + 1)
    expected = np.sqrt(np.minimum.outer(days, days) / np.maximum.outer(days, days))
    np.testing.assert_allclose(np.corrcoef(np.log(samples[0]).T), expected, atol=4 / np.sqrt(40_000))


A, B = np.log(1.02) / 4 / 2, np.log(0.9) / 4  # mean daily log return: A over two windows, one of them 0


@pytest.mark.parametrize(
    "plugin, drift",
    [(RandomWalk, [0, 0, 0]), (RandomWalkDrift, [A, B, A]), (RandomWalkPanelDrift, [(2 * A + B) / 3] * 3)],
)
def test_drift_is_added_to_every_day(plugin, drift):
    forecaster = fit(plugin, TRAIN)
    plain = fit(RandomWalk, TRAIN).predict(TRAIN.context, horizon=HORIZON, num_samples=3, seed=5).samples
    with_drift = forecaster.predict(TRAIN.context, horizon=HORIZON, num_samples=3, seed=5).samples
    days = np.arange(1, HORIZON + 1)
    expected = np.outer(drift, days)  # [B, H]
    np.testing.assert_allclose(np.log(with_drift / plain), np.repeat(expected[:, None], 3, axis=1), atol=1e-12)
    point = forecaster.point(TRAIN.context, horizon=HORIZON)
    np.testing.assert_allclose(point, np.array([100, 10, 50])[:, None] * np.exp(expected))


def test_same_seed_and_day_but_another_stock_is_other_noise():
    twin = Context(
        item_id=("B", "A", "B"),
        origin=TRAIN.context.origin,
        past=TRAIN.context.past,
        features=TRAIN.context.features,
    )
    walk = fit(RandomWalk, TRAIN)
    one, two = (walk.predict(c, horizon=HORIZON, num_samples=5, seed=3).samples for c in (TRAIN.context, twin))
    assert (one != two).all()


def test_a_weight_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="recent_weight must be in"):
        RandomWalkConfig(recent_weight=1.5)


def test_a_season_that_repeated_exactly_is_forecast_to_repeat():
    week = np.array([0.01, -0.02, 0.03])
    windows = windows_of({"A": np.exp(np.cumsum(np.tile(week, 6)))}, length=10, horizon=5)
    context = windows.context.take(np.array([1]))  # its last return is that of day 1 of the pattern
    forecaster = fit(SeasonalNaive, windows, SeasonalNaiveConfig(period=3))
    samples = forecaster.predict(context, horizon=5, num_samples=50, seed=0).samples[0]
    expected = np.cumsum([0.03, 0.01, -0.02, 0.03, 0.01])
    np.testing.assert_allclose(context.past[0, -3:, 0] / context.past[0, -4:-1, 0], np.exp([0.03, 0.01, -0.02]))
    noise = np.log(samples / context.last_price[0]) - expected
    assert abs(noise).max() < 20 * MIN_VOLATILITY
    assert abs(noise).max() > 0


def test_shocks_of_one_weekday_add_up_from_season_to_season():
    windows = windows_of({"A": random_walk(60, seed=1)}, length=30, horizon=5)
    context = windows.context.take(np.array([7]))
    returns = np.diff(np.log(context.past[0, :, 0]))
    variance = ((returns[2:] - returns[:-2]) ** 2).mean()
    forecaster = fit(SeasonalNaive, windows, SeasonalNaiveConfig(period=2))
    samples = forecaster.predict(context, horizon=5, num_samples=40_000, seed=0).samples[0]
    daily = np.diff(np.log(samples / context.last_price[0]), axis=1, prepend=0)
    np.testing.assert_allclose(daily.mean(axis=0), returns[[-2, -1, -2, -1, -2]], atol=4 * np.sqrt(3 * variance / 4e4))
    # r_1 = a, r_3 = a + c, r_5 = a + c + e and r_2 = b, r_4 = b + d, with independent shocks a, b, c, d, e
    expected = [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 0, 2, 0, 2], [0, 1, 0, 2, 0], [1, 0, 2, 0, 3]]
    np.testing.assert_allclose(np.cov(daily.T) / variance, expected, atol=4 * 3 * np.sqrt(2 / 4e4))


def test_a_season_that_does_not_fit_twice_is_refused():
    windows = windows_of({"A": random_walk(40, seed=1)}, length=10, horizon=2)
    fit(SeasonalNaive, windows, SeasonalNaiveConfig(period=4))
    with pytest.raises(UserError, match="windows of 9 daily returns hold no two seasons of 5"):
        fit(SeasonalNaive, windows)


def test_the_straight_line_is_drawn_on_by_least_squares():
    windows = windows_of({"A": random_walk(60, seed=3)}, length=20, horizon=HORIZON)
    line = fit(StraightLine, windows)
    point = line.point(windows.context, horizon=HORIZON)
    for row in (0, 5):
        coefficients = np.polyfit(np.arange(20), np.log(windows.context.past[row, :, 0]), 1)
        np.testing.assert_allclose(np.log(point[row]), np.polyval(coefficients, 20 + np.arange(HORIZON)), rtol=1e-9)
    both = (
        each.predict(windows.context, horizon=HORIZON, num_samples=5, seed=2).samples
        for each in (line, fit(RandomWalk, windows))
    )
    about_the_line, walk = both
    moved = point[:, None] / windows.context.last_price[:, None, None]
    np.testing.assert_allclose(about_the_line, walk * moved, rtol=1e-9)
