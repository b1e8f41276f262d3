from __future__ import annotations

import numpy as np
import pytest

from baselines.features import PRICES, SCALE_FREE, scale_free_features
from baselines.lightgbm_quantile import LEVELS, LightgbmQuantile, LightgbmQuantileConfig
from baselines.volatility import daily_volatility
from tests.baselines.series import fit, windows_of, with_feature

pytest.importorskip("lightgbm")

CALM, WILD = 0.5, 2.0


@pytest.fixture(scope="module")
def windows():
    """A random walk whose daily deviation from the stated 1 % is told by one feature: half of it, or twice."""
    rng = np.random.default_rng(0)
    closes = {}
    for number in range(400):
        factor = CALM if number % 2 else WILD
        closes[f"{number:03}"] = 100 * np.exp(np.cumsum(0.01 * factor * rng.standard_normal(18)))
    made = windows_of(closes, length=6, horizon=4, stride=2)
    made = with_feature(made, "past_volatility", 0.01)
    wild = np.array([int(item) % 2 == 0 for item in made.context.item_id])
    return with_feature(made, "rsi", np.where(wild, 80.0, 20.0)), wild


@pytest.fixture(scope="module")
def fitted(windows):
    config = LightgbmQuantileConfig(recent_weight=0.0, max_trees=60)
    return fit(LightgbmQuantile, windows[0], config)


def test_the_quantiles_depend_on_the_indicator_as_they_should(windows, fitted):
    quantiles = fitted.scaled_quantiles(windows[0].context)  # [B, H, Q]
    for day in range(4):
        for group, factor in ((windows[1], WILD), (~windows[1], CALM)):
            spread = quantiles[group, day][:, [1, 5]].mean(axis=0)  # 10 % and 90 %
            np.testing.assert_allclose(spread, [-1.2816 * factor, 1.2816 * factor], rtol=0.2, atol=0.1)


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


@pytest.mark.parametrize(
    "settings, message", [({"num_leaves": 1}, "num_leaves must"), ({"max_trees": 0}, "max_trees must be at least 1")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LightgbmQuantileConfig(**settings)
