"""Only what is used is checked: rows outside start and end, zero opens, stocks that are refused, several in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.bars import MarketDataError
from preprocessing.combined_preprocessor import notices, preprocess
from preprocessing.config import BarRules, DataConfig
from preprocessing.download import CacheRecord, write_cache
from preprocessing.market_data import TooFewRowsError, load_stocks, locate_stocks, main, read_bars
from tests.preprocessing.bar_files import PLAIN, write

DAYS = pd.bdate_range("2020-01-01", periods=300)
CLOSE = 100 + np.cumsum(np.sin(np.arange(300.0)))
LATER = "2020-03-02"
FIRST = int(np.searchsorted(DAYS, pd.Timestamp(LATER)))


def rows(name: str = "") -> list[str]:
    ticker = f",{name}" if name else ""
    return [f"{day:%Y-%m-%d},{c},{c + 1},{c - 1},{c},5{ticker}" for day, c in zip(DAYS, CLOSE, strict=True)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: row.replace(",5", ",x"),
        lambda row: ",".join([row[:10], "-37.63", "-30", "-40", "-37.63", "5"]),
        lambda row: ",".join([row[:10], "1", "1", "1", "abc", "5"]),
        lambda row: row + ",1,2",
        lambda row: row[:14],
        lambda row: ",".join([row[:10], "10", "9", "12", "10", "5"]),
        lambda row: ",".join([row[:10], "1e9", "1e9", "1e9", "1e9", "5"]),
        lambda row: row + "\n" + row.replace(",5", ",6"),
    ],
    ids=["volume", "negative", "text", "long", "cut", "range", "jump", "twice"],
)
def test_rows_outside_start_and_end_never_stop_a_run(tmp_path: Path, spoil: object) -> None:
    clean = read_bars(write(tmp_path / "A.csv", PLAIN, *rows()), BarRules(start=LATER))[0]
    spoiled = rows()
    spoiled[3] = spoil(spoiled[3])  # type: ignore[operator]
    path = write(tmp_path / "A.csv", PLAIN, *spoiled)
    with pytest.raises(MarketDataError):
        read_bars(path, BarRules(outliers="refuse"))
    bars, report = read_bars(path, BarRules(start=LATER, outliers="refuse"))
    pd.testing.assert_frame_equal(bars, clean)
    assert (report.first_date, report.rows) == (LATER, 300 - FIRST)
    before = read_bars(path, BarRules(end="2020-01-03", outliers="refuse"))[0]
    assert len(before) == 3


def test_counts_are_of_the_rows_that_are_used(tmp_path: Path) -> None:
    spoiled = [row.replace(",5", ",0") if number < 10 else row for number, row in enumerate(rows())]
    path = write(tmp_path / "A.csv", PLAIN, *spoiled)
    assert read_bars(path)[1].zero_volume_rows == 10
    assert read_bars(path, BarRules(start=str(DAYS[6])[:10]))[1].zero_volume_rows == 4


def test_no_bars_between_start_and_end(tmp_path: Path) -> None:
    write(tmp_path / "A.csv", PLAIN, *rows())
    with pytest.raises(TooFewRowsError, match=r"A\.csv has no bars between start and end; its history goes from 2020-"):
        load_stocks("A", DataConfig(data_dir=tmp_path, start="2030-01-01"))


def test_a_zero_open_is_the_last_close_within_the_range(tmp_path: Path) -> None:
    path = write(
        tmp_path / "A.csv", PLAIN, "2020-01-01,0,12,9,11,1", "2020-01-02,0,13,10,12,1", "2020-01-03,0,15,13,14,1",
        "2020-01-06,14,15,13,14,1",
    )  # fmt: skip
    bars, report = read_bars(path)
    # the first has no close before it; 11 lies in 10..13; 12 lies below 13..15
    assert bars["open"].tolist() == [11, 11, 13, 14]
    assert report.missing_opens == 3


def test_a_zero_range_is_the_close(tmp_path: Path) -> None:
    bars, report = read_bars(write(tmp_path / "A.csv", PLAIN, "2020-01-01,0,0,0,11,1", "2020-01-02,10,12,9,11,1"))
    assert bars.iloc[0].tolist() == [11, 11, 11, 11, 1]
    assert (report.missing_ranges, report.missing_opens) == (1, 0)


def cached(path: Path, low: float) -> None:
    frame = pd.DataFrame({"Open": CLOSE, "High": CLOSE, "Low": CLOSE, "Close": CLOSE, "Adj Close": CLOSE}, index=DAYS)
    frame = frame.assign(Volume=1.0, Dividends=0.0, **{"Stock Splits": 0.0})
    frame.iloc[3, 2] = low
    record = CacheRecord(
        ticker="A", interval="1d", source="", request="", downloaded="2026-01-01T00:00:00+00:00", rows=300
    )
    write_cache(path, frame, record)


def test_a_cached_row_that_is_refused_has_a_way_out_that_works(tmp_path: Path) -> None:
    cached(tmp_path / "A.parquet", -40.0)
    with pytest.raises(MarketDataError) as error:
        load_stocks("A", DataConfig(cache_dir=tmp_path))
    assert str(error.value).endswith(
        "row 4, column Low: '-40' is not a positive price; choose data.start and data.end without it: a cached "
        "download cannot be edited."
    )
    assert len(load_stocks("A", DataConfig(cache_dir=tmp_path, start=LATER))[0]["A"]) == 300 - FIRST


def test_one_bad_stock_stops_all_or_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path / "GOOD.csv", PLAIN, *rows())
    write(tmp_path / "BAD.csv", PLAIN, *rows()[:-1], "2021-02-23,x,1,1,1,1")
    with pytest.raises(MarketDataError, match=r"BAD\.csv: line 301, column Open: 'x' is not a number"):
        preprocess("all", DataConfig(data_dir=tmp_path), tmp_path / "out")
    report = preprocess("all", DataConfig(data_dir=tmp_path, on_bad_stock="skip"), tmp_path / "out")
    assert report["windows"]["test"] > 0
    assert [line.partition("BAD.csv")[2] for line in notices(report)] == [
        ": line 301, column Open: 'x' is not a number; correct or delete the line."
    ]
    with pytest.raises(TooFewRowsError, match="'x' is not a number"):
        load_stocks("BAD", DataConfig(data_dir=tmp_path, on_bad_stock="skip"))


@pytest.mark.parametrize("name", ["Ticker", "Symbol", "unique_id", "Name", "tic"])
@pytest.mark.parametrize("sorted_by_day", [True, False])
def test_several_tickers_in_one_file_are_several_stocks(tmp_path: Path, name: str, sorted_by_day: bool) -> None:
    every = rows("MSFT") + rows("AAPL") + rows("KO")
    write(tmp_path / "prices.csv", f"{PLAIN},{name}", *(sorted(every) if sorted_by_day else every))
    write(tmp_path / "IBM.csv", PLAIN, *rows())
    config = DataConfig(data_dir=tmp_path)
    assert list(locate_stocks("all", config)) == ["IBM", "AAPL", "KO", "MSFT"]
    bars, _ = load_stocks("ko,IBM", config)
    pd.testing.assert_frame_equal(bars["KO"], bars["IBM"])
    with pytest.raises(MarketDataError, match=r"holds several tickers \(AAPL, KO, MSFT\); name one of them"):
        read_bars(tmp_path / "prices.csv")
    write(tmp_path / "KO.csv", PLAIN, *rows())
    with pytest.raises(MarketDataError, match=r"KO\.csv and .*prices\.csv are both for KO; keep one of them"):
        locate_stocks("all", config)


def test_a_bad_row_of_one_ticker_is_not_of_the_others(tmp_path: Path) -> None:
    write(tmp_path / "prices.csv", f"{PLAIN},Ticker", *rows("AAPL"), *rows("KO")[:-1], "2021-02-23,x,1,1,1,1,KO")
    config = DataConfig(data_dir=tmp_path)
    assert len(load_stocks("AAPL", config)[0]["AAPL"]) == 300
    with pytest.raises(MarketDataError, match=r"prices\.csv: line 601, column Open: 'x' is not a number"):
        load_stocks("KO", config)


def test_several_tickers_of_yfinance_are_several_stocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [f"{day:%Y-%m-%d},{c},{2 * c},{c},{2 * c}" for day, c in zip(DAYS, CLOSE, strict=True)]
    write(tmp_path / "two.csv", "Price,Close,Close,Open,Open", "Ticker,A,B,A,B", "Date,,,,", *cells)
    assert main(["check", "--data-dir", str(tmp_path)]) == 0
    assert [line.partition(" rows")[0] for line in capsys.readouterr().out.splitlines()] == ["A: 300", "B: 300"]


def test_rows_without_a_ticker_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "prices.csv", f"{PLAIN},Ticker", *rows("AAPL"), *rows("KO")[:-1], "2021-02-23,1,1,1,1,1,")
    with pytest.raises(MarketDataError, match="line 601, column Ticker: there is no ticker"):
        read_bars(tmp_path / "prices.csv")
