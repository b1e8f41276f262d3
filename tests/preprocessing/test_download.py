"""Downloads against a local server that speaks Yahoo's chart API, and the cache that keeps them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from preprocessing import download
from preprocessing.bars import MarketDataError
from preprocessing.config import DataConfig
from preprocessing.download import (
    CacheRecord,
    DownloadError,
    UnreachableError,
    cached_bars,
    content_hash,
    fetch,
    read_record,
    write_cache,
)
from preprocessing.market_data import load_stocks, main, read_bars

NEW_YORK = "America/New_York"


class Yahoo(ThreadingHTTPServer):
    """Charts by ticker and interval; a status in `failures` answers the next request for the ticker."""

    def __init__(self) -> None:
        self.charts: dict[tuple[str, str], pd.DataFrame] = {}
        self.failures: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), Answer)

    def chart(self, ticker: str, interval: str) -> dict[str, Any] | None:
        frame = self.charts.get((ticker, interval))
        if frame is None:
            return None
        seconds = [int(time.timestamp()) for time in frame.index]
        meta = {
            "currency": "USD",
            "symbol": ticker,
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": NEW_YORK,
            "validRanges": ["1d", "max"],
            "dataGranularity": interval,
        }
        columns = {name: frame[name.capitalize()].tolist() for name in ("open", "high", "low", "close", "volume")}
        columns = {name: [None if np.isnan(v) else v for v in values] for name, values in columns.items()}
        indicators: dict[str, Any] = {"quote": [columns]}
        if interval == "1d":
            values = frame["Adj Close"].tolist()
            indicators["adjclose"] = [{"adjclose": [None if np.isnan(v) else v for v in values]}]
        else:
            days = frame.index.normalize().unique()
            meta["tradingPeriods"] = [
                [
                    {
                        "timezone": "EST",
                        "gmtoffset": -18000,
                        "start": int((day + pd.Timedelta("9h30min")).timestamp()),
                        "end": int((day + pd.Timedelta("16h")).timestamp()),
                    }
                ]
                for day in days
            ]
        events = {
            "dividends": {str(s): {"amount": 0.5, "date": s} for s in seconds[5:6]},
            "splits": {str(s): {"date": s, "numerator": 2, "denominator": 1} for s in seconds[7:8]},
        }
        result = {"meta": meta, "timestamp": seconds, "indicators": indicators, "events": events}
        return {"chart": {"result": [result], "error": None}}


class Answer(BaseHTTPRequestHandler):
    server: Yahoo

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        ticker, interval = url.path.rpartition("/")[2], parse_qs(url.query).get("interval", [""])[0]
        self.server.requests.append((ticker, interval))
        if self.server.failures.get(ticker):
            self.reply(self.server.failures[ticker].pop(0), "<html>Too Many Requests, or broken</html>")
        elif chart := self.server.chart(ticker, interval):
            self.reply(200, json.dumps(chart))
        else:
            error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            self.reply(404, json.dumps({"chart": {"result": None, "error": error}}))

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def daily(last: str = "2020-06-30", rows: int = 130) -> pd.DataFrame:
    """Closes 300, 300.25, ...; adjusted to half; bars stamped at the open, as Yahoo does."""
    index = pd.bdate_range(end=last, periods=rows, tz=NEW_YORK) + pd.Timedelta("9h30min")
    close = 300 + np.arange(rows) / 4
    return pd.DataFrame(
        {"Open": close, "High": close + 1, "Low": close - 1, "Close": close, "Adj Close": close / 2, "Volume": 1000.0},
        index,
    )


def minutes(sessions: int = 3) -> pd.DataFrame:
    """Five-minute bars of the last whole days before today."""
    days = pd.bdate_range(end=pd.Timestamp.now(NEW_YORK).normalize() - pd.Timedelta("1D"), periods=sessions)
    index = pd.DatetimeIndex(
        [t for day in days for t in pd.date_range(day + pd.Timedelta("9h30min"), periods=78, freq="5min")]
    )
    close = 50 + np.arange(len(index)) / 100
    return pd.DataFrame({"Open": close, "High": close, "Low": close, "Close": close, "Volume": 7.0}, index)


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Yahoo]:
    server = Yahoo()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    server.charts[("AAPL", "1d")] = daily()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Send yfinance to this address, without cookies and without what it keeps of earlier answers."""
    import yfinance.base
    import yfinance.cache
    import yfinance.scrapers.history
    import yfinance.scrapers.quote
    from yfinance.data import YfData

    class NoTimeZones:
        def lookup(self, ticker: str) -> None: ...
        def store(self, ticker: str, zone: str) -> None: ...

    for module in (yfinance.base, yfinance.scrapers.history, yfinance.scrapers.quote):
        monkeypatch.setattr(module, "_BASE_URL_", url)
    monkeypatch.setattr(yfinance.scrapers.quote, "_QUERY1_URL_", url)
    monkeypatch.setattr(yfinance.base, "_tz_info_fetch_ctr", 0)
    monkeypatch.setattr(yfinance.cache, "get_tz_cache", NoTimeZones)
    monkeypatch.setattr(YfData, "_get_cookie_and_crumb", lambda *_: ("crumb", "basic"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    YfData.cache_get.cache_clear()
    monkeypatch.setattr(download, "RETRY_SECONDS", (0.01, 0.01, 0.01))


# What comes


def test_days_are_cached_with_their_record_and_used_again(yahoo: Yahoo, tmp_path: Path) -> None:
    frame = daily()
    frame.iloc[3] = np.nan
    yahoo.charts[("AAPL", "1d")] = frame
    config = DataConfig(cache_dir=tmp_path / "cache")
    first, reports = load_stocks("aapl", config)
    asked = len(yahoo.requests)
    again, _ = load_stocks("AAPL", config)
    assert len(yahoo.requests) == asked
    pd.testing.assert_frame_equal(first["AAPL"], again["AAPL"])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["AAPL.parquet"]
    report = reports["AAPL"]
    assert (report.layout, report.interval, report.dividends, report.splits) == ("yfinance", "1d", 1, 1)
    assert first["AAPL"]["close"].iloc[:4].tolist() == [150.0, 150.125, 150.25, 150.5]
    assert first["AAPL"]["high"].iloc[0] == 150.5
    assert first["AAPL"].index.equals(pd.bdate_range(end="2020-06-30", periods=130).delete(3))
    record = read_record(tmp_path / "cache/AAPL.parquet")
    assert record is not None
    assert (record.ticker, record.interval, len(record.sha256)) == ("AAPL", "1d", 64)
    assert record.source.startswith("Yahoo through yfinance 1.")
    assert record.request == "period=max, interval=1d, auto_adjust=False"
    assert timedelta(0) <= record.age < timedelta(minutes=5)


def test_minutes_are_cached_in_utc_under_their_interval(yahoo: Yahoo, tmp_path: Path) -> None:
    yahoo.charts[("AAPL", "5m")] = minutes()
    path = cached_bars("AAPL", tmp_path, interval="5m")
    assert path.name == "AAPL_5m.parquet"
    bars, report = read_bars(path)
    assert bars.index.equals(minutes().index.tz_convert("UTC").tz_localize(None).rename("date"))
    assert bars["close"].tolist() == minutes()["Close"].tolist()
    assert (report.interval, report.time_zone, report.gaps) == ("5min", "utc", 0)
    named, _ = load_stocks("AAPL_5m", DataConfig(data_dir=tmp_path))
    pd.testing.assert_frame_equal(named["AAPL_5m"], bars)


def test_bars_that_are_not_over_are_left_out(yahoo: Yahoo) -> None:
    now = pd.Timestamp.now(NEW_YORK)
    yahoo.charts[("AAPL", "1d")] = daily().set_axis(pd.date_range(end=now.normalize(), periods=130, freq="D"))
    assert fetch("AAPL", "1d").index[-1] == now.tz_localize(None).normalize() - pd.Timedelta("1D")
    running = minutes(1)
    running.index = pd.date_range(end=now.floor("5min"), periods=len(running), freq="5min")
    assert (fetch_minutes(yahoo, running).index + pd.Timedelta("5min") <= pd.Timestamp.now("UTC")).all()


def fetch_minutes(yahoo: Yahoo, frame: pd.DataFrame) -> pd.DataFrame:
    yahoo.charts[("AAPL", "5m")] = frame
    return download._finished_bars(frame.assign(**{"Adj Close": 1.0, "Dividends": 0, "Stock Splits": 0}), "AAPL", "5m")


# What fails


@pytest.mark.parametrize("failures", [[500], [429, 429], [503, 503, 503]])
def test_passing_failures_are_tried_again(yahoo: Yahoo, failures: list[int]) -> None:
    yahoo.failures["AAPL"] = failures
    assert len(fetch("AAPL", "1d")) == 130


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (429, UnreachableError, "Yahoo answers that there are too many requests (rate limit); wait some minutes"),
        (500, DownloadError, "Yahoo's answer makes no sense ("),
    ],
)
def test_lasting_failures_are_named(yahoo: Yahoo, status: int, kind: type[DownloadError], message: str) -> None:
    yahoo.failures["AAPL"] = [status] * 50
    with pytest.raises(kind) as error:
        fetch("AAPL", "1d")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_tickers_are_not_tried_again(yahoo: Yahoo) -> None:
    for _ in range(3):  # the first two are asked for in a second place
        with pytest.raises(DownloadError, match="the download of QQQQ failed: Yahoo has no 1d bars of it") as error:
            fetch("QQQQ", "1d")
        assert not isinstance(error.value, UnreachableError)
    assert yahoo.requests.count(("QQQQ", "1d")) <= 6


def test_a_ticker_without_a_finished_bar_is_unknown(yahoo: Yahoo) -> None:
    today = pd.DatetimeIndex([pd.Timestamp.now(NEW_YORK).normalize()])
    yahoo.charts[("AAPL", "1d")] = daily(rows=1).set_axis(today)
    with pytest.raises(DownloadError, match=r"no 1d bars of it \(the answer holds no bar that is over\)"):
        fetch("AAPL", "1d")


def test_without_a_network_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9")
    assert main(["download", "--stock", "AAPL,MSFT", "--cache-dir", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert first.startswith("error: the download of AAPL failed: Yahoo cannot be reached (Failed to perform, curl: (7)")
    assert first.endswith("check the network, or give a folder that holds AAPL.csv with --data-dir.")
    assert second == "error: failed: AAPL; not tried: MSFT"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stock", "message"), [("all", "name the folder with --data-dir"), ("a/b", "not a ticker")])
def test_names_that_cannot_be_downloaded(tmp_path: Path, stock: str, message: str) -> None:
    with pytest.raises(MarketDataError, match=message):
        load_stocks(stock, DataConfig(cache_dir=tmp_path))


# The cache


def cached(path: Path, close: float = 1.0, downloaded: datetime | None = None) -> Path:
    """A cache file of three days."""
    index = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03"])
    frame = pd.DataFrame({name: np.full(3, close) for name in download.COLUMNS}, index)
    when = (downloaded or datetime.now(UTC)).isoformat(timespec="seconds")
    write_cache(
        path, frame, CacheRecord(ticker="AAPL", interval="1d", source="a test", request="", downloaded=when, rows=3)
    )
    return path


def test_the_checksum_is_over_every_value_and_the_record(tmp_path: Path) -> None:
    table = pq.read_table(cached(tmp_path / "AAPL.parquet"))
    record = read_record(tmp_path / "AAPL.parquet")
    assert record is not None
    assert content_hash(table, record) == record.sha256
    hashes = {record.sha256}
    for position, name in enumerate(table.column_names):
        for row in range(3):
            values = table.column(name).to_numpy().copy()
            values[row] += np.timedelta64(1, "ns") if name == "Date" else 1e-15
            hashes.add(content_hash(table.set_column(position, table.field(name), [values]), record))
    hashes.add(content_hash(table.rename_columns(["Time", *table.column_names[1:]]), record))
    hashes.add(content_hash(table, CacheRecord(**{**vars(record), "ticker": "MSFT"})))
    assert len(hashes) == 1 + 9 * 3 + 2


def test_edited_and_damaged_files_are_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cached(tmp_path / "AAPL.parquet")
    whole = path.read_bytes()
    table = pq.read_table(path)
    edited = table.set_column(table.column_names.index("Close"), "Close", [np.array([1.0, 1.0, 1.1])])
    pq.write_table(edited, path)
    way_out = f"download --stock AAPL --cache-dir {tmp_path} --refresh"
    with pytest.raises(MarketDataError, match="does not match its checksum: it is damaged or was edited") as error:
        read_bars(path)
    assert str(error.value).endswith(way_out)
    assert main(["list", "--cache-dir", str(tmp_path)]) == 1
    assert "does not match its checksum" in capsys.readouterr().err
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MarketDataError, match="cannot be read as parquet") as error:
        load_stocks("AAPL", DataConfig(cache_dir=tmp_path))
    assert str(error.value).endswith(way_out)
    pd.DataFrame({"Close": [1.0]}).to_parquet(path)
    with pytest.raises(MarketDataError, match="does not say where it came from"):
        load_stocks("AAPL", DataConfig(cache_dir=tmp_path))


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = cached(tmp_path / "AAPL.parquet")
    whole, (bars, report) = path.read_bytes(), read_bars(path)
    noticed = 0
    for position in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            again, _ = read_bars(path)
        except MarketDataError:
            noticed += 1
        else:
            pd.testing.assert_frame_equal(again, bars)
    assert noticed > len(whole) / 23 / 2
    assert report.rows == 3


def test_refresh_and_age_decide_what_is_downloaded_anew(yahoo: Yahoo, tmp_path: Path) -> None:
    path = cached(tmp_path / "AAPL.parquet", downloaded=datetime.now(UTC) - timedelta(days=3))
    assert cached_bars("AAPL", tmp_path) == path
    assert cached_bars("AAPL", tmp_path, max_age_days=4) == path
    assert yahoo.requests == []
    cached_bars("AAPL", tmp_path, max_age_days=2)
    assert read_bars(path)[1].rows == 130
    cached(path)
    cached_bars("AAPL", tmp_path, refresh=True)
    assert read_bars(path)[1].rows == 130


def test_a_failed_refresh_leaves_what_was_cached(yahoo: Yahoo, tmp_path: Path) -> None:
    before = cached(tmp_path / "AAPL.parquet").read_bytes()
    yahoo.failures["AAPL"] = [500] * 50
    with pytest.raises(DownloadError):
        cached_bars("AAPL", tmp_path, refresh=True)
    assert (tmp_path / "AAPL.parquet").read_bytes() == before


# Commands


def test_the_command_keeps_what_worked_and_names_what_failed(
    yahoo: Yahoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yahoo.charts[("MSFT", "1d")] = daily()
    flags = ["--cache-dir", str(tmp_path), "--start", "2020-06-01", "--end", "2020-06-30"]
    assert main(["download", "--stock", "AAPL,QQQQ,MSFT", *flags]) == 1
    shown = capsys.readouterr()
    said = "22 rows, 2020-06-01 to 2020-06-30, 1d bars, yfinance"
    assert shown.out.splitlines() == [f"{name}: {said}; {tmp_path}/{name}.parquet" for name in ("AAPL", "MSFT")]
    assert shown.err.splitlines()[-1] == "error: failed: QQQQ"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["AAPL.parquet", "MSFT.parquet"]
    asked = len(yahoo.requests)
    assert main(["download", "--stock", "AAPL", *flags]) == 0
    assert len(yahoo.requests) == asked
    assert main(["download", "--stock", "AAPL", *flags, "--refresh"]) == 0
    assert len(yahoo.requests) > asked
    assert main(["download", "--stock", "AAPL", "--cache-dir", str(tmp_path), "--start", "2021-01-01"]) == 1
    assert (
        "AAPL.parquet has no bars between start and end; its history goes from 2020-01-01 to" in capsys.readouterr().err
    )


def test_list_shows_what_is_cached(yahoo: Yahoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"nothing is cached in {tmp_path}\n"
    path = cached_bars("AAPL", tmp_path)
    assert main(["list", "--cache-dir", str(tmp_path)]) == 0
    line = capsys.readouterr().out
    record = read_record(path)
    assert record is not None
    assert line.startswith(
        "AAPL: 130 rows, 2020-01-01 to 2020-06-30, 1d bars, yfinance; events: dividends 1, splits 1; Yah"
    )
    assert f"{record.downloaded}, sha256 {record.sha256[:12]}; {path}\n" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stock", "AAPL", "--start", "01/02/2020"], "start must be a day as YYYY-MM-DD"),
        (["--stock", "AAPL", "--max-age-days", "-1"], "max_age_days must be 0 or more; got -1.0"),
        (["--stock", "AAPL", "--interval", "7m"], "interval"),
        ([], "stock"),
    ],
)
def test_wrong_flags_are_usage_errors(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["download", *flags])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
