"""Bars as a file holds them to bars on one price basis: what is repaired, refused, counted and only warned of.

What can be repaired without a guess is repaired and counted; anything else is refused with file, line and column:

    repaired   a row without all its prices is dropped; an exact repeat is dropped; unsorted rows are sorted; an open
               of 0 becomes the last close, a whole range of 0 the close; a high or low that open or close exceeds by at
               most RANGE_TOLERANCE is widened to hold them; a missing volume is 0
    refused    two different rows of one time; a price that is not a positive number; a wider gap in the range;
               times of which only some have an offset; a time of day among days; a stretch of another interval
               (weekly bars in a daily file)
    warned of  WARNINGS, which change nothing; `outliers.py` is about those that look impossible

Only rows between start and end are looked at. Daily bars keep the day that their exchange writes. Intraday bars with
offsets go to UTC, others stay as given, or go to UTC from the zone that the rules name. Letters: T bars.
"""

from __future__ import annotations

import dataclasses

import pandas as pd

from preprocessing.bars import BarsReport, MarketDataError, NoBarsError, RawBars, with_extent
from preprocessing.checks.outliers import find_outliers, refuse_outliers, repair_outliers
from preprocessing.checks.prices import (
    RANGE_COLUMNS,
    adjust,
    check_values,
    count_events,
    count_narrow_ranges,
    count_stale,
    fill_missing,
    missing_ranges,
    suspect_splits,
)
from preprocessing.checks.times import count_mixed, find_gaps, interval_name, settle_times, sort_unique
from preprocessing.config import BarRules

WHOLE = BarRules()
"""Every bar there is."""


def check_bars(raw: RawBars, rules: BarRules = WHOLE) -> tuple[pd.DataFrame, BarsReport]:
    """Check, repair and adjust the rows of one stock.

    Returns:
        open, high, low, close [T] on the basis of the adjusted close (all four times Adj Close / Close; as they
        are where the file has no Adj Close) and volume, indexed by ascending unique times; and what was found.

    Raises:
        NoBarsError: no row lies between start and end.
        MarketDataError: a row is refused.
    """
    if not len(raw.lines):
        if raw.history:
            raise NoBarsError(f"{raw.path} has no bars between start and end; its history goes {raw.history}.")
        raise MarketDataError(f"{raw.path} holds no row with prices; download it again or take it out of the folder.")
    # prices before times and repairs: filling in from a price that is none would hide it
    check_values(raw)
    times, time_zone = settle_times(raw, rules.timezone)
    report = BarsReport(source=str(raw.path), layout=raw.layout, rows_read=0, time_zone=time_zone)
    raw, report = sort_unique(raw, times, report)
    # after sorting: every repair looks at the bar before
    raw, report = _mend(raw, report, rules)
    columns = raw.columns
    gaps, longest_gap = find_gaps(raw.times)
    dividends, splits = count_events(columns)
    report = dataclasses.replace(
        report,
        interval=interval_name(raw.times),
        widened_ranges=count_narrow_ranges(raw),
        stale_rows=count_stale(columns["Close"]),
        gaps=gaps,
        longest_gap_days=longest_gap,
        mixed_interval_rows=count_mixed(raw),
        unread_columns=raw.unread,
        dividends=dividends,
        splits=splits,
    )
    bars = pd.DataFrame(adjust(columns), index=pd.DatetimeIndex(raw.times, name="date"))
    # cut last: the rows were read with a day of slack, since UTC may move a bar to another day
    if rules.start or rules.end:
        bars = bars.loc[rules.start : rules.end]
    return bars, with_extent(report, bars)


def _mend(raw: RawBars, report: BarsReport, rules: BarRules) -> tuple[RawBars, BarsReport]:
    """Fill what is missing and judge what looks impossible, as the rules say."""
    volumes, opens = raw.columns.get("Volume"), raw.columns.get("Open")
    no_range = missing_ranges(raw.columns)
    report = dataclasses.replace(
        report,
        missing_opens=0 if opens is None else int(((opens == 0) & ~no_range).sum()),
        missing_ranges=int(no_range.sum()),
        zero_volume_rows=0 if volumes is None else int((volumes == 0).sum()),
        absent_columns=tuple(name for name in (*RANGE_COLUMNS, "Volume") if name not in raw.columns),
    )
    raw = dataclasses.replace(raw, columns=fill_missing(raw.columns))
    outliers = find_outliers(raw, suspect_splits(raw.times, raw.columns))
    report = dataclasses.replace(report, suspected_splits=int(outliers.splits.sum()), moves=outliers.texts)
    if not outliers.texts:
        return raw, report
    if rules.outliers == "refuse":
        refuse_outliers(raw, outliers)
    if rules.outliers == "repair":
        raw, count = repair_outliers(raw, outliers)
        return raw, dataclasses.replace(report, repaired_outliers=count)
    return raw, dataclasses.replace(
        report,
        unapplied_splits=int(outliers.unapplied.sum()),
        impossible_moves=int(outliers.moved.sum()),
    )
