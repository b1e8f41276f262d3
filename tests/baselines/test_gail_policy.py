"""The policy of RecurrentPPO: the token model's layers, its episodes, and what it is charged for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from baselines.gail.config import GailConfig
from baselines.gail.demonstrations import TokenSequences
from baselines.gail.environment import TensorVecEnv
from baselines.gail.imitation import AdversarialRounds, new_discriminator, new_model, policy_of
from baselines.gail.network import SequenceNetwork, previous
from baselines.gail.policy import EpisodeBuffer
from baselines.gail.pretraining import network_sizes
from baselines.neural.learning_curves import LearningCurve
from tests.baselines.gail_toys import TOKENIZER

CONFIG = GailConfig(
    num_tokens=4, hidden_size=7, embedding_size=4, context_size=6, environments=6, batch=4, epochs=1, gae_lambda=1.0,
    kl_weight=0.3,
)  # fmt: skip
HORIZON, TOKENS, CONTEXT = 5, 4, 3
HIDDEN = CONFIG.hidden_size


def pretrained(seed: int = 0) -> SequenceNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SequenceNetwork(network_sizes(CONFIG, TOKENS, CONTEXT), TOKENS)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return network


def model_of(network: SequenceNetwork):
    discriminator = new_discriminator(CONFIG, network, seed=0)
    for parameter in discriminator.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    env = TensorVecEnv(discriminator, torch.randn(9, CONTEXT), horizon=HORIZON, num_envs=6, seed=0)
    return new_model(CONFIG, env, network, remaining=lambda: 1.0), discriminator


def observations(tokens: torch.Tensor, context: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the environment shows at every step of whole paths [B, T], flattened as RecurrentPPO does."""
    shown = previous(tokens, TOKENS)
    return {"token": shown.reshape(-1, 1), "context": context.repeat_interleave(tokens.shape[1], dim=0)}


def zero_states(sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, sequences, HIDDEN), torch.zeros(1, sequences, HIDDEN)


def test_the_policy_has_the_logits_of_the_token_model():
    network = pretrained()
    policy = policy_of(model_of(network)[0])
    tokens, context = torch.randint(TOKENS, (3, HORIZON)), torch.randn(3, CONTEXT)
    expected = network(previous(tokens, TOKENS), context).log_softmax(dim=-1).reshape(-1, TOKENS)
    starts = torch.zeros(3, HORIZON)
    starts[:, 0] = 1
    law, _ = policy.get_distribution(observations(tokens, context), zero_states(3), starts.flatten())
    torch.testing.assert_close(law.distribution.logits, expected)
    again = policy.to_network()
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in network.state_dict().items())
    # the critic reads the same hidden state, and begins with the value of what cannot be told from real paths
    assert policy.lstm_critic is None
    assert torch.equal(policy.predict_values(observations(tokens, context), zero_states(3), starts.flatten()),
                       torch.zeros(15, 1))  # fmt: skip


def test_the_order_of_episodes_in_a_sequence_changes_nothing():
    """Episodes of different lengths one after the other, in any order, from any state: each as if alone."""
    policy = policy_of(model_of(pretrained())[0])
    rng = torch.Generator().manual_seed(1)
    episodes = [
        (torch.randint(TOKENS, (1, length), generator=rng), torch.randn(1, CONTEXT, generator=rng))
        for length in (3, 1, 5, 2)
    ]
    alone = []
    for tokens, context in episodes:
        starts = torch.zeros(tokens.shape[1])
        starts[0] = 1
        states = RNNStates(zero_states(1), zero_states(1))
        alone.append(policy.evaluate_actions(observations(tokens, context), tokens.flatten(), states, starts)[1])
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]):
        parts = [observations(*episodes[number]) for number in order]
        joined = {key: torch.cat([part[key] for part in parts]) for key in ("token", "context")}
        actions = torch.cat([episodes[number][0].flatten() for number in order])
        starts = torch.cat([torch.tensor([1.0] + [0.0] * (len(alone[number]) - 1)) for number in order])
        left = torch.randn(1, 1, HIDDEN, generator=rng), torch.randn(1, 1, HIDDEN, generator=rng)
        log_prob = policy.evaluate_actions(joined, actions, RNNStates(left, left), starts)[1]
        torch.testing.assert_close(log_prob, torch.cat([alone[number] for number in order]))
        without = policy.evaluate_actions(joined, actions, RNNStates(left, left), torch.zeros_like(starts))[1]
        assert not torch.isclose(without, log_prob).all()


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_one_call_of_the_lstm_is_a_call_per_step(first):
    policy = policy_of(model_of(pretrained())[0])
    features = torch.randn(3 * 5, policy.features_dim)
    states = torch.randn(1, 3, HIDDEN), torch.randn(1, 3, HIDDEN)
    starts = torch.zeros(3, 5)
    starts[:2, 0] = first
    expected = RecurrentActorCriticPolicy._process_sequence(features, states, starts.flatten(), policy.lstm_actor)
    got = policy._process_sequence(features, states, starts.flatten(), policy.lstm_actor)
    torch.testing.assert_close(got, expected)


def test_minibatches_are_whole_episodes_whose_probabilities_are_those_they_were_sampled_with():
    model, _ = model_of(pretrained())
    policy, buffer = policy_of(model), model.rollout_buffer
    assert isinstance(buffer, EpisodeBuffer)
    _, callback = model._setup_learn(60)
    for _ in range(2):  # the second begins with what the first left in the LSTM
        model.collect_rollouts(model.env, callback, buffer, HORIZON)
    sizes, returns = [], []
    for batch in buffer.get(4 * HORIZON):
        arguments = (batch.actions.long().flatten(), batch.lstm_states, batch.episode_starts)
        values, log_prob, _ = policy.evaluate_actions(batch.observations, *arguments)
        torch.testing.assert_close(log_prob, batch.old_log_prob)
        torch.testing.assert_close(values.flatten(), batch.old_values)
        sizes.append(len(log_prob))
        returns += batch.returns.tolist()
    assert sizes == [4 * HORIZON, 2 * HORIZON]
    assert sorted(returns) == sorted(buffer.returns.flatten().tolist())
    with pytest.raises(ValueError, match="batch size 7 is no multiple of the 5 steps"):
        next(buffer.get(7))
    buffer.episode_starts[2, 1] = 1
    with pytest.raises(ValueError, match="exactly one whole episode"):
        next(buffer.get(HORIZON))


def test_returns_are_rewards_to_come_less_the_divergence_from_the_pretrained_policy(tmp_path):
    network = pretrained()
    train = TokenSequences(torch.randn(9, CONTEXT), torch.randint(TOKENS, (9, HORIZON)), torch.randn(9, HORIZON))
    rounds = AdversarialRounds(
        CONFIG, TOKENIZER, network, train, train, seed=0, path=tmp_path / "x", identity={}, curve=LearningCurve()
    )
    model, discriminator = rounds.ppo, rounds.discriminator
    policy_of(model).load_network(pretrained(seed=1))  # the policy has moved on
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    _, callback = model._setup_learn(30, rounds)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, HORIZON)
    buffer = model.rollout_buffer
    tokens = torch.from_numpy(buffer.actions[:, :, 0].T).long()
    context = torch.from_numpy(buffer.observations["context"][0])
    judged = new_discriminator(CONFIG, network, seed=0)
    judged.load_state_dict(before)  # rewards are those of the discriminator before its update

    def log_law(model: SequenceNetwork) -> torch.Tensor:
        logs = model(previous(tokens, TOKENS), context).log_softmax(dim=-1)
        return logs.gather(2, tokens[..., None])[..., 0]

    divergence = (log_law(pretrained(seed=1)) - log_law(network)).detach()
    real = torch.sigmoid(judged(tokens, context))[..., 0]
    rewards = -torch.log(1 - real) - np.log(2) - 0.3 * divergence
    to_come = rewards.flip(1).cumsum(dim=1).flip(1)  # gamma and lambda are 1, and nothing follows the last step
    np.testing.assert_allclose(buffer.returns.T, to_come.detach().numpy(), rtol=1e-3, atol=1e-4)
    assert rounds.judged["kl_to_pretrained"] == pytest.approx(float(divergence.sum(dim=1).mean()), rel=1e-3)
    assert any(not torch.equal(before[name], tensor) for name, tensor in discriminator.state_dict().items())
    assert len(rounds.replay.paths) == 6
