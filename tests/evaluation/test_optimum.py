from __future__ import annotations

import numpy as np
import pytest

from grpo.evaluation import optimum
from grpo.evaluation.optimum import Optimum

COVARIANCE = np.array([[4e-4, 1e-4], [1e-4, 9e-4]])


class FakeStock:
    """Halves the distance to log 100 each step; `unknown` has no law."""

    def __init__(self, name):
        self.scale = {"sim:narrow": 1.0, "sim:wide": 9.0}.get(name)

    def conditional_law(self, last_price, horizon):
        if self.scale is None:
            return None
        distance = np.log(last_price / 100)[:, None]
        mean = np.log(100) + distance * 0.5 ** np.arange(1, horizon + 1)
        return mean, self.scale * COVARIANCE[:horizon, :horizon]


@pytest.fixture(autouse=True)
def _fake_stocks(monkeypatch):
    monkeypatch.setattr(optimum, "parse_simulated_stock", FakeStock)


def test_samples_follow_each_stocks_own_law(make_windows):
    items = ["sim:narrow", "sim:wide", "sim:narrow"]
    context = make_windows([100.0, 110.0, 90.0], [[1.0, 1.0]] * 3, items=items).context
    forecast = Optimum().predict(context, horizon=2, num_samples=20_000, seed=0)
    logs = np.log(forecast.samples)  # [B, S, H]
    for row, (last, scale) in enumerate([(100, 1), (110, 9), (90, 1)]):
        mean = np.log(100) + np.log(last / 100) * np.array([0.5, 0.25])
        # four standard errors of 20,000 draws
        np.testing.assert_allclose(logs[row].mean(axis=0), mean, atol=4 * 0.03 * np.sqrt(scale / 20_000))
        np.testing.assert_allclose(np.cov(logs[row].T), scale * COVARIANCE, atol=4e-5 * scale)


def test_a_window_is_sampled_alike_in_any_company(make_windows):
    windows = make_windows([100.0, 110.0, 90.0], [[1.0, 1.0]] * 3, items=["sim:wide", "sim:narrow", "sim:wide"])
    together = Optimum().predict(windows.context, horizon=2, num_samples=5, seed=3).samples
    reversed_order = np.array([2, 1, 0])
    again = Optimum().predict(windows.context.take(reversed_order), horizon=2, num_samples=5, seed=3).samples
    np.testing.assert_array_equal(again, together[reversed_order])
    other_seed = Optimum().predict(windows.context, horizon=2, num_samples=5, seed=4).samples
    assert (other_seed != together).all()


def test_the_optimum_is_known_only_if_every_law_is(make_windows):
    def known(*items):
        return Optimum.knows(make_windows([100.0] * len(items), [[1.0]] * len(items), items=items).context)

    assert known("sim:narrow", "sim:wide")
    assert not known("sim:narrow", "sim:unknown")
    assert not known("sim:narrow", "AAPL")


def test_an_unknown_law_is_named(make_windows):
    context = make_windows([100.0], [[1.0]], items=["sim:unknown"]).context
    with pytest.raises(ValueError, match="sim:unknown"):
        Optimum().predict(context, horizon=1, num_samples=2, seed=0)
