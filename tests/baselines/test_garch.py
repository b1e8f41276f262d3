from __future__ import annotations

import numpy as np
import pytest

from baselines.statistical.garch import GarchT, GarchTConfig
from grpo.evaluation.metrics import score_windows
from preprocessing.errors import UserError
from tests.baselines.series import fit, random_walk, windows_of

pytest.importorskip("arch")

OMEGA, ALPHA, BETA, DOF = 4e-6, 0.10, 0.86, 6.0


def simulate(rows: int, *, seed: int, state: float = OMEGA / (1 - ALPHA - BETA)) -> np.ndarray:
    """Log returns of the process with the parameters above, an implementation of its own."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(DOF, rows) * np.sqrt((DOF - 2) / DOF)
    returns = np.empty(rows)
    for day in range(rows):
        returns[day] = np.sqrt(state) * shocks[day]
        state = OMEGA + ALPHA * returns[day] ** 2 + BETA * state
    return returns


@pytest.fixture(scope="module")
def fitted() -> GarchT:
    train = windows_of({"A": 100 * np.exp(np.cumsum(simulate(8000, seed=1)))}, length=30, horizon=5)
    return fit(GarchT, train)


def test_parameters_of_a_known_process_are_recovered(fitted):
    mean, omega, alpha, beta, dof = fitted.parameters[0]
    assert mean == 0
    assert omega == pytest.approx(OMEGA, rel=0.4)
    assert alpha == pytest.approx(ALPHA, abs=0.03)
    assert beta == pytest.approx(BETA, abs=0.04)
    assert dof == pytest.approx(DOF, abs=1)
    assert omega / (1 - alpha - beta) == pytest.approx(OMEGA / (1 - ALPHA - BETA), rel=0.2)


def exact() -> GarchT:
    parameters = np.array([[0.001, OMEGA, ALPHA, BETA, DOF]])
    return GarchT(GarchTConfig(mean="constant"), np.array(["A"]), parameters)


def test_the_recursion_runs_through_the_window():
    context = windows_of({"A": random_walk(50, seed=2)}, length=30, horizon=5).context.take(np.array([3]))
    variance = context.feature("past_volatility")[0] ** 2
    closes = context.past[0, :, 0]
    for log_return in np.diff(np.log(closes)):
        variance = OMEGA + ALPHA * (log_return - 0.001) ** 2 + BETA * variance
    np.testing.assert_allclose(exact().next_variance(context), [variance], rtol=1e-12)


def test_paths_have_the_moments_of_the_process():
    context = windows_of({"A": random_walk(50, seed=2)}, length=30, horizon=5).context.take(np.array([3]))
    samples = exact().predict(context, horizon=5, num_samples=200_000, seed=0).samples[0]
    returns = np.diff(np.log(samples / context.last_price[0]), axis=1, prepend=0) - 0.001
    # E[s_h^2] = V + (alpha + beta)^(h-1) (s_1^2 - V), V the unconditional variance
    long_run = OMEGA / (1 - ALPHA - BETA)
    expected = long_run + (ALPHA + BETA) ** np.arange(5) * (exact().next_variance(context)[0] - long_run)
    np.testing.assert_allclose((returns**2).mean(axis=0), expected, rtol=4 * np.sqrt(8 / 200_000))
    # the square of one day moves the variance of the next by alpha times Var(r_1^2) = s_1^4 (kurtosis - 1)
    kurtosis = 3 + 6 / (DOF - 4)
    covariance = np.cov(np.minimum(returns[:, 0] ** 2, 1), returns[:, 1] ** 2)[0, 1]
    assert covariance == pytest.approx(ALPHA * expected[0] ** 2 * (kurtosis - 1), rel=0.25)
    np.testing.assert_allclose(returns.mean(axis=0), 0, atol=4 * np.sqrt(expected.max() / 200_000))


def test_its_scores_are_near_those_of_the_true_law(fitted):
    closes = 100 * np.exp(np.cumsum(simulate(2000, seed=8)))
    test = windows_of({"A": closes}, length=30, horizon=5, stride=10)
    truth = GarchT(GarchTConfig(), np.array(["A"]), np.array([[0.0, OMEGA, ALPHA, BETA, DOF]]))
    scores = [
        score_windows(model.predict(test.context, horizon=5, num_samples=300, seed=0), test).crps.mean()
        for model in (fitted, truth)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=0.005)


def test_too_few_consecutive_days_are_refused():
    train = windows_of({"A": random_walk(300, seed=1), "B": random_walk(200, seed=2)}, length=30, horizon=5)
    with pytest.raises(UserError, match="B has 199 consecutive training returns, 250 are needed"):
        fit(GarchT, train)
    sparse = windows_of({"A": random_walk(900, seed=1)}, length=30, horizon=5, stride=6)
    with pytest.raises(UserError, match="a stride of at most the horizon"):
        fit(GarchT, sparse)
