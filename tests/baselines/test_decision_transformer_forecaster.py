"""The Decision Transformer as a forecaster: bins, states, an honest return to go, and fits that survive a kill."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.decision_transformer.forecaster import (
    DecisionTransformerBc,
    DecisionTransformerBcConfig,
    DecisionTransformerConfig,
    DecisionTransformerForecaster,
)
from baselines.decision_transformer.model import ModelConfig
from baselines.decision_transformer.return_policy import (
    Bins,
    Days,
    PathSampler,
    ReturnPolicy,
    returns_to_go,
    states_of,
)
from baselines.neural.inputs import WindowInputs
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.returns import daily_volatility
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows

TINY = DecisionTransformerConfig(d_model=8, steps=6, batch_size=16, evaluate_every=2, validation_windows=10)


@cache
def data(name: str = "sim:ou?rows=500&half_life=5&seed=1", window: int = 30, horizon: int = 5):
    bars = {name: parse_simulated_stock(name).bars()}
    return split_windows(bars, DataConfig(window=window, horizon=horizon))[0]


def fit(plugin, folder, config=TINY, splits=None, horizon: int = 5, seed: int = 0):
    splits = splits or data()
    return plugin.fit(config, splits["train"], splits["val"], horizon=horizon, seed=seed, out_dir=folder)


def inputs(windows: int, length: int, features: int) -> WindowInputs:
    rng = np.random.default_rng(0)
    return WindowInputs(
        torch.from_numpy(rng.standard_normal((windows, length))),
        torch.from_numpy(rng.standard_normal((windows, features))),
    )


def test_bins_have_equal_shares_of_the_mirrored_values_and_give_them_back():
    values = np.random.default_rng(0).standard_t(4, size=10_000) + 0.5
    mirrored = np.concatenate([values, -values])
    bins = Bins.fit(values.reshape(100, 100), 5)
    labels = bins.label(mirrored)
    np.testing.assert_allclose(np.bincount(labels) / len(mirrored), 0.2, atol=1e-3)
    edges = np.quantile(mirrored, [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_array_equal(labels, np.searchsorted(edges, mirrored, side="right"))
    assert bins.label(np.array([-1e9, 1e9])).tolist() == [0, 4]
    uniform = np.random.default_rng(1).random(len(mirrored))
    drawn = bins.draw(labels, uniform)
    assert (bins.label(drawn) == labels).mean() > 0.999
    levels = np.linspace(0.05, 0.95, 19)  # within a bin; its extremes are luck
    for number in range(5):
        mine, theirs = (np.quantile(x[labels == number], levels) for x in (drawn, mirrored))
        np.testing.assert_allclose(mine, theirs, atol=0.1 if number in (0, 4) else 0.02)
    assert bins.draw(np.array([0, 4]), np.array([0.0, 1.0])).tolist() == [mirrored.min(), mirrored.max()]


def test_states_hold_what_was_known_before_each_day():
    known = inputs(2, 3, 1)
    daily = torch.tensor([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    states = states_of(known, daily)
    r, f = known.returns[0].tolist(), known.features[0].tolist()
    expected = [[*r, *f, 0.0], [*r[1:], 10.0, *f, 10.0], [r[2], 10.0, 20.0, *f, 30.0]]
    np.testing.assert_allclose(states[0], expected)
    changed = daily.clone()
    changed[:, 1:] += 5
    assert torch.equal(states_of(known, changed)[:, :2], states[:, :2])


def test_what_is_left_of_the_return_by_hand():
    assert returns_to_go(torch.tensor([[1.0, 2.0, 4.0]])).tolist() == [[7.0, 6.0, 4.0]]


def policy(*, use_returns: bool = True) -> ReturnPolicy:
    torch.manual_seed(0)
    config = ModelConfig(d_model=16, num_layers=2, num_heads=2, context=4, state_size=6, use_returns=use_returns)
    net = ReturnPolicy(config, return_bins=7).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def sampler(net: ReturnPolicy, target="learnt") -> PathSampler:
    values = np.random.default_rng(5).standard_normal(3000)
    return PathSampler(net, Bins.fit(values, 5), Bins.fit(2 * values, 7), target)


@pytest.mark.parametrize("use_returns", [True, False])
def test_a_path_takes_the_actions_that_its_numbers_point_at(use_returns):
    """Each action, read again from the forward pass on the finished path, is the one that was drawn."""
    draws, known = sampler(policy(use_returns=use_returns)), inputs(3, 3, 2)
    uniforms = np.random.default_rng(6).random((3, 8, 10))
    daily = draws.sample(known, uniforms, days=4)
    assert daily.shape == (3, 8, 4)
    net, bins = draws.policy, draws.daily_bins
    for window in range(3):
        moves = torch.from_numpy(daily[window])
        states = states_of(WindowInputs(*(x[window].expand(8, -1) for x in vars(known).values())), moves)
        wanted = np.zeros(8)
        if net.target_head is not None:
            shares = net.target_head(states[:, 0]).softmax(-1).detach().numpy().cumsum(axis=1)
            chosen = (shares < uniforms[window, :, :1]).sum(axis=1)
            wanted = draws.total_bins.draw(chosen, uniforms[window, :, 1])
        left = wanted[:, None] - np.pad(daily[window].cumsum(axis=1)[:, :-1], ((0, 0), (1, 0)))
        actions = torch.from_numpy(bins.label(daily[window]))
        with torch.no_grad():
            logits = net.transformer(states, actions, torch.from_numpy(left)).action_logits
        below = logits.softmax(-1).numpy().cumsum(axis=2)
        expected = (below < uniforms[window, :, 2::2, None]).sum(axis=2)
        np.testing.assert_array_equal(actions, expected)
        np.testing.assert_allclose(daily[window], bins.draw(expected, uniforms[window, :, 3::2]))


def test_shorter_paths_begin_as_longer_ones():
    draws, known = sampler(policy()), inputs(3, 3, 2)
    uniforms = np.random.default_rng(6).random((3, 8, 10))
    np.testing.assert_allclose(
        draws.sample(known, uniforms, days=2), draws.sample(known, uniforms, days=4)[..., :2], rtol=1e-12
    )


def test_drawn_from_training_the_whole_return_knows_nothing_of_the_window():
    draws = sampler(policy(), target="train")
    uniforms = np.random.default_rng(0).random((50, 2))
    one, other = (
        draws._whole_returns(torch.full((1, 6), value, dtype=torch.float64), uniforms, 50) for value in (-1.0, 1.0)
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        one, draws.total_bins.draw(np.minimum((uniforms[:, 0] * 7).astype(int), 6), uniforms[:, 1])
    )


def days_of(known: WindowInputs, daily: np.ndarray, bins: tuple[Bins, Bins]) -> Days:
    labels = bins[0].label(daily), bins[1].label(daily.sum(axis=1))
    return Days(known, torch.from_numpy(daily).float(), *map(torch.from_numpy, labels))


def learnt_sampler(known: WindowInputs, daily: np.ndarray, num_actions: int) -> PathSampler:
    """A small policy after 300 steps on these windows."""
    bins = Bins.fit(daily, num_actions), Bins.fit(daily.sum(axis=1), 8)
    days = days_of(known, daily, bins)
    size = {"d_model": 16, "num_layers": 1, "num_heads": 2, "context": 4, "state_size": 5}
    torch.manual_seed(0)
    net = ReturnPolicy(ModelConfig(dropout=0.0, num_actions=num_actions, return_scale=0.5, **size), return_bins=8)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(300):
        rows = np.random.default_rng(step).integers(len(daily), size=128)
        optimizer.zero_grad()
        net.loss(days.take(torch.from_numpy(rows)), 0.1).backward()
        optimizer.step()
    return PathSampler(net.double().eval(), *bins, "learnt")


def signed(count: int, *, seed: int) -> tuple[WindowInputs, np.ndarray]:
    """Each day moves by half a deviation in the direction of the window's only feature, and by normal noise."""
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1.0, 1.0], size=(count, 1))
    daily = 0.5 * sign + rng.standard_normal((count, 4))
    returns = torch.from_numpy(0.1 * rng.standard_normal((count, 3))).float()
    return WindowInputs(returns, torch.from_numpy(sign).float()), daily


@pytest.mark.slow
def test_learnt_whole_returns_keep_what_the_window_says_and_those_of_training_lose_it():
    learnt = learnt_sampler(*signed(2000, seed=0), num_actions=5)
    known, _ = signed(200, seed=1)
    sign = known.features.numpy()
    uniforms = np.random.default_rng(2).random((200, 50, 10))
    end = learnt.sample(known, uniforms, days=4).sum(axis=2)
    assert (sign * end).mean() == pytest.approx(4 * 0.5, abs=0.25)
    assert (sign * end).std() == pytest.approx(2.0, abs=0.2)
    train = dataclasses.replace(learnt, target_return="train")
    assert (sign * train.sample(known, uniforms, days=4).sum(axis=2)).mean() < 0.5


@pytest.mark.slow
def test_the_recorded_return_gives_the_answer_away_and_a_drawn_one_does_not():
    """On a random walk nothing can be forecast, yet given the true return the last day's bin is known."""
    rng = np.random.default_rng(0)

    def walk(count: int) -> tuple[WindowInputs, np.ndarray]:
        noise = torch.from_numpy(rng.standard_normal((count, 4))).float()
        return WindowInputs(noise[:, :3], noise[:, 3:]), rng.standard_normal((count, 4))

    sampler = learnt_sampler(*walk(2000), num_actions=5)
    known, daily = walk(500)
    held_out = days_of(
        WindowInputs(known.returns.double(), known.features.double()), daily, (sampler.daily_bins, sampler.total_bins)
    )
    moves = torch.from_numpy(daily)
    with torch.no_grad():
        states = states_of(held_out.inputs, moves)
        logits = sampler.policy.transformer(states, held_out.actions, returns_to_go(moves)).action_logits
    right = (logits.argmax(-1) == held_out.actions).double().mean(dim=0)
    assert right[0] < 0.5
    assert right[3] > 0.85  # one in five is all that anyone can know
    end = sampler.sample(known, np.random.default_rng(3).random((500, 100, 10)), days=4).sum(axis=2)
    truth = daily.sum(axis=1)
    assert abs(np.corrcoef(end.mean(axis=1), truth)[0, 1]) < 3 / np.sqrt(500)
    assert end.std() == pytest.approx(2.0, rel=0.1)
    low, high = np.quantile(end, [0.1, 0.9], axis=1)
    expected = 0.8 * 99 / 101  # between two quantiles of 100 draws
    assert ((low < truth) & (truth < high)).mean() == pytest.approx(expected, abs=3 * 0.4 / np.sqrt(500))


@pytest.mark.parametrize("plugin", [DecisionTransformerForecaster, DecisionTransformerBc])
def test_before_anything_is_learnt_paths_are_a_walk_of_the_training_returns_without_drift(plugin, tmp_path):
    config = dataclasses.replace(plugin.Config(), steps=1, learning_rate=1e-12, validation_windows=10)
    forecaster = fit(plugin, tmp_path, config=config)
    context = data()["val"].context.take(np.arange(20))
    samples = forecaster.predict(context, horizon=5, num_samples=500, seed=0).samples
    daily = np.diff(np.log(samples / context.last_price[:, None, None]), axis=2, prepend=0)
    daily /= daily_volatility(context, forecaster.scaling.volatility)[:, None, None]
    moves = forecaster.scaling.targets(data()["train"]).numpy()
    chance = 4 / np.sqrt(daily.size)
    assert daily.mean() == pytest.approx(0, abs=chance)
    assert daily.std() == pytest.approx(np.sqrt((moves**2).mean()), rel=chance)
    assert np.corrcoef(daily[..., 0].ravel(), daily[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.04)


@pytest.mark.parametrize("window", [12, 45])
def test_other_windows_and_horizons_work(window, tmp_path):
    splits = data(window=window, horizon=13)
    forecaster = fit(DecisionTransformerForecaster, tmp_path, splits=splits, horizon=13)
    context = splits["test"].context
    assert forecaster.predict(context, horizon=13, num_samples=3, seed=0).samples.shape == (len(context), 3, 13)
    with pytest.raises(UserError, match="decision_transformer was fitted for 13 days ahead"):
        forecaster.predict(context, horizon=14, num_samples=3, seed=0)


def test_fitting_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(DecisionTransformerForecaster, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert pd.read_csv(tmp_path / "learning_curves.csv")["step"].tolist() == [0, 2, 4, 6]


def test_the_clone_is_the_same_without_returns(tmp_path):
    shared = {f.name: getattr(TINY, f.name) for f in dataclasses.fields(DecisionTransformerBcConfig)}
    clone = fit(DecisionTransformerBc, tmp_path, config=DecisionTransformerBcConfig(**shared))
    assert clone.sampler.policy.target_head is None
    assert clone.sampler.policy.transformer.return_encoder is None
    clone.save(tmp_path)
    with pytest.raises(SavedFileError, match=r"does not hold a fitted decision_transformer \(it is of"):
        DecisionTransformerForecaster.load(tmp_path)


def test_wrong_settings_are_refused(tmp_path):
    for wrong in (
        {"steps": 0},
        {"num_actions": 1},
        {"d_model": 9},
        {"return_bins": 1},
        {"target_return": "recorded"},
        {"learning_rate": 0.0},
        {"warm_up": -1},
        {"return_weight": -1.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DecisionTransformerConfig(**wrong)
    splits = data()
    with pytest.raises(UserError, match="decision_transformer is tuned on validation windows"):
        fit(DecisionTransformerForecaster, tmp_path, splits={**splits, "val": splits["val"].take(np.arange(0))})
