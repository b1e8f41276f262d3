"""The discriminator's losses, and the numbers by which it is judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines.gail.demonstrations import TokenSequences
from baselines.gail.discriminator import (
    Replay,
    auc,
    f1,
    gradient_penalty,
    last_logits,
    prefix_loss,
    reward,
    roc,
    update,
)
from baselines.gail.network import NetworkSizes, SequenceNetwork
from tests.baselines.gail_toys import as_sequences, random_network


def test_the_loss_is_that_of_a_fair_mixture_over_all_prefixes():
    real, fake = torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 0.5]])
    # -log D on real, -log (1 - D) on generated prefixes
    terms = [math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(0.5))]
    assert prefix_loss(real, fake).item() == pytest.approx(sum(terms) / 4, rel=1e-6)


def test_the_reward_is_minus_log_of_one_minus_d():
    assert reward(torch.tensor(0.0)).item() == pytest.approx(math.log(2))
    assert reward(torch.tensor(3.0)).item() == pytest.approx(-math.log(1 - 1 / (1 + math.exp(-3))), rel=1e-5)


def test_the_gradient_penalty_is_the_squared_slope_by_finite_differences():
    network = random_network(outputs=1).double()
    real = TokenSequences(torch.randn(2, 3, dtype=torch.double), torch.tensor([[0, 1], [2, 3]]), torch.zeros(0))
    fake = TokenSequences(torch.randn(2, 3, dtype=torch.double), torch.tensor([[4, 1], [0, 0]]), torch.zeros(0))
    mix = torch.tensor([0.25, 0.8], dtype=torch.double)
    penalty = gradient_penalty(network, real, fake, mix)
    one_hot = torch.nn.functional.one_hot
    weights = mix[:, None, None] * one_hot(real.tokens, 6) + (1 - mix[:, None, None]) * one_hot(fake.tokens, 6)
    context = mix[:, None] * real.context + (1 - mix[:, None]) * fake.context
    total, step = 0.0, 1e-6
    for shown in (weights, context):
        for index in np.ndindex(*shown.shape):
            kept = shown[index].item()
            values = []
            for moved in (kept + step, kept - step):
                shown[index] = moved
                values.append(network(weights, context).sum().item())
            shown[index] = kept
            total += ((values[0] - values[1]) / (2 * step)) ** 2
    assert penalty.item() == pytest.approx(total / 2 / 2, rel=1e-5)  # per path, and per token
    penalty.backward()  # a loss that can be trained on
    assert all(p.grad is not None for name, p in network.named_parameters() if name != "head.bias")


@pytest.mark.slow
def test_it_learns_the_log_ratio_of_two_known_laws():
    real_law, fake_law = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.full((4,), 0.25)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = NetworkSizes(num_tokens=4, context_dim=0, embedding_size=4, context_size=1, hidden_size=8)
        network = SequenceNetwork(sizes, 1)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        random = torch.Generator().manual_seed(0)
        for step in range(600):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * (1 - step / 600)
            drawn = [
                as_sequences(torch.multinomial(law, 2 * 512, True, generator=random).reshape(512, 2))
                for law in (real_law, fake_law)
            ]
            update(network, optimizer, *drawn, penalty_weight=0.0, random=random)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    logits = network(every, torch.zeros(16, 0))[..., 0]
    ratio = (real_law / fake_law).log()
    expected = torch.stack([ratio[every[:, 0]], ratio[every].sum(dim=1)], dim=1)  # of the first token, of both
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.2)


def test_a_step_says_how_often_the_sign_was_right():
    network = random_network(num_tokens=4, context_dim=0, outputs=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    real, fake = as_sequences(torch.tensor([[0, 1], [2, 3]])), as_sequences(torch.tensor([[3, 3], [1, 0]]))
    measured = update(network, optimizer, real, fake, penalty_weight=0.0, random=torch.Generator())
    right = [network(p.tokens, p.context)[..., 0] * sign > 0 for p, sign in ((real, 1), (fake, -1))]
    assert measured["discriminator_accuracy"] == torch.cat(right).double().mean().item()
    assert measured["gradient_penalty"] == 0
    assert last_logits(network, real.tokens, real.context) == pytest.approx(
        network(real.tokens, real.context)[:, 1, 0].tolist()
    )


def test_replay_keeps_the_last_fakes():
    replay = Replay(3, context_dim=1, horizon=2)
    replay.add(torch.tensor([[0.5], [1.5]]), torch.tensor([[1, 2], [3, 4]]))
    replay.add(torch.tensor([[2.5], [3.5]]), torch.tensor([[5, 6], [7, 8]]))
    assert replay.paths.tolist() == [[1.5, 3, 4], [2.5, 5, 6], [3.5, 7, 8]]
    drawn = replay.draw(50, torch.Generator().manual_seed(0))
    assert drawn.tokens.dtype == torch.int64
    seen = {(c.item(), *t.tolist()) for c, t in zip(drawn.context, drawn.tokens, strict=True)}
    assert seen == {(1.5, 3, 4), (2.5, 5, 6), (3.5, 7, 8)}


def test_auc_counts_the_pairs_that_are_in_order():
    # of six pairs, real is above in 3.0>..: (3,1) (3,2) (1,1)=half (1,2)no (2,1) (2,2)=half
    assert auc(np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0])) == pytest.approx((1 + 1 + 0.5 + 0 + 1 + 0.5) / 6)
    assert auc(np.array([2.0]), np.array([1.0])) == 1


def test_the_area_under_the_roc_is_the_auc():
    rng = np.random.default_rng(0)
    real, generated = rng.integers(6, size=40) + 1.0, rng.integers(6, size=30) * 1.0
    false_positive, true_positive = roc(real, generated)
    assert (false_positive[0], true_positive[0], false_positive[-1], true_positive[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(auc(real, generated))


def test_f1_weighs_what_is_called_real():
    # called real: two of three real, one of two generated: 2*2 / (2*2 + 1 + 1)
    assert f1(np.array([1.0, 2.0, -1.0]), np.array([0.5, -0.5])) == pytest.approx(4 / 6)
    assert f1(np.array([-1.0]), np.array([-1.0])) == 0
