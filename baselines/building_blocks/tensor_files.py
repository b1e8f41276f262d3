"""One safetensors file of named arrays, with what else is needed as JSON in its header.

The file appears whole or not at all, reading it runs no code, and every number comes back to the last bit.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

_METADATA = "json"


class SavedFileError(UserError):
    """A checkpoint or a fitted forecaster that cannot be used; the message names the file."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, object]) -> None:
    """Write named arrays, those of text included, and `header` as JSON into one safetensors file.

    Raises:
        OSError: the disk is full or the folder is not writable; a former file stays as it was.
    """
    texts = {name: array.shape for name, array in arrays.items() if array.dtype.kind == "U"}
    plain = {name: _as_bytes(array) if name in texts else np.array(array, order="C") for name, array in arrays.items()}
    # one entry, as safetensors orders several by chance and equal states must be equal files
    write_atomically(path, save(plain, metadata={_METADATA: json.dumps({"header": header, "texts": texts})}))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], JsonObject]:
    """The arrays and the header that `write_arrays` wrote.

    Raises:
        SavedFileError: the file is missing, damaged, or written by something else.
    """
    with _readable(path), safe_open(path, framework="np") as file:
        metadata = json.loads((file.metadata() or {})[_METADATA])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, shape in metadata["texts"].items():
            arrays[name] = _as_text(arrays[name]).reshape(shape)
        return arrays, metadata["header"]


def read_header(path: Path) -> JsonObject:
    """The header alone that `write_arrays` wrote.

    Raises:
        SavedFileError: the file is missing, damaged, or written by something else.
    """
    with _readable(path), safe_open(path, framework="np") as file:
        return json.loads((file.metadata() or {})[_METADATA])["header"]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise SavedFileError(f"{path} cannot be read as a saved state ({in_short(error)})") from error


def in_short(error: Exception) -> str:
    """Its message on one line, cut where torch would list every tensor that does not fit."""
    return textwrap.shorten(str(error), 300, placeholder=" ...")


def _as_bytes(texts: np.ndarray) -> np.ndarray:
    # safetensors has no type for text
    return np.frombuffer("\0".join(texts.ravel().tolist()).encode(), dtype=np.uint8)


def _as_text(array: np.ndarray) -> np.ndarray:
    return np.array(array.tobytes().decode().split("\0"))
