from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from baselines.building_blocks.gamma_regression import fit_gamma, qlike


def simulated(count: int, shape: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs [N, 3], weights [4] and targets [N] whose mean is exp(intercept + inputs weights)."""
    rng = np.random.default_rng(seed)
    inputs, weights = rng.standard_normal((count, 3)), np.array([-9.0, 0.8, -0.5, 0.0])
    return inputs, weights, np.exp(weights[0] + inputs @ weights[1:]) * rng.gamma(shape, 1 / shape, count)


@pytest.mark.parametrize("shape", [0.5, 5.0])
def test_known_weights_are_recovered(shape):
    inputs, weights, target = simulated(40_000, shape)
    # the information of a weight is shape N, as the inputs are standard normal
    assert abs(fit_gamma(inputs, target) - weights).max() < 4 / np.sqrt(shape * 40_000)


def test_any_law_of_that_mean_will_do():
    inputs, weights, _ = simulated(40_000, 1.0)
    rng = np.random.default_rng(5)
    often_nothing = np.exp(weights[0] + inputs @ weights[1:]) * 4 * rng.integers(0, 4, 40_000) / 6
    assert abs(fit_gamma(inputs, often_nothing) - weights).max() < 4 * 0.75 / np.sqrt(40_000)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_it_finds_the_minimum_that_a_general_optimiser_finds(penalty):
    inputs, _, target = simulated(300, 1.0)

    def loss(weights: np.ndarray) -> float:
        return qlike(target, weights[0] + inputs @ weights[1:]) + penalty / 2 * (weights[1:] ** 2).sum()

    found = optimize.minimize(loss, np.array([-8.0, 0, 0, 0]), method="Nelder-Mead", options={"xatol": 1e-8,
                              "fatol": 1e-14, "maxiter": 10_000, "maxfev": 10_000})  # fmt: skip
    np.testing.assert_allclose(fit_gamma(inputs, target, penalty), found.x, atol=1e-5)


def test_inputs_that_repeat_each_other_share_the_weight():
    inputs, _, target = simulated(2000, 5.0)
    alone = fit_gamma(inputs[:, :2], target)
    twice = fit_gamma(inputs[:, [0, 1, 1]], target)
    np.testing.assert_allclose(twice, [alone[0], alone[1], alone[2] / 2, alone[2] / 2], atol=1e-6)


@pytest.mark.parametrize("target", [[1.0, -1e-9], [1.0, np.nan], [0.0, 0.0]])
def test_targets_that_are_no_variances_are_refused(target):
    with pytest.raises(ValueError, match="must be finite, at least 0, and not 0 everywhere"):
        fit_gamma(np.zeros((2, 1)), np.array(target))
