"""A fitted network forecaster as one safetensors file: name, config, scaling of the windows, and what is its own."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from baselines.neural.checkpoints import CheckpointError, load_weights, read_tensors, write_tensors
from baselines.neural.inputs import InputScaling


@dataclass(frozen=True, eq=False)
class FittedFile:
    """What the file of a fitted forecaster holds.

    Attributes:
        path: of the file.
        config: what the forecaster was fitted with.
        scaling: of the windows.
        tensors: weights and all else by name, on the CPU.
        header: plain JSON values.
    """

    path: Path
    config: Any
    scaling: InputScaling
    tensors: dict[str, torch.Tensor]
    header: dict[str, Any]

    def fill(self, module: torch.nn.Module, prefix: str) -> None:
        """Fill a module with the tensors below `prefix`.

        Raises:
            CheckpointError: they do not fit.
        """
        load_weights(self.path, module, self.tensors, prefix)


class FittedForecaster(ABC):
    """A forecaster with a config, a scaling of the windows and a network; it saves and loads itself.

    A subclass is a frozen dataclass that adds fields, `fit`, `predict` and the two methods below.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]
    state_file: ClassVar[str] = "state.safetensors"

    config: Any
    scaling: InputScaling

    @abstractmethod
    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Named tensors and plain JSON values that are kept besides config and scaling."""

    @classmethod
    @abstractmethod
    def _from_file(cls, file: FittedFile) -> Self:
        """The forecaster whose `_state` the file holds; KeyError, TypeError or ValueError where it does not fit."""

    def save(self, path: Path) -> None:
        """Write config, scaling and weights into the file `state_file` of the folder `path`."""
        tensors, header = self._state()
        tensors |= {f"scaling.{name}": tensor for name, tensor in self.scaling.state().items()}
        header = {"forecaster": self.name, "config": dataclasses.asdict(self.config)} | header
        write_tensors(Path(path) / self.state_file, tensors, header)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged, or of another forecaster.
        """
        file = Path(path) / cls.state_file
        try:
            tensors, header = read_tensors(file)
            if header["forecaster"] != cls.name:
                raise ValueError(f"it is of {header['forecaster']}")
            config = cls.Config(**header["config"])
            scaling = InputScaling.from_state({name: tensors[f"scaling.{name}"] for name in ("mean", "std")}, config)
            return cls._from_file(FittedFile(file, config, scaling, tensors, header))
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{file} does not hold a fitted {cls.name} ({reason}); fit it again.") from error
