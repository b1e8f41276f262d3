"""The synthetic-oracle benchmark of SeqGAN (Yu et al. 2017, section 4): a random LSTM is the data, and judges.

The oracle's parameters are standard normal. A generator learns from 10,000 of its sequences, first by maximum
likelihood, then against a discriminator. What it writes is scored by the oracle: the negative log-likelihood per token
that the oracle gives it, lower is better. A generator that repeats the oracle's favourite sequence would score best of
all, so the likelihood that the generator gives to fresh sequences of the oracle stands beside it.

The published figures belong to the parameters in the published program's own file. They are not those of an LSTM whose
parameters are all standard normal: its random generator scores 10.31, and uniform tokens 11.1 to 11.4 here.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from baselines.neural.training_run import Measured, Stage, TrainingRun
from baselines.seqgan.toys.tokens import (
    TokenDiscriminator,
    TokenLstm,
    follow,
    policy_loss,
    prefix_values,
    sample,
)
from preprocessing.files import write_atomically

CHECKPOINT = "training.safetensors"
CURVE = "oracle_nll"
MLE, DISCRIMINATOR, ADVERSARIAL = "mle", "discriminator", "adversarial"
_CLIP = 5.0
_JUDGED = 500


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, on how much; the defaults are the published program's."""

    vocabulary: int = 5000
    """How many different tokens there are."""
    length: int = 20
    """How many tokens a sequence has."""
    sequences: int = 10_000
    """Sequences of the oracle to learn from."""
    batch: int = 64
    """Sequences per gradient step."""
    mle_epochs: int = 120
    """Passes over the sequences by maximum likelihood."""
    generator_rate: float = 1e-2
    """Learning rate of the generator (Adam), in both stages."""
    discriminator_refreshes: int = 50
    """Times that the discriminator gets fresh generated sequences before the adversarial stage."""
    refreshes_per_round: int = 5
    """The same in each adversarial round."""
    discriminator_sequences: int = 10_000
    """Generated sequences per refresh, and as many of the oracle's."""
    discriminator_epochs: int = 3
    """Passes of the discriminator over the sequences of a refresh."""
    discriminator_rate: float = 1e-4
    """Learning rate of the discriminator (Adam)."""
    rounds: int = 200
    """Adversarial rounds: one step of the generator, then the discriminator's."""
    rollouts: int = 16
    """Completions of each prefix."""
    keep: float = 0.8
    """Share that the rollout policy keeps of its own weights each round."""
    evaluated: int = 2000
    """Sequences that a point of the curve is measured on."""
    evaluated_last: int = 10_000
    """The same for the last point of each stage."""
    evaluate_every: int = 5
    """Epochs and rounds from one point of the curve to the next."""
    bfloat16: bool = False
    """Run the discriminator's multiplications in bfloat16; its weights stay in float32."""
    oracle_seed: int = 0
    """Decides the oracle and its sequences."""
    seed: int = 88
    """Seed of the networks and of all that is sampled."""


@dataclass(frozen=True)
class Likelihoods:
    """Negative log-likelihoods per token, with standard errors over sequences.

    Attributes:
        oracle: of what the generator writes, by the oracle.
        oracle_error: its standard error.
        data: of fresh sequences of the oracle, by the generator.
        data_error: its standard error.
    """

    oracle: float
    oracle_error: float
    data: float
    data_error: float


def make_oracle(schedule: Schedule) -> tuple[TokenLstm, Tensor, Tensor]:
    """The oracle, the sequences to learn from, and fresh ones; the caller's random numbers stay as they are."""
    with torch.random.fork_rng():
        # A seed of its own: the oracle and its sequences stay the same while the learner's seed varies.
        torch.manual_seed(schedule.oracle_seed)
        oracle = TokenLstm(schedule.vocabulary, std=1.0).requires_grad_(False)
        real = sample(oracle, schedule.sequences, schedule.length)
        return oracle, real, sample(oracle, max(schedule.evaluated, schedule.evaluated_last), schedule.length)


@torch.no_grad()
def negative_log_likelihood(model: TokenLstm, sequences: Tensor) -> tuple[float, float]:
    """Mean over [B, T] tokens of minus their log probability by the model, and its standard error over sequences."""
    each = torch.cat([-model.log_probs(rows).double().mean(dim=1) for rows in sequences.split(64)])
    return each.mean().item(), each.std().item() / math.sqrt(len(each))


@torch.no_grad()
def uniform_negative_log_likelihood(oracle: TokenLstm, *, length: int, count: int = 2000) -> float:
    """The oracle's score of tokens drawn uniformly: exact over each token given those before, which are sampled."""
    vocabulary = oracle.output.out_features
    drawn = torch.randint(vocabulary, (count, length))
    # The mean over the vocabulary in place of a drawn token: only the tokens before it are sampled.
    exact = [-torch.log_softmax(oracle(rows), dim=2).mean(dim=2).double().sum() for rows in drawn.split(16)]
    return torch.stack(exact).sum().item() / drawn.numel()


class OracleBenchmark:
    """One run: steps of three stages in a folder, killed and resumed at will.

    Args:
        schedule: what to do.
        folder: holds `training.safetensors` and `oracle_nll.csv` and `.png`. A folder that holds a run goes on with it.

    Raises:
        SavedFileError: the folder holds a run of another schedule, or another training.
    """

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule, self.folder = schedule, Path(folder)
        self.oracle, self.real, self.fresh = make_oracle(schedule)
        with torch.random.fork_rng():
            torch.manual_seed(schedule.seed)
            self.generator = TokenLstm(schedule.vocabulary, std=0.1)
            self.policy = TokenLstm(schedule.vocabulary).requires_grad_(False)
            self.discriminator = TokenDiscriminator(schedule.vocabulary, schedule.length)
            # Kept here, as `run` goes on where its last call stopped, whatever the caller has drawn in between.
            self._random_state = torch.get_rng_state()
        trained = [parameter for parameter in self.generator.parameters() if parameter.requires_grad]
        self._trained = trained
        self.optimizers = {
            MLE: torch.optim.Adam(trained, lr=schedule.generator_rate, fused=True),
            ADVERSARIAL: torch.optim.Adam(trained, lr=schedule.generator_rate, fused=True),
            DISCRIMINATOR: torch.optim.Adam(
                self.discriminator.parameters(), lr=schedule.discriminator_rate, fused=True
            ),
        }
        self._clock = _Clock()
        self.training = TrainingRun(
            self.folder / CHECKPOINT,
            dataclasses.asdict(schedule),
            modules={"generator": self.generator, "policy": self.policy, "discriminator": self.discriminator},
            optimizers=self.optimizers,
            kept={"clock": self._clock},
        )
        with torch.random.fork_rng():
            if self.training.resume():
                self._random_state = torch.get_rng_state()

    @property
    def steps(self) -> int:
        """Epochs, refreshes and rounds in all."""
        return self.schedule.mle_epochs + self.schedule.discriminator_refreshes + self.schedule.rounds

    @property
    def done(self) -> int:
        """How many of them are over."""
        return sum(self.training.done.values())

    @property
    def seconds(self) -> float:
        """How long they took, over all calls."""
        return self._clock.seconds

    def run(self, *, minutes: float = math.inf, steps: float = math.inf) -> bool:
        """Go on until all is done, or for about so many minutes or steps; tells whether all is done."""
        schedule, began = self.schedule, time.monotonic()
        end = self.done + steps
        stages = [
            self._stage(MLE, schedule.mle_epochs, self._mle_epoch),
            self._stage(DISCRIMINATOR, schedule.discriminator_refreshes, self._refresh_discriminator),
            self._stage(ADVERSARIAL, schedule.rounds, self._adversarial_round),
        ]
        with torch.random.fork_rng():
            torch.set_rng_state(self._random_state)
            self._clock.start()
            self.training.train(
                stages,
                title="oracle benchmark",
                pause=lambda: self.done >= end or time.monotonic() - began >= 60 * minutes,
            )
            self._random_state = torch.get_rng_state()
        self.training.curve.write(self.folder, title="Negative log-likelihood per token", name=CURVE)
        return self.done == self.steps

    def _stage(self, name: str, steps: int, take: Callable[[], None]) -> Stage:
        def step(_: int) -> Measured:
            take()
            return {}

        begin = self._copy_policy if name == ADVERSARIAL else lambda: None
        # saved after every step: one takes minutes on the published sizes
        return Stage(name=name, steps=steps, look_every=1, step=step, look=partial(self._look, name), begin=begin)

    def _copy_policy(self) -> None:
        self.policy.load_state_dict(self.generator.state_dict())

    def likelihoods(self, count: int) -> Likelihoods:
        """Both likelihoods of the generator as it is."""
        written = sample(self.generator, count, self.schedule.length)
        return Likelihoods(
            *negative_log_likelihood(self.oracle, written),
            *negative_log_likelihood(self.generator, self.fresh[:count]),
        )

    def _mle_epoch(self) -> None:
        for rows in torch.randperm(len(self.real)).split(self.schedule.batch):
            loss = -self.generator.log_probs(self.real[rows]).mean()
            self._step_generator(MLE, loss)

    def _refresh_discriminator(self) -> None:
        schedule, optimizer = self.schedule, self.optimizers[DISCRIMINATOR]
        count = min(schedule.discriminator_sequences, len(self.real))
        generated = sample(self.generator, count, schedule.length)
        real = self.real[torch.randperm(len(self.real))[:count]]
        # Half a batch of each kind, so that a step sees `batch` sequences in all.
        half = schedule.batch // 2
        for _ in range(schedule.discriminator_epochs):
            orders = (torch.randperm(count).split(half) for _ in range(2))
            for ours, theirs in zip(*orders, strict=True):
                with self._autocast():
                    loss = self.discriminator.loss(real[ours], generated[theirs])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _adversarial_round(self) -> None:
        schedule = self.schedule
        written = sample(self.generator, schedule.batch, schedule.length)
        with self._autocast():
            values = prefix_values(self.policy, self.discriminator.probability, written, schedule.rollouts)
        self._step_generator(ADVERSARIAL, policy_loss(self.generator.log_probs(written), values))
        follow(self.policy, self.generator, keep=schedule.keep)
        for _ in range(schedule.refreshes_per_round):
            self._refresh_discriminator()

    def _step_generator(self, stage: str, loss: Tensor) -> None:
        self.optimizers[stage].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, _CLIP)
        self.optimizers[stage].step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.schedule.bfloat16)

    def _look(self, stage: str, step: int, _: Sequence[Measured]) -> str:
        """Measure at the first step of a stage, at the last, and now and then between them."""
        # The clock stands still while the curve is measured: the seconds are those of the training.
        self._clock.stop()
        steps = {MLE: self.schedule.mle_epochs, ADVERSARIAL: self.schedule.rounds}
        if stage not in steps or (step % self.schedule.evaluate_every and step not in (1, steps[stage])):
            return ""
        found = self.likelihoods(self.schedule.evaluated_last if step == steps[stage] else self.schedule.evaluated)
        judged = self._judged() if stage == ADVERSARIAL else {}
        self.training.curve.add(stage, step, **dataclasses.asdict(found), **judged, seconds=self.seconds)
        write_atomically(self.folder / f"{CURVE}.csv", self.training.curve.table().to_csv(index=False))
        return f"oracle {found.oracle:.3f}"

    def _judged(self) -> dict[str, float]:
        """Mean probability of "real" that the discriminator gives to fresh sequences of both."""
        written = sample(self.generator, _JUDGED, self.schedule.length)
        pairs = {"judged_real": self.fresh[:_JUDGED], "judged_generated": written}
        return {name: self.discriminator.probability(rows).mean().item() for name, rows in pairs.items()}


class _Clock:
    """Seconds of work over all calls.

    Attributes:
        seconds: up to the last `stop`.
    """

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.monotonic() - self.seconds

    def stop(self) -> None:
        self.seconds = time.monotonic() - self._began

    def state(self) -> dict[str, Tensor]:
        return {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.seconds = float(state["seconds"])
