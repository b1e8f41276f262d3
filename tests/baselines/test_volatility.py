from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from baselines.building_blocks.paths import student_t
from baselines.statistical.ewma_t import EwmaT, EwmaTConfig, fit_dof
from grpo.evaluation.sampling import standard_normal
from preprocessing.returns import VolatilityConfig, daily_volatility, ewma_variance
from tests.baselines.series import fit, random_walk, windows_of, with_feature

WINDOWS = windows_of(
    {"A": random_walk(60, seed=3), "B": random_walk(50, seed=4, volatility=0.03)}, length=20, horizon=3
)


def test_ewma_is_the_recursion_started_at_the_past():
    variance = WINDOWS.context.feature("past_volatility") ** 2
    returns = np.log(WINDOWS.context.past[:, 1:, 0] / WINDOWS.context.past[:, :-1, 0])
    for day in range(19):
        variance = 0.9 * variance + 0.1 * returns[:, day] ** 2
    np.testing.assert_allclose(ewma_variance(WINDOWS.context, 0.9), variance, rtol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_variance_is_a_mixture_of_recent_and_past(weight):
    config = VolatilityConfig(decay=0.9, recent_weight=weight)
    past = WINDOWS.context.feature("past_volatility") ** 2
    expected = weight * ewma_variance(WINDOWS.context, 0.9) + (1 - weight) * past
    np.testing.assert_allclose(daily_volatility(WINDOWS.context, config) ** 2, expected, rtol=1e-12)


def test_degrees_of_freedom_are_the_most_likely_ones():
    shocks = np.random.default_rng(0).standard_t(5, 50_000) * np.sqrt(3 / 5)  # unit variance
    grid = np.arange(3, 8, 0.05)
    likelihood = [stats.t.logpdf(shocks, dof, scale=np.sqrt((dof - 2) / dof)).sum() for dof in grid]
    found = fit_dof(shocks)
    assert found == pytest.approx(grid[np.argmax(likelihood)], abs=0.05)
    assert found == pytest.approx(5, abs=0.4)


def test_shocks_are_student_t_of_unit_variance_on_the_normal_ones():
    context = WINDOWS.context.take(np.array([0, 1]))
    settings = {"num_samples": 20_000, "horizon": 2, "seed": 7}
    heavy = student_t(context, np.array([5.0, np.inf]), **settings)
    assert stats.kstest(heavy[0].ravel() / np.sqrt(3 / 5), "t", (5,)).pvalue > 1e-3
    normal = standard_normal(context, **settings)
    np.testing.assert_array_equal(heavy[1], normal[1])
    assert (np.sign(heavy[0]) == np.sign(normal[0])).all()


@pytest.mark.parametrize("tails", ["path", "day"])
def test_paths_add_uncorrelated_shocks_of_the_daily_volatility(tails):
    forecaster = fit(EwmaT, WINDOWS, EwmaTConfig(dof=10.0, decay=0.9, tails=tails))
    samples = forecaster.predict(WINDOWS.context.take(np.array([5])), horizon=3, num_samples=40_000, seed=1).samples[0]
    steps = np.diff(np.log(samples / WINDOWS.context.last_price[5]), axis=1, prepend=0)
    steps /= daily_volatility(WINDOWS.context, forecaster.config)[5]
    # the variance of a variance of n draws of kurtosis 3 + 6/(10 - 4) = 4 is (4 - 1) / n
    np.testing.assert_allclose(np.cov(steps.T), np.eye(3), atol=4 * np.sqrt(3 / 40_000))
    for day in range(3):
        assert stats.kstest(steps[:, day] / np.sqrt(8 / 10), "t", (10,)).pvalue > 1e-3
    # E[r_1^2 r_2^2] = (dof - 2)/(dof - 4) where both days share their scale, else 1
    product = (steps[:, 0] ** 2 * steps[:, 1] ** 2).mean()
    assert product == pytest.approx(8 / 6 if tails == "path" else 1, rel=0.1)


def test_the_tails_are_learnt_from_the_first_future_day():
    rng = np.random.default_rng(5)
    closes = 100 * np.exp(np.cumsum(0.01 * rng.standard_t(4, 8000) * np.sqrt(0.5)))
    train = with_feature(windows_of({"A": closes}, length=5, horizon=3), "past_volatility", 0.01)
    config = EwmaTConfig(recent_weight=0.0)  # the volatility is then known to be 1 %
    assert fit(EwmaT, train, config).dof == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"decay": 1.0}, "decay must lie"),
        ({"recent_weight": -0.1}, "recent_weight must be"),
        ({"dof": 2.0}, "dof must"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EwmaTConfig(**settings)
