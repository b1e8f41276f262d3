"""A table of cells, whoever wrote it, to the rows of each stock: one way for texts, Parquet files and data frames.

What the columns mean is in column_names.py, how times and numbers are written in time_texts.py and number_texts.py.
Several tickers in one table are several stocks. Letters: T rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from preprocessing.bars import NUMBER_COLUMNS, PRICE_COLUMNS, MarketDataError, RawBars
from preprocessing.config import BarRules
from preprocessing.reading.column_names import Columns, ColumnsError, recognise
from preprocessing.reading.number_texts import Style, is_null, number_style, parse_number
from preprocessing.reading.time_texts import clock_texts, order_of, parse_time, times_of_numbers


@dataclass(frozen=True)
class Times:
    """A column of times as they are written, and of their offsets."""

    local: np.ndarray
    """[T] datetime64[ns], offsets left away; NaT where there is none."""
    offsets: np.ndarray
    """[T] minutes ahead of UTC, NaN where there is none."""

    def take(self, rows: np.ndarray) -> Times:
        """These rows."""
        return Times(self.local[rows], self.offsets[rows])


Column = Times | np.ndarray | list[str]
"""[T] times, numbers, or texts that are stripped."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of T rows as somebody wrote them."""

    path: Path | str
    names: tuple[str, ...]
    columns: Sequence[Column | None]
    """None for a column that nobody reads."""
    lines: np.ndarray
    """[T] where each row stands."""
    place: str = "line"
    layout: str | None = None
    """Where the source says it; None: as the names of the columns say."""
    broken: Mapping[int, str] = field(default_factory=dict)
    """What is wrong with rows that have too few or too many cells."""
    editable: bool = True

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def meaning(self) -> Columns:
        """What the columns mean.

        Raises:
            MarketDataError: they are no bars.
        """
        try:
            return recognise(self.names)
        except ColumnsError as error:
            raise MarketDataError(f"{self.path} {error}") from error

    def column(self, name: str) -> Column:
        """A column by the name used here."""
        column = self.columns[self.meaning.positions[name]]
        assert column is not None
        return column

    def take(self, rows: np.ndarray) -> Table:
        """These rows (numbers or a mask)."""
        rows = np.arange(len(self))[rows]
        broken = {}
        if self.broken:
            broken = {new: self.broken[old] for new, old in enumerate(rows.tolist()) if old in self.broken}
        columns = [column if column is None else _take(column, rows) for column in self.columns]
        return dataclasses.replace(self, columns=columns, lines=self.lines[rows], broken=broken)


def _take(column: Column, rows: np.ndarray) -> Column:
    if isinstance(column, list):
        return [column[row] for row in rows.tolist()]
    return column.take(rows)


def split_tickers(table: Table) -> dict[str, Table]:
    """The rows of each stock by its ticker; one table by the name "" where there is but one.

    Raises:
        MarketDataError: the table is of no bars, or some rows have no ticker.
    """
    if "Ticker" not in table.meaning.positions:
        return {"": table}
    tickers = np.array(_texts(table.column("Ticker")), dtype=object)
    names, codes = np.unique(tickers.astype(str), return_inverse=True)
    if len(names) < 2:
        return {"": table}
    for row in np.flatnonzero(tickers == "")[:1].tolist():
        if row in table.broken:
            raise MarketDataError(table.broken[row])
        column = table.meaning.names["Ticker"]
        raise MarketDataError(f"{table.path}: {table.place} {table.lines[row]}, column {column}: there is no ticker.")
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    return {str(name): table.take(rows) for name, rows in zip(names, parts, strict=True)}


def raw_bars(table: Table, rules: BarRules) -> RawBars:
    """The rows of one stock's table that have all their prices and lie between start and end.

    Raises:
        MarketDataError: a time, or a number between start and end, cannot be read.
    """
    meaning = table.meaning
    prices = [name for name in PRICE_COLUMNS if name in meaning.positions]
    whole = np.logical_and.reduce([~_missing(table.column(name)) for name in prices])
    # a broken line stays in: dropped as a row without prices it would go unnoticed
    whole[list(table.broken)] = True
    rows = table if whole.all() else table.take(whole)
    raw = RawBars(
        path=table.path,
        layout=table.layout or meaning.layout,
        rows_read=len(table),
        rows_without_prices=len(table) - len(rows),
        lines=rows.lines,
        times=np.empty(0),
        offsets=np.empty(0),
        columns={},
        names=meaning.names,
        place=table.place,
        unread=meaning.unread,
        editable=table.editable,
    )
    times = _read_times(rows, raw)
    used = _between(times, rules)
    raw = dataclasses.replace(raw, history=_history(times))
    if not used.all():
        rows, times = rows.take(used), times.take(used)
        raw = dataclasses.replace(raw, lines=rows.lines)
    # only now: a broken line outside start and end does not matter
    for problem in list(rows.broken.values())[:1]:
        raise MarketDataError(problem)
    columns = _read_numbers(rows, raw)
    return dataclasses.replace(raw, times=times.local, offsets=times.offsets, columns=columns)


def _missing(column: Column) -> np.ndarray:
    if isinstance(column, list):
        return np.array([is_null(cell) for cell in column], dtype=bool)
    return np.isnan(column) if isinstance(column, np.ndarray) else np.ones(len(column.local), bool)


# Times


def _between(times: Times, rules: BarRules) -> np.ndarray:
    """[T] whether a time may lie between start and end, as written or in UTC: the checks cut to the day."""
    if rules.start is None and rules.end is None:
        return np.ones(len(times.local), bool)
    # a zone not yet applied may move a time by most of a day
    slack = np.timedelta64(int(rules.timezone is not None), "D")
    first = np.datetime64(rules.start or "1700-01-01") - slack
    last = np.datetime64(rules.end or "2261-12-30") + slack + np.timedelta64(1, "D")
    utc = times.local - (np.nan_to_num(times.offsets) * 60).astype("timedelta64[s]")
    return ((times.local >= first) & (times.local < last)) | ((utc >= first) & (utc < last))


def _history(times: Times) -> str:
    if not len(times.local):
        return ""
    return f"from {str(times.local.min())[:10]} to {str(times.local.max())[:10]}"


def _read_times(table: Table, raw: RawBars) -> Times:
    dates = table.column("Date")
    clocks = table.column("Time") if "Time" in table.meaning.positions else None
    if isinstance(dates, Times) and (clocks is None or (dates.local != _days(dates.local)).any()):
        for row in np.flatnonzero(np.isnat(dates.local))[:1]:
            raise raw.refuse([row], "Date", "", "is an empty cell")
        return dates
    if not len(table):
        return Times(np.empty(0, "datetime64[ns]"), np.empty(0))
    cells = _texts(dates)
    if clocks is not None:
        times_of_day = clock_texts(_texts(clocks))
        cells = [f"{_day_text(cell)} {time}".strip() for cell, time in zip(cells, times_of_day, strict=True)]
    elif (numbers := _whole_numbers(dates)) is not None:
        try:
            return Times(*times_of_numbers(numbers))
        except ValueError as error:
            raise raw.refuse([0], "Date", cells[0], str(error)) from error
    return _parse_times(cells, table, raw)


def _days(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[D]").astype(times.dtype)


def _day_text(cell: str) -> str:
    """A day whose time of day, at midnight, stands in another column."""
    return cell.partition("T00:00")[0].partition(" 00:00")[0]


def _whole_numbers(column: Column) -> np.ndarray | None:
    """[T] integers where all cells are such and not all are eight digits, which the parser of texts knows."""
    if isinstance(column, np.ndarray):
        whole = column.dtype.kind in "iu" or (column == np.floor(column)).all()
        return column if whole else None
    if isinstance(column, Times):
        return None
    bare = [cell.removesuffix(".0") for cell in column]
    if not all(cell.removeprefix("-").isdecimal() and cell.isascii() for cell in bare):
        return None
    return None if all(len(cell) == 8 for cell in bare) else np.array([int(cell) for cell in bare])


def _parse_times(cells: Sequence[str], table: Table, raw: RawBars) -> Times:
    try:
        order = order_of(cells)
    except ValueError as error:
        raise MarketDataError(f"{raw.path}, column {raw.names['Date']}: {error}.") from error
    local: list[datetime] = []
    offsets: list[float] = []
    for row, cell in enumerate(cells):
        try:
            time, offset = parse_time(cell, order)
        except ValueError as error:
            if row in table.broken:
                raise MarketDataError(table.broken[row]) from error
            # all that fail, so that the message can tell one bad cell from a wrong column
            alike = [row, *(later for later in range(row + 1, len(cells)) if not _is_time(cells[later], order))]
            raise raw.refuse(alike, "Date", cell, str(error)) from error
        local.append(time)
        offsets.append(offset)
    return Times(np.array(local, dtype="datetime64[ns]"), np.array(offsets, dtype=np.float64))


def _is_time(cell: str, order: str | None) -> bool:
    try:
        parse_time(cell, order)  # pyright: ignore[reportArgumentType]
    except ValueError:
        return False
    return True


# Numbers


def _texts(column: Column) -> list[str]:
    """Cells as texts: integers without a point, days as YYYY-MM-DD."""
    if isinstance(column, list):
        return column
    if isinstance(column, Times):
        return [str(time).partition("T00:00:00.000000000")[0] for time in column.local]
    return [
        str(int(number)) if number == number and number == int(number) else f"{number}" for number in column.tolist()
    ]


def _read_numbers(table: Table, raw: RawBars) -> dict[str, np.ndarray]:
    present = [name for name in NUMBER_COLUMNS if name in table.meaning.positions]
    texts = {name: column for name in present if isinstance(column := table.column(name), list)}
    prices = [cell for name in texts if name in PRICE_COLUMNS for cell in texts[name]]
    try:
        style = number_style(prices)
    except ValueError as error:
        name, row = next((n, r) for n in texts if n in PRICE_COLUMNS for r, cell in enumerate(texts[n]) if "," in cell)
        raise MarketDataError(
            f"{raw.at(row, name)}: '{texts[name][row]}' is not a number for sure: {error}."
        ) from error
    numbers = {}
    for name in present:
        column = table.column(name)
        if isinstance(column, Times):
            raise raw.refuse([0], name, column.local[0], "is a time, not a number")
        numbers[name] = (
            _parse_numbers(column, name, style, raw)
            if isinstance(column, list)
            else column.astype(np.float64, copy=False)
        )
    return numbers


def _parse_numbers(cells: Sequence[str], name: str, style: Style, raw: RawBars) -> np.ndarray:
    """[T] numbers; NaN where a cell is null."""
    numbers, wrong = np.full(len(cells), np.nan), []
    for row, cell in enumerate(cells):
        try:
            numbers[row] = parse_number(cell, style)
        except ValueError:
            wrong.append(row)
    if wrong:
        raise raw.refuse(wrong, name, cells[wrong[0]], "is not a number")
    return numbers
