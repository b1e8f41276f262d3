"""Monte-Carlo search and the policy gradient, against closed forms and finite differences."""

from __future__ import annotations

import pytest
import torch

from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.rollouts import RolloutPolicy, action_values, policy_gradient_loss, roll_out
from baselines.seqgan.settings import GeneratorSettings


class KnownReward:
    """Stands for a discriminator: minus the squared distance of the sum from a target."""

    def __init__(self, target: float) -> None:
        self.target = target

    def encode(self, context: torch.Tensor) -> torch.Tensor:
        return context

    def logits(self, values: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return -((values.sum(dim=1) - self.target) ** 2)


def any_generator(context_size: int = 0) -> Generator:
    torch.manual_seed(0)
    generator = Generator(GeneratorSettings(hidden=4), context_size=context_size)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return generator.double()


def constant_generator(mean: float) -> Generator:
    """Independent values of one mean, and of scale 1."""
    generator = Generator(GeneratorSettings(hidden=4), context_size=0).double()
    with torch.no_grad():
        generator.law.bias[0] = mean
    return generator


def play(generator: Generator, num: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    context = torch.zeros(num, 0, dtype=torch.float64)
    noise = torch.randn(num, 1, steps, dtype=torch.float64)
    return Sampler(generator).sample(context, noise)[:, 0], context


def estimated_gradient(generator: Generator, reward: KnownReward, *, num: int, steps: int, rollouts: int) -> None:
    """Leave minus the policy gradient of a batch in the parameters' `grad`."""
    values, context = play(generator, num, steps)
    worth = action_values(reward, Sampler(generator), values, context, num_rollouts=rollouts)  # type: ignore[arg-type]
    generator.zero_grad()
    policy_gradient_loss(generator.log_prob(values, context), worth).backward()


def test_continuations_keep_what_is_given_and_differ_after_it():
    generator = any_generator(context_size=3)
    context = torch.randn(5, 3, dtype=torch.float64)
    values = Sampler(generator).sample(context, torch.randn(5, 1, 6, dtype=torch.float64))[:, 0]
    rolled = roll_out(Sampler(generator), values, context, num_rollouts=8)
    assert rolled.shape == (5, 8, 5, 6)
    for given in range(1, 6):
        part = rolled[given - 1]
        torch.testing.assert_close(part[:, :, :given], values[:, :given].expand(8, -1, -1), rtol=0, atol=0)
        for step in range(given, 6):
            assert len(part[:, :, step].unique()) == 8 * 5


def test_continuations_come_from_the_generator_in_their_own_context():
    generator = any_generator(context_size=3)
    context = torch.randn(5, 3, dtype=torch.float64)
    values = Sampler(generator).sample(context, torch.randn(5, 1, 6, dtype=torch.float64))[:, 0]
    rolled = roll_out(Sampler(generator), values, context, num_rollouts=2000)
    mean, scale = generator(rolled.view(-1, 6), context.repeat(5 * 2000, 1))
    noise = ((rolled.view(-1, 6) - mean) / scale).view(5, 2000, 5, 6)
    for given in range(1, 6):
        drawn = noise[given - 1, :, :, given:].flatten(1)  # [N, values]: standard normal and independent
        assert drawn.mean().item() == pytest.approx(0, abs=4 / drawn.numel() ** 0.5)
        assert drawn.std().item() == pytest.approx(1, abs=4 / (2 * drawn.numel()) ** 0.5)
        correlations = torch.corrcoef(drawn.T) - torch.eye(drawn.shape[1])
        assert correlations.abs().max() < 5 / 2000**0.5


def test_a_step_is_worth_the_expected_reward_of_what_follows():
    mean, target, steps, rollouts = 0.3, 1.0, 4, 20_000
    generator = constant_generator(mean)
    values, context = play(generator, 3, steps)
    worth = action_values(KnownReward(target), Sampler(generator), values, context, num_rollouts=rollouts)  # type: ignore[arg-type]
    to_come = steps - torch.arange(1, steps + 1)
    # the sum is normal with variance `to_come`, and E(X - a)^2 = (E X - a)^2 + Var X
    expected = -((values.cumsum(1) + mean * to_come - target) ** 2) - to_come
    torch.testing.assert_close(worth, expected, rtol=0, atol=0.25)
    torch.testing.assert_close(worth[:, -1], expected[:, -1])


def test_a_continuation_is_judged_in_its_own_context():
    class ContextReward(KnownReward):
        def logits(self, values: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
            return encoded[:, 0]

    context = torch.arange(5, dtype=torch.float64)[:, None]
    values = torch.zeros(5, 3, dtype=torch.float64)
    worth = action_values(ContextReward(0.0), Sampler(any_generator(1)), values, context, num_rollouts=2)  # type: ignore[arg-type]
    torch.testing.assert_close(worth, context.expand(-1, 3))


def test_the_policy_gradient_is_that_of_the_expected_reward():
    """E R = -(T m - a)^2 - T s^2 for T independent values, so dE/dm = -2 T (T m - a) and dE/ds = -2 T s."""
    torch.manual_seed(3)
    mean, target, steps = 0.5, 4.0, 3
    generator = constant_generator(mean)
    estimated_gradient(generator, KnownReward(target), num=60_000, steps=steps, rollouts=4)
    found = generator.law.bias.grad
    assert found is not None
    assert -found[0].item() == pytest.approx(-2 * steps * (steps * mean - target), rel=0.02)
    # s = softplus(b) + floor, ds/db = sigmoid(b)
    assert -found[1].item() == pytest.approx(-2 * steps * torch.sigmoid(generator.law.bias[1]).item(), rel=0.04)


def test_the_policy_gradient_of_a_recurrent_generator_equals_finite_differences():
    generator, reward, steps = any_generator(), KnownReward(2.0), 4
    torch.manual_seed(4)
    estimated_gradient(generator, reward, num=60_000, steps=steps, rollouts=4)
    noise = torch.randn(400_000, 1, steps, dtype=torch.float64)
    context = torch.zeros(len(noise), 0, dtype=torch.float64)
    for name in ("law.bias", "law.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"):
        parameter = generator.get_parameter(name)
        assert parameter.grad is not None
        direction = parameter.grad / parameter.grad.norm()
        rewards = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-3 * direction)
                rewards.append(reward.logits(Sampler(generator).sample(context, noise)[:, 0], context).mean().item())
                parameter.sub_(sign * 1e-3 * direction)
        difference = (rewards[0] - rewards[1]) / 2e-3
        assert difference == pytest.approx(-parameter.grad.norm().item(), rel=0.05), name


def test_the_baseline_is_the_mean_of_the_others():
    worth = torch.tensor([[1.0, 2.0], [3.0, 8.0], [2.0, 5.0]])
    log_probs = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], requires_grad=True)
    # advantages: 1 - 2.5, 2 - 6.5; 3 - 1.5, 8 - 3.5; 2 - 2, 5 - 5
    loss = policy_gradient_loss(log_probs, worth)
    assert loss.item() == pytest.approx(-(-1.5 * 0.1 - 4.5 * 0.2 + 1.5 * 0.3 + 4.5 * 0.4) / 3)
    loss.backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, torch.tensor([[1.5, 4.5], [-1.5, -4.5], [0.0, 0.0]]) / 3)


def test_the_rollout_policy_is_a_hard_copy_and_then_follows():
    generator = any_generator()
    policy = RolloutPolicy(generator)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    for name, tensor in policy.generator.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(1)
    for name, tensor in policy.generator.state_dict().items():
        assert torch.equal(tensor, before[name])
    policy.follow(generator, keep=0.8)
    for name, tensor in policy.generator.state_dict().items():
        torch.testing.assert_close(tensor, 0.8 * before[name] + 0.2 * generator.state_dict()[name])
    policy.copy(generator)
    for name, tensor in policy.generator.state_dict().items():
        assert torch.equal(tensor, generator.state_dict()[name])
