"""The one door for bars, in files and in data frames: each stock is read, checked and adjusted in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from pyarrow import ArrowException, parquet

from preprocessing.bars import BarsReport, MarketDataError
from preprocessing.checks.bars import WHOLE, check_bars
from preprocessing.config import BarRules
from preprocessing.download import parquet_tables
from preprocessing.notices import notices_of
from preprocessing.reading.column_names import meaning_of
from preprocessing.reading.csv_files import header_names, looks_like_bars, quick_tables, read_text, row_tables
from preprocessing.reading.frames import frame_tables
from preprocessing.reading.tables import Table, raw_bars

__all__ = ["StockFile", "frame_bars", "looks_like_bars", "read_bars", "read_frame", "tickers_of"]

FRAME = "the data frame"
"""What messages call a frame."""


@dataclass(frozen=True)
class StockFile:
    """Where the bars of a stock stand."""

    path: Path
    ticker: str | None = None
    """Which of several in the file; None: the only one."""


def read_bars(file: Path | StockFile, rules: BarRules = WHOLE) -> tuple[pd.DataFrame, BarsReport]:
    """Read, check and adjust the bars of one stock; see `check_bars` for what comes back.

    Args:
        file: a text or Parquet file of one stock, or of several with the ticker of one.
        rules: which bars are used, and how.

    Raises:
        MarketDataError: the file cannot be read, holds several tickers, or a row between start and end is refused.
    """
    file = file if isinstance(file, StockFile) else StockFile(Path(file))
    *quicker, surest = _readings(file.path)
    for read in quicker:
        try:
            return bars_of(read() or {}, file, rules)
        except MarketDataError:
            pass  # the reading row by row refuses it too, and knows the line
    return bars_of(surest() or {}, file, rules)


def bars_of(tables: Mapping[str, Table], file: StockFile, rules: BarRules) -> tuple[pd.DataFrame, BarsReport]:
    """Check and adjust the bars of one of a file's tables.

    Raises:
        MarketDataError: as `read_bars`.
    """
    table = tables.get(file.ticker or "")
    if table is not None:
        return check_bars(raw_bars(table, rules), rules)
    there = ", ".join([*tables][:5])
    if file.ticker is not None:
        raise MarketDataError(f"{file.path} does not hold {file.ticker}; it holds {there}.")
    raise MarketDataError(
        f"{file.path} holds several tickers ({there}); name one of them as the stock, with --data-dir "
        f"{file.path.parent}."
    )


def tickers_of(path: Path) -> tuple[str, ...]:
    """The tickers of a file of several stocks; none where it holds one, or cannot be read."""
    try:
        if not _may_hold_several(path):
            return ()
        tables = next((tables for read in _readings(path) if (tables := read()) is not None), {})
    except MarketDataError:
        return ()  # reading it will say why
    return tuple(name for name in tables if name)


def frame_bars(
    frame: pd.DataFrame, rules: BarRules = WHOLE, *, name: str = FRAME
) -> dict[str, tuple[pd.DataFrame, BarsReport]]:
    """Bars and report of each stock of a data frame, by ticker; by `name` where the frame names none.

    Args:
        frame: as `read_frame`.
        rules: which bars are used, and how.
        name: of its stock, where it names none; messages call the frame so.

    Raises:
        MarketDataError: the frame holds no bars, or a row between start and end is refused.
    """
    if not isinstance(frame, pd.DataFrame):
        raise MarketDataError(f"{name} is a {type(frame).__name__}, not a pandas DataFrame of bars.")
    tables = frame_tables(frame, name, layout="frame")
    return {ticker or name: check_bars(raw_bars(table, rules), rules) for ticker, table in tables.items()}


def read_frame(frame: pd.DataFrame, *, name: str = FRAME, rules: BarRules = WHOLE) -> dict[str, pd.DataFrame]:
    """Bars of each stock of a data frame, through the checks of a file.

    Args:
        frame: a Date column or index; Close; Open, High, Low, Adj Close and Volume where they are known; and a column
            of tickers where there are several stocks. Names as in files: yfinance's frames, also with columns of two
            levels, `unique_id, ds, y`, lower case. Rows in any order.
        name: of its stock, where the frame names none.
        rules: which bars are used, and how.

    Returns:
        By ticker, or by `name`: open, high, low, close on the basis of the adjusted close and volume, indexed by
        ascending unique times. What was repaired or looks odd is told by a UserWarning for each stock.

    Raises:
        MarketDataError: the frame holds no bars, or a row is refused.
    """
    stocks = {}
    for ticker, (bars, report) in frame_bars(frame, rules, name=name).items():
        for line in notices_of(ticker, report):
            warnings.warn(line, UserWarning, stacklevel=2)
        stocks[ticker] = bars
    return stocks


Reading = Callable[[], Mapping[str, Table] | None]


def _readings(path: Path) -> tuple[Reading, ...]:
    """The ways to read a file into tables, the quickest first; only the last one raises and knows the lines."""
    try:
        state = path.stat()
    except OSError as error:
        raise MarketDataError(f"{path} cannot be read as CSV: {error.strerror}.") from error
    # time and size are part of the key, so an edited file is read anew
    key = (path, state.st_mtime_ns, state.st_size)
    if path.suffix.lower() == ".parquet":
        return (lambda: _parquet(*key),)
    return (lambda: _quick(*key), lambda: _by_rows(*key))


# a file of many tickers is asked for once for each of them: the last one stays at hand


@lru_cache(maxsize=1)
def _parquet(path: Path, changed: int, size: int) -> Mapping[str, Table]:
    return parquet_tables(path)


@lru_cache(maxsize=1)
def _quick(path: Path, changed: int, size: int) -> Mapping[str, Table] | None:
    return quick_tables(path, read_text(path))


@lru_cache(maxsize=1)
def _by_rows(path: Path, changed: int, size: int) -> Mapping[str, Table]:
    return row_tables(path, read_text(path))


def _may_hold_several(path: Path) -> bool:
    """Whether the names of the columns speak of tickers: rows are read only then."""
    if path.suffix.lower() == ".parquet":
        try:
            names: Iterator[str] = iter(parquet.read_schema(path).names)
        except (OSError, ArrowException):
            return False
        return any(meaning_of(name)[0] == "Ticker" or name.startswith("('") for name in names)
    names_there = header_names(path)
    return bool(names_there) and (
        names_there[0] in ("", "Price", "Ticker") or any(meaning_of(name)[0] == "Ticker" for name in names_there)
    )
