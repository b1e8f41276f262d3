"""Fit a return policy by gradient steps, and keep the weights whose paths forecast the validation windows best.

A fit that was killed goes on from the last look at the validation windows and ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from baselines.building_blocks.settings import require_at_least, require_not_negative
from baselines.decision_transformer.return_policy import Days, ReturnPolicy
from baselines.neural.training_run import Measured, Stage, TrainingRun, mean_of
from preprocessing.returns import VolatilityConfig
from preprocessing.seeds import generator

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
    """A policy and its optimizer.

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
        windows: Mapping[str, str],
    ) -> None:
        self.policy, self.days, self.config = policy, days, config
        self.return_weight, self.seed, self.title, self.validate = return_weight, seed, title, validate
        self.folder = Path(folder)
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.run = TrainingRun(
            self.folder / TRAINING_FILE,
            {"forecaster": title, **dataclasses.asdict(config), "seed": seed, **windows},
            modules={"policy": policy},
            optimizers={"adamw": self.optimizer},
            patience=config.patience,
        )

    def train(self) -> None:
        """Train to the best weights; must be called with torch's random numbers in the state that the seed gives.

        Raises:
            SavedFileError: the folder holds a killed fit of other windows, settings or seed.
        """
        self.run.resume()
        stage = Stage(
            name="fit",
            steps=self.config.steps,
            look_every=self.config.evaluate_every,
            # untrained, the policy forecasts the training windows' law, which may be the best there is
            begin=lambda: self._look(0, []),
            step=self._descend,
            look=self._look,
        )
        self.run.train([stage], title=f"fit {self.title}")
        self.run.best.restore(self.policy)
        self.policy.eval()
        self.run.curve.write(self.folder, title=self.title)

    def _descend(self, step: int) -> Measured:
        """One gradient step on windows drawn for it."""
        # Every time, as a look leaves the policy in evaluation mode.
        self.policy.train()
        # From (seed, step) and no running generator, so that a resumed fit takes the windows of an unbroken one.
        rows = generator(self.seed, step).integers(len(self.days.daily), size=self.config.batch_size)
        # step + 1, as a first step of size 0 would be none.
        rise = min(1.0, (step + 1) / max(self.config.warm_up, 1))
        fall = (1 + math.cos(math.pi * step / self.config.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * fall
        loss = self.policy.loss(self.days.take(torch.from_numpy(rows)), self.return_weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        return {"training_loss": loss.item()}

    def _look(self, step: int, recent: Sequence[Measured]) -> str:
        self.policy.eval()
        crps = self.validate(self.policy)
        self.run.best.offer(crps, step, self.policy)
        self.run.curve.add("fit", step, **mean_of(recent), validation_crps=crps)
        return f"CRPS {crps:.4f}"
