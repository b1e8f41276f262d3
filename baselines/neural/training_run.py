"""The one training run of all networks: stages of steps, early stopping, and a checkpoint to go on from.

A loop supplies its steps and its state. The run shows the progress, stops early, keeps the best weights and the
learning curve, and saves all of it after every look at the validation data. A training that was killed goes on from its
last look and ends with the same bits; a checkpoint of other settings or other data is refused by one line.

    run = TrainingRun(folder / "training.safetensors", {"steps": 100, "data": fingerprint(data)}, modules=..., ...)
    run.resume()
    run.train([Stage(name="fit", steps=100, look_every=10, step=descend, look=validate)], title="my network")
    run.best.restore(network)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.neural.checkpoints import below, load_training, read_progress, save_training
from baselines.neural.early_stopping import BestWeights
from baselines.neural.learning_curves import LearningCurve
from preprocessing.files import JsonObject

Measured = Mapping[str, float]
_NAMED = 6
"""How many differing settings a refusal names."""


class Kept(Protocol):
    """What a training keeps besides weights, such as a replay buffer."""

    def state(self) -> dict[str, torch.Tensor]:
        """As named tensors."""
        ...

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        ...


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps of one kind.

    Attributes:
        name: of the stage, unique within a run.
        steps: how many there are at most.
        look_every: after so many steps, and after the last, `look` is called and the run is saved.
        step: takes the step of that number, from 0 on, and gives what it measured.
        look: is called with the number of steps that are done and what the steps since the last look measured; it adds
            to the curve and offers weights to `best`, and gives what the progress bar shall show.
        begin: is called before the first step.
        end: is called after the last step, or when the best weights have not improved for too long.
    """

    name: str
    steps: int
    look_every: int
    step: Callable[[int], Measured]
    look: Callable[[int, Sequence[Measured]], str]
    begin: Callable[[], object] = _nothing
    end: Callable[[], object] = _nothing


def mean_of(measured: Sequence[Measured]) -> dict[str, float]:
    """The mean of each value over some steps, all of which measured the same; {} of none."""
    return {name: float(np.mean([row[name] for row in measured])) for name in (measured[0] if measured else ())}


class TrainingRun:
    """How far a training is, in memory and in a file.

    Args:
        file: the checkpoint.
        identity: all that decides the result, as plain JSON values: settings, seed, hashes of the data. A checkpoint
            made with others is refused.
        modules: networks by name; their weights are saved.
        optimizers: by name.
        patience: looks in a row without better weights after which a stage ends; None: every stage takes all its steps.
        curve: to add to; None begins a new one.
        kept: what else is saved, by name.

    Attributes:
        file: the checkpoint.
        best: the best weights so far.
        curve: what was measured so far.
        done: steps that are taken, by stage.
        finished: names of the stages that are over.
    """

    def __init__(
        self,
        file: Path,
        identity: Mapping[str, object],
        *,
        modules: Mapping[str, torch.nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        patience: int | None = None,
        curve: LearningCurve | None = None,
        kept: Mapping[str, Kept] | None = None,
    ) -> None:
        self.file = Path(file)
        # as it will be read from the file: tuples become lists, paths text
        self._identity = json.loads(json.dumps(identity, default=str))
        self._modules, self._optimizers, self._kept = modules, optimizers, kept or {}
        self.best = BestWeights(patience)
        self.curve = LearningCurve() if curve is None else curve
        self.done: dict[str, int] = {}
        self.finished: list[str] = []

    def resume(self) -> bool:
        """Go back to the checkpoint, torch's random numbers included; False where there is none.

        Raises:
            SavedFileError: it is damaged, or of a training with other settings or data.
        """
        if not self.file.exists():
            return False
        # Before anything is loaded: a checkpoint of another training must not touch the networks.
        _refuse_other(self.file, read_progress(self.file, "identity"), self._identity)
        progress, tensors = load_training(self.file, modules=self._modules, optimizers=self._optimizers)
        self.done, self.finished = progress["done"], progress["finished"]
        # In place, as the caller may hold the same curve.
        self.curve.rows[:] = progress["curve"]
        self.best.loss, self.best.step, self.best.failures = progress["best"]
        self.best.weights = below(tensors, "best.")
        for name, kept in self._kept.items():
            kept.restore(below(tensors, f"kept.{name}."))
        return True

    def save(self) -> None:
        """Write the checkpoint, torch's random numbers included."""
        tensors = {f"best.{name}": tensor for name, tensor in self.best.weights.items()}
        for kept_name, kept in self._kept.items():
            tensors |= {f"kept.{kept_name}.{name}": tensor for name, tensor in kept.state().items()}
        progress = {
            "identity": self._identity,
            "done": self.done,
            "finished": self.finished,
            "curve": self.curve.rows,
            "best": [self.best.loss, self.best.step, self.best.failures],
        }
        save_training(self.file, modules=self._modules, optimizers=self._optimizers, progress=progress, tensors=tensors)

    def train(self, stages: Sequence[Stage], *, title: str, pause: Callable[[], bool] = lambda: False) -> bool:
        """Take what is left of the stages, one after the other.

        Args:
            stages: in order.
            title: of the progress bars.
            pause: is asked after every look; True stops the training there, to go on in another call.

        Returns:
            Whether anything was left to do.
        """
        left = [stage for stage in stages if stage.name not in self.finished]
        for stage in left:
            if not self._take(stage, f"{title}: {stage.name}" if len(stages) > 1 else title, pause):
                break
        return bool(left)

    def discard(self) -> None:
        """Remove the checkpoint, once what was trained is safe elsewhere."""
        self.file.unlink(missing_ok=True)

    def _take(self, stage: Stage, title: str, pause: Callable[[], bool]) -> bool:
        """The steps of a stage that are left; False where `pause` broke in."""
        # A resumed stage began in an earlier call: its `begin` must not run a second time.
        if not self.done.get(stage.name):
            self.done[stage.name] = 0
            # A new stage has its patience whole; the best weights stay, as they are what it has to beat.
            self.best.failures = 0
            stage.begin()
        recent: list[Measured] = []
        done = self.done[stage.name]
        with tqdm(total=stage.steps, initial=done, desc=title, unit="step", leave=False) as bar:
            while done < stage.steps and not self.best.exhausted:
                recent.append(stage.step(done))
                done = self.done[stage.name] = done + 1
                bar.update()
                if done % stage.look_every and done < stage.steps:
                    continue
                bar.set_postfix_str(stage.look(done, recent))
                recent = []
                # Saved after the look and not before: the checkpoint then holds its curve, its best weights and its
                # random numbers.
                self.save()
                if pause():
                    return False
        stage.end()
        # After the end: a kill in between repeats the end and never leaves it out.
        self.finished.append(stage.name)
        self.save()
        return True


def _refuse_other(file: Path, made_with: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    made_with, wanted = _flat(made_with), _flat(wanted)
    different = [name for name in wanted | made_with if made_with.get(name) != wanted.get(name)]
    if not different:
        return
    shown = ", ".join(_difference(name, made_with.get(name), wanted.get(name)) for name in different[:_NAMED])
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    raise SavedFileError(
        f"{file} is of a training with other {shown}{more}; restore that, delete the file, or take another folder"
    )


def _difference(name: str, made_with: object, wanted: object) -> str:
    numbers = isinstance(made_with, int | float) and isinstance(wanted, int | float)
    return f"{name} ({made_with}, not {wanted})" if numbers else name


def _flat(nested: Mapping[str, object], prefix: str = "") -> JsonObject:
    """Settings within settings by dotted names."""
    found: JsonObject = {}
    for name, value in nested.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
