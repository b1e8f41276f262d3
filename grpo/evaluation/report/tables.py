"""Tables of the page: which columns there are, what they mean, and how their numbers read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from grpo.evaluation.markdown import Row
from grpo.evaluation.report.svg import tag

DASH = "–"
_SPREAD = "_sd"
_BESIDE = ("_low", "_high", _SPREAD)


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
    "p_holm": Column(
        header="p (Holm)",
        meaning="Two-sided Diebold-Mariano test on date-averaged CRPS against the random walk, adjusted for the number "
        "of forecasters; the verdict goes by it.",
        digits=3,
        missing=_TEST,
    ),
    "mcs": Column(
        header="MCS",
        meaning="Whether the forecaster is in the 90 % model confidence set, which holds the best one nine times of "
        "ten.",
        missing="no rival: the optimum is a yardstick",
    ),
    "rel_mae": Column(header="rel. MAE", meaning="MAE divided by that of the random walk.", digits=3),
    "r2": Column(
        header="R²",
        meaning="Out of sample: one minus the squared error of the mean over that of no change; above 0 is better.",
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
    "valid": Column(
        header="valid",
        meaning="Share of usable samples; an invalid one counts as the last close repeated.",
        digits=3,
    ),
    "crps": Column(
        header="CRPS %",
        meaning="Continuous ranked probability score of each day, averaged, in percent of the last close. Smaller is "
        "better; for a point forecast it is the absolute error.",
        digits=3,
    ),
    "energy": Column(
        header="energy %",
        meaning="Energy score: the CRPS of whole paths; it also sees how the days hang together.",
        digits=3,
    ),
    "mae": Column(
        header="MAE %", meaning="Absolute error of the samples’ median, in percent of the last close.", digits=3
    ),
    "rmse": Column(
        header="RMSE %",
        meaning="Root of the mean squared error of the samples’ mean, in percent of the last close.",
        digits=3,
    ),
    "mape": Column(header="MAPE %", meaning="Absolute error in percent of the realised price.", digits=3),
    "smape": Column(
        header="sMAPE %", meaning="Absolute error in percent of the mean of forecast and realised price.", digits=3
    ),
    "mase": Column(
        header="MASE",
        meaning="Absolute error over the stock’s mean absolute daily change in training.",
        digits=3,
        missing="the training closes were not given",
    ),
    "pinball": Column(header="pinball %", meaning="Mean quantile loss over a grid of levels.", digits=3),
    "p_value": Column(header="p", meaning="The Diebold-Mariano test, not adjusted.", digits=3, missing=_TEST),
    "dm_statistic": Column(
        header="DM",
        meaning="Diebold-Mariano statistic; negative is better than the random walk.",
        digits=2,
        missing=_TEST,
    ),
    "mcs_p": Column(
        header="MCS p",
        meaning="Smallest level at which the forecaster leaves the model confidence set.",
        digits=3,
        missing="no rival: the optimum is a yardstick",
    ),
    "clark_west_p": Column(
        header="Clark-West p",
        meaning="One-sided test that the mean forecast of the last day adds nothing to no change.",
        digits=3,
        missing=_TEST,
    ),
    "direction_p": Column(
        header="direction p",
        meaning="One-sided Pesaran-Timmermann test that predicted and realised directions of the last day are "
        "independent.",
        digits=3,
        missing="not tested: a yardstick, too few dates, or directions that never change",
    ),
    "width_50": Column(
        header="width 50", meaning="Width of the central 50 % interval, in percent of the last close.", digits=2
    ),
    "width_80": Column(
        header="width 80", meaning="Width of the central 80 % interval, in percent of the last close.", digits=2
    ),
    "width_95": Column(
        header="width 95", meaning="Width of the central 95 % interval, in percent of the last close.", digits=2
    ),
    "straight_lines": Column(
        header="straight lines", meaning="Share of paths that are exact straight lines, without any shape.", digits=2
    ),
    "trained_until": Column(
        header="trained until",
        meaning="Last day that the forecaster can have learnt from; on or after the first test day it is a leak.",
        missing="not known",
    ),
    "num_windows": Column(header="windows", meaning="Windows that were scored.", digits=0),
    "num_dates": Column(header="dates", meaning="Dates of origin that the tests see.", digits=0),
    "seconds": Column(header="seconds", meaning="Time to forecast all windows.", digits=2, missing="not measured"),
}
"""Known columns, in reading order."""
_DECISIVE = (
    "forecaster",
    "skill",
    "rel_crps",
    "p_holm",
    "mcs",
    "rel_mae",
    "r2",
    "coverage_50",
    "coverage_80",
    "coverage_95",
    "direction_hit",
    "always_up_hit",
    "valid",
)


def decisive_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a leaderboard that decide, as far as it has them; skill only where the optimum is known."""
    empty = {"skill"} if "skill" in table and not table["skill"].notna().to_numpy().any() else set()
    return [name for name in _DECISIVE if name in table and name not in empty]


def other_columns(table: pd.DataFrame) -> list[str]:
    """The forecaster and all that `decisive_columns` leaves and is not empty: known ones first, then any others."""
    filled = table.columns[table.notna().any()]
    shown = [name for name in visible_columns(table) if name not in _DECISIVE and name in filled]
    known = [name for name in COLUMNS if name in shown]
    return ["forecaster", *known, *(name for name in shown if name not in COLUMNS)]


def visible_columns(table: pd.DataFrame) -> list[str]:
    """The columns that get a place of their own: all but ends of intervals and spreads, which go beside their value."""
    return [name for name in table if not _belongs_to_another(name, table)]


def _belongs_to_another(name: str, table: pd.DataFrame) -> bool:
    """Whether a column is the end of an interval, or the spread, of another one."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in table for suffix in _BESIDE)


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
        # about four figures, whatever the size
        digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:z,.{digits}f}"


def table(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    caption: str,
    drawings: Mapping[str, Callable[[Row], Markup]] | None = None,
    row_class: Callable[[Row], str | None] = lambda record: None,
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
        rows.append(tag("tr", *cells, class_=row_class(record)))
    content = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="sortable"
    )
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _is_numeric(values: pd.Series | pd.DataFrame) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _cell(
    record: Row,
    name: str,
    numeric: bool,
    *,
    first: bool,
    drawing: Callable[[Row], Markup] | None,
) -> Markup:
    value = record[name]
    element = "th" if first else "td"
    scope = "row" if first else None
    if _is_missing(value):
        return tag(element, DASH, scope=scope, class_="number" if numeric else None, title=column(name).missing)
    if not numeric:
        return tag(element, _plain(value), scope=scope, title=_plain(value) if first else None)  # it may be cut
    parts: list[object] = [drawing(record)] if drawing else []
    parts.append(tag("span", number(float(value), _digits(name, value))))
    if f"{name}{_SPREAD}" in record:
        parts.append(_spread(record[f"{name}{_SPREAD}"], _digits(name, value)))
    if f"{name}_low" in record:
        parts.append(_range(record[f"{name}_low"], record[f"{name}_high"], _digits(name, value)))
    return tag(element, *parts, scope=scope, class_="number", data_value=_javascript(float(value)))


def _spread(spread: float, digits: int | None) -> Markup:
    """A standard deviation in small figures; empty, but as wide, where there is none."""
    if _is_missing(spread):
        return tag("small", class_="spread")
    text = f"±\N{NO-BREAK SPACE}{number(float(spread), digits)}"
    return tag("small", text, class_="spread", title="standard deviation over seeds")


def _range(low: float, high: float, digits: int | None) -> Markup:
    """An interval in small figures; empty, but as wide, where there is none."""
    if _is_missing(low) or _is_missing(high):
        return tag("small", class_="range")
    said = f"95 % interval: {number(low, digits)} to {number(high, digits)}"
    return tag("small", f"[{number(low, 2)}, {number(high, 2)}]", class_="range", title=said)


def _digits(name: str, value: object) -> int | None:
    whole = isinstance(value, (int, np.integer))
    return 0 if whole and column(name).digits is None else column(name).digits


def _javascript(value: float) -> str:
    # the page sorts by these values, and JavaScript reads infinity by this word only
    return repr(value).replace("inf", "Infinity")


def _plain(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    return str(value)


def _is_missing(value: object) -> bool:
    # of a list `pd.isna` gives a list, which is neither true nor false
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))
