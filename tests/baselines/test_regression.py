from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from baselines.statistical.lightgbm_quantile import LightgbmQuantile
from baselines.statistical.regression import PENALTIES, Ridge, RidgeConfig, solve_ridge
from preprocessing.errors import UserError
from preprocessing.returns import daily_volatility
from preprocessing.windows import WindowSet
from tests.baselines.series import fit, random_walk, windows_of

RNG = np.random.default_rng(0)


def mean_reverting(rows: int, seed: int) -> np.ndarray:
    """Closes whose log return is -0.5 times the one before plus noise of 1 %."""
    rng = np.random.default_rng(seed)
    returns = np.zeros(rows)
    for day in range(1, rows):
        returns[day] = -0.5 * returns[day - 1] + 0.01 * rng.standard_normal()
    return 100 * np.exp(np.cumsum(returns))


CLOSES = mean_reverting(2600, seed=1)
TRAIN = windows_of({"A": CLOSES[:2000]}, length=6, horizon=3)
VAL = windows_of({"A": CLOSES[2000:]}, length=6, horizon=3)


def test_solutions_are_those_of_least_squares_with_penalty_rows():
    x, y = RNG.standard_normal((50, 4)), RNG.standard_normal((50, 2))
    penalties = np.array([0.0, 0.3, 20.0])
    for solution, penalty in zip(solve_ridge(x, y, penalties), penalties, strict=True):
        rows = np.concatenate([x, np.sqrt(50 * penalty) * np.eye(4)])
        expected = np.linalg.lstsq(rows, np.concatenate([y, np.zeros((4, 2))]), rcond=None)[0]
        np.testing.assert_allclose(solution, expected, rtol=1e-9, atol=1e-12)


def test_inputs_that_repeat_share_the_smallest_weight():
    x = RNG.standard_normal((50, 1))
    doubled = solve_ridge(np.concatenate([x, x], axis=1), 3 * x, np.array([0.0]))[0]
    np.testing.assert_allclose(doubled, [[1.5], [1.5]])


def design(windows: WindowSet, config: RidgeConfig) -> tuple[np.ndarray, np.ndarray]:
    scale = daily_volatility(windows.context, config)[:, None]
    closes = windows.context.past[:, :, 0]
    return np.log(closes[:, 1:] / closes[:, :-1]) / scale, np.log(windows.truth.future / closes[:, -1:]) / scale


def test_without_penalty_it_is_the_linear_regression_with_intercept():
    config = RidgeConfig(penalty=0.0)
    forecaster = fit(Ridge, TRAIN, config)
    x, y = design(TRAIN, config)
    with_intercept = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    weights = np.linalg.lstsq(with_intercept, y, rcond=None)[0]
    test_x, _ = design(VAL, config)
    expected = weights[0] + test_x @ weights[1:]
    np.testing.assert_allclose(forecaster.scaled_mean(VAL.context), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(forecaster.residuals, y - with_intercept @ weights, atol=1e-9)
    scale = daily_volatility(VAL.context, config)[:, None]
    point = forecaster.point(VAL.context, horizon=2)
    np.testing.assert_allclose(np.log(point / VAL.context.last_price[:, None]), (scale * expected)[:, :2], atol=1e-9)


def test_the_penalty_is_the_one_that_validates_best():
    chosen, by_hand = [], []
    for seed in range(8):
        closes = mean_reverting(160, seed=seed)
        train, val = (windows_of({"A": part}, length=6, horizon=3) for part in (closes[:80], closes[80:]))
        _, y = design(val, RidgeConfig())
        models = [fit(Ridge, train, RidgeConfig(penalty=float(penalty))) for penalty in PENALTIES]
        errors = [(y - model.scaled_mean(val.context)) ** 2 for model in models]
        best = np.argmin([(error / np.array([1, 2, 3])).mean() for error in errors])
        weights = fit(Ridge, train, RidgeConfig(), val).weights
        chosen.append(int(np.argmin([abs(weights - model.weights).max() for model in models])))
        by_hand.append(int(best))
    assert chosen == by_hand
    assert len(set(by_hand)) > 3


@pytest.mark.parametrize("plugin", [Ridge, LightgbmQuantile])
def test_without_validation_windows_nothing_is_chosen(plugin):
    with pytest.raises(UserError, match=f"{plugin.name} is tuned on validation windows and there are none"):
        fit(plugin, TRAIN, None, VAL.take(np.zeros(len(VAL), dtype=bool)))


def test_a_given_penalty_needs_no_validation_windows():
    assert fit(Ridge, TRAIN, RidgeConfig(penalty=1.0), VAL.take(np.zeros(len(VAL), dtype=bool))).weights.any()


def test_on_pure_noise_the_largest_penalties_win():
    closes = random_walk(900, seed=6)
    train, val = (windows_of({"A": part}, length=20, horizon=3) for part in (closes[:500], closes[500:]))
    strength = abs(fit(Ridge, train, RidgeConfig(), val).weights).sum()
    assert strength < 0.2 * abs(fit(Ridge, train, RidgeConfig(penalty=0.0)).weights).sum()


def test_mean_reversion_is_learnt():
    forecaster = fit(Ridge, TRAIN, RidgeConfig(), VAL)
    last_return = np.log(VAL.context.past[:, -1, 0] / VAL.context.past[:, -2, 0])
    # E[r_1 + ... + r_h] = r_0 (phi + ... + phi^h) with phi = -1/2
    expected = last_return[:, None] * np.array([-0.5, -0.25, -0.375])
    found = np.log(forecaster.point(VAL.context, horizon=3) / VAL.context.last_price[:, None])
    for day in range(3):
        slope = (found[:, day] @ expected[:, day]) / (expected[:, day] @ expected[:, day])
        assert slope == pytest.approx(1, abs=0.2)
        assert np.corrcoef(found[:, day], expected[:, day])[0, 1] > 0.9


def test_paths_are_the_mean_plus_whole_residual_vectors():
    small = windows_of({"A": CLOSES[:13]}, length=6, horizon=3)
    forecaster = fit(Ridge, small, RidgeConfig(penalty=1.0))
    assert len(forecaster.residuals) == 5
    context = VAL.context.take(np.array([4]))
    samples = forecaster.predict(context, horizon=3, num_samples=5000, seed=0).samples[0]
    scaled = np.log(samples / context.last_price[0]) / daily_volatility(context, forecaster.config)[0]
    distance = abs(scaled[:, None] - forecaster.scaled_mean(context) - forecaster.residuals).max(axis=-1)
    assert (distance.min(axis=1) < 1e-9).all()
    assert stats.chisquare(np.bincount(distance.argmin(axis=1), minlength=5)).pvalue > 1e-3


def test_features_are_inputs_where_they_are_asked_for():
    from tests.windows_factory import simulated_windows

    splits = simulated_windows("sim:ou?rows=600&seed=4", window=30, horizon=5)
    plain, rich = (fit(Ridge, splits["train"], RidgeConfig(features=on), splits["val"]) for on in (False, True))
    assert len(plain.weights) == 29
    assert len(rich.weights) > 29 + 20
    assert np.isfinite(rich.scaled_mean(splits["test"].context)).all()
