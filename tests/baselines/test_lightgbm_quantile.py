from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from baselines.building_blocks.features import PRICES, SCALE_FREE, scale_free_features
from baselines.statistical.lightgbm_quantile import LEVELS, LightgbmQuantile, LightgbmQuantileConfig
from grpo.evaluation.harness import evaluate
from grpo.evaluation.metrics import summarise
from grpo.evaluation.optimum import Optimum
from preprocessing.returns import daily_volatility
from tests.baselines.series import fit, random_walk, windows_of, with_feature
from tests.windows_factory import simulated_windows

lightgbm = pytest.importorskip("lightgbm")

CALM, WILD = 0.5, 2.0
DAYS = np.array([1.0, 1.0, 0.5, 0.5])
"""Deviation of each day ahead, in units of a random walk's."""
CONFIG = LightgbmQuantileConfig(recent_weight=0.0, max_trees=60)


@pytest.fixture(scope="module")
def windows():
    """Random walks of 1 % a day whose futures are half as wide or twice as wide, and one feature tells which."""
    rng = np.random.default_rng(0)
    closes = {f"{number:04}": random_walk(10, seed=number) for number in range(3000)}
    made = with_feature(windows_of(closes, length=6, horizon=4), "past_volatility", 0.01)
    wild = rng.random(len(made)) < 0.5
    made = with_feature(made, "rsi", np.where(wild, 80.0, 20.0))
    walk = np.cumsum(0.01 * rng.standard_normal((len(made), 4)), axis=1)
    moves = np.where(wild, WILD, CALM)[:, None] * DAYS * walk
    future = made.context.last_price[:, None] * np.exp(moves)
    return dataclasses.replace(made, truth=dataclasses.replace(made.truth, future=future)), wild


@pytest.fixture(scope="module")
def fitted(windows):
    return fit(LightgbmQuantile, windows[0].take(np.arange(2000)), CONFIG, windows[0].take(np.arange(2000, 3000)))


def test_the_quantiles_depend_on_the_indicator_as_they_should(windows, fitted):
    quantiles = fitted.scaled_quantiles(windows[0].context)  # [B, H, Q]
    for day, width in enumerate(DAYS):
        for group, factor in ((windows[1], WILD), (~windows[1], CALM)):
            spread = quantiles[group, day][:, [1, 5]].mean(axis=0) / (factor * width)  # 10 % and 90 %
            np.testing.assert_allclose(spread, [-1.2816, 1.2816], rtol=0.25)


@pytest.mark.parametrize("day, level", [(0, 1), (3, 4)])
def test_each_model_is_that_of_its_own_day_and_level(windows, fitted, day, level):
    """The same model trained by itself, from data sets of its own."""
    data, scale = windows[0], 0.01 * np.sqrt(day + 1)
    targets = np.log(data.truth.future[:, day] / data.context.last_price) / scale
    features = scale_free_features(data.context)
    train = lightgbm.Dataset(features[:2000], targets[:2000])
    val = lightgbm.Dataset(features[2000:], targets[2000:], reference=train)
    settings = {"objective": "quantile", "alpha": float(LEVELS[level]), "num_leaves": 8, "learning_rate": 0.05}
    settings |= {"min_data_in_leaf": 100, "deterministic": True, "force_row_wise": True, "num_threads": 1}
    settings |= {"seed": 0, "verbosity": -1}
    stop = lightgbm.early_stopping(20, verbose=False)
    alone = lightgbm.train(settings, train, 60, valid_sets=[val], callbacks=[stop])
    expected = alone.predict(features, num_iteration=alone.best_iteration)
    np.testing.assert_allclose(fitted.scaled_quantiles(data.context)[:, day, level], expected, rtol=1e-9)


def test_each_day_has_the_quantiles_that_the_models_say(windows, fitted):
    context = windows[0].context.take(np.array([0, 10]))
    samples = fitted.predict(context, horizon=4, num_samples=20_000, seed=1).samples
    scale = daily_volatility(context, fitted.config)[:, None] * np.sqrt(np.arange(1, 5))
    expected = np.sort(fitted.scaled_quantiles(context), axis=-1)
    for row in range(2):
        logs = np.log(samples[row] / context.last_price[row]) / scale[row]
        for index, level in enumerate(LEVELS):
            share = (logs <= expected[row, :, index]).mean(axis=0)
            # drawn from N training ranks with replacement: their grid of 1 / N, and the noise of the draws
            np.testing.assert_allclose(share, level, atol=4 * np.sqrt(level * (1 - level) / 20_000) + 0.002)


def test_days_hang_together_as_they_did_in_training(windows, fitted):
    context = windows[0].context.take(np.array([0]))
    samples = fitted.predict(context, horizon=4, num_samples=20_000, seed=1).samples[0]
    ranks = np.argsort(np.argsort(samples, axis=0), axis=0)
    days = np.arange(1, 5)
    pearson = np.sqrt(np.minimum.outer(days, days) / np.maximum.outer(days, days))
    spearman = 6 / np.pi * np.arcsin(pearson / 2)  # of a Gaussian copula
    np.testing.assert_allclose(np.corrcoef(ranks.T), spearman, atol=0.05)


def test_features_are_in_units_of_the_volatility():
    windows = windows_of({"A": np.linspace(100, 120, 40)}, length=30, horizon=2)
    windows = with_feature(windows, "sma", 90.0)
    windows = with_feature(windows, "mom", -6.0)
    context = windows.context.take(np.array([0]))
    table = dict(zip(SCALE_FREE, scale_free_features(context)[0], strict=True))
    volatility, last = context.feature("volatility")[0], context.last_price[0]
    assert table["sma"] == pytest.approx((90 / last - 1) / volatility)
    assert table["mom"] == pytest.approx(-6 / last / volatility)
    assert table["past_volatility"] == pytest.approx(np.log(context.feature("past_volatility")[0]))
    assert table["max_timestep"] == pytest.approx(1 / 29)
    assert table["rsi"] == 1
    assert len(set(SCALE_FREE)) == len(SCALE_FREE)
    assert set(PRICES) < set(SCALE_FREE)


@pytest.mark.parametrize("leak", [False, True])
def test_on_a_random_walk_only_a_leak_beats_the_optimum(leak):
    """The indicators of a random walk tell nothing of its future; if one held the future, the score would show it."""
    splits = simulated_windows("sim:gbm?rows=3000&seed=5", window=30, horizon=2)
    if leak:
        for name, split in splits.items():
            ahead = np.log(split.truth.future[:, -1] / split.context.last_price)
            splits[name] = with_feature(split, "rsi", ahead)
    forecaster = fit(LightgbmQuantile, splits["train"], CONFIG, splits["val"])
    ours, best = (
        summarise(evaluate(each, splits["test"], num_samples=200, seed=0).scores)["crps"]
        for each in (forecaster, Optimum())
    )
    if leak:
        assert ours < 0.8 * best
    else:
        assert ours == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize(
    "settings, message", [({"num_leaves": 1}, "num_leaves must"), ({"max_trees": 0}, "max_trees must be at least 1")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LightgbmQuantileConfig(**settings)
