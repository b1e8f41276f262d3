"""Fit one network to a trader's windows: epochs, early stopping, and checkpoints that survive a kill.

The loss is CE(actions) + `return_weight` MSE(next returns to go), the returns times `return_scale`; it is minimised by
AdamW, whose step size rises linearly and then falls along half a cosine. After each epoch the whole training is
written to `last.safetensors`, and the weights with the lowest validation loss to `best.safetensors`. A training that
was killed goes on from its last epoch and ends with the same bits.

Letters: N windows, T bars of a window, B windows of a batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.building_blocks.settings import require_at_least, require_not_negative
from baselines.building_blocks.tensor_files import SavedFileError
from baselines.decision_transformer.model import DecisionTransformer, ModelConfig, losses
from baselines.neural.checkpoints import read_tensors, write_tensors
from baselines.neural.early_stopping import BestWeights
from baselines.neural.training_run import Measured, Stage, TrainingRun
from baselines.trader.dataset import TraderDataset
from preprocessing.errors import UserError
from preprocessing.files import JsonObject
from preprocessing.seeds import generator

BEST, LAST = "best.safetensors", "last.safetensors"
FORMAT = "trader's decision transformer"
_WEIGHTS = "network."


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
    """Seed of the first weights, the order of the windows and dropout."""
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
    notes: Mapping[str, object] | None = None,
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
        SavedFileError: the folder holds a training of other settings or data, or a damaged one.
        UserError: no epoch ended with a finite validation loss.
    """
    cuda = [torch.device(config.device)] if torch.device(config.device).type == "cuda" else []
    # Seed, then build: the first weights and dropout come from torch's global random numbers.
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(config.seed)
        training = _Training(model, config, data, folder, notes or {})
        best = training.train(title)
    if not best.weights:
        raise UserError(f"{title}: the validation loss was never finite; lower the learning rate")
    best.restore(training.network)
    return FittedNetwork(training.network.eval(), best.step, training.epochs, best.loss)


class _Training:
    """One network, its optimizer, and the windows it learns from."""

    def __init__(
        self,
        model: ModelConfig,
        config: FitConfig,
        data: Mapping[str, TraderDataset],
        folder: Path,
        notes: Mapping[str, object],
    ) -> None:
        self.config, self.folder, self.notes = config, Path(folder), notes
        self.network = DecisionTransformer(model).to(config.device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.windows, self.val = Batch.of(data["train"], config.device), Batch.of(data["val"], config.device)
        self.run = TrainingRun(
            self.folder / LAST,
            {"model": dataclasses.asdict(model), **dataclasses.asdict(config), "data": fingerprint(data)},
            modules={"network": self.network},
            optimizers={"adamw": self.optimizer},
            patience=config.patience,
        )

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.windows.mask) // self.config.batch_size)

    @property
    def epochs(self) -> int:
        """How many are over."""
        return self.run.done["epochs"] // self.steps_per_epoch

    def train(self, title: str) -> BestWeights:
        """The epochs that are left."""
        stage = Stage(
            name="epochs",
            steps=self.config.epochs * self.steps_per_epoch,
            look_every=self.steps_per_epoch,
            step=self._descend,
            look=self._look,
        )
        self.run.resume()
        self.run.train([stage], title=title)
        self.run.curve.write(self.folder, title=title)
        return self.run.best

    def _descend(self, step: int) -> Measured:
        """One gradient step, dropout included; each epoch goes through all windows in an order of its own."""
        # Every time, as a look leaves the network in evaluation mode.
        self.network.train()
        epoch, number = divmod(step, self.steps_per_epoch)
        # From (seed, epoch) and no running generator, so that a resumed training takes the order of an unbroken one.
        order = generator(self.config.seed, epoch).permutation(len(self.windows.mask))
        rows = order[number * self.config.batch_size : (number + 1) * self.config.batch_size]
        self._set_step_size(step)
        action_loss, return_error = _losses(
            self.network, self.windows.take(torch.from_numpy(rows).to(self.config.device))
        )
        self.optimizer.zero_grad(set_to_none=True)
        (action_loss + self.config.return_weight * return_error).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        return {"windows": len(rows), "action_loss": action_loss.item(), "return_error": return_error.item()}

    def _look(self, step: int, recent: Sequence[Measured]) -> str:
        """Judge the epoch that ended, and keep its weights where they are the best so far."""
        epoch = step // self.steps_per_epoch - 1
        sums = np.zeros(2)
        for row in recent:
            # Batches are weighed by their windows: the last one of an epoch is smaller.
            sums += row["windows"] * np.array([row["action_loss"], row["return_error"]])
        fitted = _weighted(sums / len(self.windows.mask), self.config)
        judged = mean_losses(self.network, self.val, self.config)
        self.run.curve.add("training", epoch, **fitted._asdict())
        self.run.curve.add("validation", epoch, **judged._asdict())
        if self.run.best.offer(judged.loss, epoch, self.network):
            self._write_best()
        return f"validation {judged.loss:.4f}"

    def _set_step_size(self, step: int) -> None:
        rise = min(1.0, (step + 1) / max(self.config.warm_up, 1))
        fall = (1 + math.cos(math.pi * step / (self.config.epochs * self.steps_per_epoch))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * fall

    def _write_best(self) -> None:
        best = self.run.best
        header = {
            "format": FORMAT,
            "model": dataclasses.asdict(self.network.config),
            "epoch": best.step,
            "validation_loss": best.loss,
            "notes": dict(self.notes),
        }
        tensors = {f"{_WEIGHTS}{name}": tensor for name, tensor in best.weights.items()}
        write_tensors(self.folder / BEST, tensors, header)


def mean_losses(network: DecisionTransformer, data: Batch, config: FitConfig) -> Losses:
    """Losses over all bars of a split, without dropout."""
    sums, counts = np.zeros(2), np.zeros(2)
    network.eval()
    with torch.no_grad():
        for batch in batches(data, config.batch_size):
            # Bars that have a next one are fewer than bars, so each loss is weighed by its own count.
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
    # Not the test windows: nothing is learnt from them or chosen by them.
    for split in ("train", "val"):
        for name in Batch._fields:
            digest.update(np.ascontiguousarray(getattr(data[split], name)).tobytes())
    return digest.hexdigest()


def read_best(path: Path) -> tuple[DecisionTransformer, JsonObject]:
    """The network of a `best.safetensors`, in evaluation mode on the CPU, and the file's header.

    Raises:
        SavedFileError: the file is missing, damaged, or something else; the message names it.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise SavedFileError(f"{path} is no {FORMAT}; give the {BEST} that the command train wrote")
    try:
        network = DecisionTransformer(ModelConfig(**header["model"]))
        network.load_state_dict({name.removeprefix(_WEIGHTS): tensor for name, tensor in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SavedFileError(f"{path} does not fit this network ({' '.join(str(error).split())})") from error
    return network.eval(), header


def _losses(network: DecisionTransformer, batch: Batch) -> tuple[Tensor, Tensor]:
    predictions = network(batch.states, batch.actions, batch.returns_to_go)
    return losses(predictions, batch.actions, batch.returns_to_go, batch.mask, network.config.return_scale)


def _weighted(means: np.ndarray, config: FitConfig) -> Losses:
    action_loss, return_error = map(float, means)
    return Losses(action_loss + config.return_weight * return_error, action_loss, return_error)
