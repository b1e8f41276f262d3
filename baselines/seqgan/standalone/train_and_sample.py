"""SeqGAN on a text file of sequences, without forecasting: train, and sample from what was trained.

Letters: N sequences, T steps.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch

from baselines.building_blocks.settings import require_at_least, require_positive
from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.checkpoints import load_weights, read_tensors, write_tensors
from baselines.seqgan.discriminator import Discriminator
from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.settings import AdversarialSettings, GeneratorSettings
from baselines.seqgan.three_stages import ADVERSARIAL, PRETRAINING, Schedule, SeqGanTraining, SequenceData
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from preprocessing.sequence_files import read_sequences, write_sequences

GENERATOR_FILE, DISCRIMINATOR_FILE, CONFIG_FILE = "generator.safetensors", "discriminator.safetensors", "config.json"
PRETRAINED_SAMPLE_FILE, EVAL_FILE, FINAL_FILE = "generator_sample.txt", "eval_file.txt", "final_samples.txt"
_AT_ONCE = 20_000
"""Sequences that are sampled at once."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(GeneratorSettings, AdversarialSettings):
    """What `train` reads, does and writes."""

    real: Path
    """Text file of real sequences: one a line, space-separated numbers, all equally long, no header."""
    output_dir: Path = Path("save")
    """Folder for networks, samples and learning curves."""
    start_from: Path | None = None
    """Folder with the networks of a former training to begin with; null begins with untrained ones."""
    pretraining_epochs: int = 120
    """Passes over the real sequences by maximum likelihood; the original's."""
    skip_gen_pretrain: bool = False
    """Leave out the pre-training of the generator."""
    skip_dis_pretrain: bool = False
    """Leave out the pre-training of the discriminator."""
    skip_adversarial: bool = False
    """Leave out the adversarial stage."""
    num_samples: int = 10_000
    """Sequences in each file of samples; the original's."""
    seed: int = 88
    """Seed of every random choice; the original's."""
    device: str = "cpu"
    """Where networks and data live, as PyTorch names it: cpu, cuda, cuda:1."""
    show_config: bool = False
    """Show the settings as JSON and stop."""

    def __post_init__(self) -> None:
        GeneratorSettings.__post_init__(self)
        AdversarialSettings.__post_init__(self)
        require_at_least(self, 0, "pretraining_epochs", "seed")
        require_at_least(self, 1, "num_samples")

    def as_json(self) -> str:
        """The settings, readable."""
        return json.dumps(asdict(self), indent=2, default=str) + "\n"


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What `sample` draws."""

    generator: Path = Path("save") / GENERATOR_FILE
    """A generator that `train` wrote."""
    output: Path = Path("samples.txt")
    """Text file to write."""
    num_samples: int = 10_000
    """Sequences to draw."""
    temperature: float = 1.0
    """The variance of each step is this many times what was learnt."""
    seed: int = 88
    """Seed of the draws."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "num_samples")
        require_at_least(self, 0, "seed")
        require_positive(self, "temperature")


@dataclass(frozen=True, eq=False)
class TrainedGenerator:
    """A generator of sequences, and the units of its values.

    Attributes:
        settings: its sizes.
        network: no context.
        num_steps: T.
        mean: of all real values.
        std: of all real values.
    """

    settings: GeneratorSettings
    network: Generator
    num_steps: int
    mean: float
    std: float

    def sample(self, num_samples: int, *, seed: int, temperature: float = 1.0) -> np.ndarray:
        """[num_samples, T] sequences in the units of the real ones; the caller's random numbers stay as they are."""
        random = torch.Generator().manual_seed(seed)
        parameter = next(self.network.parameters())
        sampler, parts = Sampler(self.network), []
        for first in range(0, num_samples, _AT_ONCE):
            noise = torch.randn(min(_AT_ONCE, num_samples - first), 1, self.num_steps, generator=random)
            context = parameter.new_zeros(len(noise), 0)
            parts.append(sampler.sample(context, noise.to(parameter), temperature=temperature)[:, 0].cpu())
        return self.mean + self.std * torch.cat(parts).double().numpy()

    def save(self, file: Path) -> None:
        """Write weights, sizes and units."""
        sizes = {field.name: getattr(self.settings, field.name) for field in fields(GeneratorSettings)}
        header = {"seqgan": "generator", "settings": sizes, "num_steps": self.num_steps}
        write_tensors(file, self.network.state_dict(), {**header, "mean": self.mean, "std": self.std})

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SavedFileError: the file is missing, damaged, or no generator of this kind.
        """
        tensors, header = read_tensors(file)
        try:
            if header["seqgan"] != "generator":
                raise ValueError(f"it is a {header['seqgan']}")
            settings = GeneratorSettings(**header["settings"])
            network = Generator(settings, context_size=0)
            load_weights(file, network, tensors, "")
            return cls(settings, network, header["num_steps"], header["mean"], header["std"])
        except (KeyError, TypeError, ValueError) as error:
            raise SavedFileError(f"{file} holds no generator ({' '.join(str(error).split())})") from error


def train(config: TrainConfig) -> bool:
    """Train on a file and write the networks, three files of samples, the learning curves and the settings.

    Returns:
        Whether anything was left to do.

    Raises:
        UserError: the file does not hold sequences.
        UserError: it holds too few, or equal ones; or the device is not there.
        SavedFileError: `output_dir` holds another training, or `start_from` no such networks.
    """
    real = read_sequences(config.real)
    if min(real.shape) < 2 or not real.std() > 0:
        raise UserError(f"{config.real} needs two sequences of two values at least, not all of them equal")
    device = _device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator, discriminator = _networks(config, real)
    # Built on the CPU under the seed and moved afterwards: the first weights are the same on every device.
    generator.network.to(device)
    discriminator.to(device)
    values = torch.from_numpy((real - generator.mean) / generator.std).float()
    data = SequenceData(values, torch.zeros(len(values), 0)).to(device)

    def watch(stage: str, _: Generator, ended: bool) -> None:
        if stage == ADVERSARIAL or (stage == PRETRAINING and ended):
            file = EVAL_FILE if stage == ADVERSARIAL else PRETRAINED_SAMPLE_FILE
            write_sequences(config.output_dir / file, generator.sample(config.num_samples, seed=config.seed))

    training = SeqGanTraining(
        generator.network,
        discriminator,
        data,
        settings=(config, config),
        schedule=_schedule(config, len(real)),
        seed=config.seed,
        folder=config.output_dir,
        title="seqgan",
        watch=watch,
    )
    if not training.run() and (config.output_dir / CONFIG_FILE).exists():
        return False
    generator.save(config.output_dir / GENERATOR_FILE)
    header = {"seqgan": "discriminator", "num_steps": generator.num_steps, "dropout_keep": config.dropout_keep}
    write_tensors(config.output_dir / DISCRIMINATOR_FILE, discriminator.state_dict(), header)
    # Another seed than that of the samples written while training, which would else share their noise.
    write_sequences(config.output_dir / FINAL_FILE, generator.sample(config.num_samples, seed=config.seed + 1))
    write_atomically(config.output_dir / CONFIG_FILE, config.as_json())  # last: without it, it was cut short
    return True


def _networks(config: TrainConfig, real: np.ndarray) -> tuple[TrainedGenerator, Discriminator]:
    """Untrained networks, or those of `start_from`."""
    num_steps = real.shape[1]
    discriminator = Discriminator(num_steps=num_steps, context_size=0, dropout_keep=config.dropout_keep)
    if config.start_from is None:
        network = Generator(config, context_size=0)
        return TrainedGenerator(config, network, num_steps, float(real.mean()), float(real.std())), discriminator
    generator = TrainedGenerator.load(config.start_from / GENERATOR_FILE)
    if generator.num_steps != num_steps:
        raise UserError(
            f"{config.start_from} was trained on sequences of {generator.num_steps} values; "
            f"those of {config.real} have {num_steps}"
        )
    file = config.start_from / DISCRIMINATOR_FILE
    load_weights(file, discriminator, read_tensors(file)[0], "")
    return generator, discriminator


def _schedule(config: TrainConfig, num_sequences: int) -> Schedule:
    per_epoch = -(-num_sequences // config.batch_size)
    return Schedule(
        pretraining_steps=0 if config.skip_gen_pretrain else config.pretraining_epochs * per_epoch,
        pretraining_every=per_epoch,
        discriminator_sets=0 if config.skip_dis_pretrain else config.discriminator_pretraining_sets,
        adversarial_batches=0 if config.skip_adversarial else config.adversarial_batches,
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name} is not there; this machine has cpu{_cuda()}") from error


def _cuda() -> str:
    return f" and cuda (0 to {torch.cuda.device_count() - 1})" if torch.cuda.is_available() else ""
