"""Text files of bars, recognised by their header.

    yahoo     Date, Open, High, Low, Close, Adj Close, Volume in any order; case, spaces and underscores of the
              names do not matter. StockNet's price/raw files are such
    yfinance  what `to_csv` writes of its frames: Date or Datetime with offsets, Dividends, Stock Splits, Capital
              Gains; without Adj Close the prices are already adjusted. The header of three lines (Price, Ticker,
              Date) is read where it is of one ticker
    stooq     <TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>, with YYYYMMDD and HHMMSS
    plain     Date, Open, High, Low, Close, Volume without an adjusted close: Stooq's CSVs, and many others

Cells are parted by comma, semicolon or tab. Times are YYYY-MM-DD, YYYY/MM/DD or YYYYMMDD, with or without a
time of day and an offset; those that could have day and month either way are refused.

A file is read by pyarrow; whatever pyarrow or the checks refuse is read again row by row, which knows each line.
Letters: T bars.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported: pyright cannot see them
from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from preprocessing.bars import (
    FIRST_YEAR,
    LAST_YEAR,
    PRICES,
    BarsReport,
    MarketDataError,
    RawBars,
    check_bars,
    refused,
)

REQUIRED_COLUMNS = ("Date", "Open", "High", "Low", "Close", "Volume")
EVENTS = ("Dividends", "Stock Splits")
NULL_MARKS = frozenset({"", "null", "nan", "none", "na", "n/a"})
KNOWN_NAMES = {name.lower().replace(" ", ""): name for name in (*REQUIRED_COLUMNS, "Adj Close", *EVENTS)} | {
    "datetime": "Date",
    "time": "Time",
    "vol": "Volume",
    "ticker": "Ticker",
    "per": "Period",
    "openint": "Open Interest",
    "capitalgains": "Capital Gains",
}
DATE = re.compile(r"(\d{4})(?:-(\d{1,2})-(\d{1,2})|/(\d{1,2})/(\d{1,2})|(\d{2})(\d{2}))")
TIME = re.compile(r"(\d{2}):?(\d{2})(?::?(\d{2})(?:\.(\d{1,6})0*)?)?")
OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})?")
MOST_OFFSET = 14 * 60
"""Minutes: Kiribati is the furthest ahead of UTC."""
DAY_AND_MONTH = re.compile(r"\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2,4}\b.*")
ISO_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}:\d{2}([+-]\d{2}:\d{2})?)?$"
"""Times that pyarrow reads as `parse_time` does."""


@dataclass(frozen=True)
class Header:
    """What the first lines of a file say."""

    layout: str
    delimiter: str
    width: int
    """Cells of each row."""
    positions: Mapping[str, int]
    """Of the columns that are known, by the name used here."""
    names: Mapping[str, str]
    """What the file calls them."""
    lines: int
    """Lines that the header takes."""


def normalise_names(names: Sequence[str]) -> list[str]:
    """Column names as used here (`Adj Close` for adj_close, <CLOSE> -> Close); '' for those of no use."""
    return [KNOWN_NAMES.get(re.sub(r"[\s_<>]", "", name).lower(), "") for name in names]


def layout_of(names: Sequence[str]) -> str:
    """The layout that a header with these columns has; see the module."""
    if "Period" in names or "Open Interest" in names:
        return "stooq"
    if {*EVENTS, "Capital Gains"} & {*names}:
        return "yfinance"
    return "yahoo" if "Adj Close" in names else "plain"


def read_csv_bars(path: Path) -> tuple[pd.DataFrame, BarsReport]:
    """Read and check one text file; see `check_bars` for what comes back.

    Raises:
        MarketDataError: the file cannot be read or a row is refused.
    """
    text = _read_text(path)
    quick = _parse_quickly(path, text)
    if quick is not None:
        try:
            return check_bars(quick)
        except MarketDataError:
            pass  # the reading row by row refuses it too, and knows the line
    return check_bars(_parse_rows(path, text))


def looks_like_bars(path: Path) -> bool:
    """Whether a .txt file is one of bars, not a README: its first line names a date column or begins with a date."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1000).strip()
    except (OSError, UnicodeDecodeError):
        return False
    cells = first.split(_delimiter(first))
    return len(cells) > 1 and ("Date" in normalise_names(cells) or bool(DATE.match(cells[0])))


def _read_text(path: Path) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MarketDataError(f"{path} cannot be read as CSV: {reason}.") from error


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


# Header


def _parse_header(path: Path, delimiter: str, rows: Sequence[Sequence[str]]) -> Header:
    """What the first three rows (or fewer) say; the cells are stripped."""
    cells, lines, layout = list(rows[0]), 1, None
    if cells[0] == "Price" and len(rows) == 3 and rows[1][0] == "Ticker" and rows[2][0] in ("Date", "Datetime"):
        tickers = {*rows[1][1:]}
        if len(tickers) > 1:
            raise MarketDataError(
                f"{path} holds several tickers ({', '.join(sorted(tickers)[:5])}); write one file per ticker."
            )
        cells, lines, layout = [rows[2][0], *cells[1:]], 3, "yfinance"
    if DATE.match(cells[0]):
        raise MarketDataError(_headless(path, delimiter, cells))
    names = normalise_names(cells)
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in positions:
            raise MarketDataError(f"{path}: line 1 names the column {name} twice; delete or rename one of them.")
        if name:
            positions[name] = position
    missing = [name for name in REQUIRED_COLUMNS if name not in positions]
    if missing:
        found = ", ".join(cells)
        raise MarketDataError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has: {found[:100]}"
            f"{'...' * (len(found) > 100)}. The first line must name {', '.join(REQUIRED_COLUMNS)}, and may "
            "name Adj Close."
        )
    return Header(
        layout=layout or ("yfinance" if cells[positions["Date"]].lower() == "datetime" else layout_of(names)),
        delimiter=delimiter,
        width=len(cells),
        positions=positions,
        names={name: cells[position] for name, position in positions.items()},
        lines=lines,
    )


def _headless(path: Path, delimiter: str, cells: Sequence[str]) -> str:
    if delimiter == "\t" and len(cells) == 7:
        return (
            f"{path} looks like StockNet's price/preprocessed: its numbers are movements, each divided by the close "
            "before, and no prices; take the CSV of price/raw instead."
        )
    return (
        f"{path}: line 1 holds data where the names of the columns should stand; put "
        f"{delimiter.join(REQUIRED_COLUMNS)} above it, in the order of the file."
    )


# The whole file at once


def _parse_quickly(path: Path, text: str) -> RawBars | None:
    """The bars of a file without nulls among the prices or anything odd in a cell, else None or what is refused."""
    first, _, rest = text.partition("\n")
    delimiter = _delimiter(first)
    cells = [cell.strip() for cell in first.split(delimiter)]
    if "\r" in first[:-1] or cells[0] in ("", "Price"):
        return None
    try:
        header = _parse_header(path, delimiter, [cells])
        if "Time" in header.positions:
            return None
        wanted = [name for name in (*PRICES, "Volume", *EVENTS) if name in header.positions]
        names = [str(position) for position in range(header.width)]
        kinds = dict.fromkeys(names, pa.string()) | {str(header.positions[name]): pa.float64() for name in wanted}
        table = arrow_csv.read_csv(
            pa.py_buffer(rest.encode()),
            read_options=arrow_csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
            convert_options=arrow_csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False),
        )
        if "Ticker" in header.positions and len(table[str(header.positions["Ticker"])].unique()) > 1:
            return None
        times, offsets = _parse_iso_times(table[str(header.positions["Date"])])
    except ValueError:  # the header's MarketDataError and pyarrow's ArrowInvalid are such too
        return None
    columns = {name: table[str(header.positions[name])].to_numpy() for name in wanted}
    return RawBars(
        path=path,
        layout=header.layout,
        rows_read=len(table),
        lines=np.arange(len(table)),  # never shown: a refused file is read again
        times=times,
        offsets=offsets,
        columns=columns,
        names=header.names,
    )


def _parse_iso_times(cells: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """[T] times and [T] offsets in minutes, as `parse_time`.

    Raises:
        ValueError: not all are ISO 8601 times, or only some have an offset.
    """
    if not pc.all(pc.match_substring_regex(cells, ISO_TIME)).as_py():
        raise ValueError("times of another form")
    local = pc.utf8_slice_codeunits(cells, 0, 19).cast(pa.timestamp("s")).to_numpy()
    if not np.datetime64(str(FIRST_YEAR)) <= local.min() <= local.max() < np.datetime64(str(LAST_YEAR + 1)):
        raise ValueError("a year out of range")
    offsets = np.full(len(local), np.nan)
    if pc.max(pc.utf8_length(cells)).as_py() > len("2024-01-02 09:30:00"):
        zones = pc.utf8_slice_codeunits(cells, 19, 25).to_numpy(zero_copy_only=False)
        written, codes = np.unique(zones, return_inverse=True)
        offsets = np.array([_offset_minutes(zone) for zone in written])[codes]
    return local.astype("datetime64[ns]"), offsets


# Row by row


def _parse_rows(path: Path, text: str) -> RawBars:
    header, table = _read_rows(path, text)
    position, names = header.positions, header.names
    prices = [name for name in PRICES if name in position]
    whole = [(line, row) for line, row in table if all(not _is_null(row[position[name]]) for name in prices)]
    lines = np.array([line for line, _ in whole], dtype=np.int64)
    times, offsets = _parse_times(path, header, whole)
    columns = {}
    for name in (*prices, "Volume", *(name for name in EVENTS if name in position)):
        columns[name] = _parse_numbers(path, lines, names[name], [row[position[name]] for _, row in whole])
    return RawBars(
        path=path,
        layout=header.layout,
        rows_read=len(table),
        lines=lines,
        times=times,
        offsets=offsets,
        columns=columns,
        names=names,
    )


def _read_rows(path: Path, text: str) -> tuple[Header, list[tuple[int, list[str]]]]:
    """The header, and each row that is not blank with its line number."""
    delimiter = _delimiter(next((line for line in text.splitlines() if line.strip()), ""))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        table = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise MarketDataError(f"{path} cannot be read as CSV: {error}.") from error
    if not table:
        raise MarketDataError(f"{path} is empty; download it again or take it out of the folder.")
    header = _parse_header(path, delimiter, [row for _, row in table[:3]])
    rows = table[header.lines :]
    for line, row in rows:
        if len(row) != header.width:
            raise MarketDataError(
                f"{path}: line {line} has {len(row)} fields but the first line names {header.width}; "
                "the file may be cut short. Download it again or correct the line."
            )
    if "Ticker" in header.positions:
        tickers = sorted({row[header.positions["Ticker"]] for _, row in rows})
        if len(tickers) > 1:
            raise MarketDataError(
                f"{path} holds several tickers ({', '.join(tickers[:5])}); write one file per ticker."
            )
    return header, rows


def _is_null(cell: str) -> bool:
    return cell.lower() in NULL_MARKS


def _parse_numbers(path: Path, lines: np.ndarray, name: str, cells: Sequence[str]) -> np.ndarray:
    """[T] numbers; NaN where a cell is null."""
    numbers = []
    for line, cell in zip(lines, cells, strict=True):
        try:
            numbers.append(float("nan" if _is_null(cell) else cell))
        except ValueError as error:
            raise refused(path, f"line {line}", name, cell, "is not a number") from error
    return np.array(numbers)


def _parse_times(
    path: Path, header: Header, rows: Sequence[tuple[int, Sequence[str]]]
) -> tuple[np.ndarray, np.ndarray]:
    """[T] datetime64[ns] as written, and [T] offsets in minutes, NaN where there is none."""
    date, clock = header.positions["Date"], header.positions.get("Time")
    times, offsets = [], []
    for line, row in rows:
        cell = row[date] if clock is None else f"{row[date]} {row[clock].zfill(6)}"
        try:
            time, offset = parse_time(cell)
        except ValueError as error:
            raise refused(path, f"line {line}", header.names["Date"], cell, str(error)) from error
        times.append(time)
        offsets.append(offset)
    return np.array(times, dtype="datetime64[ns]"), np.array(offsets, dtype=np.float64)


def parse_time(cell: str) -> tuple[datetime, float]:
    """A time as written, and its offset from UTC in minutes, NaN if it has none.

    Raises:
        ValueError: it is none; the message says what it is not.
    """
    date = DATE.match(cell)
    if not date:
        if DAY_AND_MONTH.fullmatch(cell):
            raise ValueError("does not say which number is the month; write all dates as YYYY-MM-DD")
        raise ValueError("is not a day as YYYY-MM-DD")
    year, month, day = (int(part) for part in date.groups() if part is not None)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"is not a day of the years {FIRST_YEAR} to {LAST_YEAR}")
    rest, clock, offset = cell[date.end() :], (0, 0, 0, 0), float("nan")
    if rest:
        time = TIME.match(rest.lstrip(" Tt"))
        zone = rest.lstrip(" Tt")[time.end() :].strip() if time else ""
        if not time or rest[0] not in " Tt":
            raise ValueError("is not a day as YYYY-MM-DD, nor one with a time as HH:MM:SS")
        hour, minute, second, fraction = time.groups()
        clock = (int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
        offset = _offset_minutes(zone) if zone else offset
    try:
        return datetime(year, month, day, *clock), offset
    except ValueError as error:
        raise ValueError("is not a day as YYYY-MM-DD") from error


def _offset_minutes(zone: str) -> float:
    """Minutes ahead of UTC of Z, +HH:MM or -HHMM.

    Raises:
        ValueError: it is none of these.
    """
    if zone.upper() in ("Z", "UTC"):
        return 0.0
    match = OFFSET.fullmatch(zone)
    if not match:
        raise ValueError(f"ends with '{zone}', which is not an offset as +HH:MM")
    minutes = 60 * int(match[2]) + int(match[3] or 0)
    if minutes > MOST_OFFSET:
        raise ValueError(f"ends with '{zone}', which is further from UTC than any place")
    return float(-minutes if match[1] == "-" else minutes)
