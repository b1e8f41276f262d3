"""Layouts of files of bars: each kind is read, or refused with the one change that mends it."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from preprocessing.bars import MarketDataError
from preprocessing.market_data import read_bars
from preprocessing.reading.csv_files import looks_like_bars
from tests.preprocessing.bar_files import HEADER, PLAIN, write

DAY = pd.Timestamp("2020-01-02")


@pytest.mark.parametrize(
    ("lines", "layout", "names"),
    [
        ((HEADER, "2020-01-02,11,13,10,12,6,200"), "yahoo", "yahoo"),
        (("volume,ADJ_CLOSE,close,low,high,open,date", "200,6,12,10,13,11,2020-01-02"), "yahoo", "any order"),
        (("Date,Open,High,Low,Close,AdjClose,Volume", "2020/01/02,11,13,10,12,6,200"), "yahoo", "AdjClose"),
        (("Date;Open;High;Low;Close;Adj Close;Volume", "20200102;11;13;10;12;6;200"), "yahoo", "semicolons"),
        (("Date\tOpen\tHigh\tLow\tClose\tAdj Close\tVolume", "2020-01-02\t11\t13\t10\t12\t6\t200"), "yahoo", "tabs"),
        (
            (
                "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits,Capital Gains",
                "2020-01-02 00:00:00-05:00,11,13,10,12,6,200,0.0,0.0,0.0",
            ),
            "yfinance",
            "auto_adjust=False",
        ),
        (
            (
                "Price,Adj Close,Close,High,Low,Open,Volume",
                "Ticker,AAPL,AAPL,AAPL,AAPL,AAPL,AAPL",
                "Date,,,,,,",
                "2020-01-02,6,12,13,10,11,200",
            ),
            "yfinance",
            "three header lines",
        ),
    ],
)
def test_layouts_of_adjusted_bars(tmp_path: Path, lines: tuple[str, ...], layout: str, names: str) -> None:
    bars, report = read_bars(write(tmp_path / "A.csv", *lines))
    assert (report.layout, report.time_zone) == (layout, None), names
    assert bars.index.tolist() == [DAY]
    assert bars.iloc[0].tolist() == [5.5, 6.5, 5.0, 6.0, 200.0]


@pytest.mark.parametrize(
    ("lines", "layout"),
    [
        ((PLAIN, "2020-01-02,11,13,10,12,200"), "plain"),
        (("<DATE>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>", "20200102;11;13;10;12;200"), "plain"),
        (
            (
                "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
                "AAPL.US,D,20200102,000000,11,13,10,12,200,0",
            ),
            "stooq",
        ),
        (
            (
                "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits",
                "2020-01-02 00:00:00-05:00,11,13,10,12,200,0.0,0.0",
            ),
            "yfinance",
        ),
    ],
)
def test_layouts_without_an_adjusted_close(tmp_path: Path, lines: tuple[str, ...], layout: str) -> None:
    bars, report = read_bars(write(tmp_path / "A.csv", *lines))
    assert (report.layout, report.time_zone) == (layout, None)
    assert bars.index.tolist() == [DAY]
    assert bars.iloc[0].tolist() == [11, 13, 10, 12, 200]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("2020-01-02\t0.01\t0.02\t0.03\t-0.01\t0.01\t200",), "StockNet's price/preprocessed: its numbers are move"),
        (("2020-01-02,11,13,10,12,6,200",), "line 1 holds data where the names of the columns should stand; put Date,"),
        (("Date,Open,High,Low,Close,Adj Close,Adj_Close,Volume",), "A.csv names the column Adj Close twice"),
        (
            ("Price,Close,Close", "Ticker,AAPL,MSFT", "Date,,", "2020-01-02,1,2"),
            "holds several tickers (AAPL, MSFT); name one of them as the stock",
        ),
        (
            (
                "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
                "A.US,D,20200102,000000,11,13,10,12,200,0",
                "B.US,D,20200102,000000,11,13,10,12,200,0",
            ),
            "holds several tickers (A.US, B.US)",
        ),
        (("<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>", "20200102,x,1,1,1,1"), "line 2, column <OPEN>: 'x' is not a nu"),
    ],
)
def test_layouts_that_are_refused(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(MarketDataError) as error:
        read_bars(write(tmp_path / "A.csv", *lines))
    assert message in str(error.value)


def test_text_files_that_are_no_bars_are_told_apart(tmp_path: Path) -> None:
    assert looks_like_bars(write(tmp_path / "a.us.txt", "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>"))
    assert looks_like_bars(write(tmp_path / "A.txt", "2020-01-02\t0.01\t0.02\t0.03\t-0.01\t0.01\t200"))
    assert not looks_like_bars(write(tmp_path / "README.txt", "Daily prices, collected by the date of trade"))
    assert not looks_like_bars(tmp_path / "nowhere.txt")


# The table of the README

README = Path(__file__).parents[2] / "preprocessing" / "README.md"
SECTION = README.read_text().partition("## Files of bars that are read")[2].partition("\n## ")[0]
KINDS = [
    [cell.strip("` ") for cell in re.split(r"(?<!`)\|(?!`)", line)[1:4]]
    for line in SECTION.splitlines()
    if "` |" in line
]
KINDS = [kind for kind in KINDS if len(kind) == 3 and kind[2]]


def test_the_table_of_the_readme_is_found() -> None:
    assert len(KINDS) == 19


@pytest.mark.parametrize(("kind", "header", "row"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_every_layout_of_the_readme_is_read(tmp_path: Path, kind: str, header: str, row: str) -> None:
    bars, report = read_bars(write(tmp_path / "A.csv", header, row))
    assert bars["close"].tolist() == [120.5]
    assert str(bars.index[0])[:10] == "2022-01-13"
    assert report.unread_columns == ()
