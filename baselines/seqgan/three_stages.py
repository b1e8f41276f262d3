"""Training in three stages: likelihood, discriminator, adversarial; each can be left out, and a killed one goes on.

1. pretraining: the generator maximises the likelihood of the data, each value given those before it.
2. discriminator: the discriminator learns to tell the data from sets of freshly generated sequences.
3. adversarial: the generator takes a policy-gradient step on a batch of its own sequences, valued by Monte-Carlo
   search (`baselines.seqgan.rollouts`); the rollout policy follows; the discriminator learns on fresh sets; and so on.

Where a `validate` is given, the generator that it finds best is kept.

Letters: N sequences, T steps, C context inputs, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from baselines.neural.checkpoints import fingerprint
from baselines.neural.training_run import Measured, Stage, TrainingRun, mean_of
from baselines.seqgan.discriminator import Discriminator
from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.rollouts import RolloutPolicy, action_values, policy_gradient_loss
from baselines.seqgan.settings import AdversarialSettings, GeneratorSettings
from preprocessing import seeds

PRETRAINING, DISCRIMINATOR, ADVERSARIAL = "pretraining", "discriminator", "adversarial"
TRAINING_FILE = "training.safetensors"
_MAX_GRADIENT_NORM = 5.0
_SETS_PER_LOOK = 5
"""Sets of the second stage between two measurements."""


@dataclass(frozen=True, eq=False)
class SequenceData:
    """What is learnt: sequences in units of their spread, and what was known before each.

    Attributes:
        values: [N, T] float32.
        context: [N, C] float32; C = 0 without contexts.
    """

    values: torch.Tensor
    context: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: torch.Tensor) -> Self:
        """Some sequences, by row numbers."""
        return type(self)(self.values[rows], self.context[rows])

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(self.values.to(device), self.context.to(device))


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long each stage is, and how often it is measured and saved.

    Attributes:
        pretraining_steps: gradient steps at most; 0 leaves the stage out.
        pretraining_every: steps between two measurements.
        discriminator_sets: sets of the second stage; 0 leaves it out.
        adversarial_batches: batches of the third at most; 0 leaves it out.
        adversarial_every: batches between two measurements.
        patience: measurements in a row without a better validation after which a stage ends.
    """

    pretraining_steps: int
    pretraining_every: int
    discriminator_sets: int = 0
    adversarial_batches: int = 0
    adversarial_every: int = 10
    patience: int = 0


def batch_rows(num_rows: int, batch_size: int, step: int, *, seed: int) -> torch.Tensor:
    """Row numbers of the batch of a step: every epoch goes through all rows once, in an order of its own.

    The order depends on seed and epoch alone, so that a resumed training takes the batches of an unbroken one.
    """
    per_epoch = -(-num_rows // batch_size)
    epoch, position = divmod(step, per_epoch)
    order = seeds.generator(seed, epoch).permutation(num_rows)
    rows = order[position * batch_size : (position + 1) * batch_size]
    # a last batch of one row has no other to be compared with
    return torch.from_numpy(rows if len(rows) > 1 or num_rows == 1 else order[-2:])


class SeqGanTraining:
    """Networks, optimizers and what the three stages do with them.

    Args:
        generator: is trained in place.
        discriminator: likewise; None where there is a pre-training alone.
        data: real sequences, on the networks' device.
        settings: of the generator, and of the other two stages where there is a discriminator.
        schedule: how long.
        seed: of everything random.
        folder: gets the training checkpoint and the learning curves.
        title: of progress bars and pictures.
        validate: loss of a generator on data it was not trained on; None keeps the last generator.
        validated_on: hash of that data; a training that was killed goes on with the same alone.
        watch: is called with the stage, the generator, and whether the stage has ended, after every measurement of
            the generator and at the end of every stage.

    Attributes:
        state: how far the training is.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator | None,
        data: SequenceData,
        *,
        settings: tuple[GeneratorSettings, AdversarialSettings | None],
        schedule: Schedule,
        seed: int,
        folder: Path,
        title: str,
        validate: Callable[[Generator], float] | None = None,
        validated_on: str | None = None,
        watch: Callable[[str, Generator, bool], None] | None = None,
    ) -> None:
        self.generator, self.discriminator, self.data = generator, discriminator, data
        self.learning, self._adversarial = settings
        self.schedule, self.seed, self.title = schedule, seed, title
        self.folder = Path(folder)
        self.validate, self.watch = validate, watch
        self.policy = RolloutPolicy(generator)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            PRETRAINING: torch.optim.Adam(generator.parameters(), lr=self.learning.learning_rate)
        }
        if discriminator is not None:
            rates = self.adversarial
            self.optimizers[DISCRIMINATOR] = torch.optim.Adam(
                discriminator.parameters(), lr=rates.discriminator_learning_rate
            )
            # The third stage has an optimizer of its own: the moments of likelihood gradients would steer its first
            # steps.
            self.optimizers[ADVERSARIAL] = torch.optim.Adam(generator.parameters(), lr=rates.adversarial_learning_rate)
        settings_by_name = {
            name: value for part in (*settings, schedule) if part is not None for name, value in asdict(part).items()
        }
        self.state = TrainingRun(
            self.folder / TRAINING_FILE,
            settings_by_name
            | {
                "title": title,
                "seed": seed,
                "data": fingerprint(data.values, data.context),
                "validation data": validated_on,
                # A training that starts from other networks is another training, even with the same settings.
                "first weights": fingerprint(*(p for module in self._modules.values() for p in module.parameters())),
            },
            modules=self._modules,
            optimizers=self.optimizers,
            patience=schedule.patience if validate else None,
        )

    @property
    def adversarial(self) -> AdversarialSettings:
        """Settings of the second and third stage."""
        assert self._adversarial is not None, "there are no settings for a discriminator"
        return self._adversarial

    def run(self) -> bool:
        """Train from where the checkpoint in the folder stands; the caller's random numbers stay as they are.

        Returns:
            Whether anything was left to do.

        Raises:
            SavedFileError: the folder holds another training.
        """
        # Fork, then seed, then resume: the caller's random numbers stay as they are, a fresh training starts from the
        # seed, and a checkpoint replaces what the seed has set.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            self.state.resume()
            worked = self.state.train(self._stages(), title=self.title)
        self.state.curve.write(self.folder, title=self.title)
        return worked

    def _stages(self) -> list[Stage]:
        schedule = self.schedule
        lengths: dict[str, tuple[int, int, Callable[[int], Measured]]] = {
            PRETRAINING: (schedule.pretraining_steps, schedule.pretraining_every, self._maximise_likelihood)
        }
        if self.discriminator is not None:
            lengths[DISCRIMINATOR] = (schedule.discriminator_sets, _SETS_PER_LOOK, self._train_on_set)
            lengths[ADVERSARIAL] = (schedule.adversarial_batches, schedule.adversarial_every, self._play_batch)
        return [
            Stage(
                name=name,
                steps=steps,
                look_every=every,
                step=step,
                look=partial(self._measure, name),
                begin=partial(self._begin, name),
                end=partial(self._end, name),
            )
            for name, (steps, every, step) in lengths.items()
        ]

    def _begin(self, stage: str) -> None:
        # Here and not in the constructor: the rollouts must begin with the generator as its pre-training left it.
        if stage == ADVERSARIAL:
            self.policy.copy(self.generator)
        # Offered before the first step: where a stage starts without a best so far, the weights it starts with are one.
        # The third stage inherits the pre-trained generator and can replace it only by one that validates better.
        if stage != DISCRIMINATOR and self.validate and self.state.best.step < 0:
            loss = self.validate(self.generator)
            self.state.best.offer(loss, 0, self.generator)
            self.state.curve.add(stage, 0, validation_crps=loss)

    def _end(self, stage: str) -> None:
        # First the best weights back, then `watch`, so that what it sees is what the next stage starts from.
        if self.validate and stage != DISCRIMINATOR:
            self.state.best.restore(self.generator)
        if self.watch:
            self.watch(stage, self.generator, True)

    def _measure(self, stage: str, step: int, recent: Sequence[Measured]) -> str:
        values = mean_of(recent)
        # The second stage leaves the generator as it is: there is nothing to validate.
        if stage != DISCRIMINATOR:
            if stage == ADVERSARIAL:
                values["data_nll"] = self._data_nll()
            if self.validate:
                values["validation_crps"] = self.validate(self.generator)
                self.state.best.offer(values["validation_crps"], step, self.generator)
            if self.watch:
                self.watch(stage, self.generator, False)
        self.state.curve.add(stage, step, **values)
        return ", ".join(f"{name} {value:.4f}" for name, value in values.items())

    @torch.no_grad()
    def _data_nll(self) -> float:
        """Negative log likelihood per step of the same thousand real sequences each time."""
        sample = self.data.take(torch.arange(min(len(self.data), 1000)))
        return -self.generator.log_prob(sample.values, sample.context).mean().item()

    def _maximise_likelihood(self, step: int) -> Measured:
        batch = self.data.take(batch_rows(len(self.data), self.learning.batch_size, step, seed=self.seed))
        context = functional.dropout(batch.context, self.learning.context_dropout)
        # Likelihood and not the squared error of sampled values, which is least with no spread at all.
        loss = -self.generator.log_prob(batch.values, context).mean()
        # a linear decay to 0: the noise of the last steps would stay in the weights
        rate = self.learning.learning_rate * (1 - step / self.schedule.pretraining_steps)
        self.optimizers[PRETRAINING].param_groups[0]["lr"] = rate
        self._descend(PRETRAINING, self.generator, loss)
        return {"nll": loss.item()}

    def _train_on_set(self, number: int) -> Measured:
        """Train the discriminator on one set: real sequences and generated ones of the same contexts."""
        assert self.discriminator is not None
        settings, size = self.adversarial, self.learning.batch_size
        real = self.data.take(
            batch_rows(len(self.data), settings.discriminator_set_batches * size, number, seed=self.seed)
        )
        # Of the same contexts as the real ones, else the contexts alone would tell them apart.
        generated = self._generate(real.context)
        losses, accuracies = [], []
        self.discriminator.train()
        for _ in range(settings.discriminator_epochs):
            for rows in torch.randperm(len(real)).split(size):
                batch = real.take(rows)
                encoded = self.discriminator.encode(batch.context)
                loss, accuracy = self.discriminator.loss(batch.values, generated[rows], encoded, l2=settings.l2)
                self._descend(DISCRIMINATOR, self.discriminator, loss)
                losses.append(loss.item())
                accuracies.append(accuracy.item())
        self.discriminator.eval()
        return {"discriminator_loss": float(np.mean(losses)), "accuracy": float(np.mean(accuracies))}

    def _play_batch(self, number: int) -> Measured:
        """One policy-gradient step on the generator's own sequences, then the discriminator's sets."""
        assert self.discriminator is not None
        settings = self.adversarial
        context = self.data.take(batch_rows(len(self.data), self.learning.batch_size, number, seed=self.seed)).context
        # Finished values first; their density is taken afterwards, by `log_prob`, which detaches them.
        values = self._generate(context)
        # Without dropout: what a sequence is worth must not depend on the luck of a mask.
        self.discriminator.eval()
        worth = action_values(
            self.discriminator, Sampler(self.policy.generator), values, context, num_rollouts=settings.rollouts
        )
        self._descend(
            ADVERSARIAL, self.generator, policy_gradient_loss(self.generator.log_prob(values, context), worth)
        )
        self.policy.follow(self.generator, keep=settings.rollout_keep)
        # The sets are numbered on from the second stage's, so that the passes through the real data go on.
        first = self.schedule.discriminator_sets + number * settings.discriminator_sets
        sets = [self._train_on_set(first + offset) for offset in range(settings.discriminator_sets)]
        return {"reward": worth[:, -1].mean().item(), **mean_of(sets)}

    def _generate(self, context: torch.Tensor) -> torch.Tensor:
        """[B, T] one sequence of the generator for each context."""
        noise = torch.randn(len(context), 1, self.data.values.shape[1], device=context.device)
        return Sampler(self.generator).sample(context, noise)[:, 0]

    def _descend(self, optimizer: str, network: nn.Module, loss: torch.Tensor) -> None:
        self.optimizers[optimizer].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT_NORM)
        self.optimizers[optimizer].step()

    @property
    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"generator": self.generator, "rollout_policy": self.policy.generator}
        if self.discriminator is not None:
            modules["discriminator"] = self.discriminator
        return modules
