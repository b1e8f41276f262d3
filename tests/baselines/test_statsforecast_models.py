"""The law of a path against the library's own intervals, closed forms, and the library's own simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from baselines.statistical.statsforecast_models import AutoArima, AutoEts, AutoTheta, StatsforecastConfig
from preprocessing.errors import UserError
from preprocessing.statistics import MIN_VOLATILITY
from tests.baselines.series import fit, random_walk, windows_of

models = pytest.importorskip("statsforecast.models")
theta = pytest.importorskip("statsforecast.theta")

HORIZON = 6


def process(ar: float, ma: float, *, integrate: bool, seed: int = 0, rows: int = 150) -> np.ndarray:
    """ARMA(1, 1) with unit shocks, or its running sum."""
    shocks = np.random.default_rng(seed).standard_normal(rows)
    values = np.zeros(rows)
    for t in range(1, rows):
        values[t] = ar * values[t - 1] + shocks[t] + ma * shocks[t - 1]
    return np.cumsum(values) if integrate else values


def deviations(model, horizon: int = HORIZON) -> np.ndarray:
    """[H] standard deviations behind the library's own 80 % interval."""
    interval = model.predict(h=horizon, level=[80])
    return (np.asarray(interval["hi-80"]) - np.asarray(interval["lo-80"])) / (2 * stats.norm.ppf(0.9))


@pytest.mark.parametrize("ar, ma, integrate", [(0.7, 0.0, False), (0.0, 0.6, True), (0.5, 0.4, True), (0.0, 0.0, True)])
def test_days_of_auto_arima_have_the_deviation_of_its_interval(ar, ma, integrate):
    model = models.AutoARIMA().fit(process(ar, ma, integrate=integrate))
    root = AutoArima._root(model.model_, HORIZON)
    np.testing.assert_allclose(np.sqrt((root**2).sum(axis=1)), deviations(model), rtol=1e-7)


def test_days_of_an_ar1_are_correlated_as_those_of_an_ar1():
    model = models.AutoARIMA(d=0, max_q=0, start_q=0, max_p=1, start_p=1).fit(process(0.8, 0.0, integrate=False))
    phi, variance = model.model_["coef"]["ar1"], model.model_["sigma2"]
    root = AutoArima._root(model.model_, HORIZON)
    days = np.arange(1, HORIZON + 1)
    first, later = np.minimum.outer(days, days), np.maximum.outer(days, days)
    expected = variance * phi ** (later - first) * (1 - phi ** (2 * first)) / (1 - phi**2)
    np.testing.assert_allclose(root @ root.T, expected, rtol=1e-7)


@pytest.mark.parametrize("form, damped", [("ANN", False), ("AAN", False), ("AAN", True)])
def test_days_of_auto_ets_have_the_deviation_of_its_interval(form, damped):
    model = models.AutoETS(model=form, damped=damped).fit(process(0.5, 0.3, integrate=True, seed=3))
    assert model.model_["components"] == f"{form}{'D' if damped else 'N'}"
    root = AutoEts._root(model.model_, HORIZON)
    np.testing.assert_allclose(np.sqrt((root**2).sum(axis=1)), deviations(model), rtol=1e-6)


@pytest.mark.parametrize("components", ["ANNN", "AANN", "AAND"])
def test_days_of_auto_ets_have_the_variances_of_the_closed_forms(components):
    """Hyndman, Koehler, Ord and Snyder (2008), Forecasting with exponential smoothing, table 6.2, models of class 1."""
    sigma, alpha, beta, phi = 1.7, 0.4, 0.15, 0.9
    fitted = {"components": components, "par": np.array([alpha, beta, np.nan, phi]), "sigma2": sigma**2}
    if components != "AAND":
        fitted["par"][3] = np.nan
    if components == "ANNN":
        fitted["par"][1] = np.nan
    h = np.arange(1, HORIZON + 1)
    level = beta * phi * h / (1 - phi) ** 2 * (2 * alpha * (1 - phi) + beta * phi)
    decaying = 2 * alpha * (1 - phi**2) + beta * phi * (1 + 2 * phi - phi**h)
    expected = {
        "ANNN": 1 + alpha**2 * (h - 1),
        "AANN": 1 + (h - 1) * (alpha**2 + alpha * beta * h + beta**2 * h * (2 * h - 1) / 6),
        "AAND": 1 + alpha**2 * (h - 1) + level - beta * phi * (1 - phi**h) / ((1 - phi) ** 2 * (1 - phi**2)) * decaying,
    }[components]
    root = AutoEts._root(fitted, HORIZON)
    np.testing.assert_allclose((root**2).sum(axis=1), sigma**2 * expected, rtol=1e-9)


@pytest.mark.parametrize("form, damped", [("AAN", False), ("AAN", True)])  # the library cannot simulate ANN
def test_a_shock_of_auto_ets_passes_on_as_in_the_library(form, damped):
    ets = pytest.importorskip("statsforecast.ets")
    fitted = models.AutoETS(model=form, damped=damped).fit(process(0.5, 0.3, integrate=True, seed=3)).model_
    alpha, beta, gamma, phi = np.nan_to_num(fitted["par"][:4])
    path = {}
    for shock in (None, *range(HORIZON)):
        shocks, values = np.zeros(HORIZON), np.zeros(HORIZON)
        if shock is not None:
            shocks[shock] = 1.0
        # the library's recursion multiplies by phi also where the trend is not damped
        components = [ets.switch(letter) for letter in fitted["components"][:3]]
        ets.etssimulate(
            fitted["states"][-1], 1, *components, alpha, beta, gamma, phi if damped else 1.0, HORIZON, values, shocks
        )
        path[shock] = values
    expected = np.stack([path[shock] - path[None] for shock in range(HORIZON)], axis=1)
    np.testing.assert_allclose(AutoEts._root(fitted, HORIZON) / np.sqrt(fitted["sigma2"]), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["DSTM", "DOTM"])
@pytest.mark.parametrize("alpha, parameter, days", [(0.9, 2.0, 40), (0.1, 3.0, 6)])
def test_dynamic_theta_is_the_law_that_the_library_simulates(form, alpha, parameter, days):
    count, sigma = 200_000, 1.5
    simulated = theta.compute_pi_samples(
        n=days,
        h=HORIZON,
        states=np.zeros((1, 5)),
        sigma=sigma,
        alpha=alpha,
        theta=parameter,
        mean_y=0.0,
        n_samples=count,
    )  # [H, count]
    residuals = np.concatenate([np.full(3, 99.0), sigma * np.array([-1.0, 0.0, 1.0])])  # of which 3 do not count
    fitted = {"modeltype": form, "par": {"alpha": alpha, "theta": parameter}, "n": days, "residuals": residuals}
    root = AutoTheta._root(fitted, HORIZON)
    covariance = root @ root.T
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(np.cov(simulated) / spread, covariance / spread, atol=4 * np.sqrt(2 / count))


def test_static_theta_passes_on_alpha_of_each_shock():
    fitted = models.AutoTheta(model="STM").fit(process(0.5, 0.3, integrate=True, seed=3)[:40]).model_
    alpha = fitted["par"]["alpha"]
    expected = np.eye(4) + alpha * np.tri(4, k=-1)
    sigma = np.std(fitted["residuals"][3:], ddof=1)
    np.testing.assert_allclose(AutoTheta._root(fitted, 4), sigma * expected, rtol=1e-12)


@pytest.mark.parametrize("plugin", [AutoArima, AutoEts, AutoTheta])
def test_samples_are_the_mean_and_the_covariance_of_the_law(plugin):
    windows = windows_of({"A": random_walk(60, seed=2)}, length=30, horizon=3)
    context = windows.context.take(np.array([4]))
    samples = fit(plugin, windows).predict(context, horizon=3, num_samples=40_000, seed=0).samples[0]
    mean, root = plugin.law(context.past[0, :, 0], horizon=3)
    logs = 100 * np.log(samples / context.last_price[0])
    whitened = np.linalg.solve(root, (logs - mean).T)
    np.testing.assert_allclose(np.cov(whitened), np.eye(3), atol=4 * np.sqrt(2 / 40_000))
    np.testing.assert_allclose(whitened.mean(axis=1), 0, atol=4 / np.sqrt(40_000))
    # the point forecast is the library's, in log price relative to the last close
    library = getattr(models, plugin.model)(season_length=1)
    library.fit(100 * np.log(context.past[0, :, 0] / context.last_price[0]))
    np.testing.assert_allclose(mean, library.predict(h=3)["mean"])


@pytest.mark.parametrize("plugin", [AutoArima, AutoEts, AutoTheta])
def test_a_constant_price_gets_the_smallest_volatility(plugin):
    windows = windows_of({"A": np.full(40, 7.0)}, length=30, horizon=3)
    samples = fit(plugin, windows).predict(windows.context, horizon=3, num_samples=200, seed=0).samples
    first_day = np.log(samples[:, :, 0] / 7)
    assert first_day.std() == pytest.approx(MIN_VOLATILITY, rel=0.1)


def test_two_processes_forecast_as_one():
    windows = windows_of({"A": random_walk(40, seed=2)}, length=30, horizon=3)
    one, two = (
        fit(AutoEts, windows, StatsforecastConfig(num_workers=workers)).predict(
            windows.context, horizon=3, num_samples=3, seed=0
        )
        for workers in (1, 2)
    )
    np.testing.assert_array_equal(one.samples, two.samples)


def test_a_window_that_cannot_be_fitted_is_named():
    windows = windows_of({"A": random_walk(6, seed=2)}, length=3, horizon=2)
    with pytest.raises(UserError, match="auto_theta: the window of A 2001-01-03 cannot be fitted"):
        fit(AutoTheta, windows).predict(windows.context, horizon=2, num_samples=2, seed=0)
