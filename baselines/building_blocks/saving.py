"""Fitted forecasters as one file: name, config and named arrays, exact to the last bit, and no pickle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from baselines.building_blocks.tensor_files import SavedFileError, read_arrays, write_arrays
from preprocessing.files import JsonObject


@dataclass(frozen=True, eq=False)
class SavedForecaster:
    """A forecaster that saves and loads itself.

    A subclass is a frozen dataclass that adds `fit`, `predict`, and as fields the arrays that fitting made. Where it
    has other fields, it overrides the two methods at the end.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    state_file: ClassVar[str] = "state.safetensors"

    config: Any

    def save(self, path: Path) -> None:
        """Write name, config and all that was fitted into the file `state_file` of the folder `path`."""
        arrays, header = self._state()
        header = {"forecaster": self.name, "config": dataclasses.asdict(self.config)} | header
        write_arrays(Path(path) / self.state_file, arrays, header)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SavedFileError: the file is missing, damaged, or of another forecaster.
        """
        file = Path(path) / cls.state_file
        try:
            arrays, header = read_arrays(file)
            if header["forecaster"] != cls.name:
                raise ValueError(f"it is of {header['forecaster']}")
            return cls._from_state(cls.Config(**header["config"]), arrays, header)
        # A config that this class refuses is as unusable as a damaged file, and gets the same message.
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise SavedFileError(f"{file} does not hold a fitted {cls.name} ({reason}); fit it again.") from error

    def _state(self) -> tuple[dict[str, np.ndarray], JsonObject]:
        """Named arrays, and plain JSON values, that are kept besides name and config."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "config"]
        return {name: np.asarray(getattr(self, name)) for name in fields}, {}

    @classmethod
    def _from_state(cls, config: Any, arrays: Mapping[str, np.ndarray], header: Mapping[str, object]) -> Self:
        """The forecaster whose `_state` this is; KeyError, TypeError or ValueError where it does not fit."""
        return cls(config=config, **arrays)
