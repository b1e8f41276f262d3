"""The discriminator, and the three stages: batches, resuming, the choice of weights, and that they learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.seqgan.discriminator import Discriminator
from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.settings import AdversarialSettings, GeneratorSettings
from baselines.seqgan.three_stages import ADVERSARIAL, Schedule, SeqGanTraining, SequenceData, batch_rows

STEPS = 4
SIZES = GeneratorSettings(hidden=4, batch_size=32)
SETTINGS = AdversarialSettings(discriminator_sets=1, discriminator_epochs=1, discriminator_set_batches=2, rollouts=2)
SCHEDULE = Schedule(
    pretraining_steps=6,
    pretraining_every=2,
    discriminator_sets=10,
    adversarial_batches=6,
    adversarial_every=2,
    patience=100,
)


def data(mean: float = 0.0, num: int = 200, context_size: int = 2) -> SequenceData:
    random = torch.Generator().manual_seed(7)
    context = torch.randn(num, context_size, generator=random)
    return SequenceData(mean + torch.randn(num, STEPS, generator=random), context)


def make(
    folder: Path, *, settings=SETTINGS, sizes=SIZES, schedule=SCHEDULE, sequences=None, **others
) -> SeqGanTraining:
    sequences = sequences or data()
    size = sequences.context.shape[1]
    torch.manual_seed(0)
    return SeqGanTraining(
        Generator(sizes, context_size=size),
        Discriminator(num_steps=STEPS, context_size=size, dropout_keep=settings.dropout_keep),
        sequences,
        settings=(sizes, settings),
        schedule=schedule,
        seed=5,
        folder=folder,
        title="test",
        **others,
    )


def same(one: torch.nn.Module | None, other: torch.nn.Module | None) -> bool:
    assert one is not None
    assert other is not None
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_discriminator_is_the_convolution_with_the_context_as_constant_channels():
    torch.manual_seed(0)
    network = Discriminator(num_steps=6, context_size=3, dropout_keep=0.75).double().eval()
    values, context = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    assert network.widths == [1, 2, 3, 4, 5, 6]
    added = network.encoder(context)[:, :, None].expand(-1, -1, 6)  # type: ignore[misc]
    found, first = [], 0
    for width, layer in zip(network.widths, network.filters, strict=True):
        number = layer.out_features
        # each filter reads one value channel, and its own context channel at the first of its steps
        weight = torch.zeros(number, 1 + number, width, dtype=torch.float64)
        weight[:, 0], weight[range(number), 1 + torch.arange(number), 0] = layer.weight, 1.0
        channels = torch.cat([values[:, None], added[:, first : first + number]], dim=1)
        found.append(functional.conv1d(channels, weight, layer.bias).relu().max(dim=2)[0])
        first += number
    features = torch.cat(found, dim=1)
    gate = torch.sigmoid(features @ network.gate.weight.T + network.gate.bias)
    changed = torch.relu(features @ network.transform.weight.T + network.transform.bias)
    expected = (gate * changed + (1 - gate) * features) @ network.output.weight[0] + network.output.bias
    torch.testing.assert_close(network(values, context), expected)


def test_its_loss_is_cross_entropy_and_half_the_squares_of_the_last_layer():
    network = Discriminator(num_steps=2, context_size=0, dropout_keep=1.0)
    torch.nn.init.zeros_(network.output.weight)
    torch.nn.init.constant_(network.output.bias, 1.0)
    torch.nn.init.constant_(network.output.weight[0, :3], 0.0)
    real, generated, encoded = torch.ones(3, 2), torch.zeros(3, 2), torch.zeros(3, network.features)
    loss, accuracy = network.loss(real, generated, encoded, l2=0.2)
    # every logit is 1: -log sigmoid(1) = .313262 for the real, -log sigmoid(-1) = 1.313262 for the generated
    assert loss.item() == pytest.approx((0.313262 + 1.313262) / 2 + 0.2 * 1 / 2, rel=1e-5)
    assert accuracy.item() == 0.5


def test_an_epoch_goes_through_all_rows_once_and_no_batch_is_alone():
    rows = [batch_rows(65, 16, step, seed=3) for step in range(10)]
    assert sorted(torch.cat(rows[:4]).tolist() + rows[4].tolist()[-1:]) == list(range(65))
    assert [len(part) for part in rows[:5]] == [16, 16, 16, 16, 2]
    assert rows[5].tolist() != rows[0].tolist()
    assert rows[7].tolist() == batch_rows(65, 16, 7, seed=3).tolist()
    assert batch_rows(65, 16, 0, seed=4).tolist() != rows[0].tolist()


def test_another_training_in_the_folder_is_refused(tmp_path):
    make(tmp_path).run()
    for other in (
        {"sequences": data(mean=0.1)},
        {"settings": dataclasses.replace(SETTINGS, l2=0.3)},
        {"schedule": dataclasses.replace(SCHEDULE, adversarial_batches=7)},
    ):
        with pytest.raises(
            SavedFileError, match=r"training\.safetensors is of a training with other (data|l2|adversarial_batches)"
        ):
            make(tmp_path, **other).run()


def test_it_leaves_the_random_numbers_of_its_caller_alone(tmp_path):
    training = make(tmp_path)
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    training.run()
    assert torch.equal(torch.randn(3), expected)


def test_it_repeats_itself_and_the_seed_matters(tmp_path):
    first, second, third = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c")
    third.seed = 6
    for training in (first, second, third):
        training.run()
    assert same(first.generator, second.generator)
    assert not same(first.generator, third.generator)


def test_dropped_context_changes_the_pretraining_where_there_is_a_context(tmp_path):
    schedule = dataclasses.replace(SCHEDULE, discriminator_sets=0, adversarial_batches=0)
    for name, size in (("with", 2), ("without", 0)):
        trained = []
        for share in (0.0, 0.5):
            sizes = dataclasses.replace(SIZES, context_dropout=share)
            folder = tmp_path / f"{name}_{share}"
            trained.append(make(folder, sizes=sizes, schedule=schedule, sequences=data(context_size=size)))
            trained[-1].run()
        assert same(trained[0].generator, trained[1].generator) == (size == 0)


def test_the_rollout_policy_begins_as_the_pretrained_generator(tmp_path):
    training = make(tmp_path, schedule=dataclasses.replace(SCHEDULE, adversarial_batches=0))
    untrained = training.policy.generator.law.bias.clone()
    training.run()
    assert same(training.policy.generator, training.generator)
    assert not torch.equal(training.policy.generator.law.bias, untrained)


def test_an_adversarial_stage_that_ruins_the_generator_is_undone_and_seen(tmp_path):
    sequences = data()
    held_out = sequences.take(torch.arange(50))

    def validate(generator: Generator) -> float:
        with torch.no_grad():
            return -generator.log_prob(held_out.values, held_out.context).mean().item()

    settings = dataclasses.replace(SETTINGS, adversarial_learning_rate=0.5)
    schedule = dataclasses.replace(SCHEDULE, pretraining_steps=20, pretraining_every=5, patience=3)
    training = make(tmp_path, settings=settings, schedule=schedule, sequences=sequences, validate=validate)
    training.run()
    curve = pd.read_csv(tmp_path / "learning_curves.csv").set_index("phase")
    pretrained = curve.loc["pretraining", "validation_crps"].min()
    assert curve.loc["adversarial", "validation_crps"].max() > pretrained + 0.1
    assert validate(training.generator) == pytest.approx(curve["validation_crps"].min(), rel=1e-6)
    assert validate(training.generator) <= pretrained
    assert (tmp_path / "learning_curves.png").exists()


def test_a_stage_ends_when_validation_no_longer_improves(tmp_path):
    losses = iter([5.0, 4.0, 6.0, 7.0, *[9.0] * 9])
    schedule = dataclasses.replace(SCHEDULE, pretraining_steps=100, patience=2)
    training = make(tmp_path, schedule=schedule, validate=lambda _: next(losses))
    training.run()
    # measured before the first step and after 2, 4 and 6; the adversarial stage after 2 and 4
    assert training.state.done == {"pretraining": 6, "discriminator": 10, "adversarial": 4}


def test_the_adversarial_stage_alone_moves_the_generator_to_the_data(tmp_path):
    """White noise around 0 against data around 1.5: without any likelihood, its mean must come along."""
    settings = dataclasses.replace(
        SETTINGS,
        l2=0.001,
        adversarial_learning_rate=0.02,
        discriminator_learning_rate=0.003,
        discriminator_epochs=3,
        rollouts=4,
    )
    schedule = dataclasses.replace(SCHEDULE, pretraining_steps=0, discriminator_sets=20, adversarial_batches=20)
    training = make(tmp_path, settings=settings, schedule=schedule, sequences=data(mean=1.5, context_size=0))
    training.run()
    noise = torch.randn(2000, 1, STEPS, generator=torch.Generator().manual_seed(0))
    samples = Sampler(training.generator).sample(torch.zeros(2000, 0), noise)
    assert samples.mean().item() == pytest.approx(1.5, abs=0.5)
    assert training.state.done[ADVERSARIAL] == 20
