"""Bars as a file holds them to bars on one price basis: what is repaired, refused, counted and only warned of.

What can be repaired without a guess is repaired and counted; anything else is refused with file, line and column:

    repaired   a row without all its prices is dropped; an exact repeat is dropped; unsorted rows are sorted;
               a high or low that open or close exceeds by at most RANGE_TOLERANCE is widened to hold them; a
               missing volume is 0
    refused    two different rows of one time; a price that is not a positive number; a wider gap in the range;
               times of which only some have an offset; a time of day among days; a stretch of another interval
               (weekly bars in a daily file)
    warned of  WARNINGS, which change nothing

Daily bars keep the day that their exchange writes. Intraday bars with offsets go to UTC, others stay as given.
Letters: T bars.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.errors import UserError

PRICES = ("Open", "High", "Low", "Close", "Adj Close")
REPAIRS = ("rows_without_prices", "repeated_rows", "unsorted_rows", "widened_ranges", "missing_volumes")
"""Fields of BarsReport that count repairs."""
WARNINGS = ("zero_volume_rows", "stale_rows", "gaps", "suspected_splits", "mixed_interval_rows")
"""Fields of BarsReport that count what is odd and left as it is."""
RANGE_TOLERANCE = 0.01
"""Share of the price by which open or close may leave the range: some vendors mix venues."""
STALE_BARS = 10
"""From this many equal closes in a row on, they are counted as stale."""
CLOSED_STEPS = 5
"""Weekdays without a bar, or steps within a day, that holidays and halts explain; more are a gap."""
MIXED_BLOCK = 10
"""Spacings looked at together: more than half of them three times as wide, or a third, is another interval."""
SPLIT_RATIOS = np.array([3 / 2, 2, 3, 4, 5, 7, 10, 20])
SPLIT_TOLERANCE = 0.02
SPLIT_TURNOVER = 4.0
"""A split leaves turnover as it was; a crash multiplies it. Above this many medians it is no split."""
TURNOVER_BARS = 20
"""Bars before the suspected split whose median turnover is the usual one."""
DIVIDEND_JUMP = 2e-5
"""Smallest jump of Adj Close / Close that is a dividend, besides what rounding of the two can make."""

NANOSECONDS = 10**9
DAY = 86_400 * NANOSECONDS
FIRST_YEAR, LAST_YEAR = 1700, 2261
"""Years that datetime64[ns] holds whole."""


class MarketDataError(UserError):
    """Bars that cannot be used; the message is one line that names the place and a way out."""


@dataclass(frozen=True, kw_only=True)
class RawBars:
    """Rows of one file that have all their prices, in the file's order, T of them."""

    path: Path
    layout: str
    """How the file is laid out, as `BarsReport.layout`."""
    rows_read: int
    """Rows of the file, with those that lack prices."""
    lines: np.ndarray
    """[T] where each row stands in the file."""
    times: np.ndarray
    """[T] datetime64[ns], as the file writes them, offsets left away."""
    offsets: np.ndarray
    """[T] minutes ahead of UTC, NaN where the file gives none."""
    columns: Mapping[str, np.ndarray]
    """[T] each: Open, High, Low, Close, Volume (NaN where missing), and Adj Close, Dividends, Stock Splits if there."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a column (or Date) where it is not the key."""
    place: str = "line"
    """What `lines` counts: lines of a text, rows of a table."""


@dataclass(frozen=True, kw_only=True)
class BarsReport:
    """Where the bars of a stock came from, what they are, and what was repaired or looked odd.

    Counts are rows of the whole file unless they say otherwise; `rows`, `first_date` and `last_date` are what is
    left after the repairs and the choice of start and end.
    """

    source: str
    layout: str = "simulated"
    """yahoo, yfinance, stooq, plain (no adjusted close), parquet or simulated."""
    interval: str | None = None
    """The usual spacing: 5min, 1h, 1d, 1wk, 1mo; null for a single bar."""
    time_zone: str | None = None
    """Of intraday times: utc (they had offsets) or as given (they had none); null for days."""
    rows_read: int
    rows_without_prices: int = 0
    repeated_rows: int = 0
    unsorted_rows: int = 0
    widened_ranges: int = 0
    missing_volumes: int = 0
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
    mixed_interval_rows: int = 0
    """Rows in stretches of another spacing; regular ones in daily bars are refused."""
    dividends: int = 0
    splits: int = 0
    """Told by the Dividends and Stock Splits columns, else by jumps of Adj Close / Close."""
    rows: int = 0
    first_date: str | None = None
    last_date: str | None = None
    skipped: str | None = None
    """Why the stock was left out, or None."""


def refused(path: Path, place: str, column: str, cell: object, reason: str) -> MarketDataError:
    """The one form of a refusal: `place` is, for example, "line 7"."""
    row = place.partition(" ")[0]
    return MarketDataError(f"{path}: {place}, column {column}: '{cell}' {reason}; correct or delete the {row}.")


def check_bars(raw: RawBars) -> tuple[pd.DataFrame, BarsReport]:
    """Check, repair and adjust the rows of one file.

    Returns:
        open, high, low, close [T] on the basis of the adjusted close (all four times Adj Close / Close; as they
        are where the file has no Adj Close) and volume, indexed by ascending unique times; and what was found.

    Raises:
        MarketDataError: a row is refused.
    """
    if not len(raw.lines):
        raise MarketDataError(f"{raw.path} holds no row with prices; download it again or take it out of the folder.")
    _check_values(raw)
    times, time_zone = _settle_times(raw)
    raw, report = _sorted_unique(raw, times, BarsReport(source=str(raw.path), layout=raw.layout, rows_read=0))
    times = raw.times
    columns = {**raw.columns, "Volume": np.nan_to_num(raw.columns["Volume"])}
    gaps, longest_gap = _find_gaps(times)
    dividends, splits = _count_events(columns)
    report = dataclasses.replace(
        report,
        interval=interval_name(times),
        time_zone=time_zone,
        widened_ranges=_count_narrow_ranges(raw),
        zero_volume_rows=int((raw.columns["Volume"] == 0).sum()),
        stale_rows=_count_stale(columns["Close"]),
        gaps=gaps,
        longest_gap_days=longest_gap,
        suspected_splits=_count_suspected_splits(times, columns),
        mixed_interval_rows=_count_mixed(raw),
        dividends=dividends,
        splits=splits,
    )
    bars = pd.DataFrame(_adjust(columns), index=pd.DatetimeIndex(times, name="date"))
    return bars, with_extent(report, bars)


def with_extent(report: BarsReport, bars: pd.DataFrame) -> BarsReport:
    """The report with rows, first and last date of these bars."""
    days = [str(day)[:10] for day in bars.index[[0, -1]]] if len(bars) else [None, None]
    return dataclasses.replace(report, rows=len(bars), first_date=days[0], last_date=days[1])


def _check_values(raw: RawBars) -> None:
    for name, values in raw.columns.items():
        good = values > 0 if name in PRICES else ~(values < 0)
        what = "is not a positive price" if name in PRICES else f"is not a {name.lower()} of 0 or more"
        for row in np.flatnonzero(~good | np.isinf(values))[:1]:
            column = raw.names.get(name, name)
            raise refused(raw.path, f"{raw.place} {raw.lines[row]}", column, f"{values[row]:g}", what)


# Time


def _settle_times(raw: RawBars) -> tuple[np.ndarray, str | None]:
    """[T] days, or times in UTC or as given; and `BarsReport.time_zone`."""
    column = raw.names.get("Date", "Date")
    aware = ~np.isnan(raw.offsets)
    for row in np.flatnonzero(aware != aware[0])[:1]:
        has, rest = ("an", "none") if aware[row] else ("no", "one")
        raise MarketDataError(
            f"{raw.path}: {raw.place} {raw.lines[row]}, column {column}: the time has {has} offset from UTC but the "
            f"rows before have {rest}; write all of them the same way."
        )
    days = raw.times.astype("datetime64[D]").astype("datetime64[ns]")
    midnight = raw.times == days
    for row in np.flatnonzero(~midnight)[: int(midnight.mean() > 0.5)]:
        time = str(raw.times[row])[:19]
        reason = "has a time of day but most rows are whole days: a bar that is not over?"
        raise refused(raw.path, f"{raw.place} {raw.lines[row]}", column, time, reason)
    once_a_day = len(days) > 1 and len(np.unique(days)) == len(np.unique(raw.times))
    if midnight.all() or once_a_day:
        return days, None
    if aware[0]:
        return raw.times - (raw.offsets * 60).astype("timedelta64[s]"), "utc"
    return raw.times, "as given"


def _sorted_unique(raw: RawBars, times: np.ndarray, report: BarsReport) -> tuple[RawBars, BarsReport]:
    """Rows in order of time without exact repeats; others of one time are refused."""
    order = np.argsort(times, kind="stable")
    lines, ordered = raw.lines[order], times[order]
    repeats = ordered[1:] == ordered[:-1]
    equal = np.ones(len(repeats), bool)
    for values in raw.columns.values():
        equal &= np.nan_to_num(values[order][1:]) == np.nan_to_num(values[order][:-1])
    for row in np.flatnonzero(repeats & ~equal)[:1]:
        time = str(ordered[row])[:19].removesuffix("T00:00:00")
        raise MarketDataError(
            f"{raw.path}: {raw.place}s {lines[row]} and {lines[row + 1]}, column {raw.names.get('Date', 'Date')}: "
            f"both are for {time} but differ; delete the wrong one."
        )
    keep = order[np.concatenate([[True], ~repeats])]
    report = dataclasses.replace(
        report,
        rows_read=raw.rows_read,
        rows_without_prices=raw.rows_read - len(times),
        repeated_rows=len(times) - len(keep),
        unsorted_rows=int((np.diff(times) < np.timedelta64(0)).sum()),
        missing_volumes=int(np.isnan(raw.columns["Volume"]).sum()),
    )
    columns = {name: values[keep] for name, values in raw.columns.items()}
    return dataclasses.replace(raw, lines=raw.lines[keep], times=times[keep], columns=columns), report


def interval_name(times: np.ndarray) -> str | None:
    """The median spacing of ascending times as a name: 30s, 5min, 1h, 1d, 1wk, 1mo; None for a single one."""
    if len(times) < 2:
        return None
    seconds = round(_spacings(times)[1] / NANOSECONDS)
    days = seconds / 86_400
    for low, high, name in ((6, 8, "1wk"), (28, 31, "1mo"), (89, 92, "3mo")):
        if low <= days <= high:
            return name
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds % unit == 0:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def _spacings(times: np.ndarray) -> tuple[np.ndarray, int]:
    """[T - 1] nanoseconds between bars, and the usual one: a spacing that occurs, not a mean of two."""
    spacing = np.diff(times).astype(np.int64)
    return spacing, int(np.sort(spacing)[len(spacing) // 2])


def _find_gaps(times: np.ndarray) -> tuple[int, float]:
    """Number of gaps and days over the longest.

    Bars wider than a day, and those of a market that also trades on Saturdays and Sundays, are never closed: a gap
    is any missing bar. Else it is more than CLOSED_STEPS weekdays without a bar, or more than CLOSED_STEPS steps
    within a day, unless pauses of that length occur on 5 % of the days and on two at least: a lunch break.
    """
    if len(times) < 3:
        return 0, 0.0
    spacing, usual = _spacings(times)
    days = times.astype("datetime64[D]")
    all_days = np.unique(days)
    weekdays = (all_days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    if usual > 2 * DAY or min((weekdays == 5).mean(), (weekdays == 6).mean()) > 0.1:
        breaks = spacing > 1.5 * usual
    else:
        closed = np.busday_count(days[:-1] + 1, days[1:])
        pauses = (days[:-1] == days[1:]) & (spacing > CLOSED_STEPS * usual)
        lengths = np.unique(np.stack([spacing, days[:-1].astype(np.int64)])[:, pauses], axis=1)[0]
        usual_lengths = [n for n, on_days in Counter(lengths.tolist()).items() if on_days >= max(2, len(all_days) / 20)]
        breaks = (closed > CLOSED_STEPS) | (pauses & ~np.isin(spacing, usual_lengths))
    return int(breaks.sum()), round(float(spacing[breaks].max(initial=0)) / DAY, 2)


def _count_mixed(raw: RawBars) -> int:
    """Rows in stretches of another interval; in daily or wider bars a regular stretch is refused."""
    times = raw.times
    if len(times) <= MIXED_BLOCK:
        return 0
    spacing, usual = _spacings(times)
    mixed = np.zeros(len(spacing), bool)
    for other in (spacing >= 3 * usual, 3 * spacing <= usual):
        total = np.concatenate([[0], np.cumsum(other)])
        starts = 2 * (total[MIXED_BLOCK:] - total[:-MIXED_BLOCK]) > MIXED_BLOCK  # blocks, by their first spacing
        mixed |= other & (np.convolve(starts, np.ones(MIXED_BLOCK)) > 0)
        for start in np.flatnonzero(starts) if usual >= DAY else ():
            rows = start + np.flatnonzero(other[start : start + MIXED_BLOCK])
            width = np.median(spacing[rows])
            if 2 * (abs(spacing[rows] / width - 1) < 0.1).sum() > MIXED_BLOCK:
                raise MarketDataError(
                    f"{raw.path}: {raw.place} {raw.lines[rows[0]]}, column {raw.names.get('Date', 'Date')}: from "
                    f"{str(times[rows[0]])[:10]} on, bars lie {width / DAY:g} days apart, the others "
                    f"{usual / DAY:g}; keep bars of one interval in a file."
                )
    return int(mixed.sum())


# Prices


def _count_narrow_ranges(raw: RawBars) -> int:
    """How many ranges open or close leave a little, for `_adjust` to widen; more than a little is refused."""
    columns = raw.columns
    four = np.stack([columns[name] for name in ("Open", "High", "Low", "Close")])
    top, bottom = four.max(0), four.min(0)
    excess = {"High": top / columns["High"] - 1, "Low": 1 - bottom / columns["Low"]}
    for name, values in excess.items():
        for row in np.flatnonzero(values > RANGE_TOLERANCE)[:1]:
            raise MarketDataError(
                f"{raw.path}: {raw.place} {raw.lines[row]}, column {raw.names.get(name, name)}: "
                f"{columns[name][row]:g} leaves the bar's prices {bottom[row]:g} to {top[row]:g} by more than "
                f"{RANGE_TOLERANCE:.0%}; correct or delete the {raw.place}."
            )
    return int(((excess["High"] > 0) | (excess["Low"] > 0)).sum())


def _adjust(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    close = columns.get("Adj Close", columns["Close"])
    factor = close / columns["Close"]
    opening = columns["Open"] * factor
    return {
        "open": opening,
        # widens a narrow range, and one whose product rounds to just inside the open or close that it equals
        "high": np.maximum.reduce([columns["High"] * factor, opening, close]),
        "low": np.minimum.reduce([columns["Low"] * factor, opening, close]),
        "close": close,
        "volume": columns["Volume"],
    }


def _count_stale(close: np.ndarray) -> int:
    starts = np.flatnonzero(np.concatenate([[True], close[1:] != close[:-1]]))
    lengths = np.diff(np.append(starts, len(close)))
    return int(lengths[lengths >= STALE_BARS].sum())


def _count_events(columns: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Dividends and splits: from their columns, else from jumps of Adj Close / Close.

    A split ratio is a split; any other jump upwards beyond rounding is a dividend. Adjusted prices without both
    columns say nothing of either: 0, 0.
    """
    if "Dividends" in columns and "Stock Splits" in columns:
        splits = np.nan_to_num(columns["Stock Splits"])
        return int((np.nan_to_num(columns["Dividends"]) > 0).sum()), int(((splits > 0) & (splits != 1)).sum())
    if "Adj Close" not in columns:
        return 0, 0
    adjusted, close = columns["Adj Close"], columns["Close"]
    ratio = adjusted / close
    jump = ratio[1:] / ratio[:-1]
    rounding = _rounding(adjusted) / adjusted + _rounding(close) / close
    split = _near_split_ratio(jump)
    dividend = ~split & (jump - 1 > DIVIDEND_JUMP + rounding[1:] + rounding[:-1])
    return int(dividend.sum()), int(split.sum())


def _rounding(prices: np.ndarray) -> float:
    """Half a unit of the last decimal that the prices are written with, between 2 and 6."""
    decimals = next((d for d in range(2, 6) if np.array_equal(np.round(prices, d), prices)), 6)
    return 0.5 * 10.0**-decimals


def _near_split_ratio(ratio: np.ndarray) -> np.ndarray:
    either_way = np.maximum(ratio, 1 / ratio)
    return np.any(np.abs(either_way[:, None] / SPLIT_RATIOS - 1) <= SPLIT_TOLERANCE, axis=1)


def _count_suspected_splits(times: np.ndarray, columns: Mapping[str, np.ndarray]) -> int:
    """Overnight moves by a split ratio where no adjusted close tells, unless turnover says that it was a move."""
    if "Adj Close" in columns:
        return 0
    days = times.astype("datetime64[D]")
    ratio = columns["Open"][1:] / columns["Close"][:-1]
    turnover = columns["Close"] * columns["Volume"]
    suspects = 0
    for row in np.flatnonzero(_near_split_ratio(ratio) & (days[1:] != days[:-1])) + 1:
        usual = np.median(turnover[max(row - TURNOVER_BARS, 0) : row])
        suspects += bool(usual == 0 or turnover[row] <= SPLIT_TURNOVER * usual)
    return suspects
