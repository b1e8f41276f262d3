"""Tables as Markdown, padded so that they also read well in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grpo.evaluation.metrics import INTERVALS

Row = Mapping[str, Any]
"""One row of a table, by column: numbers, text, or nothing."""


def leaderboard_markdown(table: pd.DataFrame) -> str:
    """The columns of a leaderboard that decide, at most ten; `details_markdown` has the rest."""
    rows = table.to_dict("records")
    columns = {
        "forecaster": [row["forecaster"] for row in rows],
        "skill [95 %]": [estimate(row, "skill") for row in rows],
        "rel. CRPS [95 %]": [estimate(row, "rel_crps") for row in rows],
        "p (Holm)": [number(row["p_holm"], 3) for row in rows],
        "MCS": ["" if row["mcs"] is None else "yes" if row["mcs"] else "no" for row in rows],
        "rel. MAE": [number(row["rel_mae"], 3) for row in rows],
        "R2": [number(row["r2"], 3) for row in rows],
        "cover 50/80/95": [_coverage(row) for row in rows],
        "direction (up)": [f"{row['direction_hit']:.2f} ({row['always_up_hit']:.2f})" for row in rows],
        "valid": [number(row["valid"], 3) for row in rows],
    }
    return markdown(columns)


def details_markdown(table: pd.DataFrame) -> str:
    """Scores in their own units, single tests, and what else there is to know of each forecaster."""
    digits = {
        "CRPS %": ("crps", 3),
        "energy %": ("energy", 3),
        "MAE %": ("mae", 3),
        "p": ("p_value", 3),
        "Clark-West p": ("clark_west_p", 3),
        "direction p": ("direction_p", 3),
        "straight lines": ("straight_lines", 2),
        "seconds": ("seconds", 2),
    }
    columns = {"forecaster": list(table["forecaster"])}
    columns |= {header: [number(value, places) for value in table[name]] for header, (name, places) in digits.items()}
    if "trained_until" in table:
        columns["trained until"] = list(table["trained_until"])
    return markdown(columns)


def frame_markdown(frame: pd.DataFrame, digits: int = 3) -> str:
    """Any table, its column names as headers; floats with so many decimals."""
    return markdown({str(name): [_cell(value, digits) for value in frame[name]] for name in frame})


def markdown(columns: Mapping[str, Sequence[str]]) -> str:
    """Columns of equally many cells; the first to the left, the others to the right; empty columns are left out."""
    first = next(iter(columns))
    shown = [[header, *cells] for header, cells in columns.items() if header == first or any(cells)]
    widths = [max(2, *map(len, column)) for column in shown]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    header, *body = zip(*shown, strict=True)
    return "\n".join(_line(cells, widths) for cells in (header, rule, *body))


def estimate(row: Row, name: str, digits: int = 3) -> str:
    """A number with its spread over seeds and its interval, where the row has them as `_sd`, `_low` and `_high`."""
    text = number(row[name], digits)
    spread, low, high = (row.get(f"{name}_{end}", np.nan) for end in ("sd", "low", "high"))
    if text and not np.isnan(spread):
        text += f" ± {number(spread, digits)}"
    if text and not np.isnan(low):
        text += f" [{number(low, 2)}, {number(high, 2)}]"
    return text


def number(value: float, digits: int) -> str:
    """A number with so many decimals and no minus before a zero; empty for NaN."""
    return "" if np.isnan(value) else f"{value:z.{digits}f}"


def _coverage(row: Row) -> str:
    return "/".join(number(row[f"coverage_{round(100 * level)}"], 2) for level in INTERVALS)


def _cell(value: object, digits: int) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return number(float(value), digits)
    return "" if value is None else str(value)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join([cells[0].ljust(widths[0]), *padded[1:]])} |"
