"""The generator: densities and samples agree, and likelihood finds the law of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.settings import GeneratorSettings
from baselines.seqgan.three_stages import Schedule, SeqGanTraining, SequenceData


def any_generator(context_size: int = 0) -> Generator:
    """Weights that make mean and scale depend on everything before."""
    torch.manual_seed(0)
    generator = Generator(GeneratorSettings(hidden=6), context_size=context_size)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return generator.double()


@pytest.mark.parametrize("context_size", [0, 5])
def test_samples_are_mean_plus_scale_times_noise_of_the_law_that_has_the_density(context_size):
    generator = any_generator(context_size)
    context = torch.randn(6, context_size, dtype=torch.float64)
    noise = torch.randn(6, 3, 7, dtype=torch.float64)
    samples = Sampler(generator).sample(context, noise)
    mean, scale = generator(samples.view(18, 7), context.repeat_interleave(3, dim=0))
    assert mean.std() > 0.1
    assert scale.std() > 0.1
    torch.testing.assert_close(samples.view(18, 7), mean + scale * noise.view(18, 7), rtol=1e-12, atol=1e-12)
    cool = Sampler(generator).sample(context, noise, temperature=0.25)
    torch.testing.assert_close(
        cool[:, :, 0] - samples[:, :, 0], (-0.5 * scale * noise.view(18, 7)).view(6, 3, 7)[..., 0]
    )


def test_the_context_changes_the_law():
    generator = any_generator(context_size=5)
    values = torch.randn(1, 4, dtype=torch.float64)
    mean, scale = generator(values.expand(2, -1), torch.tensor([[0.0] * 5, [1.0] * 5], dtype=torch.float64))
    assert ((mean[0] - mean[1]).abs() > 1e-3).all()
    assert ((scale[0] - scale[1]).abs() > 1e-4).all()


def test_the_density_is_that_of_the_normal_law_and_no_value_knows_those_after_it():
    generator = any_generator()
    values = torch.randn(4, 5, dtype=torch.float64)
    context = torch.zeros(4, 0, dtype=torch.float64)
    mean, scale = (part.detach().numpy() for part in generator(values, context))
    expected = stats.norm.logpdf(values.numpy(), mean, scale)
    np.testing.assert_allclose(generator.log_prob(values, context).detach().numpy(), expected, rtol=1e-12)
    later = values.clone()
    later[:, 3] += 1
    changed = generator.log_prob(later, context) != generator.log_prob(values, context)
    assert not changed[:, :3].any()
    assert changed[:, 3:].all()


def test_an_attached_sample_still_has_a_gradient_in_the_mean():
    generator = Generator(GeneratorSettings(hidden=3, scale_floor=0.01), context_size=0).double()
    context, noise = torch.zeros(1, 0, dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64)
    mean, scale = generator(torch.zeros(1, 1, dtype=torch.float64), context)
    generator.log_prob(mean + scale * noise, context).sum().backward()
    # d log p / d mean = (y - mean) / scale^2 = .5 at scale 1
    assert generator.law.bias.grad is not None
    assert generator.law.bias.grad[0].item() == pytest.approx(0.5, rel=1e-6)


def test_untrained_it_is_white_noise_of_unit_variance():
    generator = Generator(GeneratorSettings(), context_size=3)
    mean, scale = generator(torch.randn(2, 4), torch.randn(2, 3))
    torch.testing.assert_close(mean, torch.zeros(2, 4))
    torch.testing.assert_close(scale, torch.ones(2, 4))


def test_the_scale_has_a_floor():
    generator = Generator(GeneratorSettings(scale_floor=0.2), context_size=0)
    torch.nn.init.constant_(generator.law.bias, -50.0)
    torch.testing.assert_close(generator(torch.zeros(1, 2), torch.zeros(1, 0))[1], torch.full((1, 2), 0.2))


def autoregression(num: int, steps: int, *, mean: float, slope: float, shock: float) -> torch.Tensor:
    """Stationary from the first value on."""
    rng = np.random.default_rng(5)
    values = np.empty((num, steps))
    values[:, 0] = rng.standard_normal(num) * shock / np.sqrt(1 - slope**2)
    for step in range(1, steps):
        values[:, step] = slope * values[:, step - 1] + shock * rng.standard_normal(num)
    return torch.from_numpy(mean + values).float()


def test_pretraining_recovers_mean_and_variance_of_an_autoregression(tmp_path):
    mean, slope, shock = 1.0, 0.7, 0.5
    data = SequenceData(autoregression(4000, 20, mean=mean, slope=slope, shock=shock), torch.zeros(4000, 0))
    torch.manual_seed(1)
    generator = Generator(GeneratorSettings(), context_size=0)
    SeqGanTraining(
        generator,
        None,
        data,
        settings=(GeneratorSettings(learning_rate=1e-2, batch_size=128), None),
        schedule=Schedule(pretraining_steps=400, pretraining_every=200),
        seed=1,
        folder=tmp_path,
        title="test",
    ).run()
    samples = Sampler(generator).sample(torch.zeros(20_000, 0), torch.randn(20_000, 1, 20))[:, 0].double()
    assert samples.mean().item() == pytest.approx(mean, rel=0.05)
    variance = shock**2 / (1 - slope**2)
    assert samples.var().item() == pytest.approx(variance, rel=0.05)
    assert samples[:, -1].var().item() == pytest.approx(variance, rel=0.05)
    lagged = ((samples[:, 1:] - mean) * (samples[:, :-1] - mean)).mean() / variance
    assert lagged.item() == pytest.approx(slope, rel=0.05)
