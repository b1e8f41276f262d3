from __future__ import annotations

import numpy as np
import pytest

from baselines.statistical.ar1 import Ar1
from baselines.statistical.naive import RandomWalk, RandomWalkConfig
from preprocessing.simulation import parse_simulated_stock
from tests.baselines.series import fit, random_walk, windows_of, with_feature
from tests.windows_factory import simulated_windows

HORIZON = 5


def windows(phi: float, mean: float, volatility: float):
    plain = windows_of({"A": random_walk(30, seed=3)}, length=8, horizon=HORIZON)
    for name, value in (("past_ar1", phi), ("past_mean", mean), ("past_volatility", volatility)):
        plain = with_feature(plain, name, value)
    return plain


@pytest.mark.parametrize("phi", [0.9, 0.3, -0.5])
def test_paths_have_the_law_of_the_autoregression(phi):
    data = windows(phi, mean=105.0, volatility=0.02)
    row = data.context.take(np.array([4]))
    count = 60_000
    samples = fit(Ar1, data).predict(row, horizon=HORIZON, num_samples=count, seed=1).samples[0]
    logs = np.log(samples / 105.0)  # [S, H]
    day = np.arange(1, HORIZON + 1)
    shock = 0.02**2 * (1 + phi) / 2  # so that one step of the stationary process moves by 0.02
    early, late = np.minimum.outer(day, day), np.maximum.outer(day, day)
    covariance = shock * phi ** (late - early) * (1 - phi ** (2.0 * early)) / (1 - phi**2)
    expected = phi**day * np.log(row.last_price[0] / 105.0)
    error = np.sqrt(np.diag(covariance))
    assert (abs(logs.mean(axis=0) - expected) < 4 * error / np.sqrt(count)).all()
    np.testing.assert_allclose(np.cov(logs.T) / np.outer(error, error), covariance / np.outer(error, error), atol=0.03)


@pytest.mark.parametrize("phi", [1.0, 1.7])
def test_without_reversion_it_is_the_random_walk_of_the_past(phi):
    data = windows(phi, mean=300.0, volatility=0.02)
    ask = {"horizon": HORIZON, "num_samples": 6, "seed": 1}
    walk = fit(RandomWalk, data, RandomWalkConfig(recent_weight=0.0)).predict(data.context, **ask)
    np.testing.assert_allclose(fit(Ar1, data).predict(data.context, **ask).samples, walk.samples, rtol=1e-12)


def test_on_a_long_mean_reverting_stock_it_is_the_exact_law():
    name = "sim:ou?half_life=5&rows=12000&seed=2"
    test = simulated_windows(name, horizon=HORIZON)["test"].context.take(np.arange(0, 2000, 25))
    samples = fit(Ar1, simulated_windows(name, horizon=HORIZON)["test"]).predict(
        test, horizon=HORIZON, num_samples=4000, seed=1
    )
    logs = np.log(samples.samples)
    sigma, phi, day = parse_simulated_stock(name).parameters["sigma"], 0.5**0.2, np.arange(1, HORIZON + 1)
    level = np.log(100.0)
    mean = level + np.log(test.last_price / 100)[:, None] * phi**day
    sd = sigma * np.sqrt((1 - phi ** (2 * day)) / (1 - phi**2))
    # over 10,000 days phi is known to .005 and the level to .0015, a seventh of a day's shock
    assert np.sqrt(((logs.mean(axis=1) - mean) ** 2).mean(axis=0) / sd**2).max() < 0.15
    np.testing.assert_allclose(logs.std(axis=1).mean(axis=0), sd, rtol=0.02)
