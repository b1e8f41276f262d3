"""The state of a training between two of its steps, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from baselines.neural.checkpoints import CheckpointError, load_training, read_progress, save_training
from baselines.neural.early_stopping import BestWeights
from baselines.neural.learning_curves import LearningCurve


@dataclass
class TrainingState:
    """What a training needs to go on.

    Attributes:
        path: the checkpoint.
        identity: what the training depends on, as plain JSON; a checkpoint of another is refused.
        modules: networks by name.
        optimizers: by name.
        best: the best weights so far.
        curve: what was measured so far.
        step: steps done.
        tensors: others, by name.
    """

    path: Path
    identity: Mapping[str, Any]
    modules: Mapping[str, torch.nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    best: BestWeights
    curve: LearningCurve
    step: int = 0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def save(self) -> None:
        """Write the checkpoint."""
        best = self.best
        progress = {
            "identity": self.identity,
            "step": self.step,
            "rows": self.curve.rows,
            "best": {"loss": best.loss, "step": best.step, "failures": best.failures},
        }
        tensors = self.tensors | {f"best.{name}": tensor for name, tensor in best.weights.items()}
        save_training(self.path, modules=self.modules, optimizers=self.optimizers, progress=progress, tensors=tensors)

    def restore(self) -> bool:
        """Go back to the checkpoint; False where there is none.

        Raises:
            CheckpointError: it is damaged, or of a training with other settings or data.
        """
        if not self.path.exists():
            return False
        if read_progress(self.path, "identity") != self.identity:
            raise CheckpointError(
                f"{self.path} is of a training with other settings or data; delete it, or choose another folder"
            )
        progress, tensors = load_training(self.path, modules=self.modules, optimizers=self.optimizers)
        self.step = progress["step"]
        self.curve.rows[:] = progress["rows"]
        kept = progress["best"]
        self.best.loss, self.best.step, self.best.failures = kept["loss"], kept["step"], kept["failures"]
        self.best.weights = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
        self.tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("best.")}
        return True
