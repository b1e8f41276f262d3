"""File names, and files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path


def slug(name: str) -> str:
    """A stock or model name as a safe file name: commas become dashes, other odd characters underscores."""
    return re.sub(r"[^\w.-]+", "_", name.replace(",", "-").replace("=", "-")).strip("_.")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file through a temporary neighbour and a rename, so that no reader ever sees half of it.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
