"""Tables of the page: which columns there are, what they mean, and how their numbers read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from grpo.evaluation.report.svg import tag

DASH = "–"
_INTERVAL_SUFFIXES = ("_low", "_high")
_SPREAD_SUFFIX = "_sd"


@dataclass(frozen=True, kw_only=True)
class Column:
    """How a column reads.

    Attributes:
        header: above it.
        meaning: its entry in the glossary; empty for none.
        digits: decimals; None lets the size of each number decide.
        missing: why a cell can be empty.
    """

    header: str
    meaning: str = ""
    digits: int | None = None
    missing: str = "not available"


_TEST = "not tested: a yardstick, too few dates, or no difference at all"
COLUMNS: dict[str, Column] = {
    "forecaster": Column(header="forecaster"),
    "skill": Column(
        header="skill",
        meaning="Share closed of the gap in CRPS between the random walk (0) and the exact law (1).",
        digits=3,
        missing="the exact law of these stocks is not known, or leaves no gap to the random walk",
    ),
    "rel_crps": Column(
        header="rel. CRPS", meaning="CRPS divided by that of the random walk; below 1 is better.", digits=3
    ),
    "p_value": Column(
        header="p",
        meaning="Two-sided Diebold-Mariano test on date-averaged CRPS against the random walk, not adjusted.",
        digits=3,
        missing=_TEST,
    ),
    "p_holm": Column(
        header="p (Holm)",
        meaning="The same, adjusted for the number of forecasters; the verdict goes by it.",
        digits=3,
        missing=_TEST,
    ),
    "mcs": Column(
        header="MCS",
        meaning="Whether the forecaster is in the model confidence set, which holds the best one nine times of ten.",
        missing=_TEST,
    ),
    "crps": Column(
        header="CRPS %",
        meaning="Continuous ranked probability score of each day, averaged, in percent of the last close. Smaller is "
        "better; for a point forecast it is the absolute error.",
        digits=3,
    ),
    "mae": Column(
        header="MAE %", meaning="Absolute error of the samples' median, in percent of the last close.", digits=3
    ),
    "rel_mae": Column(header="rel. MAE", meaning="MAE divided by that of the random walk.", digits=3),
    "rmse": Column(
        header="RMSE %",
        meaning="Root of the mean squared error of the samples' mean, in percent of the last close.",
        digits=3,
    ),
    "r2": Column(
        header="R²",
        meaning="Out of sample: one minus the squared error of the mean over that of no change; above 0 is better.",
        digits=4,
    ),
    "energy": Column(
        header="energy %",
        meaning="Energy score: the CRPS of whole paths; it also sees how the days hang together.",
        digits=3,
    ),
    "coverage_50": Column(
        header="cover 50", meaning="Share of realised prices in the central 50 % interval.", digits=2
    ),
    "coverage_80": Column(
        header="cover 80", meaning="Share of realised prices in the central 80 % interval.", digits=2
    ),
    "coverage_95": Column(
        header="cover 95", meaning="Share of realised prices in the central 95 % interval.", digits=2
    ),
    "width_80": Column(
        header="width 80 %", meaning="Width of the central 80 % interval, in percent of the last close.", digits=2
    ),
    "direction_hit": Column(
        header="direction",
        meaning="Share of windows whose median moves to the realised side of the last close; one half where it stays.",
        digits=2,
    ),
    "always_up_hit": Column(
        header="always up",
        meaning="The same for the forecast that every stock rises: what direction must beat.",
        digits=2,
    ),
    "straight_lines": Column(
        header="straight",
        meaning="Share of paths that are exact straight lines: 1 is a model without any shape.",
        digits=2,
    ),
    "valid": Column(
        header="valid",
        meaning="Share of usable samples; an invalid one counts as the last close repeated.",
        digits=3,
    ),
    "seconds": Column(header="seconds", meaning="Time to forecast all windows.", digits=2, missing="not measured"),
    "num_dates": Column(header="dates", meaning="Dates of origin that the tests see.", digits=0),
    "dm_statistic": Column(
        header="DM",
        meaning="Diebold-Mariano statistic; negative is better than the random walk.",
        digits=2,
        missing=_TEST,
    ),
}
"""Known columns, in the order in which a leaderboard shows them."""
_LEADERBOARD_LEAVES_OUT = {"dm_statistic", "num_dates", "width_80", "rmse"}


def leaderboard_columns(table: pd.DataFrame) -> list[str]:
    """The leaderboard's columns in reading order: known ones first, then whatever else it holds."""
    known = [name for name in COLUMNS if name in table and name not in _LEADERBOARD_LEAVES_OUT]
    if "skill" in known and not table["skill"].notna().to_numpy().any():
        known.remove("skill")
    others = [name for name in table if name not in COLUMNS and not _belongs_to_another(str(name), table)]
    return [*known, *(str(name) for name in others if not str(name).startswith("width_"))]


def _belongs_to_another(name: str, table: pd.DataFrame) -> bool:
    """Whether a column is the end of an interval, or the spread, of another one."""
    return any(
        name.endswith(suffix) and name.removesuffix(suffix) in table for suffix in (*_INTERVAL_SUFFIXES, _SPREAD_SUFFIX)
    )


def glossary(columns: Sequence[str]) -> list[tuple[str, str]]:
    """(header, meaning) of the columns that have one."""
    known = [COLUMNS[name] for name in columns if name in COLUMNS]
    return [(column.header, column.meaning) for column in known if column.meaning]


def column(name: str) -> Column:
    """How a column reads; one that is not known gets its own name without underscores."""
    return COLUMNS.get(name, Column(header=name.replace("_", " ")))


def number(value: float, digits: int | None = None) -> str:
    """A number as text; without digits as many decimals as its size asks for."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if digits is None:
        size = abs(value)
        if size != 0 and size < 0.0005:
            return f"{value:.1e}"
        digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:z,.{digits}f}"


def table(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    caption: str,
    drawings: Mapping[str, Callable[[Mapping[str, Any]], Markup]] | None = None,
    row_class: Callable[[Mapping[str, Any]], str] | None = None,
) -> Markup:
    """A table that sorts by its columns; the first column names the row.

    Args:
        frame: the rows.
        columns: which of its columns, in order.
        caption: what the table is, for a screen reader.
        drawings: a small picture beside the number, by column.
        row_class: CSS class of a row.
    """
    drawings = drawings or {}
    numeric = {name for name in columns if _is_numeric(frame[name])}
    head = [
        tag(
            "th",
            column(name).header,
            scope="col",
            class_="number" if name in numeric else None,
            title=column(name).meaning or None,
        )
        for name in columns
    ]
    rows = []
    for record in frame.to_dict("records"):
        cells = [
            _cell(record, name, name in numeric, first=name == columns[0], drawing=drawings.get(name))
            for name in columns
        ]
        rows.append(tag("tr", *cells, class_=(row_class(record) or None) if row_class else None))
    content = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="sortable"
    )
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _is_numeric(values: Any) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _cell(
    record: Mapping[str, Any],
    name: str,
    numeric: bool,
    *,
    first: bool,
    drawing: Callable[[Mapping[str, Any]], Markup] | None,
) -> Markup:
    value = record[name]
    element = "th" if first else "td"
    scope = "row" if first else None
    if _is_missing(value):
        return tag(element, DASH, scope=scope, class_="number" if numeric else None, title=column(name).missing)
    if not numeric:
        return tag(element, _plain(value), scope=scope)
    parts: list[object] = [drawing(record)] if drawing else []
    parts.append(number(float(value), _digits(name, value)))
    spread = record.get(f"{name}{_SPREAD_SUFFIX}", math.nan)
    if not _is_missing(spread):
        parts.append(
            tag("small", f"±{number(float(spread), _digits(name, value))}", title="standard deviation over seeds")
        )
    low, high = (record.get(f"{name}{suffix}", math.nan) for suffix in _INTERVAL_SUFFIXES)
    said = None
    if not (_is_missing(low) or _is_missing(high)):
        said = f"95 %: {number(float(low), _digits(name, value))} to {number(float(high), _digits(name, value))}"
    return tag(element, *parts, scope=scope, class_="number", data_value=_javascript(float(value)), title=said)


def _digits(name: str, value: object) -> int | None:
    whole = isinstance(value, (int, np.integer))
    return 0 if whole and column(name).digits is None else column(name).digits


def _javascript(value: float) -> str:
    return repr(value).replace("inf", "Infinity")


def _plain(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    return str(value)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, (float, np.floating)) and math.isnan(value))
