"""Fit a return policy by gradient steps, and keep the weights whose paths forecast the validation windows best.

A fit that was killed goes on from the last look at the validation windows and ends with the same bits: the windows of
a step are drawn from (seed, step), and torch's random numbers are kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from baselines.building_blocks.settings import require_at_least, require_not_negative
from baselines.building_blocks.volatility import VolatilityConfig
from baselines.decision_transformer.return_policy import Days, ReturnPolicy
from baselines.neural.checkpoints import CheckpointError, load_training, read_progress, save_training
from baselines.neural.early_stopping import BestWeights
from baselines.neural.learning_curves import LearningCurve
from grpo.evaluation.identity import key_of

TRAINING_FILE = "training.safetensors"
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(VolatilityConfig):
    """The network and how it is fitted."""

    num_actions: int = 5
    """Bins of a day's return, of equal share on the training windows and their mirror images."""
    d_model: int = 32
    """Width of a token."""
    num_layers: int = 1
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads; they divide the width."""
    dropout: float = 0.1
    """Share of activations dropped in training, from 0 to below 1."""
    steps: int = 1000
    """Gradient steps at most; the step size falls to 0 over them, along half a cosine."""
    warm_up: int = 100
    """Gradient steps over which the step size rises from 0."""
    batch_size: int = 128
    """Training windows per gradient step."""
    learning_rate: float = 5e-4
    """Largest step size of AdamW."""
    weight_decay: float = 0.1
    """Share of each weight that is taken off per step, times the step size."""
    evaluate_every: int = 25
    """Gradient steps between two looks at the validation windows."""
    patience: int = 10
    """Looks in a row without a better CRPS after which training stops."""
    validation_windows: int = 300
    """Validation windows that are looked at, at most, spread evenly over stocks and dates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "steps", "batch_size", "evaluate_every", "patience", "validation_windows")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0; got {self.learning_rate}")
        require_not_negative(self, "weight_decay", "warm_up")


class PolicyTraining:
    """A policy, its optimizer, and how far the training is.

    Args:
        policy: is trained in place.
        days: to learn from.
        config: how.
        return_weight: of the squared error of the next return to go.
        seed: of the windows of each step.
        folder: gets the training checkpoint and the learning curves.
        title: of progress bars and pictures.
        validate: loss of a policy on windows it was not trained on.
        windows: hashes of those that are learnt from and looked at; a killed fit goes on with the same alone.

    Attributes:
        policy: is trained in place; after `run` it has its best weights.
        file: the training checkpoint.
    """

    def __init__(
        self,
        policy: ReturnPolicy,
        days: Days,
        config: PolicyConfig,
        *,
        return_weight: float,
        seed: int,
        folder: Path,
        title: str,
        validate: Callable[[ReturnPolicy], float],
        windows: tuple[str, str],
    ) -> None:
        self.policy, self.days, self.config = policy, days, config
        self.return_weight, self.seed, self.title, self.validate = return_weight, seed, title, validate
        self.folder, self.file = Path(folder), Path(folder) / TRAINING_FILE
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.best, self.curve, self.step = BestWeights(config.patience), LearningCurve(), 0
        self.identity = key_of({"config": dataclasses.asdict(config), "seed": seed, "title": title, "windows": windows})

    def run(self) -> None:
        """Train; must be called with the random numbers of torch in the state that the seed gives.

        Raises:
            CheckpointError: the folder holds a killed fit of other windows, settings or seed.
        """
        if self.file.exists():
            self._load()
        else:
            self._look({})
        with tqdm(
            total=self.config.steps, initial=self.step, desc=f"fit {self.title}", unit="step", leave=False
        ) as bar:
            recent: list[float] = []
            while self.step < self.config.steps and not self.best.exhausted:
                recent.append(self._descend())
                self.step += 1
                bar.update()
                if self.step % self.config.evaluate_every == 0 or self.step == self.config.steps:
                    self._look({"training_loss": float(np.mean(recent))})
                    recent.clear()
                    self._save()
        self.best.restore(self.policy)
        self.policy.eval()
        self.curve.write(self.folder, title=self.title)

    def _descend(self) -> float:
        """One gradient step on windows drawn for it."""
        self.policy.train()
        rows = np.random.default_rng((self.seed, self.step)).integers(len(self.days.daily), size=self.config.batch_size)
        rise = min(1.0, (self.step + 1) / max(self.config.warm_up, 1))
        fall = (1 + math.cos(math.pi * self.step / self.config.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * fall
        loss = self.policy.loss(self.days.take(torch.from_numpy(rows)), self.return_weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        return loss.item()

    def _look(self, measured: dict[str, float]) -> None:
        self.policy.eval()
        crps = self.validate(self.policy)
        self.best.offer(crps, self.step, self.policy)
        self.curve.add("fit", self.step, **measured, validation_crps=crps)

    def _save(self) -> None:
        best = (self.best.loss, self.best.step, self.best.failures)
        save_training(
            self.file,
            modules={"policy": self.policy},
            optimizers={"adamw": self.optimizer},
            progress={"identity": self.identity, "step": self.step, "curve": self.curve.rows, "best": best},
            tensors=self.best.weights,
        )

    def _load(self) -> None:
        if read_progress(self.file, "identity") != self.identity:
            raise CheckpointError(
                f"{self.file} is of a fit with other windows, settings or seed; delete it or restore them"
            )
        progress, weights = load_training(
            self.file, modules={"policy": self.policy}, optimizers={"adamw": self.optimizer}
        )
        self.step, self.curve = progress["step"], LearningCurve(progress["curve"])
        self.best.loss, self.best.step, self.best.failures = progress["best"]
        self.best.weights = weights
