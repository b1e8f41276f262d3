"""The discrete SeqGAN on a vocabulary of three tokens, where every sequence can be listed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from baselines.seqgan.toys.tokens import (
    TokenDiscriminator,
    TokenLstm,
    follow,
    policy_loss,
    prefix_values,
    rollouts,
    sample,
)

V, T = 3, 3
EVERY = torch.tensor(list(itertools.product(range(V), repeat=T)))
"""All 27 sequences."""


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def tiny(std: float = 1.0, *, double: bool = True) -> TokenLstm:
    model = TokenLstm(V, embedding=4, hidden=5, std=std)
    return model.double() if double else model


def by_hand(model: TokenLstm, sequence: list[int]) -> float:
    """Log probability of one sequence, gate by gate in plain Python floats."""
    weights = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    hidden, cell, total = [0.0] * 5, [0.0] * 5, 0.0
    for read, token in zip([0, *sequence], sequence, strict=False):
        x, old = weights["embedding.weight"][read], hidden
        gates = [
            sum(w * v for w, v in zip(weights["lstm.weight_ih_l0"][row], x, strict=True))
            + sum(w * v for w, v in zip(weights["lstm.weight_hh_l0"][row], old, strict=True))
            + weights["lstm.bias_ih_l0"][row]
            for row in range(20)
        ]
        on, kept, shown = ([1 / (1 + math.exp(-g)) for g in gates[i : i + 5]] for i in (0, 5, 15))
        cell = [k * c + o * math.tanh(g) for k, c, o, g in zip(kept, cell, on, gates[10:15], strict=True)]
        hidden = [s * math.tanh(c) for s, c in zip(shown, cell, strict=True)]
        logits = [
            sum(w * h for w, h in zip(row, hidden, strict=True)) + bias
            for row, bias in zip(weights["output.weight"], weights["output.bias"], strict=True)
        ]
        total += logits[token] - math.log(sum(map(math.exp, logits)))
    return total


def prefix_expectations(model: TokenLstm, reward: torch.Tensor) -> torch.Tensor:
    """[27, T] expected reward given the first t tokens, by enumeration."""
    probabilities = model.log_probs(EVERY).sum(1).exp().detach()
    values = torch.empty(len(EVERY), T, dtype=torch.float64)
    for row, t in itertools.product(range(len(EVERY)), range(T)):
        same = (EVERY[:, : t + 1] == EVERY[row, : t + 1]).all(1)
        values[row, t] = (probabilities * reward)[same].sum() / probabilities[same].sum()
    return values


def test_log_probability_by_hand():
    model = tiny()
    for sequence, log_prob in zip(EVERY.tolist(), model.log_probs(EVERY).sum(1).tolist(), strict=True):
        assert log_prob == pytest.approx(by_hand(model, sequence), abs=1e-12)
    assert model.log_probs(EVERY).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_samples_follow_the_probabilities():
    model, count = tiny(double=False), 40_000
    codes = sample(model, count, T) @ torch.tensor([9, 3, 1])
    shares = torch.bincount(codes, minlength=27) / count
    expected = model.log_probs(EVERY).sum(1).exp().detach()
    chi2 = (count * (shares - expected).square() / expected).sum().item()
    assert chi2 < 54.05  # 99.9 % quantile of chi-squared with 26 degrees of freedom


def test_policy_gradient_is_the_gradient_of_the_expected_reward():
    model = tiny()
    reward = torch.rand(len(EVERY), dtype=torch.float64)
    log_probs = model.log_probs(EVERY)
    probabilities = log_probs.sum(1).exp()
    exact = torch.autograd.grad((probabilities * reward).sum(), _trained(model), retain_graph=True)
    # the mean over samples becomes the sum over all sequences by their probabilities
    weights = len(EVERY) * probabilities.detach()[:, None]
    loss = policy_loss(log_probs, weights * prefix_expectations(model, reward))
    for estimate, gradient in zip(torch.autograd.grad(loss, _trained(model)), exact, strict=True):
        torch.testing.assert_close(-estimate, gradient, rtol=1e-10, atol=1e-14)
    assert max(gradient.abs().max().item() for gradient in exact) > 0.01


def test_rollouts_keep_the_prefix_and_differ_from_one_another():
    model = TokenLstm(50, std=1.0)
    sequences = sample(model, 4, 6)
    rolled = rollouts(model, sequences, 16)
    assert rolled.shape == (5, 16, 4, 6)
    for given in range(5):
        assert (rolled[given, ..., : given + 1] == sequences[:, : given + 1]).all()
    assert len(torch.unique(rolled[0, :, 0], dim=0)) > 1


def test_rollout_values_are_unbiased():
    model, num = tiny(double=False), 4_000
    reward = torch.rand(len(EVERY))
    code = torch.tensor([9, 3, 1])
    values = prefix_values(model, lambda rows: reward[rows @ code], EVERY, num)
    expected = prefix_expectations(model, reward.double())
    # a reward in [0, 1] has a standard deviation of at most 1/2; 81 values, so 4.5 standard errors
    assert (values - expected).abs().max().item() < 4.5 * 0.5 / math.sqrt(num)
    torch.testing.assert_close(values[:, -1], reward)
    assert (values[:, 0] - expected[:, -1]).abs().max().item() > 0.1  # a value that ignored the rollouts would show


def test_rollout_policy_follows_and_copies_the_embedding():
    policy, generator = tiny(), tiny()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    follow(policy, generator, keep=0.8)
    for name, own in policy.state_dict().items():
        new = generator.state_dict()[name]
        torch.testing.assert_close(own, new if name == "embedding.weight" else 0.8 * before[name] + 0.2 * new)


def test_discriminator_is_the_network_of_the_paper():
    model = TokenDiscriminator(5000, 20)
    assert model.output.in_features == 1720
    width_two = model.filters[1]
    assert width_two.weight.shape == (200, 2 * 64)
    sequences = torch.randint(5000, (3, 20))
    embedded = model.embedding(sequences)
    convolved = torch.nn.functional.conv1d(
        embedded.transpose(1, 2), width_two.weight.view(200, 2, 64).transpose(1, 2), width_two.bias
    )
    windows = embedded.unfold(1, 2, 1).transpose(2, 3).flatten(2)
    torch.testing.assert_close(width_two(windows).transpose(1, 2), convolved, rtol=1e-4, atol=1e-5)
    assert TokenDiscriminator(5, 4).widths == [1, 2, 3, 4]


def test_discriminator_learns_to_tell_two_oracles_apart():
    real, generated = (sample(TokenLstm(20, std=1.0), 400, 5) for _ in range(2))
    model = TokenDiscriminator(20, 5, filters={1: 8, 2: 8}, penalty=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(real[:200], generated[:200]).backward()
        optimizer.step()
    assert model.training
    assert (model.probability(real[200:]) > 0.5).float().mean() > 0.8
    assert (model.probability(generated[200:]) < 0.5).float().mean() > 0.8


def _trained(model: TokenLstm) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
