from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from baselines.naive import RandomWalk, RandomWalkConfig, RandomWalkDrift, UnknownStockError
from grpo.evaluation.protocol import Forecaster
from preprocessing.windows import FEATURES, Context, Truth, WindowSet

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


def fitted(plugin, config=None):
    """Fit as the comparison does; the folder stays unused."""
    return plugin.fit(config or plugin.Config(), TRAIN, TRAIN, horizon=HORIZON, seed=0, out_dir=None)


@pytest.fixture(params=[RandomWalk, RandomWalkDrift], ids=lambda plugin: plugin.name)
def plugin(request):
    return request.param


@pytest.mark.parametrize("weight, variance", [(0.5, (0.02**2 + 0.01**2) / 2), (1.0, 0.02**2), (0.0, 0.01**2)])
def test_law_of_the_random_walk(weight, variance):
    forecaster = fitted(RandomWalk, RandomWalkConfig(recent_weight=weight))
    samples = forecaster.predict(TRAIN.context, horizon=HORIZON, num_samples=40_000, seed=1).samples
    logs = np.log(samples[1] / 10)  # [S, H] window 1 closed at 10
    steps = np.diff(logs, axis=1, prepend=0) / np.sqrt(variance)
    tolerance = 4 / np.sqrt(40_000)
    np.testing.assert_allclose(np.cov(steps.T), np.eye(HORIZON), atol=1.5 * tolerance)
    np.testing.assert_allclose(np.median(steps, axis=0), 0, atol=1.3 * tolerance)
    assert stats.kstest(steps[:, -1], "norm").pvalue > 1e-3


def test_drift_is_the_mean_daily_log_return_per_stock():
    forecaster = fitted(RandomWalkDrift)
    expected = {"A": np.log(1.02) / 4 / 2, "B": np.log(0.9) / 4}
    assert forecaster.drift == pytest.approx(expected)
    plain = fitted(RandomWalk).predict(TRAIN.context, horizon=HORIZON, num_samples=3, seed=5).samples
    with_drift = forecaster.predict(TRAIN.context, horizon=HORIZON, num_samples=3, seed=5).samples
    days = np.arange(1, HORIZON + 1)
    for row, item in enumerate(TRAIN.context.item_id):
        moved = np.log(with_drift[row] / plain[row])
        np.testing.assert_allclose(moved, np.tile(expected[item] * days, (3, 1)), atol=1e-12)


def test_an_unknown_stock_is_named():
    other = make_windows(["A", "ZZZ"], [1, 1], [1, 1])
    with pytest.raises(UnknownStockError, match="ZZZ"):
        fitted(RandomWalkDrift).predict(other.context, horizon=HORIZON, num_samples=2, seed=0)


def test_a_window_is_sampled_alike_in_any_company(plugin):
    forecaster = fitted(plugin)
    settings = {"horizon": HORIZON, "num_samples": 5}
    together = forecaster.predict(TRAIN.context, **settings, seed=3).samples
    order = np.array([2, 0])
    np.testing.assert_array_equal(
        forecaster.predict(TRAIN.context.take(order), **settings, seed=3).samples, together[order]
    )
    assert (forecaster.predict(TRAIN.context, **settings, seed=4).samples != together).all()
    # same seed and day, another stock: other noise
    twin = dataclasses.replace(TRAIN.context, item_id=("B", "A", "B"))
    walk = fitted(RandomWalk)
    one, two = (walk.predict(context, **settings, seed=3).samples for context in (TRAIN.context, twin))
    assert (one != two).all()


def test_saved_and_loaded_it_forecasts_the_same(plugin, tmp_path):
    forecaster = fitted(plugin, plugin.Config(recent_weight=0.25))
    assert isinstance(forecaster, Forecaster)
    forecaster.save(tmp_path / "saved")
    again = plugin.load(tmp_path / "saved")
    settings = {"horizon": HORIZON, "num_samples": 3, "seed": 2}
    np.testing.assert_array_equal(
        again.predict(TRAIN.context, **settings).samples,
        forecaster.predict(TRAIN.context, **settings).samples,
    )


def test_a_weight_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="recent_weight must be in"):
        RandomWalkConfig(recent_weight=1.5)
