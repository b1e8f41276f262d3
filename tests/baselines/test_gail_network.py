"""The token model: what it sees, how it is sampled, and what teacher forcing makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines.gail.config import PretrainedConfig
from baselines.gail.network import NetworkSizes, SequenceNetwork, previous, sample_tokens
from baselines.gail.pretraining import iid_nll, markov_nll, pretrain, token_nll
from baselines.neural.learning_curves import LearningCurve
from tests.baselines.gail_toys import (
    STATES,
    TOKENIZER,
    TRANSITIONS,
    as_sequences,
    chains,
    random_network,
    transition_error,
)

CONFIG = PretrainedConfig(
    num_tokens=4, hidden_size=16, embedding_size=4, pretrain_learning_rate=1e-2, weight_decay=0.0, pretrain_steps=300,
    criterion="nll",
)  # fmt: skip


def test_no_output_knows_a_later_token():
    network, context = random_network(), torch.randn(2, 3)
    tokens = torch.tensor([[1, 2, 3, 4], [0, 0, 1, 1]])
    changed = tokens.clone()
    changed[:, 2] = 4
    before, after = network(tokens, context), network(changed, context)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.isclose(before[:, 2], after[:, 2]).all(dim=1).any()
    assert not torch.isclose(before, network(tokens, context + 1)).any()


def test_one_step_at_a_time_is_all_steps_at_once():
    network, context, tokens = random_network(), torch.randn(3, 3), torch.randint(5, (3, 4))
    state, outputs = None, []
    for step in range(4):
        output, state = network.step(network.features(tokens[:, step], context), state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), network(tokens, context))


def test_weights_over_tokens_that_are_one_hot_are_the_tokens():
    network, context, tokens = random_network(), torch.randn(3, 3), torch.randint(6, (3, 4))
    weights = torch.nn.functional.one_hot(tokens, 6).float()
    assert torch.equal(network(weights, context), network(tokens, context))


@pytest.mark.parametrize("context_dim", [0, 3])
def test_sampling_inverts_the_cumulated_probabilities(context_dim):
    network = random_network(context_dim=context_dim).double()
    context = torch.randn(2, context_dim, dtype=torch.double)
    uniforms = torch.from_numpy(np.random.default_rng(0).random((2, 30, 4)))
    sampled = sample_tokens(network, context, uniforms)
    assert sampled.unique().numel() == 5
    for window, sample in np.ndindex(2, 30):
        tokens: list[int] = []
        for step in range(4):
            shown = torch.tensor([[5, *tokens]])  # token 5 comes before the first
            law = network(shown, context[window : window + 1])[0, -1].softmax(dim=0).tolist()
            cumulated, u = 0.0, float(uniforms[window, sample, step])
            for token in range(5):
                cumulated += law[token]
                if cumulated > u:
                    break
            tokens.append(token)
        assert sampled[window, sample].tolist() == tokens


def test_a_sequence_is_sampled_alike_in_any_company(monkeypatch):
    network, context = random_network(), torch.randn(5, 3)
    uniforms = torch.from_numpy(np.random.default_rng(1).random((5, 20, 6)))
    together = sample_tokens(network, context, uniforms)
    assert torch.equal(sample_tokens(network, context[[3]], uniforms[[3]]), together[[3]])
    monkeypatch.setattr("baselines.gail.network.CHUNK", 40)
    assert torch.equal(sample_tokens(network, context, uniforms), together)


def test_the_simple_models_are_counted():
    train = torch.tensor([[0, 1, 1]])
    val = torch.tensor([[1, 0]])
    # one added: tokens 0, 1 have counts 2, 3
    assert iid_nll(train, val, 2) == pytest.approx(-(math.log(3 / 5) + math.log(2 / 5)) / 2)
    # at the start: 0 once, so 2/3 and 1/3; after 1: 1 once, so 1/3 and 2/3
    assert markov_nll(train, val, 2) == pytest.approx(-(math.log(1 / 3) + math.log(1 / 3)) / 2)


def test_an_untrained_model_finds_all_tokens_alike():
    network = SequenceNetwork(
        NetworkSizes(num_tokens=5, context_dim=0, embedding_size=2, context_size=2, hidden_size=3), 5
    )
    tokens = torch.randint(5, (7, 3))
    assert token_nll(network, as_sequences(tokens)).item() == pytest.approx(math.log(5))
    assert previous(tokens, 5)[:, 0].tolist() == [5] * 7


def forced(folder, *, train=None, val=None, seed=0, curve=None):
    train, val = train or chains(400, 8, seed=1), val or chains(200, 8, seed=2)
    return pretrain(
        CONFIG, TOKENIZER, train, val, seed=seed, folder=folder, identity={"seed": seed},
        curve=curve or LearningCurve(),
    )  # fmt: skip


@pytest.mark.slow
def test_teacher_forcing_reaches_the_entropy_of_a_known_chain(tmp_path):
    curve = LearningCurve()
    network = forced(tmp_path, train=chains(3000, 8, seed=1), val=chains(1000, 8, seed=2), curve=curve)
    # entropy of a sequence: log 4 for the first state, then the rows' entropies by the law of the state before
    law, entropy = np.full(STATES, 1 / STATES), math.log(STATES)
    rows = -(TRANSITIONS * np.log(np.where(TRANSITIONS > 0, TRANSITIONS, 1))).sum(axis=1)
    for _ in range(7):
        entropy += float(law @ rows)
        law = law @ TRANSITIONS
    last = curve.table().iloc[-1]
    assert min(curve.table()["val_nll"]) == pytest.approx(entropy / 8, abs=0.02)
    assert last["iid_nll"] > entropy / 8 + 0.3
    assert last["markov_nll"] == pytest.approx(entropy / 8, abs=0.02)
    assert transition_error(network, 8) < 0.1


def test_a_model_that_learns_nothing_stays_as_it_was(tmp_path):
    coins = as_sequences(torch.from_numpy(np.random.default_rng(3).integers(4, size=(8, 8))))
    network = forced(tmp_path, train=coins)  # eight sequences of noise, learnt by heart
    assert transition_error(network, 8) == pytest.approx(np.abs(TRANSITIONS - 0.25).sum(axis=1).mean(), abs=0.05)
