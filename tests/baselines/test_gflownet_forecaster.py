"""Price paths: the reward's law by closed form, a toy whose law is known, and the fitted forecaster."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.gflownet import forecaster as module
from baselines.gflownet.forecaster import FITTED_FILE, GFlowNetConfig, GFlowNetForecaster
from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.learner import Learner, LearnerConfig
from baselines.gflownet.networks import ThoughtEncoder
from baselines.gflownet.price_paths import PIECES, PathKernel, PricePaths, ReturnBins, fit_temperature
from preprocessing.config import DataConfig
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows

COVARIANCE = np.array([[0.8, -0.3], [-0.3, 0.6]])


def gaussian_bins(num_bins: int) -> ReturnBins:
    levels = np.linspace(0, 1, num_bins * PIECES + 1)
    return ReturnBins(stats.norm.ppf(np.clip(levels, 1e-4, 1 - 1e-4)))


def all_ends(task: PricePaths) -> torch.Tensor:
    paths = list(itertools.product(range(task.num_actions), repeat=task.num_steps))
    return torch.tensor([[task.bos, *path] for path in paths])


def geometric_law(task: PricePaths, mean: np.ndarray) -> np.ndarray:
    """exp(E log R)/Z from the density of N(mean, covariance), with the bins' own density taken off."""
    values = task.bins.values[all_ends(task)[:, 1:].numpy()]
    log_law = stats.multivariate_normal(mean, task.kernel.covariance).logpdf(values)
    log_law += (values**2).sum(axis=1) / (2 * task.kernel.variance)
    return np.exp(log_law - np.logaddexp.reduce(log_law))


def test_bins_are_equally_likely_and_decode_to_quantiles():
    returns = np.random.default_rng(0).standard_t(4, size=(1000, 5))
    bins = ReturnBins.fit(returns, 5)
    edges = np.quantile(returns, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(bins.knots[::PIECES], edges)
    np.testing.assert_allclose(bins.decode(np.arange(5), np.zeros(5)), edges[:-1])
    middle = (returns > edges[2]) & (returns <= edges[3])
    assert bins.values[2] == pytest.approx(returns[middle].mean(), abs=0.01)
    generator = np.random.default_rng(1)
    drawn = bins.decode(generator.integers(5, size=50_000), generator.random(50_000))
    assert stats.ks_2samp(drawn, returns.ravel()).statistic < 0.02


def test_step_rewards_sum_to_the_score_relative_to_no_move():
    kernel = PathKernel(COVARIANCE, 1.3)
    task = PricePaths(gaussian_bins(4), kernel)
    observed = np.array([0.4, -1.1])
    ends = all_ends(task)
    values = task.bins.values[ends[:, 1:].numpy()]

    def score(path):
        gap = path - observed
        return gap @ np.linalg.solve(COVARIANCE, gap) / 2

    by_hand = [score(np.zeros(2)) - score(x) + x @ x / 2.6 for x in values]
    condition = torch.from_numpy(kernel.whiten(observed))
    np.testing.assert_allclose(task.log_reward(ends, condition), by_hand)
    states = torch.stack([task.initial(len(ends)), task.step(task.initial(len(ends)), ends[:, 1]), ends], dim=1)
    steps = task.log_step_rewards(states, condition.expand(len(ends), 2))
    np.testing.assert_allclose(steps.sum(dim=1), by_hand)
    # the first step's reward depends on the first token alone
    assert len({round(value, 12) for value in steps[:, 0].tolist()}) == 4


def test_the_mean_of_log_rewards_is_the_gaussian_around_the_conditional_mean():
    kernel = PathKernel(COVARIANCE, 1.0)
    task = PricePaths(gaussian_bins(6), kernel)
    mean = np.array([0.5, -0.2])
    generator = np.random.default_rng(0)
    observed = generator.multivariate_normal(mean, [[2.0, 0.5], [0.5, 1.0]], size=4000)
    observed += mean - observed.mean(axis=0)  # the mean alone matters, whatever the spread of what came
    log_rewards = np.stack([task.log_reward(all_ends(task), torch.from_numpy(kernel.whiten(y))) for y in observed])
    mean_log = log_rewards.mean(axis=0)
    law = np.exp(mean_log - np.logaddexp.reduce(mean_log))
    np.testing.assert_allclose(law, geometric_law(task, mean), rtol=1e-9)
    # the mean of R itself would be another, wider law
    mean_reward = np.exp(log_rewards).mean(axis=0)
    assert np.abs(mean_reward / mean_reward.sum() - law).sum() > 0.1


def test_where_nothing_is_known_every_bin_is_as_likely():
    task = PricePaths(gaussian_bins(5), PathKernel(np.eye(3), 1.0))
    log_rewards = task.log_reward(all_ends(task), torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(log_rewards, 0, atol=1e-12)


def test_the_state_shows_the_day_and_the_returns_latest_first():
    task = PricePaths(gaussian_bins(3), PathKernel(np.eye(3), 1.0))
    low, _, high = task.bins.values
    states = task.initial(1)
    assert task.encode(states).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]
    states = task.step(task.step(states, torch.tensor([0])), torch.tensor([2]))
    expected = [0, 0, 1, 0, high, low, 0, high + low]
    assert task.encode(states)[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("balance", module.BALANCES)
def test_a_toy_with_noisy_paths_is_learnt_as_derived(balance):
    """Two contexts, y ~ N(m(c), S) seen once per trajectory group: the learnt law is the geometric mean."""
    task = PricePaths(gaussian_bins(5), PathKernel(COVARIANCE, 1.0))
    means = np.array([[0.6, -0.2], [-0.4, 0.3]])
    factor = np.linalg.cholesky(COVARIANCE)
    config = GeneratorConfig(balance=balance, stick=0.0, width=48, thought_width=8, forward_looking=True, explore=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StochasticDBGFlowNetGenerator(task, config, ThoughtEncoder(config, 1, features=1))
        learner = Learner(generator, LearnerConfig(learning_rate=5e-3, final_rate=0.001))
        random = np.random.default_rng(0)
        for step in range(700):
            kinds = np.tile([0, 1], 64)
            observed = means[kinds] + random.standard_normal((128, 2)) @ factor.T
            condition = torch.from_numpy(task.kernel.whiten(observed)).repeat_interleave(4, dim=0)
            thought = torch.from_numpy(kinds * 2.0 - 1).float()[:, None, None]
            batch = generator.sample(512, thought=thought, condition=condition, exploring=True)
            learner.step(batch, step / 700)
        contexts = torch.tensor([-1.0, 1.0])[:, None, None]
        log_z = generator.log_partition(contexts).tolist()
        for kind, mean in enumerate(means):
            ends = all_ends(task)
            encoded = generator.encode(contexts[kind : kind + 1], len(ends))
            law, states = torch.ones(len(ends)), task.initial(len(ends))
            for column in ends[:, 1:].T:
                law = law * generator.action_law(states, encoded).gather(1, column[:, None])[:, 0]
                states = task.step(states, column)
            assert np.abs(law.detach().numpy() - geometric_law(task, mean)).sum() < 0.08
            condition = torch.from_numpy(task.kernel.whiten(mean))
            exact = torch.logsumexp(task.log_reward(ends, condition), 0).item()  # log R is linear in y
            assert log_z[kind] == pytest.approx(exact, abs=0.05)


def test_the_temperature_is_that_of_the_residuals():
    generator = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.2, 0.0], [0.2, 1.0, 0.2], [0.0, 0.2, 1.0]])
    mean = generator.standard_normal((20_000, 3))
    for true in (0.5, 2.0):
        truth = mean + generator.standard_normal((20_000, 3)) @ np.linalg.cholesky(true * covariance).T
        assert fit_temperature(mean, truth, covariance) == pytest.approx(true, rel=0.04)


# The forecaster

DATA = DataConfig(window=30, horizon=4)
SMALL = GFlowNetConfig(steps=30, check_every=10, check_windows=30, bins=7, width=16, thought_width=8)


@pytest.fixture(scope="module")
def splits():
    return split_windows({"A": parse_simulated_stock("sim:ou?half_life=3&rows=700&seed=1").bars()}, DATA)[0]


def fit(splits, folder: Path, config: GFlowNetConfig = SMALL, seed: int = 0) -> GFlowNetForecaster:
    return GFlowNetForecaster.fit(config, splits["train"], splits["val"], horizon=4, seed=seed, out_dir=folder)


def test_a_fit_leaves_curves_and_the_callers_random_state(splits, tmp_path):
    before = torch.get_rng_state()
    fit(splits, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning_curves.csv", "learning_curves.png"]


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(splits, tmp_path):
    fitted = fit(splits, tmp_path)
    context = splits["test"].context.take(np.arange(5))
    long = fitted.predict(context, horizon=4, num_samples=9, seed=1).samples
    short = fitted.predict(context, horizon=2, num_samples=9, seed=1).samples
    np.testing.assert_array_equal(long[:, :, :2], short)
    assert fitted.log_partition(context).shape == (5,)


def test_samples_follow_the_networks_law(splits, tmp_path):
    fitted = fit(splits, tmp_path, GFlowNetConfig(**(SMALL.__dict__ | {"stick": 0.3})))
    context = splits["test"].context.take(np.array([0]))
    count = 20_000
    samples = fitted.predict(context, horizon=1, num_samples=count, seed=0).samples[0, :, 0]
    volatility = module.InputScaling.forecast(fitted.scaling, context, np.ones((1, 1, 1))).samples[0, 0, 0]
    scaled = np.log(samples / context.last_price[0]) / np.log(volatility / context.last_price[0])
    edges = fitted.environment.bins.knots[::PIECES]
    drawn = np.histogram(scaled, np.r_[edges[0] - 1e-9, edges[1:-1], edges[-1] + 1e-9])[0]
    start = fitted.environment.initial(1)
    encoded = fitted.generator.encode(module.thoughts(fitted.scaling.inputs(context)), 1)
    law = 0.7 * fitted.generator.action_law(start, encoded)[0].detach().numpy() + 0.3 / 7
    assert np.all(np.abs(drawn - count * law) < 4.5 * np.sqrt(count * law))


def test_the_file_of_the_other_variant_is_refused(splits, tmp_path):
    fit(splits, tmp_path / "fit").save(tmp_path / "saved")
    with pytest.raises(SavedFileError, match=rf"{FITTED_FILE} does not hold a fitted gflownet_no_context"):
        module.GFlowNetNoContext.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": 1}, "bins must be at least 2"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"generator": "gan"}, "generator must be db or kl"),
        ({"balance": "expected_balance"}, "balance must be one of stochastic_db, detailed_balance"),
        ({"balance": "detailed_balance", "stick": 0.1}, "detailed_balance does not see noise: set stick 0"),
        ({"balance": "trajectory_balance", "generator": "kl"}, "generator kl weighs single steps"),
        ({"stick": 1.5}, "stick must be in"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GFlowNetConfig(**settings)


def test_without_noise_detailed_balance_is_stochastic_balance_and_the_others_are_losses_of_their_own(splits, tmp_path):
    def weights(balance: str) -> torch.Tensor:
        config = dataclasses.replace(SMALL, steps=10, temperature=1.0, balance=balance)
        fitted = fit(splits, tmp_path / balance, config)
        return torch.cat([parameter.flatten() for parameter in fitted.generator.parameters()])

    learnt = {balance: weights(balance) for balance in module.BALANCES}
    assert torch.equal(learnt["detailed_balance"], learnt["stochastic_db"])
    for one, other in itertools.combinations(set(learnt) - {"detailed_balance"}, 2):
        assert not torch.equal(learnt[one], learnt[other])
