"""Daily bars of one or many stocks: found, downloaded, read, checked and put on one price basis.

Files are CSVs in Yahoo's layout: Date, Open, High, Low, Close, Adj Close, Volume, one row per day. What can
be repaired without a guess is repaired and counted; anything else is refused with file, line and column:

    repaired   a row without all its prices is dropped; an exact repeat is dropped; unsorted rows are sorted;
               a high or low that open or close exceeds by at most RANGE_TOLERANCE is widened to hold them; a
               missing volume is 0
    refused    two different rows of one day; a price that is not a positive number; a wider gap in the range;
               a missing column; a row with too few or too many fields; a date that is not YYYY-MM-DD

Letters: T days.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from preprocessing.config import DataConfig
from preprocessing.files import write_atomically
from preprocessing.simulation import is_simulated, parse_simulated_stock

PRICES = ("Open", "High", "Low", "Close", "Adj Close")
REQUIRED_COLUMNS = ("Date", "Open", "High", "Low", "Close", "Volume")
NULL_MARKS = frozenset({"", "null", "nan", "none", "na", "n/a"})
REPAIRS = ("rows_without_prices", "repeated_rows", "unsorted_rows", "widened_ranges", "missing_volumes")
"""Fields of BarsReport that count repairs."""
RANGE_TOLERANCE = 0.01
"""Share of the price by which open or close may leave the range: some vendors mix venues."""
MANY_STOCKS = 10
"""From this many stocks on, a progress bar is shown."""


class MarketDataError(ValueError):
    """Bars that cannot be used; the message is one line that names the place and a way out."""


class TooFewRowsError(MarketDataError):
    """A stock is shorter than one window with its warm-up."""


@dataclass(frozen=True, kw_only=True)
class BarsReport:
    """Where the bars of a stock came from and what was repaired in them; counts are rows."""

    source: str
    rows_read: int
    rows_without_prices: int = 0
    repeated_rows: int = 0
    unsorted_rows: int = 0
    widened_ranges: int = 0
    missing_volumes: int = 0
    rows: int = 0
    """Rows left after the repairs and the choice of start and end."""
    first_date: str | None = None
    last_date: str | None = None
    skipped: str | None = None
    """Why the stock was left out, or None."""


# One file


def read_bars(path: Path) -> tuple[pd.DataFrame, BarsReport]:
    """Read, check and adjust one CSV.

    Returns:
        open, high, low, close [T] on the basis of the adjusted close (all four times Adj Close / Close; as
        they are where the file has no Adj Close) and volume, indexed by ascending unique dates; and what was
        repaired.

    Raises:
        MarketDataError: the file cannot be read or a row is refused.
    """
    header, rows = _read_rows(path)
    prices = [name for name in PRICES if name in header]
    whole = [(line, row) for line, row in rows if all(not _is_null(row[header[name]]) for name in prices)]
    if not whole:
        raise MarketDataError(f"{path} holds no row with prices; download it again or take it out of the folder.")
    lines = np.array([line for line, _ in whole])
    dates = _parse_dates(path, lines, [row[header["Date"]] for _, row in whole])
    volumes = [row[header["Volume"]] for _, row in whole]
    columns = {name: _parse_prices(path, lines, name, [row[header[name]] for _, row in whole]) for name in prices}
    columns["Volume"] = _parse_volumes(path, lines, volumes)

    order = np.argsort(dates, kind="stable")
    unsorted_rows = int((np.diff(dates) < np.timedelta64(0)).sum())
    keep = order[_first_of_each_day(path, lines[order], dates[order], {k: v[order] for k, v in columns.items()})]
    columns = {name: values[keep] for name, values in columns.items()}
    widened_ranges = _count_narrow_ranges(path, lines[keep], columns)
    report = BarsReport(
        source=str(path),
        rows_read=len(rows),
        rows_without_prices=len(rows) - len(whole),
        repeated_rows=len(whole) - len(keep),
        unsorted_rows=unsorted_rows,
        widened_ranges=widened_ranges,
        missing_volumes=sum(map(_is_null, volumes)),
    )
    bars = pd.DataFrame(_adjust(columns), index=pd.DatetimeIndex(dates[keep], name="date"))
    return bars, _with_extent(report, bars)


def _read_rows(path: Path) -> tuple[dict[str, int], list[tuple[int, list[str]]]]:
    """The position of each column, and each row that is not blank with its line number."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            table = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MarketDataError(f"{path} cannot be read as CSV: {reason}.") from error
    if not table:
        raise MarketDataError(f"{path} is empty; download it again or take it out of the folder.")
    names = table[0][1]
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        found = ", ".join(names)
        raise MarketDataError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has: {found[:100]}"
            f"{'...' * (len(found) > 100)}. The first line must name {', '.join(REQUIRED_COLUMNS)}, and may "
            "name Adj Close."
        )
    for line, row in table[1:]:
        if len(row) != len(names):
            raise MarketDataError(
                f"{path}: line {line} has {len(row)} fields but the first line names {len(names)}; "
                "the file may be cut short. Download it again or correct the line."
            )
    return {name: position for position, name in enumerate(names)}, table[1:]


def _is_null(cell: str) -> bool:
    return cell.lower() in NULL_MARKS


def _parse_dates(path: Path, lines: np.ndarray, cells: Sequence[str]) -> np.ndarray:
    days = []
    for line, cell in zip(lines, cells, strict=True):
        try:
            days.append(date.fromisoformat(cell))
        except ValueError as error:
            raise MarketDataError(
                f"{path}: line {line}, column Date: '{cell}' is not a day as YYYY-MM-DD; correct or delete the line."
            ) from error
    return np.array(days, dtype="datetime64[ns]")


def _parse_numbers(path: Path, lines: np.ndarray, name: str, cells: Sequence[str]) -> np.ndarray:
    numbers = []
    for line, cell in zip(lines, cells, strict=True):
        try:
            numbers.append(float(cell))
        except ValueError as error:
            raise _refused(path, line, name, cell, "is not a number") from error
    return np.array(numbers)


def _parse_prices(path: Path, lines: np.ndarray, name: str, cells: Sequence[str]) -> np.ndarray:
    numbers = _parse_numbers(path, lines, name, cells)
    for row in np.flatnonzero(~(np.isfinite(numbers) & (numbers > 0)))[:1]:
        raise _refused(path, lines[row], name, cells[int(row)], "is not a positive price")
    return numbers


def _parse_volumes(path: Path, lines: np.ndarray, cells: Sequence[str]) -> np.ndarray:
    numbers = _parse_numbers(path, lines, "Volume", ["0" if _is_null(cell) else cell for cell in cells])
    for row in np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))[:1]:
        raise _refused(path, lines[row], "Volume", cells[int(row)], "is not a volume of 0 or more")
    return numbers


def _refused(path: Path, line: object, column: str, cell: str, reason: str) -> MarketDataError:
    return MarketDataError(f"{path}: line {line}, column {column}: '{cell}' {reason}; correct or delete the line.")


def _first_of_each_day(path: Path, lines: np.ndarray, dates: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
    """[T] mask of the sorted rows that do not repeat the row before; others of one day are refused."""
    repeats = dates[1:] == dates[:-1]
    equal = np.all([values[1:] == values[:-1] for values in columns.values()], axis=0)
    for row in np.flatnonzero(repeats & ~equal)[:1]:
        raise MarketDataError(
            f"{path}: lines {lines[row]} and {lines[row + 1]}, column Date: both are for "
            f"{str(dates[row])[:10]} but differ; delete the wrong one."
        )
    return np.concatenate([[True], ~repeats])


def _count_narrow_ranges(path: Path, lines: np.ndarray, columns: dict[str, np.ndarray]) -> int:
    """How many ranges open or close leave a little, for `_adjust` to widen; more than a little is refused."""
    four = np.stack([columns[name] for name in ("Open", "High", "Low", "Close")])
    top, bottom = four.max(0), four.min(0)
    excess = {"High": top / columns["High"] - 1, "Low": 1 - bottom / columns["Low"]}
    for name, values in excess.items():
        for row in np.flatnonzero(values > RANGE_TOLERANCE)[:1]:
            raise MarketDataError(
                f"{path}: line {lines[row]}, column {name}: {columns[name][row]:g} leaves the day's prices "
                f"{bottom[row]:g} to {top[row]:g} by more than {RANGE_TOLERANCE:.0%}; correct or "
                "delete the line."
            )
    return int(((excess["High"] > 0) | (excess["Low"] > 0)).sum())


def _adjust(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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


def _with_extent(report: BarsReport, bars: pd.DataFrame) -> BarsReport:
    days = [str(day)[:10] for day in bars.index[[0, -1]]] if len(bars) else [None, None]
    return dataclasses.replace(report, rows=len(bars), first_date=days[0], last_date=days[1])


# One or many stocks


def load_stocks(stock: str, config: DataConfig) -> tuple[dict[str, pd.DataFrame], dict[str, BarsReport]]:
    """Bars of every stock that a name stands for, between `config.start` and `config.end`.

    Args:
        stock: a ticker, `all` (every CSV of `config.data_dir`), `sim:...`, or several of these with commas
            between.
        config: where the bars are, from when to when, and how long a window is.

    Returns:
        Bars by name, and a report by name. Among several stocks, one that is shorter than a window is left
        out of the bars and its report says why.

    Raises:
        MarketDataError: a stock is not there, a file is refused, or no stock is long enough.
    """
    located = locate_stocks(stock, config)
    bars, reports = {}, {}
    for name, path in tqdm(located.items(), "read", unit="stock", leave=False, disable=len(located) < MANY_STOCKS):
        table, reports[name] = load_stock(name, path, config)
        if reports[name].skipped is None:
            bars[name] = table
    if not bars:
        reason = next(iter(reports.values())).skipped
        many = len(located) > 1
        raise TooFewRowsError(f"none of the {len(located)} stocks is long enough: {reason}" if many else reason)
    return bars, reports


def load_stock(name: str, path: Path | None, config: DataConfig) -> tuple[pd.DataFrame, BarsReport]:
    """Bars of one stock between `config.start` and `config.end`.

    Args:
        name: of the stock.
        path: its file, as `locate_stocks` gives it; None for a simulated stock.
        config: from when to when, and how long a window is.

    Returns:
        The bars, and a report whose `skipped` says so where they are shorter than a window.

    Raises:
        MarketDataError: the file is refused.
    """
    bars, report = read_bars(path) if path else _simulate(name)
    bars = bars.loc[config.start : config.end]
    report = _with_extent(report, bars)
    try:
        require_rows(name, len(bars), config)
    except TooFewRowsError as error:
        report = dataclasses.replace(report, skipped=str(error))
    return bars, report


def require_rows(name: str, rows: int, config: DataConfig) -> None:
    """Refuse a stock that is shorter than one window.

    Raises:
        TooFewRowsError: not one window fits.
    """
    if rows < config.rows_needed:
        raise TooFewRowsError(
            f"stock {name} has {rows} rows, but one window needs {config.rows_needed} (indicator warm-up "
            f"{config.indicators.warm_up}, window {config.window}, horizon {config.horizon}). Give a longer "
            "history, an earlier data.start or later data.end, or a shorter data.window or indicator period."
        )


def _simulate(name: str) -> tuple[pd.DataFrame, BarsReport]:
    bars = parse_simulated_stock(name).bars()
    return bars, BarsReport(source="simulated", rows_read=len(bars))


def locate_stocks(stock: str, config: DataConfig) -> dict[str, Path | None]:
    """The file of each stock that a name stands for (None: simulated); downloads where `data_dir` is null.

    Raises:
        MarketDataError: the folder or a stock is not there, a name comes twice, or a download fails.
        SimulationError: a simulated stock's name is wrong.
    """
    located: dict[str, Path | None] = {}
    for name in map(str.strip, stock.split(",")):
        found: dict[str, Path | None]
        if not name:
            raise MarketDataError(f"stock '{stock}' holds an empty name; write AAPL, AAPL,MSFT, all, or sim:ou.")
        if is_simulated(name):
            parse_simulated_stock(name)  # a wrong name is refused before any work
            found = {name: None}
        elif config.data_dir is not None:
            found = dict(_find_files(name, config.data_dir))
        else:
            found = {name.upper(): _cached_download(name, config.cache_dir)}
        for repeated in found.keys() & located.keys():
            raise MarketDataError(f"stock '{stock}' names {repeated} twice; name it once.")
        located |= found
    return located


def _find_files(name: str, data_dir: Path) -> dict[str, Path]:
    """Every CSV of the folder for `all`, else the one of a ticker, whose case does not matter."""
    if not data_dir.is_dir():
        raise MarketDataError(f"data folder {data_dir} does not exist; correct --data-dir.")
    files = {path.stem: path for path in sorted(data_dir.iterdir()) if path.suffix.lower() == ".csv"}
    if not files:
        raise MarketDataError(f"data folder {data_dir} holds no CSV file; it must hold one TICKER.csv per stock.")
    if name == "all":
        return files
    matches = [ticker for ticker in files if ticker.upper() == name.upper()]
    if name in files or len(matches) == 1:
        ticker = name if name in files else matches[0]
        return {ticker: files[ticker]}
    if matches:
        raise MarketDataError(f"stock '{name}' could be {' or '.join(matches)} in {data_dir}; write it as the file.")
    by_upper = {ticker.upper(): ticker for ticker in files}
    close = [by_upper[match] for match in difflib.get_close_matches(name.upper(), by_upper, n=5, cutoff=0.5)]
    there = f"close names there: {', '.join(close)}" if close else f"there are, for example: {', '.join([*files][:5])}"
    raise MarketDataError(f"stock '{name}' has no file {name}.csv in {data_dir}; {there}.")


# Download


def _cached_download(name: str, cache_dir: Path) -> Path:
    """The cached file of a ticker with its whole history; downloaded from Yahoo if it is not there."""
    if name == "all":
        raise MarketDataError("stock 'all' means every CSV of a folder; name the folder with --data-dir.")
    ticker = name.upper()
    if not re.fullmatch(r"[A-Z0-9^][A-Z0-9.=^-]*", ticker):
        raise MarketDataError(f"stock '{name}' is not a ticker; write AAPL, AAPL,MSFT, all, or sim:ou.")
    path = cache_dir / f"{ticker}.csv"
    if not path.is_file():
        frame = _download(ticker)
        if frame is None or frame.empty:
            raise MarketDataError(
                f"the download of {ticker} from Yahoo failed; check the ticker and the network, or give a "
                f"folder that holds {ticker}.csv with --data-dir."
            )
        today = pd.Timestamp.today().normalize()  # today's bar is not over: cached, it would stay wrong
        frame = frame.loc[frame.index < today, [*PRICES, "Volume"]]
        write_atomically(path, frame.to_csv(index_label="Date", date_format="%Y-%m-%d"))
    return path


def _download(ticker: str) -> pd.DataFrame | None:
    import yfinance  # slow to import, and of no use to those who have files

    logging.getLogger("yfinance").setLevel(logging.CRITICAL)  # the caller says in one line what failed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # yfinance 1.7 calls pandas in ways that pandas 3 deprecates
        return yfinance.download(
            ticker, period="max", auto_adjust=False, progress=False, threads=False, multi_level_index=False
        )
