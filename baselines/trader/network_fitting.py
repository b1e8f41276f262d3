"""Fit one network to a trader's windows: epochs, early stopping, and checkpoints that survive a kill.

The loss is CE(actions) + `return_weight` MSE(next returns to go), the returns times `return_scale`; it is minimised by
AdamW, whose step size rises linearly and then falls along half a cosine. After each epoch the whole training is
written to `last.safetensors`, and the weights with the lowest validation loss to `best.safetensors`. A training that
was killed goes on from its last epoch and ends with the same bits: the order of the windows is drawn from (seed,
epoch), and torch's random numbers are kept.

Letters: N windows, T bars of a window, B windows of a batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from baselines.building_blocks.settings import require_at_least, require_not_negative
from baselines.decision_transformer.model import DecisionTransformer, ModelConfig, losses
from baselines.neural.checkpoints import (
    CheckpointError,
    load_training,
    read_progress,
    read_tensors,
    save_training,
    write_tensors,
)
from baselines.neural.early_stopping import BestWeights
from baselines.neural.learning_curves import LearningCurve
from baselines.trader.dataset import TraderDataset

BEST, LAST = "best.safetensors", "last.safetensors"
FORMAT = "trader's decision transformer"
_WEIGHTS = "network."


class TrainingError(ValueError):
    """A training that cannot be done; the message says why."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a network is fitted."""

    epochs: int = 50
    """Passes over the training windows at most; the step size falls to 0 over them, along half a cosine."""
    batch_size: int = 32
    """Windows per gradient step."""
    learning_rate: float = 3e-4
    """Largest step size of AdamW, reached at the end of the warm-up."""
    warm_up: int = 100
    """Gradient steps over which the step size rises from 0."""
    weight_decay: float = 1e-4
    """Share of each weight that is taken off per step, times the step size."""
    clip: float = 1.0
    """Largest norm of a gradient; longer ones are cut to it."""
    return_weight: float = 0.1
    """Weight of the squared error of the next return to go beside the cross-entropy."""
    patience: int = 10
    """Epochs in a row without a lower validation loss after which training stops."""
    seed: int = 0
    """Of the first weights, the order of the windows and dropout."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, ..."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "epochs", "batch_size", "patience")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        require_not_negative(self, "warm_up", "weight_decay", "return_weight", "seed")
        require_device(self.device)


def require_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: torch knows no such device, or it is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be cpu or cuda; got '{name}'") from None
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= there):
        raise ValueError(f"device {name} is not there; take cpu" + (f" or cuda:0..{there - 1}" if there else ""))
    return device


class Batch(NamedTuple):
    """Windows as tensors on one device; shapes as in `TraderDataset`."""

    states: Tensor
    actions: Tensor
    returns_to_go: Tensor
    mask: Tensor

    @classmethod
    def of(cls, data: TraderDataset, device: torch.device | str) -> Batch:
        """All windows of a split."""
        return cls(*(torch.from_numpy(getattr(data, name)).to(device) for name in cls._fields))

    def take(self, rows: Tensor | slice) -> Batch:
        """Some windows, by row number."""
        return Batch(*(field[rows] for field in self))


class Losses(NamedTuple):
    """Means over bars.

    Attributes:
        loss: what is minimised.
        action_loss: nats per bar.
        return_error: squared scaled returns per bar that has a next one.
    """

    loss: float
    action_loss: float
    return_error: float


@dataclass(frozen=True, eq=False)
class FittedNetwork:
    """A network with its best weights, and how it came by them.

    Attributes:
        network: in evaluation mode.
        epoch: the one with the lowest validation loss, from 0.
        epochs: how many there were.
        validation_loss: the lowest.
    """

    network: DecisionTransformer
    epoch: int
    epochs: int
    validation_loss: float


def fit_network(
    model: ModelConfig,
    config: FitConfig,
    data: Mapping[str, TraderDataset],
    folder: Path,
    *,
    title: str,
    notes: Mapping[str, Any] | None = None,
) -> FittedNetwork:
    """Fit on `data["train"]`, stop and choose by `data["val"]`, and go on where a former call was killed.

    Args:
        model: size of the network.
        config: how it is fitted.
        data: windows by split.
        folder: takes best.safetensors, last.safetensors and learning_curves.{csv,png}.
        title: of the picture and of the progress bar.
        notes: plain JSON values that the best checkpoint keeps.

    Raises:
        CheckpointError: the folder holds a training of other settings or data, or a damaged one.
        TrainingError: no epoch ended with a finite validation loss.
    """
    cuda = [torch.device(config.device)] if torch.device(config.device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(config.seed)
        training = _Training(model, config, data, folder)
        training.resume()
        training.run(title, notes or {})
    if not training.best.weights:
        raise TrainingError(f"{title}: the validation loss was never finite; lower the learning rate")
    training.best.restore(training.network)
    return FittedNetwork(training.network.eval(), training.best.step, training.epoch, training.best.loss)


class _Training:
    """One training: all that `last.safetensors` keeps."""

    def __init__(self, model: ModelConfig, config: FitConfig, data: Mapping[str, TraderDataset], folder: Path) -> None:
        self.config, self.folder = config, Path(folder)
        self.network = DecisionTransformer(model).to(config.device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.train, self.val = Batch.of(data["train"], config.device), Batch.of(data["val"], config.device)
        self.best = BestWeights(config.patience)
        self.curve = LearningCurve()
        self.epoch = 0
        self.settings = {"model": dataclasses.asdict(model), **dataclasses.asdict(config), "data": fingerprint(data)}

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train.mask) // self.config.batch_size)

    def resume(self) -> None:
        """Put back what the last checkpoint holds, if there is one."""
        path = self.folder / LAST
        if not path.exists():
            return
        settings = read_progress(path, "settings")
        for name, value in self.settings.items():
            if settings.get(name) != value:
                raise CheckpointError(
                    f"{path} is of a training with other {name} ({settings.get(name)}, not {value}); "
                    "restore that, delete the folder, or take another one"
                )
        kept, weights = load_training(path, modules={"network": self.network}, optimizers={"adamw": self.optimizer})
        self.epoch, self.curve = kept["epoch"], LearningCurve(kept["curve"])
        self.best.loss, self.best.step, self.best.failures = kept["best"]
        self.best.weights = weights

    def run(self, title: str, notes: Mapping[str, Any]) -> None:
        """The epochs that are left."""
        total = self.config.epochs * self.steps_per_epoch
        with tqdm(total=total, initial=self.epoch * self.steps_per_epoch, desc=title, unit="step", leave=False) as bar:
            while self.epoch < self.config.epochs and not self.best.exhausted:
                fitted = self._one_epoch(bar)
                judged = mean_losses(self.network, self.val, self.config)
                self.curve.add("training", self.epoch, **fitted._asdict())
                self.curve.add("validation", self.epoch, **judged._asdict())
                if self.best.offer(judged.loss, self.epoch, self.network):
                    self._write_best(notes)
                self.epoch += 1
                self._write_last()
                bar.set_postfix(validation=f"{judged.loss:.4f}")
        self.curve.write(self.folder, title=title)

    def _one_epoch(self, bar: tqdm[Any]) -> Losses:
        """One pass in random order; gives the mean losses under way, dropout included."""
        self.network.train()
        order = np.random.default_rng((self.config.seed, self.epoch)).permutation(len(self.train.mask))
        sums = np.zeros(2)
        for number, rows in enumerate(
            np.split(order, range(self.config.batch_size, len(order), self.config.batch_size))
        ):
            batch = self.train.take(torch.from_numpy(rows).to(self.config.device))
            self._set_step_size(self.epoch * self.steps_per_epoch + number)
            action_loss, return_error = _losses(self.network, batch)
            self.optimizer.zero_grad(set_to_none=True)
            (action_loss + self.config.return_weight * return_error).backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
            self.optimizer.step()
            sums += len(rows) * np.array([action_loss.item(), return_error.item()])
            bar.update()
        return _weighted(sums / len(order), self.config)

    def _set_step_size(self, step: int) -> None:
        rise = min(1.0, (step + 1) / max(self.config.warm_up, 1))
        fall = (1 + math.cos(math.pi * step / (self.config.epochs * self.steps_per_epoch))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * fall

    def _write_best(self, notes: Mapping[str, Any]) -> None:
        header = {
            "format": FORMAT,
            "model": dataclasses.asdict(self.network.config),
            "epoch": self.best.step,
            "validation_loss": self.best.loss,
            "notes": dict(notes),
        }
        tensors = {f"{_WEIGHTS}{name}": tensor for name, tensor in self.best.weights.items()}
        write_tensors(self.folder / BEST, tensors, header)

    def _write_last(self) -> None:
        best = (self.best.loss, self.best.step, self.best.failures)
        save_training(
            self.folder / LAST,
            modules={"network": self.network},
            optimizers={"adamw": self.optimizer},
            progress={"settings": self.settings, "epoch": self.epoch, "curve": self.curve.rows, "best": best},
            tensors=self.best.weights,
        )


def mean_losses(network: DecisionTransformer, data: Batch, config: FitConfig) -> Losses:
    """Losses over all bars of a split, without dropout."""
    sums, counts = np.zeros(2), np.zeros(2)
    network.eval()
    with torch.no_grad():
        for batch in batches(data, config.batch_size):
            bars = [batch.mask.sum().item(), (batch.mask[:, :-1] & batch.mask[:, 1:]).sum().item()]
            sums += np.array(bars) * np.array([part.item() for part in _losses(network, batch)])
            counts += bars
    return _weighted(sums / np.maximum(counts, 1), config)


def batches(data: Batch, size: int) -> Iterator[Batch]:
    """All windows, `size` at a time, in their order."""
    for first in range(0, len(data.mask), size):
        yield data.take(slice(first, first + size))


def fingerprint(data: Mapping[str, TraderDataset]) -> str:
    """SHA-256 of the training and validation windows."""
    digest = hashlib.sha256()
    for split in ("train", "val"):
        for name in Batch._fields:
            digest.update(np.ascontiguousarray(getattr(data[split], name)).tobytes())
    return digest.hexdigest()


def read_best(path: Path) -> tuple[DecisionTransformer, dict[str, Any]]:
    """The network of a `best.safetensors`, in evaluation mode on the CPU, and the file's header.

    Raises:
        CheckpointError: the file is missing, damaged, or something else; the message names it.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no {FORMAT}; give the {BEST} that the command train wrote")
    try:
        network = DecisionTransformer(ModelConfig(**header["model"]))
        network.load_state_dict({name.removeprefix(_WEIGHTS): tensor for name, tensor in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this network ({' '.join(str(error).split())})") from error
    return network.eval(), header


def _losses(network: DecisionTransformer, batch: Batch) -> tuple[Tensor, Tensor]:
    predictions = network(batch.states, batch.actions, batch.returns_to_go)
    return losses(predictions, batch.actions, batch.returns_to_go, batch.mask, network.config.return_scale)


def _weighted(means: np.ndarray, config: FitConfig) -> Losses:
    action_loss, return_error = map(float, means)
    return Losses(action_loss + config.return_weight * return_error, action_loss, return_error)
