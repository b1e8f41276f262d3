"""Bars from Yahoo, kept as parquet files that tell where they came from and notice a change.

The cache holds the whole history that Yahoo gives of a ticker and an interval: TICKER.parquet for days,
TICKER_5m.parquet and so on within days. What a run uses of it is chosen by start and end when it is read, so that
one file serves every span and its adjustment is that of one moment. A bar that is not over is never kept.

The file's own metadata hold a `CacheRecord` whose sha256 is over the record and every value; reading verifies it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import re
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.bars import NUMBER_COLUMNS as COLUMNS
from preprocessing.bars import MarketDataError
from preprocessing.files import write_atomically
from preprocessing.reading.frames import frame_tables
from preprocessing.reading.tables import Table

INTERVALS = {
    "1m": timedelta(minutes=1),
    "2m": timedelta(minutes=2),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "90m": timedelta(minutes=90),
    "1d": timedelta(days=1),
}
"""Yahoo's, without those over a day: it does not adjust their prices right."""
RETRY_SECONDS = (1.0, 3.0, 9.0)
"""Waits before the second, third and fourth try."""
RECORD_KEY = b"cache_record"
TICKER = re.compile(r"[A-Z0-9^$][A-Z0-9.=^&_$+!@#*~-]*")
"""Yahoo's symbols: BRK-B, ^GSPC, EURUSD=X, M&M.NS, NIFTY_FIN_SERVICE.NS."""

logger = logging.getLogger(__name__)


class DownloadError(MarketDataError):
    """A ticker could not be downloaded."""


class UnreachableError(DownloadError):
    """Yahoo does not answer, or asks to wait: the next ticker would fare no better."""


@dataclass(frozen=True, kw_only=True)
class CacheRecord:
    """What a cached file says of itself."""

    ticker: str
    interval: str
    source: str
    """Who gave the bars, and through which version of which library."""
    request: str
    downloaded: str
    """ISO 8601, UTC."""
    rows: int
    sha256: str = ""

    @property
    def age(self) -> timedelta:
        """Since the download."""
        return datetime.now(UTC) - datetime.fromisoformat(self.downloaded)


def cached_path(ticker: str, interval: str, cache_dir: Path) -> Path:
    """Where the bars of a ticker lie, or would."""
    return cache_dir / f"{ticker}{'' if interval == '1d' else f'_{interval}'}.parquet"


def cached_bars(
    name: str,
    cache_dir: Path,
    *,
    interval: str = "1d",
    refresh: bool = False,
    max_age_days: float | None = None,
) -> Path:
    """The cached file of a ticker; downloaded if it is not there, too old, or `refresh`.

    Raises:
        MarketDataError: the name is no ticker, or the cached file has no record.
        DownloadError: the download failed; a file that was there stays.
    """
    if name == "all":
        raise MarketDataError(
            "stock 'all' means every file of a folder; name the folder with --data-dir, or write ALL for the ticker."
        )
    ticker = name.upper()
    if not TICKER.fullmatch(ticker):
        raise MarketDataError(f"stock '{name}' is not a ticker; write AAPL, AAPL,MSFT, all, or sim:ou.")
    path = cached_path(ticker, interval, cache_dir)
    if path.is_file() and not refresh:
        record = read_record(path)
        if record is None:
            raise MarketDataError(f"{path} does not say where it came from; {_way_out(path)}")
        if max_age_days is None or record.age <= timedelta(days=max_age_days):
            return path
    frame = fetch(ticker, interval)
    record = CacheRecord(
        ticker=ticker,
        interval=interval,
        source=f"Yahoo through yfinance {version('yfinance')}",
        request=f"period=max, interval={interval}, auto_adjust=False",
        downloaded=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=len(frame),
    )
    write_cache(path, frame, record)
    return path


# Yahoo


def fetch(ticker: str, interval: str) -> pd.DataFrame:
    """The whole history of a ticker: `COLUMNS`, indexed by days, or by times in UTC; only bars that are over.

    Raises:
        UnreachableError: Yahoo does not answer, or answers that there are too many requests.
        DownloadError: it has no such bars, or its answer makes no sense.
    """
    import yfinance  # slow to import, and of no use to those who have files
    from yfinance.data import YfData
    from yfinance.exceptions import YFException, YFPricesMissingError, YFRateLimitError, YFTzMissingError

    logging.getLogger("yfinance").setLevel(logging.CRITICAL)  # the caller says in one line what failed
    yfinance.config.debug.hide_exceptions = False
    # None: no wait follows the last try
    for wait in (*RETRY_SECONDS, None):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # yfinance 1.7 calls pandas in ways that pandas 3 deprecates
                frame = yfinance.Ticker(ticker).history(period="max", interval=interval, auto_adjust=False)
            return _finished_bars(frame, ticker, interval)
        except (YFTzMissingError, YFPricesMissingError) as error:
            raise _unknown(ticker, interval, error) from error
        except DownloadError:
            raise
        except YFRateLimitError:
            kind, reason = UnreachableError, "Yahoo answers that there are too many requests (rate limit)"
            way_out = "wait some minutes and run the same command again, what is cached stays"
        except OSError as error:  # curl_cffi's and requests' errors are such
            kind, reason = UnreachableError, f"Yahoo cannot be reached ({_first_line(error)})"
            way_out = f"check the network, or give a folder that holds {ticker}.csv with --data-dir"
        except (YFException, ValueError, LookupError, TypeError, AttributeError) as error:
            # yfinance walks through the answer without checks: a broken one may raise any of these
            kind, reason = DownloadError, f"Yahoo's answer makes no sense ({_first_line(error)})"
            way_out = f"try again later, or give a folder that holds {ticker}.csv with --data-dir"
        if wait is None:
            raise kind(f"the download of {ticker} failed: {reason}; {way_out}.")
        logger.warning("%s: %s; trying again in %g s", ticker, reason, wait)
        YfData.cache_get.cache_clear()  # it keeps answers of the failed try, error pages too
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _finished_bars(frame: pd.DataFrame, ticker: str, interval: str) -> pd.DataFrame:
    times = pd.DatetimeIndex(frame.index)
    # a bar of today still changes; kept, it would be taken for a close
    now = pd.Timestamp.now(tz=times.tz)  # the clock of the exchange
    over = times < now.normalize() if interval == "1d" else times + INTERVALS[interval] <= now
    if not over.any():
        raise _unknown(ticker, interval, "the answer holds no bar that is over")
    times = times.tz_localize(None).normalize() if interval == "1d" else times.tz_convert("UTC")
    columns = {name: frame[name].to_numpy(np.float64)[over] for name in COLUMNS}
    return pd.DataFrame(columns, index=times[over])


def _unknown(ticker: str, interval: str, reason: object) -> DownloadError:
    return DownloadError(
        f"the download of {ticker} failed: Yahoo has no {interval} bars of it ({_first_line(reason)}); check the "
        f"ticker, or give a folder that holds {ticker}.csv with --data-dir."
    )


def _first_line(reason: object) -> str:
    text = str(reason).strip().partition("\n")[0].partition(" See https://")[0] or type(reason).__name__
    return text.rstrip(" .")[:150]


# The file


def write_cache(path: Path, frame: pd.DataFrame, record: CacheRecord) -> None:
    """Write bars indexed by time, and their record, as one file that appears whole."""
    columns = {name: pa.array(frame[name].to_numpy(np.float64)) for name in COLUMNS}
    table = pa.table({"Date": pa.array(frame.index.astype(_time_type(frame.index))), **columns})
    record = dataclasses.replace(record, sha256=content_hash(table, record))
    table = table.replace_schema_metadata({RECORD_KEY: json.dumps(dataclasses.asdict(record))})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def _time_type(index: pd.Index) -> str:
    return "datetime64[ns, UTC]" if isinstance(index, pd.DatetimeIndex) and index.tz else "datetime64[ns]"


def content_hash(table: pa.Table, record: CacheRecord) -> str:
    """sha256 over the record without its own hash, and the name, type and values of every column in order."""
    # the hash cannot be over itself
    told = dataclasses.asdict(dataclasses.replace(record, sha256=""))
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.to_numpy()
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.nan, values)  # one bit pattern for what is missing
        digest.update(f"|{name}|{values.dtype.str}|".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def read_record(path: Path) -> CacheRecord | None:
    """What a parquet file says of itself; None if it was not written by the cache.

    Raises:
        MarketDataError: the file is no parquet, or its record is damaged.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        return CacheRecord(**json.loads(metadata[RECORD_KEY])) if RECORD_KEY in metadata else None
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def parquet_tables(path: Path) -> dict[str, Table]:
    """The tables of a cached file, or of someone's own Parquet file, by ticker; see `frame_tables`.

    Raises:
        MarketDataError: the file cannot be read, does not match its checksum, or is of no bars.
    """
    record = read_record(path)
    try:
        table = pq.read_table(path)
        if record and content_hash(table, record) != record.sha256:
            raise MarketDataError(
                f"{path} does not match its checksum: it is damaged or was edited; bars that you edit belong as CSV "
                f"into a folder of your own, which --data-dir names; {_way_out(path)}"
            )
        frame = table.to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return frame_tables(frame, path, layout="yfinance" if record else "parquet", editable=record is None)


def _unreadable(path: Path, error: Exception) -> MarketDataError:
    return MarketDataError(f"{path} cannot be read as parquet ({_first_line(error)}); {_way_out(path)}")


def _way_out(path: Path) -> str:
    ticker, _, interval = path.stem.rpartition("_")
    if interval not in INTERVALS:
        ticker, interval = path.stem, ""
    daily = "" if not interval else f" --interval {interval}"
    return (
        f"if it is a cached download, get it again: python -m preprocessing.market_data download --stock {ticker}"
        f"{daily} --cache-dir {path.parent} --refresh"
    )
