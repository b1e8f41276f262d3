"""The times of bars: days, or times in UTC or as given; in order, without repeats; gaps and mixed spacings.

Letters: T bars.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd

from preprocessing.bars import BarsReport, MarketDataError, RawBars

CLOSED_STEPS = 5
"""Weekdays without a bar, or steps within a day, that holidays and halts explain; more are a gap."""
MIXED_BLOCK = 10
"""So many spacings are looked at together: they are of another interval if more than half of them are at least three
times as wide as usual, or at most a third."""
NANOSECONDS = 10**9
DAY = 86_400 * NANOSECONDS
HOUR = np.timedelta64(1, "h")


def settle_times(raw: RawBars, timezone: str | None) -> tuple[np.ndarray, str | None]:
    """[T] days, or times in UTC or as given; and `BarsReport.time_zone`.

    Raises:
        MarketDataError: only some times have an offset, a few have a time of day among days, or the zone does not fit.
    """
    aware = ~np.isnan(raw.offsets)
    for row in np.flatnonzero(aware != aware[0])[:1]:
        has, rest = ("an", "none") if aware[row] else ("no", "one")
        raise MarketDataError(
            f"{raw.at(row, 'Date')}: the time has {has} offset from UTC but the rows before have {rest}; write all of "
            "them the same way."
        )
    days = raw.times.astype("datetime64[D]").astype("datetime64[ns]")
    midnight = raw.times == days
    for row in np.flatnonzero(~midnight)[: int(midnight.mean() > 0.5)]:
        reason = "has a time of day but most rows are whole days: a bar that is not over?"
        raise raw.refuse([row], "Date", str(raw.times[row])[:19], reason)
    if midnight.all():
        return days, None
    once_a_day = len(days) > 1 and len(np.unique(days)) == len(np.unique(raw.times))
    utc = raw.times - (raw.offsets * 60).astype("timedelta64[s]") if aware[0] else None
    if once_a_day:
        return (days if utc is None else _local_days(raw, days, utc, timezone)), None
    if utc is None and timezone is not None:
        utc = _to_utc(raw, timezone)
    return (raw.times, "as given") if utc is None else (utc, "utc")


def _local_days(raw: RawBars, days: np.ndarray, utc: np.ndarray, timezone: str | None) -> np.ndarray:
    """[T] days as their exchange counts them; times in UTC alone may show the day before."""
    if timezone is not None:
        local = pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(timezone).tz_localize(None)
        return local.normalize().to_numpy("datetime64[ns]")
    weekdays = (days.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    if len(days) >= MIXED_BLOCK and (weekdays == 6).mean() > 0.1 and not (weekdays == 4).any():
        raise MarketDataError(
            f"{raw.at(0, 'Date')}: the times are in UTC, where the days of this market seem to run from Sunday to "
            "Thursday; say where it is by data.timezone, as Europe/Berlin or Asia/Tokyo."
        )
    return days


def _to_utc(raw: RawBars, timezone: str) -> np.ndarray:
    """[T] times without an offset, read in a zone: of an hour that comes twice, the first is summer time."""
    # newest first in some files: the hour that comes twice can only be told in order of time
    order = np.arange(len(raw.times))
    if len(order) > 1 and raw.times[0] > raw.times[-1]:
        order = order[::-1]
    times = pd.DatetimeIndex(raw.times[order])
    # pandas asks for each time whether it is summer time: the first of two is
    first = ~times.duplicated()
    utc = times.tz_localize(timezone, ambiguous=first, nonexistent="NaT").tz_convert("UTC").tz_localize(None)
    settled = np.empty(len(order), "datetime64[ns]")
    settled[order] = utc.to_numpy("datetime64[ns]")
    for row in np.flatnonzero(np.isnat(settled))[:1]:
        raise raw.refuse([row], "Date", str(raw.times[row])[:19], f"is skipped by the clocks of {timezone}")
    return settled


def sort_unique(raw: RawBars, times: np.ndarray, report: BarsReport) -> tuple[RawBars, BarsReport]:
    """Rows in order of time without exact repeats; others of one time are refused."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    repeats = ordered[1:] == ordered[:-1]
    equal = np.ones(len(repeats), bool)
    for values in raw.columns.values():
        # NaN equals nothing, itself included; two missing volumes are the same
        equal &= np.nan_to_num(values[order][1:]) == np.nan_to_num(values[order][:-1])
    if (repeats & ~equal).any():
        raise _two_of_one_time(raw, order, ordered, np.flatnonzero(repeats & ~equal))
    keep = order[np.concatenate([[True], ~repeats])]
    volumes = raw.columns.get("Volume")
    report = dataclasses.replace(
        report,
        rows_read=raw.rows_read,
        rows_without_prices=raw.rows_without_prices,
        repeated_rows=len(times) - len(keep),
        unsorted_rows=int((np.diff(times) < np.timedelta64(0)).sum()),
        missing_volumes=0 if volumes is None else int(np.isnan(volumes).sum()),
    )
    columns = {name: values[keep] for name, values in raw.columns.items()}
    return dataclasses.replace(raw, lines=raw.lines[keep], times=times[keep], columns=columns), report


def _two_of_one_time(raw: RawBars, order: np.ndarray, ordered: np.ndarray, rows: np.ndarray) -> MarketDataError:
    """What to say of rows (numbers in `order`) whose next one is of the same time and differs."""
    row, lines = rows[0], raw.lines[order]
    time = str(ordered[row])[:19].removesuffix("T00:00:00")
    start = (
        f"{raw.path}: {raw.place}s {lines[row]} and {lines[row + 1]}, column {raw.names.get('Date', 'Date')}: both are "
        f"for {time} but differ"
    )
    days = ordered[rows].astype("datetime64[D]")
    sundays = (days.astype(np.int64) + 3) % 7 == 6
    if np.isnan(raw.offsets).all() and (sundays & (ordered[rows] - days < 4 * HOUR) & (ordered[rows] != days)).all():
        return MarketDataError(
            f"{start}, as the hour that comes twice when summer time ends; say where the times are of by "
            "data.timezone, as America/New_York."
        )
    if len(rows) > max(2, len(lines) / 4):
        return MarketDataError(
            f"{start}, and so on for {len(rows)} times: several series in one table? Name them in a column Ticker."
        )
    return MarketDataError(f"{start}; {'delete the wrong one' if raw.editable else raw.way_out}.")


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
    # the upper median: a mean of two would name an interval that no bar has
    return spacing, int(np.sort(spacing)[len(spacing) // 2])


def find_gaps(times: np.ndarray) -> tuple[int, float]:
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
        # one entry per length and day, so that a length counts once on each day that has it
        lengths = np.unique(np.stack([spacing, days[:-1].astype(np.int64)])[:, pauses], axis=1)[0]
        usual_lengths = [n for n, on_days in Counter(lengths.tolist()).items() if on_days >= max(2, len(all_days) / 20)]
        breaks = (closed > CLOSED_STEPS) | (pauses & ~np.isin(spacing, usual_lengths))
    return int(breaks.sum()), round(float(spacing[breaks].max(initial=0)) / DAY, 2)


def count_mixed(raw: RawBars) -> int:
    """Rows in stretches of another interval; in daily or wider bars a regular stretch is refused."""
    times = raw.times
    if len(times) <= MIXED_BLOCK:
        return 0
    spacing, usual = _spacings(times)
    mixed = np.zeros(len(spacing), bool)
    # a holiday makes one wide spacing; another interval makes most of a block wide, or narrow
    for other in (spacing >= 3 * usual, 3 * spacing <= usual):
        total = np.concatenate([[0], np.cumsum(other)])
        starts = 2 * (total[MIXED_BLOCK:] - total[:-MIXED_BLOCK]) > MIXED_BLOCK  # blocks, by their first spacing
        mixed |= other & (np.convolve(starts, np.ones(MIXED_BLOCK)) > 0)
        for start in np.flatnonzero(starts) if usual >= DAY else ():
            rows = start + np.flatnonzero(other[start : start + MIXED_BLOCK])
            width = np.median(spacing[rows])
            if 2 * (abs(spacing[rows] / width - 1) < 0.1).sum() > MIXED_BLOCK:
                raise MarketDataError(
                    f"{raw.at(rows[0], 'Date')}: from {str(times[rows[0]])[:10]} on, bars lie {width / DAY:g} days "
                    f"apart, the others {usual / DAY:g}; keep bars of one interval in a file."
                )
    return int(mixed.sum())
