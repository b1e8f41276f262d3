"""Bars of one or many stocks: found, downloaded, read and checked.

    python -m preprocessing.market_data download --stock AAPL,MSFT
    python -m preprocessing.market_data list
    python -m preprocessing.market_data check --data-dir DIR

download keeps the whole history of tickers from Yahoo in a cache folder (download.py); list shows what is there;
check reads every file of a folder and says what it found, repaired or refused (bars_files.py). Each command
explains its flags with --help.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from tqdm import tqdm

from preprocessing.bars import REPAIRS, BarsReport, MarketDataError, NoBarsError, with_extent
from preprocessing.bars_files import StockFile, looks_like_bars, read_bars, read_frame, tickers_of
from preprocessing.bars_store import COLUMNS
from preprocessing.command_line import expand_switches, parse_config
from preprocessing.config import BarRules, DataConfig
from preprocessing.download import UnreachableError, cached_bars, read_record
from preprocessing.notices import counts_of, oddities
from preprocessing.simulation import is_simulated, parse_simulated_stock

__all__ = [
    "REPAIRS",
    "MarketDataError",
    "StockFile",
    "TooFewRowsError",
    "load_stock",
    "load_stocks",
    "locate_stocks",
    "main",
    "read_bars",
    "read_frame",
]

MANY_STOCKS = 10
"""From this many stocks on, a progress bar is shown."""
SUFFIXES = (".csv", ".txt", ".parquet")


class TooFewRowsError(MarketDataError):
    """A stock is shorter than one window with its warm-up."""


def load_stocks(stock: str, config: DataConfig) -> tuple[dict[str, pd.DataFrame], dict[str, BarsReport]]:
    """Bars of every stock that a name stands for, between `config.start` and `config.end`.

    Args:
        stock: a ticker, `all` (every file of `config.data_dir`), `sim:...`, or several of these with commas
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
    for name, file in tqdm(located.items(), "read", unit="stock", leave=False, disable=len(located) < MANY_STOCKS):
        table, reports[name] = load_stock(name, file, config)
        if reports[name].skipped is None:
            bars[name] = table
    if not bars:
        raise none_long_enough(reports)
    return bars, reports


def none_long_enough(reports: Mapping[str, BarsReport]) -> TooFewRowsError:
    """What to raise where every stock was skipped: why the first was, and of how many."""
    reason = str(next(iter(reports.values())).skipped)
    return TooFewRowsError(f"none of the {len(reports)} stocks can be used: {reason}" if len(reports) > 1 else reason)


def load_stock(name: str, file: StockFile | None, config: DataConfig) -> tuple[pd.DataFrame, BarsReport]:
    """Bars of one stock between `config.start` and `config.end`.

    Args:
        name: of the stock.
        file: where it stands, as `locate_stocks` gives it; None for a simulated stock.
        config: from when to when, and how long a window is.

    Returns:
        The bars, and a report whose `skipped` says so where they are shorter than a window, or where they are refused
        and `config.on_bad_stock` is skip.

    Raises:
        MarketDataError: the file is refused, and `config.on_bad_stock` is stop.
    """
    try:
        bars, report = read_bars(file, config.rules) if file else _simulate(name, config)
    except MarketDataError as error:
        # a stock that did not trade in the span is no damaged file: it is skipped in either case
        if config.on_bad_stock == "stop" and not isinstance(error, NoBarsError):
            raise
        return _no_bars(file, str(error))
    try:
        require_rows(name, len(bars), config)
    except TooFewRowsError as error:
        report = dataclasses.replace(report, skipped=str(error))
    return bars, report


def _no_bars(file: StockFile | None, reason: str) -> tuple[pd.DataFrame, BarsReport]:
    empty = pd.DataFrame(columns=[*COLUMNS], index=pd.DatetimeIndex([], name="date"), dtype="float64")
    return empty, BarsReport(
        source=str(file.path if file else "simulated"), layout="unread", rows_read=0, skipped=reason
    )


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


def _simulate(name: str, config: DataConfig) -> tuple[pd.DataFrame, BarsReport]:
    bars = parse_simulated_stock(name).bars()
    report = BarsReport(source="simulated", interval="1d", rows_read=len(bars))
    bars = bars.loc[config.start : config.end]
    return bars, with_extent(report, bars)


def locate_stocks(stock: str, config: DataConfig) -> dict[str, StockFile | None]:
    """The file of each stock that a name stands for (None: simulated); downloads where `data_dir` is null.

    Raises:
        MarketDataError: the folder or a stock is not there, a name comes twice, or a download fails.
        SimulationError: a simulated stock's name is wrong.
    """
    located: dict[str, StockFile | None] = {}
    for name in map(str.strip, stock.split(",")):
        found: dict[str, StockFile | None]
        if not name:
            raise MarketDataError(f"stock '{stock}' holds an empty name; write AAPL, AAPL,MSFT, all, or sim:ou.")
        if is_simulated(name):
            parse_simulated_stock(name)  # a wrong name is refused before any work
            found = {name: None}
        elif config.data_dir is not None:
            found = dict(_find_files(name, config.data_dir))
        else:
            found = {name.upper(): StockFile(cached_bars(name, config.cache_dir))}
        for repeated in found.keys() & located.keys():
            raise MarketDataError(f"stock '{stock}' names {repeated} twice; name it once.")
        located |= found
    return located


def _find_files(name: str, data_dir: Path) -> dict[str, StockFile]:
    """Every stock of the folder for `all`, else the one of a ticker, whose case does not matter."""
    files = _files_of(data_dir)
    if name == "all":
        return files
    # by upper case only where no file has the exact name: file systems may tell aapl from AAPL
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


def _files_of(data_dir: Path) -> dict[str, StockFile]:
    """Every stock of a folder by its name: that of its file, or its ticker where a file holds several."""
    if not data_dir.is_dir():
        raise MarketDataError(f"data folder {data_dir} does not exist; correct --data-dir.")
    files: dict[str, StockFile] = {}
    for path in sorted(data_dir.iterdir()):
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES or path.name.startswith(".") or (suffix == ".txt" and not looks_like_bars(path)):
            continue
        tickers = tickers_of(path)
        found = {ticker: StockFile(path, ticker) for ticker in tickers} or {path.stem: StockFile(path)}
        for name in found.keys() & files.keys():
            raise MarketDataError(f"{files[name].path} and {path} are both for {name}; keep one of them.")
        files |= found
    if not files:
        raise MarketDataError(
            f"data folder {data_dir} holds no CSV file of bars; it must hold one TICKER.csv per stock "
            "(or .txt of Stooq, or .parquet), or a table of several with a column Ticker."
        )
    return files


# Commands


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Flags of `download`."""

    stock: str
    """A ticker of Yahoo, or several: AAPL,MSFT."""
    start: str | None = None
    """First day to report on, YYYY-MM-DD. The cache always holds the whole history; runs choose from it by
    data.start and data.end."""
    end: str | None = None
    """Last day to report on, YYYY-MM-DD."""
    interval: Literal["1m", "2m", "5m", "15m", "30m", "1h", "90m", "1d"] = "1d"
    """Spacing of the bars. Yahoo gives 8 days of 1m, 730 of 1h and 60 of the others within a day; a download anew
    replaces what was cached. Intraday files are read by their name: --data-dir cache --stock AAPL_5m."""
    cache_dir: Path = Path("cache")
    """Folder of the cached files."""
    refresh: bool = False
    """Download anew whatever is cached."""
    max_age_days: float | None = None
    """Download anew what was cached longer ago; null: a cached file stays, and so do the results of a run."""

    def __post_init__(self) -> None:
        DataConfig(start=self.start, end=self.end)  # the same rules
        if self.max_age_days is not None and self.max_age_days < 0:
            raise ValueError(f"max_age_days must be 0 or more; got {self.max_age_days}")


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """Flags of `list`."""

    cache_dir: Path = Path("cache")
    """Folder of the cached files."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Flags of `check`."""

    data_dir: Path
    """Folder with one file per stock: CSV, .txt of Stooq, or parquet."""
    stock: str = "all"
    """A stock, several with commas between, or all."""
    outliers: Literal["warn", "refuse", "repair"] = "warn"
    """What becomes of moves that no market makes, as data.outliers."""
    timezone: str | None = None
    """Time zone of times without an offset, as data.timezone."""


def download(config: DownloadConfig) -> int:
    """Download what is not cached, one line per ticker; 1 if any failed."""
    failed, left = [], [name.strip() for name in config.stock.split(",")]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in tqdm([*left], "download", unit="stock", leave=False, disable=len(left) < MANY_STOCKS):
        left.remove(name)
        try:
            path = cached_bars(
                name,
                config.cache_dir,
                interval=config.interval,
                refresh=config.refresh,
                max_age_days=config.max_age_days,
            )
            _, report = read_bars(path, BarRules(start=config.start, end=config.end))
        except MarketDataError as error:
            print(f"error: {error}", file=sys.stderr)
            failed.append(name)
            # the network or a rate limit: the next ticker would wait through all retries for nothing
            if isinstance(error, UnreachableError):
                break
        else:
            print(f"{describe(name, report)}; {path}")
    if failed:
        not_tried = f"; not tried: {','.join(left)}" if left else ""
        print(f"error: failed: {','.join(failed)}{not_tried}", file=sys.stderr)
    return int(bool(failed))


def list_cached(config: ListConfig) -> int:
    """One line per cached file; 1 if one is damaged."""
    paths = sorted(config.cache_dir.glob("*.parquet"))
    if not paths:
        print(f"nothing is cached in {config.cache_dir}")
    damaged = 0
    for path in paths:
        try:
            record = read_record(path)
            if record is not None:
                _, report = read_bars(path)
                print(
                    f"{describe(record.ticker, report)}; {record.source}, {record.downloaded}, sha256 "
                    f"{record.sha256[:12]}; {path}"
                )
        except MarketDataError as error:
            print(f"error: {error}", file=sys.stderr)
            damaged = 1
    return damaged


def check(config: CheckConfig) -> int:
    """One line per stock on what its file holds; 1 if any file is refused."""
    settings = DataConfig(data_dir=config.data_dir, outliers=config.outliers, timezone=config.timezone)
    located = locate_stocks(config.stock, settings)
    lines, refused = [], {}
    for name, file in tqdm(located.items(), "check", unit="stock", leave=False, disable=len(located) < MANY_STOCKS):
        try:
            _, report = read_bars(file, settings.rules) if file else _simulate(name, settings)
        except MarketDataError as error:
            refused[name] = error
        else:
            lines.append(describe(name, report))
    print(*lines, sep="\n")
    for name, error in refused.items():
        print(f"refused: {name}: {error}", file=sys.stderr)
    if refused:
        print(f"error: {len(refused)} of {len(located)} refused: {','.join(refused)}", file=sys.stderr)
    return int(bool(refused))


def describe(name: str, report: BarsReport) -> str:
    """One line: rows, span, interval, layout, and the counts that are not 0."""
    spacing = f"{report.interval or 'single'} bars{f', times {report.time_zone}' if report.time_zone else ''}"
    parts = [f"{report.rows} rows, {report.first_date} to {report.last_date}, {spacing}, {report.layout}"]
    entry = vars(report)
    for title, found in (
        ("events", counts_of(entry, ("dividends", "splits"))),
        ("repairs", counts_of(entry, REPAIRS)),
        ("warnings", oddities(entry)),
    ):
        if found:
            parts.append(f"{title}: {', '.join(found)}")
    return f"{name}: {'; '.join(parts)}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    command, *arguments = (sys.argv[1:] if argv is None else [*argv]) or ["--help"]
    prog = f"python -m preprocessing.market_data {command}"
    arguments = expand_switches(arguments, "--refresh")
    try:
        if command == "download":
            about = "Download the whole history of tickers from Yahoo into the cache, or use what is cached."
            return download(parse_config(DownloadConfig, arguments, prog=prog, description=about))
        if command == "list":
            about = "Show the cached downloads: rows, span, source, time and checksum of each."
            return list_cached(parse_config(ListConfig, arguments, prog=prog, description=about))
        if command == "check":
            about = "Read every file of a folder and say what it holds, what was repaired and what is refused."
            return check(parse_config(CheckConfig, arguments, prog=prog, description=about))
    except (MarketDataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    print(f"{prog}: error: '{command}' is no command; take download, list or check (see --help)", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
