"""A fitted network forecaster as one file: name, config, scaling of the windows, weights, and what is its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from baselines.building_blocks.saving import SavedForecaster
from baselines.building_blocks.tensor_files import in_short
from baselines.neural.checkpoints import as_arrays, as_tensors, below
from baselines.neural.inputs import InputScaling
from preprocessing.files import JsonObject


@dataclass(frozen=True, eq=False)
class FittedFile:
    """What the file of a fitted forecaster holds.

    Attributes:
        config: what the forecaster was fitted with.
        scaling: of the windows.
        tensors: weights and all else by name, on the CPU.
        header: plain JSON values.
    """

    config: Any
    scaling: InputScaling
    tensors: dict[str, torch.Tensor]
    header: Mapping[str, Any]

    def fill(self, module: torch.nn.Module, prefix: str) -> None:
        """Fill a module with the tensors below `prefix`.

        Raises:
            ValueError: they do not fit.
        """
        try:
            module.load_state_dict(below(self.tensors, prefix))
        except RuntimeError as error:
            raise ValueError(f"its weights are of another network: {in_short(error)}") from error


@dataclass(frozen=True, eq=False)
class FittedForecaster(SavedForecaster, ABC):
    """A forecaster with a config, a scaling of the windows and a network; it saves and loads itself.

    A subclass is a frozen dataclass that adds fields, `fit`, `predict` and the two abstract methods below.
    """

    scaling: InputScaling

    @abstractmethod
    def _tensors(self) -> tuple[dict[str, torch.Tensor], JsonObject]:
        """Named tensors and plain JSON values that are kept besides config and scaling."""

    @classmethod
    @abstractmethod
    def _from_file(cls, file: FittedFile) -> Self:
        """The forecaster whose `_tensors` the file holds; KeyError, TypeError or ValueError where it does not fit."""

    def _state(self) -> tuple[dict[str, np.ndarray], JsonObject]:
        tensors, header = self._tensors()
        return as_arrays(tensors | {f"scaling.{name}": t for name, t in self.scaling.state().items()}), header

    @classmethod
    def _from_state(cls, config: Any, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> Self:
        tensors = as_tensors(arrays)
        return cls._from_file(
            FittedFile(config, InputScaling.from_state(below(tensors, "scaling."), config), tensors, header)
        )
