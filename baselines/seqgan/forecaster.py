"""SeqGAN as a forecaster: the generator conditioned on the window, with and without its adversarial stage.

The sequence is the H daily log returns to come over the daily volatility at the origin; the context is what
`baselines.neural.inputs` makes of a window. `seqgan_mle` stops after the pre-training; `seqgan` goes on from the same
weights, with the same seed, so that the two differ by the adversarial stage alone.

Letters: B windows, S samples, H horizon, C context inputs.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch

from baselines.building_blocks.paths import require_horizon, require_validation
from baselines.building_blocks.settings import require_at_least, require_positive
from baselines.neural.early_stopping import scaled_crps
from baselines.neural.fitted import FittedFile, FittedForecaster
from baselines.neural.inputs import InputScaling
from baselines.seqgan.discriminator import Discriminator
from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.settings import AdversarialSettings, GeneratorSettings
from baselines.seqgan.three_stages import Schedule, SeqGanTraining, SequenceData
from grpo.evaluation.harness import choose_windows
from grpo.evaluation.identity import windows_hash
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import standard_normal
from preprocessing.files import JsonObject
from preprocessing.returns import VolatilityConfig
from preprocessing.windows import Context, WindowSet

_PATHS = 20_000
"""Sample paths that are made at once when predicting."""


@dataclass(frozen=True, kw_only=True)
class SeqGanMleConfig(GeneratorSettings, VolatilityConfig):
    """The generator, its pre-training, and the choice of its weights."""

    pretraining_steps: int = 4000
    """Gradient steps of the pre-training at most."""
    evaluate_every: int = 50
    """Gradient steps between two looks at the validation windows."""
    patience: int = 10
    """Looks in a row without a better CRPS after which a stage ends."""
    validation_windows: int = 500
    """Validation windows that are looked at, at most, spread evenly over stocks and dates."""
    temperature: float = 1.0
    """In forecasts, the variance of each step is this many times what was learnt; training does not use it."""

    def __post_init__(self) -> None:
        GeneratorSettings.__post_init__(self)
        VolatilityConfig.__post_init__(self)
        require_at_least(self, 1, "pretraining_steps", "evaluate_every", "patience", "validation_windows")
        require_positive(self, "temperature")


@dataclass(frozen=True, kw_only=True)
class SeqGanConfig(SeqGanMleConfig, AdversarialSettings):
    """The same, and the adversarial stage; its schedule is shorter than the original's, to fit into a comparison."""

    discriminator_pretraining_sets: int = 20
    """Sets of freshly generated sequences that the discriminator is trained on before the adversarial stage."""
    discriminator_sets: int = 1
    """Sets per adversarial batch."""
    adversarial_every: int = 10
    """Adversarial batches between two looks at the validation windows."""

    def __post_init__(self) -> None:
        SeqGanMleConfig.__post_init__(self)
        AdversarialSettings.__post_init__(self)
        require_at_least(self, 1, "adversarial_every")


@dataclass(frozen=True, eq=False)
class SeqGanMle(FittedForecaster):
    """The generator after maximum likelihood.

    Attributes:
        config: what it was fitted with.
        horizon: days ahead that it was fitted for.
        scaling: of the windows.
        generator: float64, for samples that do not depend on their company.
    """

    name = "seqgan_mle"
    Config: ClassVar[type] = SeqGanMleConfig

    horizon: int
    generator: Generator

    @classmethod
    def fit(
        cls, config: SeqGanMleConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Train, going on where a killed fit in `out_dir` stopped; learning curves are written there.

        Raises:
            UserError: there are no validation windows.
            SavedFileError: `out_dir` holds a killed fit of other windows, settings or seed.
        """
        require_validation(cls.name, val)
        scaling = InputScaling.fit(train.context, config)
        data = SequenceData(scaling.targets(train), scaling.inputs(train.context).joined)
        looked_at = val.take(choose_windows(val.context, config.validation_windows))
        # A temperature is for forecasts; which weights are kept is decided by what was learnt.
        as_learnt = dataclasses.replace(config, temperature=1.0)

        def validate(generator: Generator) -> float:
            return scaled_crps(cls(as_learnt, scaling, horizon, _frozen(generator)), looked_at)

        adversarial = config if isinstance(config, SeqGanConfig) else None
        # Seed, then build, the generator first: `seqgan` and `seqgan_mle` then begin with the same one.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            size = data.context.shape[1]
            generator = Generator(config, context_size=size)
            discriminator = adversarial and Discriminator(
                num_steps=horizon, context_size=size, dropout_keep=adversarial.dropout_keep
            )
        training = SeqGanTraining(
            generator,
            discriminator,
            data,
            settings=(config, adversarial),
            schedule=_schedule(config),
            seed=seed,
            folder=out_dir,
            title=cls.name,
            validate=validate,
            validated_on=windows_hash(looked_at),
        )
        training.run()
        # Not before the training is over: until then the checkpoint is all that a killed fit leaves.
        training.state.discard()
        return cls(config, scaling, horizon, _frozen(generator))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than it was fitted for.
        """
        require_horizon(self.name, fitted=self.horizon, asked=horizon)
        noise = torch.from_numpy(standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed))
        # In float64, as float32 rounds differently in batches of different sizes.
        inputs = self.scaling.inputs(context).joined.double()
        sampler = Sampler(self.generator)
        at_once = max(1, _PATHS // num_samples)
        daily = [
            sampler.sample(part, part_noise, temperature=self.config.temperature)
            for part, part_noise in zip(inputs.split(at_once), noise.split(at_once), strict=True)
        ]
        return self.scaling.forecast(context, torch.cat(daily).numpy())

    def _tensors(self) -> tuple[dict[str, torch.Tensor], JsonObject]:
        tensors = {f"generator.{name}": tensor for name, tensor in self.generator.state_dict().items()}
        return tensors, {"horizon": self.horizon, "context_size": self.generator.context_size}

    @classmethod
    def _from_file(cls, file: FittedFile) -> Self:
        generator = Generator(file.config, context_size=file.header["context_size"]).double()
        file.fill(generator, "generator.")
        return cls(file.config, file.scaling, file.header["horizon"], generator)


@dataclass(frozen=True, eq=False)
class SeqGan(SeqGanMle):
    """The generator after maximum likelihood and the adversarial stage."""

    name = "seqgan"
    Config: ClassVar[type] = SeqGanConfig


def _frozen(generator: Generator) -> Generator:
    """A copy in double precision."""
    return copy.deepcopy(generator).double().requires_grad_(False)


def _schedule(config: SeqGanMleConfig) -> Schedule:
    adversarial = config if isinstance(config, SeqGanConfig) else None
    return Schedule(
        pretraining_steps=config.pretraining_steps,
        pretraining_every=config.evaluate_every,
        discriminator_sets=adversarial.discriminator_pretraining_sets if adversarial else 0,
        adversarial_batches=adversarial.adversarial_batches if adversarial else 0,
        adversarial_every=adversarial.adversarial_every if adversarial else 1,
        patience=config.patience,
    )
