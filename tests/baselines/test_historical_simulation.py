from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from baselines.statistical.bootstrap import (
    FhsConfig,
    FilteredHistoricalSimulation,
    FilteredHistoricalSimulationDrift,
    HistoricalBootstrap,
)
from grpo.evaluation.harness import evaluate
from grpo.evaluation.metrics import summarise
from grpo.evaluation.optimum import Optimum
from preprocessing.errors import UserError
from preprocessing.returns import daily_volatility
from tests.baselines.series import fit, random_walk, windows_of
from tests.windows_factory import simulated_windows

TRAIN = windows_of({"A": random_walk(12, seed=3)}, length=8, horizon=2)  # three training windows
DECAY, WEIGHT, DRAWS = 0.9, 0.6, 9000
CONFIG = {"decay": DECAY, "recent_weight": WEIGHT}


def counted(samples: np.ndarray, expected: list[np.ndarray]) -> None:
    """Every sample is one of the expected paths, each about equally often."""
    distance = abs(samples[:, None] / np.array(expected) - 1).max(axis=-1)  # [S, paths]
    assert (distance.min(axis=1) < 1e-12).all()
    counts = np.bincount(distance.argmin(axis=1), minlength=len(expected))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_bootstrap_draws_whole_futures_in_units_of_the_volatility():
    forecaster = fit(HistoricalBootstrap, TRAIN, HistoricalBootstrap.Config(**CONFIG))
    other = windows_of({"B": random_walk(12, seed=9, volatility=0.05)}, length=8, horizon=2).context
    context = other.take(np.array([1]))
    samples = forecaster.predict(context, horizon=2, num_samples=DRAWS, seed=0).samples[0]
    then, now = (daily_volatility(c, forecaster.config) for c in (TRAIN.context, context))
    ratio = TRAIN.truth.future / TRAIN.context.last_price[:, None]
    counted(samples, [context.last_price[0] * ratio[row] ** (now[0] / then[row]) for row in range(3)])


def shocks_by_hand() -> np.ndarray:
    """[3, 2] returns of the training futures over the volatility known the day before, less their mean."""
    shocks = np.empty((3, 2))
    for row in range(3):
        closes = np.concatenate([TRAIN.context.past[row, :, 0], TRAIN.truth.future[row]])
        returns = np.diff(np.log(closes))  # 7 of the window, 2 of the future
        past = recent = TRAIN.context.feature("past_volatility")[row] ** 2
        for day, value in enumerate(returns):
            if day >= 7:
                shocks[row, day - 7] = value / np.sqrt(WEIGHT * recent + (1 - WEIGHT) * past)
            recent = DECAY * recent + (1 - DECAY) * value**2
    return shocks - shocks.mean()


@pytest.mark.parametrize("plugin", [FilteredHistoricalSimulation, FilteredHistoricalSimulationDrift])
@pytest.mark.parametrize("block", [1, 2, None])
def test_fhs_draws_shocks_and_carries_the_volatility_on(plugin, block):
    forecaster = fit(plugin, TRAIN, FhsConfig(**CONFIG, block=block))
    by_hand = shocks_by_hand()
    np.testing.assert_allclose(forecaster.shocks, by_hand, rtol=1e-10)
    drift = 0.0
    if plugin is FilteredHistoricalSimulationDrift:
        drift = np.mean(np.log(TRAIN.truth.future[:, 1] / TRAIN.context.last_price)) / 2
    context = windows_of({"B": random_walk(12, seed=9, volatility=0.05)}, length=8, horizon=2).context.take([1])
    past = recent = context.feature("past_volatility")[0] ** 2
    for value in np.diff(np.log(context.past[0, :, 0])):
        recent = DECAY * recent + (1 - DECAY) * value**2
    pairs = list(itertools.product(by_hand[:, 0], repeat=2)) if block == 1 else [tuple(row) for row in by_hand]
    expected = []
    for first, second in pairs:
        one = first * np.sqrt(WEIGHT * recent + (1 - WEIGHT) * past)
        after = DECAY * recent + (1 - DECAY) * one**2
        two = second * np.sqrt(WEIGHT * after + (1 - WEIGHT) * past)
        expected.append(context.last_price[0] * np.exp([one + drift, one + two + 2 * drift]))
    samples = forecaster.predict(context, horizon=2, num_samples=DRAWS, seed=0).samples[0]
    counted(samples, expected)


def test_fhs_goes_further_than_its_blocks():
    forecaster = fit(FilteredHistoricalSimulation, TRAIN, FhsConfig(block=2))
    assert forecaster.predict(TRAIN.context, horizon=5, num_samples=4, seed=0).samples.shape == (3, 4, 5)


def test_a_block_longer_than_the_training_futures_is_refused():
    with pytest.raises(UserError, match="fhs with a block of 3 days was fitted for 2 days ahead"):
        fit(FilteredHistoricalSimulation, TRAIN, FhsConfig(block=3))


@pytest.mark.parametrize("plugin", [HistoricalBootstrap, FilteredHistoricalSimulation])
def test_on_a_random_walk_the_paths_are_those_of_a_random_walk(plugin):
    splits = simulated_windows("sim:gbm?rows=6000&seed=5", window=60, horizon=5)
    forecaster = fit(plugin, splits["train"], plugin.Config(recent_weight=0.0))
    test = splits["test"].take(np.arange(0, len(splits["test"]), 5))
    evaluation = evaluate(forecaster, test, num_samples=400, seed=0)
    best = evaluate(Optimum(), test, num_samples=400, seed=0)
    assert summarise(evaluation.scores)["crps"] == pytest.approx(summarise(best.scores)["crps"], rel=0.02)
    logs = np.log(evaluation.forecast.samples / test.context.last_price[:, None, None])
    days = np.arange(1, 6)
    expected = np.sqrt(np.minimum.outer(days, days) / np.maximum.outer(days, days))
    scaled = logs / logs.std(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(np.corrcoef(scaled.reshape(-1, 5).T), expected, atol=0.03)


def test_shocks_may_be_divided_by_their_standard_deviation():
    plain = fit(FilteredHistoricalSimulation, TRAIN, FhsConfig(**CONFIG))
    unit = fit(FilteredHistoricalSimulation, TRAIN, FhsConfig(**CONFIG, unit_variance=True))
    np.testing.assert_allclose(unit.shocks * np.sqrt((plain.shocks**2).mean()), plain.shocks)
