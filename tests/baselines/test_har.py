from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from baselines.building_blocks.gamma_regression import qlike
from baselines.statistical.har import Har, HarConfig
from preprocessing.errors import UserError
from preprocessing.returns import VolatilityConfig, daily_volatility, future_log_returns
from preprocessing.variance_memories import MEMORIES
from preprocessing.windows import WindowSet
from tests.baselines.series import fit, windows_of

HORIZON, LENGTH = 5, 40
ALPHA, BETA, MEAN_VARIANCE = 0.12, 0.83, 0.01**2
NO_SPREAD = HarConfig(calibrate="none")


def garch(rows: int, seed: int, leverage: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Closes [T] of a GARCH(1,1) with shocks that count more when they are falls, and the next day's variance [T]."""
    normal = np.random.default_rng(seed).standard_normal(rows)
    log_price, variance, current = np.empty(rows), np.empty(rows), MEAN_VARIANCE
    price = np.log(100.0)
    for t in range(rows):
        shock = np.sqrt(current) * normal[t]
        price += shock
        arch = ALPHA + leverage * (1 if shock < 0 else -1)
        current = (1 - ALPHA - BETA) * MEAN_VARIANCE + arch * shock**2 + BETA * current
        log_price[t], variance[t] = price, current
    return np.exp(log_price), variance


def garch_windows(first_seed: int, leverage: float = 0.0) -> tuple[WindowSet, np.ndarray]:
    """Windows of 30 stocks, and the variance [B] that is expected of the mean day of the horizon."""
    series = {f"S{n:02d}": garch(500, first_seed + n, leverage) for n in range(30)}
    windows = windows_of({name: closes for name, (closes, _) in series.items()}, length=LENGTH, horizon=HORIZON)
    first = np.concatenate([variance[LENGTH - 1 : -HORIZON] for _, variance in series.values()])
    persistence = ((ALPHA + BETA) ** np.arange(HORIZON)).mean()
    return windows, MEAN_VARIANCE + persistence * (first - MEAN_VARIANCE)


def test_it_learns_the_variance_of_a_garch():
    train, _ = garch_windows(0)
    test, expected = garch_windows(100)
    variance = fit(Har, train, NO_SPREAD).daily_volatility(test.context) ** 2
    simple = daily_volatility(test.context, VolatilityConfig()) ** 2
    best = qlike(expected, np.log(expected))
    assert qlike(expected, np.log(variance)) - best < 0.25 * (qlike(expected, np.log(simple)) - best)
    assert (variance / expected).mean() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(np.log(variance), np.log(expected))[0, 1] > 0.95


@pytest.mark.parametrize("leverage", [0.1, 0.0])
def test_a_fall_foretells_more_variance_than_a_rise_where_it_does(leverage):
    train, _ = garch_windows(0, leverage)
    context = train.context
    mirrored = dataclasses.replace(context, past=context.last_price[:, None, None] ** 2 / context.past)
    har = fit(Har, train, NO_SPREAD)
    ratio = np.log(har.daily_volatility(context) / har.daily_volatility(mirrored))
    last_return = np.log(context.past[:, -1, 0] / context.past[:, -2, 0])
    after_fall, after_rise = ratio[last_return < -0.015].mean(), ratio[last_return > 0.015].mean()
    if leverage:
        assert after_fall > 0.1
        assert after_rise < -0.1
    else:
        assert max(abs(after_fall), abs(after_rise)) < 0.05


@pytest.fixture(scope="module")
def small() -> WindowSet:
    return garch_windows(0)[0].take(np.arange(0, 4000, 10))


def test_samples_are_whole_training_futures_on_the_volatility_of_the_window(small):
    har = fit(Har, small, NO_SPREAD)
    context = small.context.take(np.array([3, 200]))
    samples = har.predict(context, horizon=HORIZON, num_samples=50, seed=2).samples
    scaled = np.log(samples / context.last_price[:, None, None]) / har.daily_volatility(context)[:, None, None]
    known = future_log_returns(small) / har.daily_volatility(small.context)[:, None]
    distance = abs(scaled.reshape(-1, 1, HORIZON) - known).max(axis=2).min(axis=1)
    assert distance.max() < 1e-9
    # the mean squared scaled return is 1 over training: what the intercept of the fit sees to
    steps = np.diff(har.paths, axis=1, prepend=0.0)
    assert (steps**2).mean() == pytest.approx(1, abs=1e-4)


def test_without_drift_the_paths_have_mean_zero(small):
    with_drift, without = (fit(Har, small, HarConfig(calibrate="none", drift=drift)) for drift in (True, False))
    assert abs(with_drift.paths.mean(axis=0)).max() > 0.01
    np.testing.assert_allclose(without.paths, with_drift.paths - with_drift.paths.mean(axis=0), atol=1e-12)


def test_the_spread_is_chosen_on_validation_windows(small):
    last = small.context.last_price[:, None]
    wide = dataclasses.replace(
        small, truth=dataclasses.replace(small.truth, future=last * (small.truth.future / last) ** 2)
    )
    har, wider = fit(Har, small, val=small), fit(Har, small, val=wide)
    assert har.spread == pytest.approx(1, abs=0.1)
    assert wider.spread == pytest.approx(2 * har.spread, rel=0.02)
    with pytest.raises(UserError, match="har is tuned on validation windows and there are none"):
        fit(Har, small, val=small.take(np.arange(0)))


def test_no_volatility_goes_beyond_those_of_training(small):
    har = fit(Har, small, NO_SPREAD)
    stormy = small.context.past.copy()
    stormy[:, ::2] *= 3
    volatility = har.daily_volatility(dataclasses.replace(small.context, past=stormy))
    np.testing.assert_allclose(volatility, np.exp(har.bounds[1] / 2), rtol=1e-12)


def with_memories(windows: WindowSet, memories: np.ndarray) -> WindowSet:
    return dataclasses.replace(windows, context=dataclasses.replace(windows.context, memories=memories))


def test_memories_take_the_place_of_what_the_window_tells():
    """One of them is the log of the true variance: it gets all the weight, and the others none."""
    plain, expected = garch_windows(0)
    memories = np.random.default_rng(1).standard_normal((len(plain), len(MEMORIES)))
    memories[:, 3] = np.log(expected)
    train = with_memories(plain, memories)
    har = fit(Har, train, NO_SPREAD)
    weights = har.weights[1:] / har.scale
    assert weights[4] == pytest.approx(1, abs=0.08)  # the first input is the whole past
    assert abs(np.delete(weights, 4)[:-3]).max() < 0.05
    assert abs(weights[-3:]).max() < 0.2  # of mean returns, which hardly vary
    np.testing.assert_allclose(har.daily_volatility(train.context) ** 2 / expected, 1, atol=0.25)


def test_windows_with_other_columns_than_in_training_are_refused(small):
    known = with_memories(small, np.random.default_rng(1).standard_normal((len(small), len(MEMORIES))))
    for train, other, problem in ((small, known, "without .* these are with;"), (known, small, "with .* without;")):
        with pytest.raises(UserError, match=f"har was fitted on windows {problem} fit again"):
            fit(Har, train, NO_SPREAD).daily_volatility(other.context)


@pytest.mark.parametrize("settings, message", [({"penalty": -1.0}, "penalty"), ({"calibrate": "wide"}, "calibrate")])
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HarConfig(**settings)
