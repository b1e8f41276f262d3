"""Text files of bars to tables: their encoding, where the header stands, what parts the cells.

    header     the first line that names a date and a close, after whatever stands above it (`sep=;`, a title); or
               yfinance's two or three lines of fields and tickers, in either order
    cells      parted by comma, semicolon, tab or |; quoted as CSV quotes
    encoding   UTF-8 or UTF-16, with or without a mark; else the Windows code page that makes the header known

A file without anything odd is read by pyarrow at once; whatever pyarrow or the checks refuse is read again row by row,
which knows each line. Letters: T bars.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported: pyright cannot see them
from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from preprocessing.bars import NUMBER_COLUMNS, MarketDataError
from preprocessing.reading.column_names import ColumnsError, RepeatedColumnError, meaning_of, recognise
from preprocessing.reading.tables import Column, Table, Times, split_tickers
from preprocessing.reading.time_texts import FIRST_YEAR, LAST_YEAR, YEAR_FIRST, YEAR_LAST, offset_minutes

ISO_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}:\d{2}([+-]\d{2}:\d{2})?)?$"
"""Times that pyarrow reads as `parse_time` does."""
HEADER_WITHIN = 12
"""Lines among which the header is looked for."""
FIRST_BYTES = 4096
CODE_PAGES = ("cp1252", "cp1250", "gb18030")
NO_TEXTS = {
    b"PK\x03\x04": "it is an Excel workbook; save it as CSV",
    b"\x1f\x8b": "it is packed by gzip; unpack it",
    b"\xd0\xcf\x11\xe0": "it is an old Excel workbook; save it as CSV",
    b"PAR1": "it is a Parquet file; name it .parquet",
}
"""What files begin with that are no texts, whatever they are called."""


@dataclass(frozen=True)
class Layout:
    """Where the header of a text stands, and how its cells are parted."""

    start: int
    """Character of the text at which the header begins."""
    lines_before: int
    delimiter: str


def read_text(path: Path) -> str:
    """The characters of a file.

    Raises:
        MarketDataError: it cannot be read, or is no text.
    """
    try:
        return _decode(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MarketDataError(f"{path} cannot be read as CSV: {reason}.") from error


def _decode(data: bytes) -> str:
    for mark, reason in NO_TEXTS.items():
        if data.startswith(mark):
            raise ValueError(reason)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    # UTF-16 without a mark: ASCII letters have a zero byte beside them, on the side that tells the order
    start = data[:FIRST_BYTES]
    if b"\0" in start:
        return data.decode("utf-16-le" if start[1::2].count(0) > start[::2].count(0) else "utf-16-be")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if any(byte < 32 and byte not in b"\t\r\n\f" for byte in start):
            raise
    # any bytes decode in these code pages; the right one is where most column names make sense
    pages = [data.decode(page, "replace") for page in CODE_PAGES]
    return max(pages, key=lambda text: sum(bool(meaning_of(name)[0]) for name in re.split(r"[,;\t|\r\n]", text[:300])))


def looks_like_bars(path: Path) -> bool:
    """Whether a .txt file is one of bars, not a README: it has a header, or its first line begins with a date."""
    first = _first_text(path).partition("\n")[0]
    cells = [cell.strip() for cell in first.split(_delimiter(first))]
    named = any(meaning_of(cell)[0] == "Date" for cell in cells) or _is_data(cells[0])
    return (len(cells) > 1 and named) or bool(header_names(path))


def header_names(path: Path) -> tuple[str, ...]:
    """The names in the header of a text file, read from its first bytes; none where it has no header."""
    text = _first_text(path)
    layout = find_layout(text)
    rows = list(csv.reader(io.StringIO(text[layout.start :], newline=""), delimiter=layout.delimiter))
    names = tuple(cell.strip() for cell in rows[0]) if rows else ()
    return names if _is_header(names) or _two_headers(rows[:3]) else ()


def _first_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FIRST_BYTES)
        # a character or a line may be cut in two
        return _decode(data[: data.rfind(b"\n") + 1] or data)
    except (OSError, ValueError):
        return ""


def _delimiter(line: str) -> str:
    return max(",;\t|", key=line.count)


def _is_header(names: Sequence[str]) -> bool:
    try:
        recognise(tuple(names))
    except ColumnsError as error:
        return isinstance(error, RepeatedColumnError)
    return True


def _is_data(cell: str) -> bool:
    return bool(YEAR_FIRST.match(cell) or YEAR_LAST.match(cell) or re.fullmatch(r"\d{9,19}", cell))


def find_layout(text: str) -> Layout:
    """Where the header stands: the first of the top lines that is one, else the first that is not blank."""
    first, start, told = None, 0, ""
    for number, match in enumerate(re.finditer(r"[^\r\n]*(\r\n|\n|\r|$)", text)):
        line = match.group().strip("\r\n")
        if number >= HEADER_WITHIN:
            break
        # Excel's own line that names the mark between the cells
        if sep := re.fullmatch(r'"?sep=(.)"?[,;\t]*', line.strip(" "), re.IGNORECASE):
            told = sep[1]
            continue
        if not line.strip():
            continue
        delimiter = told or _delimiter(line)
        layout = Layout(match.start(), number, delimiter)
        first = first or layout
        names = tuple(cell.strip().strip('"').strip() for cell in line.split(delimiter))
        if _is_header(names) or names[0] in ("Price", "Ticker"):
            return layout
    return first or Layout(start, 0, ",")


# The whole file at once


def quick_tables(path: Path, text: str) -> dict[str, Table] | None:
    """The tables of a file without nulls among the prices or anything odd in a cell, by ticker; else None.

    `Table.lines` are not those of the file.
    """
    first, _, rest = text.partition("\n")
    delimiter = _delimiter(first)
    names = tuple(cell.strip() for cell in first.split(delimiter))
    # old Mac line ends, a blank first line and quotes are for the reading row by row
    if "\r" in first[:-1] or not first.strip() or '"' in first:
        return None
    try:
        meaning = recognise(names)
        if "Time" in meaning.positions:
            return None
        wanted = {meaning.positions[name] for name in NUMBER_COLUMNS if name in meaning.positions}
        keys = [str(position) for position in range(len(names))]
        kinds = {key: pa.float64() if int(key) in wanted else pa.string() for key in keys}
        table = arrow_csv.read_csv(
            pa.py_buffer(rest.encode()),
            read_options=arrow_csv.ReadOptions(column_names=keys, use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
            # no nulls: a missing price must fail here, because only the slow reading counts and drops such rows
            convert_options=arrow_csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False),
        )
        columns: list[Column | None] = [None] * len(names)
        for position in wanted:
            columns[position] = table[str(position)].to_numpy()
        columns[meaning.positions["Date"]] = _iso_times(table[str(meaning.positions["Date"])])
        if "Ticker" in meaning.positions:
            position = meaning.positions["Ticker"]
            columns[position] = [cell.strip() for cell in table[str(position)].to_pylist()]
        return split_tickers(Table(path=path, names=names, columns=columns, lines=np.arange(len(table))))
    except ValueError:  # the header's error and pyarrow's ArrowInvalid are such too
        return None


def _iso_times(cells: pa.ChunkedArray) -> Times:
    """Times as `parse_time` reads them.

    Raises:
        ValueError: not all are ISO 8601 times.
    """
    if not pc.all(pc.match_substring_regex(cells, ISO_TIME)).as_py():
        raise ValueError("times of another form")
    local = pc.utf8_slice_codeunits(cells, 0, 19).cast(pa.timestamp("s")).to_numpy()
    if not np.datetime64(str(FIRST_YEAR)) <= local.min() <= local.max() < np.datetime64(str(LAST_YEAR + 1)):
        raise ValueError("a year out of range")
    offsets = np.full(len(local), np.nan)
    if pc.max(pc.utf8_length(cells)).as_py() > len("2024-01-02 09:30:00"):
        zones = pc.utf8_slice_codeunits(cells, 19, 25).to_numpy(zero_copy_only=False)
        # a file has few different offsets: each is read once
        written, codes = np.unique(zones, return_inverse=True)
        offsets = np.array([offset_minutes(zone) if zone else np.nan for zone in written])[codes]
    return Times(local.astype("datetime64[ns]"), offsets)


# Row by row


def row_tables(path: Path, text: str) -> dict[str, Table]:
    """The tables of a file by ticker, each row with its line.

    Raises:
        MarketDataError: the file is no CSV, is empty, or its header is of no bars.
    """
    layout = find_layout(text)
    reader = csv.reader(io.StringIO(text[layout.start :], newline=""), delimiter=layout.delimiter)
    before = layout.lines_before
    try:
        rows = [
            (reader.line_num + before, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise MarketDataError(f"{path} cannot be read as CSV: {error}.") from error
    if not rows:
        raise MarketDataError(f"{path} is empty; download it again or take it out of the folder.")
    headers = _two_headers([row for _, row in rows[:3]])
    if headers is not None:
        names, tickers, count = headers
        return _wide_tables(path, names, tickers, rows[count:])
    names = tuple(rows[0][1])
    if _is_data(names[0]):
        raise MarketDataError(_headless(path, layout.delimiter, names))
    table = _table_of(path, names, rows[1:], layout.delimiter)
    return split_tickers(table)


def _two_headers(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...], int] | None:
    """Fields, tickers and the number of lines where a header has one line of each, as yfinance's; else None.

    A third line may name the dates alone.
    """
    if len(rows) < 2 or len(rows[0]) != len(rows[1]) or len(rows[0]) < 2 or rows[0][0] not in ("", "Price", "Ticker"):
        return None
    known = [sum(bool(meaning_of(name)[0]) for name in row[1:]) for row in rows[:2]]
    fields, tickers = (rows[0], rows[1]) if known[0] >= known[1] else (rows[1], rows[0])
    if (
        tickers[0] not in ("", "Ticker", "Price", "Date", "Datetime")
        or max(known) < len(fields) - 1
        or _is_data(rows[1][0])
    ):
        return None
    named = len(rows) > 2 and meaning_of(rows[2][0])[0] == "Date" and not any(rows[2][1:])
    return ("Date", *fields[1:]), tuple(tickers), 3 if named else 2


def _wide_tables(
    path: Path, names: tuple[str, ...], tickers: tuple[str, ...], rows: list[tuple[int, list[str]]]
) -> dict[str, Table]:
    """One table for each ticker of a header of two lines."""
    whole = _table_of(path, names, rows, ",")
    tables = {}
    for ticker in dict.fromkeys(tickers[1:]):
        own = [0, *(place for place, name in enumerate(tickers) if place and name == ticker)]
        columns = [whole.columns[place] for place in own]
        tables[ticker] = Table(
            path=path,
            names=tuple(names[place] for place in own),
            columns=columns,
            lines=whole.lines,
            layout="yfinance",
            broken=whole.broken,
        )
    return tables if len(tables) > 1 else {"": next(iter(tables.values()))}


def _table_of(path: Path, names: tuple[str, ...], rows: list[tuple[int, list[str]]], delimiter: str) -> Table:
    width, broken = len(names), {}
    for number, (line, row) in enumerate(rows):
        if len(row) != width:
            broken[number] = (
                f"{path}: line {line} has {len(row)} fields but the first line names {width}; "
                "the file may be cut short. Download it again or correct the line."
            )
    # one odd line is that line's fault; most of them mean that the mark between cells is wrong
    if 2 * len(broken) > max(len(rows), 4):
        line, row = rows[next(iter(broken))]
        raise MarketDataError(
            f"{path}: {len(broken)} of {len(rows)} lines, the first of them line {line}, have other numbers of fields "
            f"than the first line, which names {width}: export it with another mark between the cells than inside "
            f"numbers and texts (there are decimal commas?), as ; instead of {delimiter!r}."
        )
    cells = [(row + [""] * width)[:width] for _, row in rows] if broken else [row for _, row in rows]
    columns: list[Column] = [list(column) for column in zip(*cells, strict=True)] if cells else [[]] * width
    lines = np.array([line for line, _ in rows], dtype=np.int64)
    return Table(path=path, names=names, columns=columns, lines=lines, broken=broken)


def _headless(path: Path, delimiter: str, cells: Sequence[str]) -> str:
    if delimiter == "\t" and len(cells) == 7:
        return (
            f"{path} looks like StockNet's price/preprocessed: its numbers are movements, each divided by the close "
            "before, and no prices; take the CSV of price/raw instead."
        )
    columns = delimiter.join(("Date", "Open", "High", "Low", "Close", "Volume"))
    return (
        f"{path}: line 1 holds data where the names of the columns should stand; put {columns} above it, in the order "
        "of the file."
    )
