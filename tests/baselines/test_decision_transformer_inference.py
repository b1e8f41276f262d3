"""Acting with a trained Decision Transformer: targets, roll-outs, and that asking for more brings more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.decision_transformer.model import DecisionTransformer, ModelConfig
from baselines.trader.inference import TraderInference
from baselines.trader.network_fitting import BEST, FitConfig, fit_network
from baselines.trader.states import STATE_NAMES
from tests.baselines.trader_toys import splits, windows

BARS = 8


def trader(*, context: int = BARS, use_returns: bool = True) -> TraderInference:
    torch.manual_seed(0)
    config = ModelConfig(d_model=16, num_layers=2, num_heads=2, context=context, use_returns=use_returns)
    network = DecisionTransformer(config).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return TraderInference(network, {}, None)


def states(bars: int = BARS, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, bars, 17))


class Echo:
    """Markets whose states are given and whose return is a hundredth of the action."""

    def __init__(self, given: np.ndarray) -> None:
        self.given, self.bar = given, 0

    def reset(self) -> np.ndarray:
        self.bar = 0
        return self.given[:, 0]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.bar += 1
        return self.given[:, self.bar % self.given.shape[1]], 0.01 * actions


def probabilities_of(network, given, actions, returns) -> np.ndarray:
    with torch.no_grad():
        found = network(*(torch.as_tensor(x) for x in (given, actions, returns)))
    return found.action_logits.softmax(-1).numpy()


def test_a_prediction_is_the_forward_pass_on_the_actions_that_it_takes():
    inference, given = trader(), states()
    prediction = inference.predict_with_target_rtg(given, 0.02)
    assert prediction.probabilities.shape == (2, BARS, 5)
    assert prediction.actions.tolist() == prediction.probabilities.argmax(-1).tolist()
    assert len(np.unique(prediction.actions)) > 1
    expected = probabilities_of(inference.network, given, prediction.actions, np.full((2, BARS), 0.02))
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-12)
    for target in (-0.5, 0.5):
        assert not np.allclose(inference.predict_with_target_rtg(given, target).probabilities, expected)


def test_recorded_actions_and_rewards_are_used_and_the_last_of_each_is_not():
    inference, given = trader(), states()
    rng = np.random.default_rng(2)
    actions, rewards = rng.integers(5, size=(2, BARS)), 0.1 * rng.standard_normal((2, BARS))
    prediction = inference.predict_with_target_rtg(given, 0.3, actions=actions, rewards=rewards)
    returns = np.full((2, BARS), 0.3)
    for bar in range(1, BARS):
        returns[:, bar] = returns[:, bar - 1] - rewards[:, bar - 1]
    expected = probabilities_of(inference.network, given, actions, returns)
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-12)
    actions[:, -1], rewards[:, -1] = 4 - actions[:, -1], 9.0
    again = inference.predict_with_target_rtg(given, 0.3, actions=actions, rewards=rewards)
    np.testing.assert_array_equal(again.probabilities, prediction.probabilities)


def test_a_roll_out_takes_what_was_earned_off_its_target():
    inference, given = trader(), states()
    rollout = inference.roll_out(Echo(given), 0.1, bars=BARS)
    np.testing.assert_allclose(rollout.rewards, 0.01 * rollout.actions)
    spent = np.cumsum(rollout.rewards, axis=1) - rollout.rewards
    np.testing.assert_allclose(rollout.returns_to_go, 0.1 - spent, atol=1e-12)
    expected = probabilities_of(inference.network, given, rollout.actions, rollout.returns_to_go)
    np.testing.assert_array_equal(rollout.actions, expected.argmax(-1))


def test_beyond_the_context_a_roll_out_sees_the_last_bars():
    inference, given = trader(context=4), states(bars=7)
    rollout = inference.roll_out(Echo(given), 0.1, bars=7)
    for bar, first in enumerate([0, 0, 0, 0, 2, 2, 4]):  # what each bar sees begins here: half of the 4 is kept
        seen = slice(first, bar + 1)
        expected = probabilities_of(
            inference.network, given[:, seen], rollout.actions[:, seen], rollout.returns_to_go[:, seen]
        )
        np.testing.assert_array_equal(rollout.actions[:, bar], expected[:, -1].argmax(-1))


def test_drawn_actions_follow_the_probabilities():
    inference = trader()
    given = np.repeat(states(batch=1), 20_000, axis=0)
    rollout = inference.roll_out(Echo(given), 0.1, bars=1, generator=np.random.default_rng(0))
    expected = inference.predict_with_target_rtg(given[:1, :1], 0.1).probabilities[0, 0]
    shares = np.bincount(rollout.actions[:, 0], minlength=5) / 20_000
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(20_000))


def test_a_clone_acts_without_minding_the_target():
    inference, given = trader(use_returns=False), states()
    one, other = (inference.predict_with_target_rtg(given, target).probabilities for target in (0.0, 9.0))
    np.testing.assert_array_equal(one, other)
    assert inference.roll_out(Echo(given), 0.1, bars=BARS + 3).actions.shape == (2, BARS + 3)


def test_it_is_loaded_with_its_targets_and_scaling(tmp_path):
    data = splits(lambda s: np.full(len(s), 2), train=8, bars=4)
    model = ModelConfig(d_model=8, num_layers=1, num_heads=1, context=4)
    scaling = {"mean": [1.0] * len(STATE_NAMES), "std": [2.0] * len(STATE_NAMES)}
    notes = {"targets": {"0.9": 0.03}, "data": {"scaling": scaling}}
    fitted = fit_network(model, FitConfig(epochs=1), data, tmp_path, title="it", notes=notes)
    expected = TraderInference(fitted.network, {}, None).predict_with_target_rtg(states(4), 0.02)
    for path in (tmp_path, str(tmp_path / BEST)):
        loaded = TraderInference.load(path)
        found = loaded.predict_with_target_rtg(torch.from_numpy(states(4)), target_rtg=0.02)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
        assert loaded.targets == {"0.9": 0.03}
        assert loaded.scaling is not None
        np.testing.assert_allclose(loaded.scaling.apply(np.full((1, 17), 5.0)), 2.0)
    with pytest.raises(SavedFileError, match=r"nothing.*cannot be read"):
        TraderInference.load(tmp_path / "nothing")


def test_wrong_input_is_refused():
    inference = trader()
    with pytest.raises(ValueError, match=r"states must have shape \[any, any, 17\]; got \[2, 8, 16\]"):
        inference.predict_with_target_rtg(states()[:, :, :16], 0.02)
    with pytest.raises(ValueError, match=r"rewards must have shape \[2, 8\]; got \[2, 7\]"):
        inference.predict_with_target_rtg(states(), 0.02, rewards=np.zeros((2, 7)))
    with pytest.raises(ValueError, match=r"actions must lie in 0\.\.4"):
        inference.predict_with_target_rtg(states(), 0.02, actions=np.full((2, 8), 5))
    with pytest.raises(ValueError, match="states holds numbers that are not finite"):
        inference.predict_with_target_rtg(np.full((1, 2, 17), np.nan), 0.02)
    with pytest.raises(ValueError, match="9 bars are more than the context of 8"):
        inference.predict_with_target_rtg(states(9), 0.02)


class Paying:
    """Markets in which action a earns (a - 2) percent on every bar, whatever the state."""

    def __init__(self, count: int) -> None:
        self.rng, self.count = np.random.default_rng(3), count

    def _states(self) -> np.ndarray:
        return np.round(2 * self.rng.standard_normal((self.count, 17))) / 2

    def reset(self) -> np.ndarray:
        return self._states()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._states(), 0.01 * (actions - 2.0)


@pytest.mark.slow
def test_a_higher_target_achieves_a_higher_return(tmp_path):
    """Traders who each lean to one side: what a market returns tells which actions its trader takes."""

    def leaning(markets: int, seed: int):
        rng = np.random.default_rng(seed)
        lean = rng.random((markets, 1))
        actions = (rng.random((markets, BARS, 4)) < lean[:, :, None]).sum(axis=2)  # binomial: 4 lean on average
        return windows(
            lambda _: actions.reshape(-1), markets=markets, bars=BARS, seed=seed, reward=lambda a: 0.01 * (a - 2.0)
        )

    data = {"train": leaning(600, 0), "val": leaning(150, 1)}
    model = ModelConfig(d_model=32, num_layers=1, num_heads=2, dropout=0.0, context=BARS)
    config = FitConfig(epochs=15, batch_size=32, learning_rate=5e-3, warm_up=20)
    inference = TraderInference(fit_network(model, config, data, tmp_path, title="paying").network, {}, None)
    targets = np.array([-0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12])
    achieved = [
        inference.roll_out(Paying(200), target, bars=BARS, generator=np.random.default_rng(4)).rewards.sum(1).mean()
        for target in targets
    ]
    assert (np.diff(achieved) > 0.02).all()
    # what is left of the target is what it aims at, so each target is met but for the last bars' luck
    np.testing.assert_allclose(achieved, targets, atol=0.02)
