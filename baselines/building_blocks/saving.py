"""Fitted forecasters as one file: a config and named arrays, exact to the last bit, and no pickle."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from preprocessing.files import write_atomically

STATE_FILE = "state.npz"
_CONFIG = "config"


class SavedStateError(ValueError):
    """A saved forecaster that cannot be read; the message names the file."""


@dataclass(frozen=True, eq=False)
class SavedForecaster:
    """A forecaster whose fields are its config and the arrays that fitting made; it saves and loads itself.

    A subclass is a frozen dataclass that adds arrays as fields, `fit` and `predict`.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]

    config: Any

    def save(self, path: Path) -> None:
        """Write the config (as JSON) and every array into `path`/state.npz."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != _CONFIG]
        arrays = {name: np.asarray(getattr(self, name)) for name in fields}
        arrays[_CONFIG] = np.array(json.dumps(dataclasses.asdict(self.config)))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomically(Path(path) / STATE_FILE, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SavedStateError: the file is missing, damaged, or of another forecaster.
        """
        file = Path(path) / STATE_FILE
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            config = cls.Config(**json.loads(str(arrays.pop(_CONFIG))))
            return cls(config=config, **arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise SavedStateError(
                f"{file} does not hold a fitted {cls.name} ({' '.join(str(error).split())}); fit it again."
            ) from error
