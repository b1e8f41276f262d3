"""Numbers as texts write them: decimal points and commas, thousands, currency signs, 1.2M.

How a file writes its numbers is one decision for the whole file: `1,200` is twelve hundred beside `1,200.50`, a little
more than one beside `99,6`, and neither where nothing tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Style = Literal["plain", "thousands", "decimal comma"]
NULL_MARKS = frozenset({"", "null", "nan", "none", "na", "n/a", "-", "--", ".", "<na>", "nat"})
MAGNITUDES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_SIGNS = re.compile(r"^([+-]?)\s*[$€£¥]\s*|\s*[$€£¥]$")
_SPACES = re.compile(r"(?<=\d)[ '’\u00a0\u202f](?=\d{3}(?:\D|$))")
_POINT_ONLY = re.compile(r"[+-]?(\d{1,3}(,\d{3})+\.\d*|\d{1,3}(,\d{3}){2,}|\d+\.(\d{1,2}|\d{4,})|\d{4,}\.\d{3}|0\.\d+)")
_COMMA_ONLY = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+,\d*|\d{1,3}(\.\d{3}){2,}|\d+,(\d{1,2}|\d{4,})|\d{4,},\d{3}|0,\d+)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d*)?")
FEWEST_DECIMAL_COMMAS = 0.2
"""Share of a file's prices that must be written so: fewer are taken for slips of the pen."""


def is_null(cell: str) -> bool:
    """Whether a cell stands for a missing number."""
    return cell.lower() in NULL_MARKS


def number_style(cells: Sequence[str]) -> Style:
    """How a file writes its numbers, by all of its prices.

    Raises:
        ValueError: the commas could be of thousands or of decimals.
    """
    if all(map(_is_plain, cells)):
        return "plain"
    # one decision from all prices: a single cell such as 1,200 can be read either way
    bare = [_bare(cell) for cell in cells if not is_null(cell)]
    points, commas = _count(_POINT_ONLY, bare), _count(_COMMA_ONLY, bare)
    if commas > points and commas >= FEWEST_DECIMAL_COMMAS * len(bare):
        return "decimal comma"
    if points:
        return "thousands"
    if _count(_THOUSANDS, bare) > len(bare) / 2:
        raise ValueError(
            "its comma could be of thousands or of decimals; write numbers as 1234.5, without a mark for thousands"
        )
    return "plain"


def parse_number(cell: str, style: Style) -> float:
    """The number that a cell stands for; NaN for a missing one.

    Raises:
        ValueError: it is none.
    """
    if is_null(cell):
        return float("nan")
    if style != "decimal comma":
        try:
            return float(cell)
        except ValueError:
            pass
    bare = _bare(cell)
    # volumes such as 1.2M
    scale = MAGNITUDES.get(bare[-1:].lower(), 1.0)
    bare = bare if scale == 1.0 else bare[:-1].rstrip()
    if style == "decimal comma" and _DECIMAL_COMMA.fullmatch(bare):
        bare = bare.replace(".", "").replace(",", ".")
    elif style == "thousands" and _THOUSANDS.fullmatch(bare):
        bare = bare.replace(",", "")
    return float(bare) * scale


def _is_plain(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return is_null(cell)
    return True


def _bare(cell: str) -> str:
    """Without signs of currencies and spaces between thousands."""
    return _SPACES.sub("", _SIGNS.sub(r"\1", cell))


def _count(pattern: re.Pattern[str], cells: Iterable[str]) -> int:
    return sum(bool(pattern.fullmatch(cell)) for cell in cells)
