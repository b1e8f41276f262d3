"""What a file of bars holds, and what was found in it: the types between reading and checking. Letters: T bars."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.errors import UserError

PRICE_COLUMNS = ("Open", "High", "Low", "Close", "Adj Close")
EVENTS = ("Dividends", "Stock Splits")
NUMBER_COLUMNS = (*PRICE_COLUMNS, "Volume", *EVENTS)
"""The columns whose numbers are read, where they are there."""
REPAIRS = (
    "rows_without_prices",
    "repeated_rows",
    "unsorted_rows",
    "missing_opens",
    "missing_ranges",
    "widened_ranges",
    "missing_volumes",
    "repaired_outliers",
)
"""Fields of BarsReport that count repairs."""
WARNINGS = (
    "zero_volume_rows",
    "stale_rows",
    "gaps",
    "suspected_splits",
    "unapplied_splits",
    "impossible_moves",
    "mixed_interval_rows",
)
"""Fields of BarsReport that count what is odd and left as it is."""


class MarketDataError(UserError):
    """Bars that cannot be used; the message is one line that names the place and a way out."""


class NoBarsError(MarketDataError):
    """No bar lies between start and end."""


@dataclass(frozen=True, kw_only=True)
class RawBars:
    """Rows of one stock that have all their prices and lie between start and end, in the file's order, T of them."""

    path: Path | str
    """The file, or what else the bars came from, as messages name it."""
    layout: str
    """How the file is laid out, as `BarsReport.layout`."""
    rows_read: int
    """Rows of the file, with those that lack prices or lie outside start and end."""
    rows_without_prices: int = 0
    lines: np.ndarray
    """[T] where each row stands in the file."""
    times: np.ndarray
    """[T] datetime64[ns], as the file writes them, offsets left away."""
    offsets: np.ndarray
    """[T] minutes ahead of UTC, NaN where the file gives none."""
    columns: Mapping[str, np.ndarray]
    """[T] each: Close, and those of Open, High, Low, Volume, Adj Close, Dividends and Stock Splits that are there."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a column (or Date) where it is not the key."""
    place: str = "line"
    """What `lines` counts: lines of a text, rows of a table."""
    unread: tuple[str, ...] = ()
    """Columns that are not understood and may change the meaning of the others."""
    editable: bool = True
    """Whether its owner may correct a row: not so in the cache, whose checksum would no longer hold."""
    history: str = ""
    """First and last day of the whole file, for a message."""

    def at(self, row: int, column: str) -> str:
        """The place of a row in a column, as every message begins."""
        return f"{self.path}: {self.place} {self.lines[row]}, column {self.names.get(column, column)}"

    @property
    def way_out(self) -> str:
        """What one may do about a row that is refused."""
        if self.editable:
            return f"correct or delete the {self.place}"
        return "choose data.start and data.end without it: a cached download cannot be edited"

    def refuse(self, rows: Sequence[int] | np.ndarray, column: str, cell: object, reason: str) -> MarketDataError:
        """The one form of a refusal of the first of these rows, which says so where most rows are alike."""
        start = f"{self.at(rows[0], column)}: '{cell}' {reason}"
        if len(rows) > 2 and 2 * len(rows) > len(self.lines):
            return MarketDataError(
                f"{start}, and so are {len(rows)} of {len(self.lines)} {self.place}s: the column holds something else "
                "than its name says; rename it, or leave it out."
            )
        return MarketDataError(f"{start}; {self.way_out}.")


@dataclass(frozen=True, kw_only=True)
class BarsReport:
    """Where the bars of a stock came from, what they are, and what was repaired or looked odd.

    `rows_read` and `rows_without_prices` are of the whole file; all other counts are of its rows between start and
    end. `rows`, `first_date` and `last_date` are what is left after the repairs.
    """

    source: str
    layout: str = "simulated"
    """yahoo, yfinance, stooq, plain (no adjusted close), parquet, frame or simulated."""
    interval: str | None = None
    """The usual spacing: 5min, 1h, 1d, 1wk, 1mo; null for a single bar."""
    time_zone: str | None = None
    """Of intraday times: utc (they had offsets, or data.timezone says where they are of) or as given (they had
    none); null for days."""
    rows_read: int
    rows_without_prices: int = 0
    repeated_rows: int = 0
    unsorted_rows: int = 0
    missing_opens: int = 0
    """Opens given as 0, in whose place the last close stands, as far as the range of the bar allows."""
    missing_ranges: int = 0
    """Rows whose open, high and low are all given as 0, in whose place the close stands."""
    widened_ranges: int = 0
    missing_volumes: int = 0
    repaired_outliers: int = 0
    """Rows that data.outliers repair put right or left out, and splits that it applied."""
    zero_volume_rows: int = 0
    """Rows whose volume is given as 0."""
    stale_rows: int = 0
    """Rows in runs of at least STALE_BARS equal closes."""
    gaps: int = 0
    """Breaks between bars that closed days, holidays and the daily session do not explain."""
    longest_gap_days: float = 0.0
    """Days from bar to bar over the longest of the gaps; 0 without one."""
    suspected_splits: int = 0
    """Overnight moves by a split ratio in prices that are not adjusted, with ordinary turnover."""
    unapplied_splits: int = 0
    """Splits that the file's own column names, but that its prices, adjusted or not, still show as a jump."""
    impossible_moves: int = 0
    """Closes, highs and lows that are IMPOSSIBLE_MOVE times another or more, and are no suspected split."""
    moves: tuple[str, ...] = ()
    """The first of both, as `2014-05-06 x100`."""
    mixed_interval_rows: int = 0
    """Rows in stretches of another spacing; regular ones in daily bars are refused."""
    absent_columns: tuple[str, ...] = ()
    """Of Open, High, Low and Volume: the close stands in for a price, 0 for a volume."""
    unread_columns: tuple[str, ...] = ()
    """Columns that are not understood and whose names say that they may change the meaning of the others."""
    dividends: int = 0
    splits: int = 0
    """Told by the Dividends and Stock Splits columns, else by jumps of Adj Close / Close."""
    rows: int = 0
    first_date: str | None = None
    last_date: str | None = None
    skipped: str | None = None
    """Why the stock was left out, or None."""


def with_extent(report: BarsReport, bars: pd.DataFrame) -> BarsReport:
    """The report with rows, first and last date of these bars."""
    days = [str(bars.index[row])[:10] for row in (0, -1)] if len(bars) else [None, None]
    return dataclasses.replace(report, rows=len(bars), first_date=days[0], last_date=days[1])
