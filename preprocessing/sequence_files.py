"""Sequences as text: one a line, its values separated by spaces, all lines equally long, no header.

The layout of the original SeqGAN's `real_data.txt` and of what it generates.
"""

from __future__ import annotations

import math
import re
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np

from preprocessing.errors import UserError
from preprocessing.files import write_atomically

_FOREIGN = re.compile(r"[^0-9eE+\-. \n]")
_HINTS = {
    ",": "separate the values by spaces, not by commas",
    ";": "separate the values by spaces, not by semicolons",
    "\t": "separate the values by spaces, not by tabs",
}


def read_sequences(path: Path) -> np.ndarray:
    """[N, T] float64: N sequences of T values, in the order of the file.

    Raises:
        UserError: the file is missing, empty or no text, a line is empty or of another length than the first,
            or a value is no finite number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not text.strip():
        raise UserError(f"{path} is empty: it should hold one sequence a line, its values separated by spaces")
    # one search over the whole text is far quicker than a check of each word; float() alone would also take nan, inf
    # and 1_000
    foreign = _FOREIGN.search(text)
    if foreign:
        _refuse_word(path, text, foreign.start())
    lines = text.removesuffix("\n").split("\n")
    rows = [line.split() for line in lines]
    _refuse_ragged(path, lines, rows)
    try:
        values = np.array(list(map(float, chain.from_iterable(rows))))
    except ValueError:
        _refuse_number(path, lines)
    if not np.isfinite(values).all():
        _refuse_number(path, lines)
    return values.reshape(len(rows), -1)


def write_sequences(path: Path, sequences: np.ndarray) -> None:
    """Write [N, T] sequences so that `read_sequences` gives back the same float64 values, whole or not at all.

    Raises:
        ValueError: they are no table of finite numbers, or there are none.
        OSError: the disk is full or the folder is not writable.
    """
    values = np.asarray(sequences, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"sequences have to be a table [N, T] of finite numbers, not of shape {list(values.shape)}")
    write_atomically(path, "".join(" ".join(map(repr, row)) + "\n" for row in values.tolist()))


def _refuse_word(path: Path, text: str, position: int) -> NoReturn:
    """Refuse the word that holds the character at `position`."""
    start = max(text.rfind(end, 0, position) for end in " \n") + 1
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    hint = _HINTS.get(text[position])
    if hint:
        raise UserError(f"{path}, line {line}, column {column}: {hint}")
    word = text[start:].split(maxsplit=1)[0]
    column -= position - start
    advice = " (the file has no header)" if line == 1 else ""
    raise UserError(f"{path}, line {line}, column {column}: {_shown(word)} is no finite number{advice}")


def _refuse_ragged(path: Path, lines: list[str], rows: list[list[str]]) -> None:
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=1):
        if not row:
            raise UserError(f"{path}, line {number}, column 1: the line is empty")
        if len(row) != len(rows[0]):
            words = list(re.finditer(r"\S+", line))
            column = len(line.rstrip()) + 1 if len(row) < len(rows[0]) else words[len(rows[0])].start() + 1
            raise UserError(
                f"{path}, line {number}, column {column}: {len(row)} values, but line 1 has {len(rows[0])}; "
                "all lines have to be equally long"
            )


def _refuse_number(path: Path, lines: list[str]) -> NoReturn:
    """Refuse the first word that only looks like a number, such as 1.2.3, or that is too large, such as 1e999."""
    for number, line in enumerate(lines, start=1):
        for word in re.finditer(r"\S+", line):
            try:
                finite = math.isfinite(float(word[0]))
            except ValueError:
                finite = False
            if not finite:
                place = f"{path}, line {number}, column {word.start() + 1}"
                raise UserError(f"{place}: {_shown(word[0])} is no finite number")
    raise AssertionError("every word is a finite number")


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:40]}...")
