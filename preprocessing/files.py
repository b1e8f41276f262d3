"""File names, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

JsonObject = dict[str, Any]
"""What a JSON file holds: names, and plain values of whatever kind."""
MAX_SLUG = 100
"""Longest name in characters: file systems allow 255 bytes, and prefixes and endings come on top."""


def slug(name: str) -> str:
    """A stock or model name as a safe file name: commas become dashes, other odd characters underscores.

    A name longer than MAX_SLUG is cut and ends with a hash of the whole.
    """
    safe = re.sub(r"[^\w.-]+", "_", name.replace(",", "-").replace("=", "-")).strip("_.")
    if len(safe) <= MAX_SLUG:
        return safe
    # the hash is of the whole name: two long names with one beginning must not share a file
    return f"{safe[: MAX_SLUG - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class AtomicFiles:
    """Files that appear together where the block ends well; else none of them, and no folder made for them.

        with AtomicFiles() as files:
            files.open(path).write(data)

    Each is written to a temporary neighbour of its path. At the end all are flushed to the disk, then renamed in
    the order in which they were opened; until then a former file stays as it is. Only a kill that no process can
    catch leaves the temporary files, whose names begin with a dot.

    Raises:
        OSError: the disk is full or a folder is not writable; nothing is left behind.
    """

    def __init__(self) -> None:
        self._open: list[tuple[BinaryIO, Path, Path]] = []  # file, temporary, path
        self._scratch: list[BinaryIO] = []
        self._made: list[Path] = []

    def open(self, path: Path) -> BinaryIO:
        """A file to write bytes to, which becomes `path`."""
        path = Path(path)
        self._make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:MAX_SLUG]}.")
        file = os.fdopen(handle, "wb")
        self._open.append((file, Path(temporary), path))
        return file

    def finish(self, file: BinaryIO) -> None:
        """Close a file that is whole, so that thousands of them are not open at once; it still appears at the end."""
        if not file.closed:
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def open_scratch(self, folder: Path) -> BinaryIO:
        """A file without a name on the disk of `folder`, to write and read; it is gone with the process."""
        self._make_folder(Path(folder))
        self._scratch.append(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        return self._scratch[-1]

    def __enter__(self) -> AtomicFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._scratch:
            file.close()
        try:
            if error is None:
                self._publish()
        finally:
            self._discard()

    def _publish(self) -> None:
        for file, temporary, _ in self._open:
            self.finish(file)
            # mkstemp makes files that only their owner can read; these shall be as any other
            os.chmod(temporary, 0o666 & ~_umask())
        for _, temporary, path in self._open:
            os.replace(temporary, path)

    def _discard(self) -> None:
        """Remove what was not published: temporary files, then folders that this made and that hold nothing."""
        for file, temporary, _ in self._open:
            with suppress(OSError):  # a full disk may refuse what is still in the buffer
                file.close()
            temporary.unlink(missing_ok=True)
        # deepest first: a folder can go only when those in it are gone
        for folder in sorted(self._made, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):  # it holds files
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        self._made += [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file through a temporary neighbour and a rename, so that no reader ever sees half of it.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    with AtomicFiles() as files:
        files.open(path).write(content.encode() if isinstance(content, str) else content)


def give_ordinary_permissions(folder: Path) -> None:
    """Let others read a folder and all in it as far as the umask does, whatever it was copied from."""
    mask = _umask()
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def sha256(path: Path) -> str:
    """Hash of a file's content, or of a folder's sorted relative names and contents; hexadecimal."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
