"""Data frames of bars, in memory or from Parquet, to tables: which of index and columns is the date, which the ticker.

A column that is called a date wins over the index; an index of row numbers is no date. Columns of two levels are fields
and tickers, in either order, as yfinance gives them. Letters: T rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from preprocessing.bars import MarketDataError
from preprocessing.reading.column_names import meaning_of
from preprocessing.reading.tables import Column, Table, Times, split_tickers

SMALLEST_DAY = 17_000_101
"""The first YYYYMMDD: row numbers are smaller."""


def frame_tables(frame: pd.DataFrame, source: Path | str, *, layout: str, editable: bool = True) -> dict[str, Table]:
    """One table for each ticker of a frame; by the name "" where there is but one.

    Args:
        frame: bars of one or several stocks.
        source: what messages call it.
        layout: what reports call its layout.
        editable: whether its owner may correct it.

    Raises:
        MarketDataError: its columns are of no bars.
    """
    parts = _by_ticker(frame, source) if isinstance(frame.columns, pd.MultiIndex) else {"": frame}
    tables = {ticker: _table(part, source, layout=layout, editable=editable) for ticker, part in parts.items()}
    if len(tables) == 1:
        return split_tickers(next(iter(tables.values())))
    return tables


def _by_ticker(frame: pd.DataFrame, source: Path | str) -> dict[str, pd.DataFrame]:
    """The frame of each ticker of columns of two levels."""
    levels = [[str(name) for name in frame.columns.get_level_values(level)] for level in range(frame.columns.nlevels)]
    known = [sum(bool(meaning_of(name)[0]) for name in names) for names in levels]
    if len(levels) != 2 or not any(known):
        raise MarketDataError(
            f"{source} has columns of {len(levels)} levels; give one level of Date, Open, High, Low, Close, Volume, or "
            "two, of these and of tickers."
        )
    # the level with more known names holds the fields: yfinance has had them in either order
    fields = levels[int(known[1] > known[0])]
    tickers = levels[int(known[1] <= known[0])]
    shared = [place for place, field in enumerate(fields) if meaning_of(field)[0] == "Date"]
    parts = {}
    for ticker in dict.fromkeys(tickers[place] for place in range(len(tickers)) if place not in shared):
        own = sorted({*shared, *(place for place, name in enumerate(tickers) if name == ticker)})
        part = frame.iloc[:, own]
        part.columns = pd.Index([fields[place] for place in own])
        parts[ticker] = part
    return parts


def _table(frame: pd.DataFrame, source: Path | str, *, layout: str, editable: bool) -> Table:
    named = [str(name) for name in frame.columns]
    names, columns = [], []
    index = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
    for level in index:
        name = "" if level.name is None else str(level.name)
        if _is_worth_reading(level, name, named):
            names.append("Date" if meaning_of(name)[0] is None else name)
            columns.append(_column(level))
    names += named
    columns += [_column(frame.iloc[:, place]) for place in range(len(named))]
    lines = np.arange(1, len(frame) + 1)
    return Table(
        path=source, names=tuple(names), columns=columns, lines=lines, place="row", layout=layout, editable=editable
    )


def _is_worth_reading(level: pd.Index, name: str, columns: Sequence[str]) -> bool:
    """Whether an index is a date or a ticker that no column is."""
    there = {meaning_of(column)[0] for column in columns}
    meaning = meaning_of(name)[0] if name else None
    if meaning is None and (_is_times(level) or _may_be_days(level)):
        meaning = "Date"
    return meaning in ("Date", "Time", "Ticker") and meaning not in there


def _may_be_days(level: pd.Index) -> bool:
    """Whether an unnamed index may hold days: texts and objects, or numbers too large to count rows."""
    if level.dtype.kind in "iu":
        return len(level) > 0 and int(level.to_numpy().min()) >= SMALLEST_DAY
    return level.dtype.kind == "O" or isinstance(level.dtype, pd.StringDtype)


def _is_times(values: pd.Index | pd.Series) -> bool:
    return isinstance(values.dtype, pd.DatetimeTZDtype | pd.PeriodDtype) or values.dtype.kind == "M"


def _column(values: pd.Index | pd.Series) -> Column:
    if isinstance(values.dtype, pd.PeriodDtype):
        values = pd.PeriodIndex(values).to_timestamp()
    if _is_times(values):
        return _times(pd.DatetimeIndex(values))
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_complex_dtype(values.dtype):
        if pd.api.types.is_integer_dtype(values.dtype) and not values.isna().any():
            return values.to_numpy(np.int64)
        return values.to_numpy(np.float64, na_value=np.nan)
    cells = values.tolist()
    if cells and all(isinstance(cell, datetime.datetime) for cell in cells):
        return _zoned(cells)
    return [_text(cell) for cell in cells]


def _times(index: pd.DatetimeIndex) -> Times:
    local = index.tz_localize(None).to_numpy("datetime64[ns]")
    if index.tz is None:
        return Times(local, np.full(len(index), np.nan))
    ahead = local - index.tz_convert("UTC").tz_localize(None).to_numpy("datetime64[ns]")
    return Times(local, ahead / np.timedelta64(1, "m"))


def _zoned(cells: list[datetime.datetime]) -> Times:
    """Times of which each may have an offset of its own."""
    local = np.array([cell.replace(tzinfo=None) for cell in cells], dtype="datetime64[ns]")
    ahead = [cell.utcoffset() for cell in cells]
    offsets = [np.nan if offset is None else offset.total_seconds() / 60 for offset in ahead]
    return Times(local, np.array(offsets))


def _text(cell: Hashable) -> str:
    return "" if cell is None or cell is pd.NaT or cell is pd.NA or cell != cell else str(cell).strip()
