"""The kinds of files that people have: one series, written in every way, is read as the same bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.bars import BarsReport, MarketDataError
from preprocessing.market_data import main, read_bars
from tests.preprocessing.bar_files import write

DAYS = pd.bdate_range("2022-01-03", periods=40)
CLOSE = np.round(100 + np.cumsum(np.sin(np.arange(40.0))), 4)
OPEN = np.round(CLOSE - 0.25, 4)
HIGH = np.round(CLOSE + 0.5, 4)
LOW = np.round(OPEN - 0.375, 4)
VOLUME = 7000 + 13 * np.arange(40)
ADJUSTED = np.round(CLOSE * np.where(np.arange(40) < 20, 0.9, 1.0), 4)


def texts(number: Callable[[float], str] = str) -> list[list[str]]:
    """Rows of open, high, low, close and volume."""
    rows = zip(OPEN, HIGH, LOW, CLOSE, strict=True)
    return [[*map(number, map(float, row)), str(volume)] for row, volume in zip(rows, VOLUME, strict=True)]


def lines(header: str, day: str, mark: str = ",", number: Callable[[float], str] = str) -> list[str]:
    rows = [mark.join([f"{date:{day}}", *cells]) for date, cells in zip(DAYS, texts(number), strict=True)]
    return [header, *rows]


def assert_read(path: Path, *, factor: float = 1.0, volume: bool = True) -> BarsReport:
    bars, report = read_bars(path)
    assert bars.index.equals(pd.DatetimeIndex(DAYS)), report
    for name, expected in (("open", OPEN), ("high", HIGH), ("low", LOW), ("close", CLOSE)):
        np.testing.assert_array_equal(bars[name], np.round(expected * factor, 4), err_msg=name)
    np.testing.assert_array_equal(bars["volume"], VOLUME if volume else 0)
    assert (report.interval, report.rows, report.unread_columns) == ("1d", 40, ())
    return report


PLAIN = "Date,Open,High,Low,Close,Volume"


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "header",
    [
        PLAIN,
        "date,open,high,low,close,volume",
        "timestamp,open,high,low,close,volume",  # Alpha Vantage
        "timestamps,open,high,low,close,volume",  # Kronos
        "time,open,high,low,close,Volume",  # TradingView
        "timestamp,1. open,2. high,3. low,4. close,5. volume",
        "Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen",  # Stooq
        "Data,Otwarcie,Najwyższy,Najniższy,Zamknięcie,Wolumen",
        "Datum,Eröffnung,Hoch,Tief,Schluss,Volumen",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        " DATE , OPEN_PRICE , HIGH_PRICE , LOW_PRICE , CLOSE_PRICE , VOLUME ",
        "trade_date,open,high,low,close,vol",  # Tushare
        "日期,开盘,最高,最低,收盘,成交量",
        "Date,Open,High,Low,Close/Last,Volume",
        "t,o,h,l,c,v",
        ",Open,High,Low,Close,Volume",  # pandas' index without a name
        "Unnamed: 0,Open,High,Low,Close,Volume",
        "ds,Open,High,Low,y,Volume",
        "Date,Open,High,Low,Settle,Volume",
    ],
)
def test_names_of_columns(tmp_path: Path, header: str, mark: str) -> None:
    assert_read(write(tmp_path / "A.csv", *lines(header.replace(",", mark), "%Y-%m-%d", mark)))


@pytest.mark.parametrize(
    "spelling",
    [
        "Adj Close", "Adj. Close", "Adj_Close", "AdjClose", "adjclose", "adj_close", "Adjusted_close", "Adjusted Close",
        "adjusted close", "AdjustedClose", "ADJ CLOSE", "Adj Close*", "Adj Close**", "5. adjusted close", "close_adj",
        "Close Adjusted", "Close (adjusted)", "closeadj", "adj_cls", "Adj Price", "adjC", "AdjustedClosePrice",
        "Close_Adj", "Adjusted Price", "adj-close", "Adj.Close", "Adjusted Last",
    ],
)  # fmt: skip
def test_spellings_of_the_adjusted_close(tmp_path: Path, spelling: str) -> None:
    plain = lines(PLAIN, "%Y-%m-%d")
    rows = [f"{row},{adjusted}" for row, adjusted in zip(plain[1:], ADJUSTED, strict=True)]
    bars, report = read_bars(write(tmp_path / "A.csv", f"{PLAIN},{spelling}", *rows))
    np.testing.assert_array_equal(bars["close"], ADJUSTED)
    assert (report.dividends, report.unread_columns) == (1, ())


@pytest.mark.parametrize("name", ["adj_factor", "Split multiplier", "Adjustment", "cfacpr", "Dividend yield factor"])
def test_columns_that_may_change_the_meaning_are_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "A.csv", f"{PLAIN},{name}", *[f"{line},1.5" for line in lines(PLAIN, "%Y-%m-%d")[1:]])
    assert read_bars(tmp_path / "A.csv")[1].unread_columns == (name,)
    assert main(["check", "--data-dir", str(tmp_path)]) == 0
    assert f"columns not understood, which may change what prices mean: {name}" in capsys.readouterr().out


def test_adjusted_parts_beside_the_adjusted_close_are_no_riddle(tmp_path: Path) -> None:
    # Tiingo and Quandl give all of them
    header = "date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor"
    rows = [
        f"{day:%Y-%m-%d},{c},{h},{lo},{o},{v},{a},{h},{lo},{o},{v},0.0,1.0"
        for day, c, h, lo, o, v, a in zip(DAYS, CLOSE, HIGH, LOW, OPEN, VOLUME, ADJUSTED, strict=True)
    ]
    bars, report = read_bars(write(tmp_path / "A.csv", header, *rows))
    np.testing.assert_array_equal(bars["close"], ADJUSTED)
    assert report.unread_columns == ()


@pytest.mark.parametrize(
    "day",
    ["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y",
     "%d-%b-%Y", "%d %B %Y", "%Y-%m-%d 00:00:00", "%Y-%m-%dT00:00:00Z", "%Y-%m-%d 00:00:00-05:00", "%Y.%m.%d 00:00",
     "%d.%m.%Y 00:00:00.000", "%m/%d/%Y 12:00:00 AM", "%Y-%m-%d 16:00:00", "%d/%m/%Y 16:00"],
)  # fmt: skip
@pytest.mark.parametrize("newest_first", [False, True])
def test_ways_to_write_a_day(tmp_path: Path, day: str, newest_first: bool) -> None:
    header, *rows = lines(PLAIN, day)
    report = assert_read(write(tmp_path / "A.csv", header, *(rows[::-1] if newest_first else rows)))
    assert report.unsorted_rows == (39 if newest_first else 0)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("ending", ["", ".0"])
def test_days_as_numbers_since_1970(tmp_path: Path, unit: str, ending: str) -> None:
    numbers = DAYS.to_numpy(f"datetime64[{unit}]").astype(np.int64)
    rows = [",".join([f"{number}{ending}", *cells]) for number, cells in zip(numbers, texts(), strict=True)]
    assert_read(write(tmp_path / "A.csv", PLAIN.replace("Date", "unix"), *rows))


@pytest.mark.parametrize("first", [0, 1, 44564, 1000])
def test_row_numbers_are_no_days(tmp_path: Path, first: int) -> None:
    rows = [",".join([str(first + row), *cells]) for row, cells in enumerate(texts())]
    for header in (PLAIN, PLAIN.replace("Date", "")):
        with pytest.raises(MarketDataError, match="is a number that is no time: neither YYYYMMDD nor seconds, ms"):
            read_bars(write(tmp_path / "A.csv", header, *rows))


def test_day_and_month_are_told_by_the_order_of_the_rows(tmp_path: Path) -> None:
    days = ["11/01/2022", "12/01/2022", "01/02/2022"]  # as months first, they would go back
    path = write(tmp_path / "A.csv", "Date,Close", *[f"{day},{10 + row}" for row, day in enumerate(days)])
    assert [f"{day:%m-%d}" for day in read_bars(path)[0].index] == ["01-11", "01-12", "02-01"]


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (["03/01/2022", "04/01/2022"], "does not say which number is the month; write all dates as YYYY-MM-DD"),
        (["13/01/2022", "01/14/2022"], "in some dates the first number is above 12, in others the second"),
        (["3/1/22", "4/1/22"], "does not say which number is the month and which the year"),
    ],
)
def test_days_in_doubt_are_refused(tmp_path: Path, days: list[str], message: str) -> None:
    with pytest.raises(MarketDataError) as error:
        read_bars(write(tmp_path / "A.csv", "Date,Close", *[f"{day},{10 + row}" for row, day in enumerate(days)]))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("day", "clock"),
    [
        ("%Y%m%d", "%H%M"),
        ("%Y%m%d", "%H%M%S"),
        ("%Y-%m-%d", "%H:%M"),
        ("%Y-%m-%d", "%H:%M:%S"),
        ("%Y.%m.%d", "%H:%M"),
        ("%Y-%m-%d", "%-H:%M"),
        ("%Y%m%d", "%-H%M"),
        ("%Y%m%d", "%-H%M%S"),
        ("%m/%d/%Y", "%I:%M %p"),
        ("%d.%m.%Y", "%H:%M:%S.000"),
        ("%Y-%m-%d 00:00:00", "%H:%M"),
    ],
)
@pytest.mark.parametrize("names", ["Date,Time", "<DATE>,<TIME>", "date,hour", "Datum,Uhrzeit", "Data,Czas"])
def test_date_and_time_in_two_columns(tmp_path: Path, day: str, clock: str, names: str) -> None:
    times = [date + pd.Timedelta(minutes=5 * step) for date in DAYS[:20] for step in range(114, 130)]  # 09:30 on
    rows = [f"{time:{day}},{time:{clock}},{100 + row % 3}" for row, time in enumerate(times)]
    bars, report = read_bars(write(tmp_path / "A.csv", f"{names},Close", *rows))
    assert bars.index.equals(pd.DatetimeIndex(times))
    assert (report.interval, report.time_zone) == ("5min", "as given")


@pytest.mark.parametrize("clock", ["%H%M", "%-H%M", "%H%M%S", "%-H%M%S"])
def test_times_of_the_whole_day_in_digits(tmp_path: Path, clock: str) -> None:
    times = pd.date_range("2024-01-02", periods=48, freq="30min")
    cells = [f"{time:{clock}}".lstrip("0") if "-" in clock else f"{time:{clock}}" for time in times]
    rows = [f"{t:%Y%m%d},{cell or 0},{100 + row % 3}" for row, (t, cell) in enumerate(zip(times, cells, strict=True))]
    assert read_bars(write(tmp_path / "A.csv", "Date,Time,Close", *rows))[0].index.equals(times)


def european(number: float) -> str:
    return f"{number:,.4f}".replace(",", " ").replace(".", ",").replace(" ", ".")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("scale", [1, 1000])
def test_decimal_commas(tmp_path: Path, mark: str, scale: int) -> None:
    header = PLAIN.replace(",", mark)
    path = write(tmp_path / "A.csv", *lines(header, "%d.%m.%Y", mark, lambda number: european(scale * number)))
    assert_read(path, factor=scale)


def test_decimal_commas_in_quotes(tmp_path: Path) -> None:
    assert_read(write(tmp_path / "A.csv", *lines(PLAIN, "%Y-%m-%d", ",", lambda n: f'"{n}"'.replace(".", ","))))


@pytest.mark.parametrize("thousands", [",", " ", "'", "’", "\u00a0", "\u202f"])
def test_thousands(tmp_path: Path, thousands: str) -> None:
    def number(value: float) -> str:
        return '"' + f"{100 * value:,.2f}".replace(",", thousands) + '"'

    assert_read(write(tmp_path / "A.csv", *lines(PLAIN, "%Y-%m-%d", ",", number)), factor=100)


@pytest.mark.parametrize("sign", ["$", "€ ", "£"])
def test_signs_of_currencies(tmp_path: Path, sign: str) -> None:
    assert_read(write(tmp_path / "A.csv", *lines(PLAIN, "%Y-%m-%d", ",", lambda number: f"{sign}{number}")))


def test_volumes_in_millions_and_prices_called_price(tmp_path: Path) -> None:
    rows = [
        '"Jan 03, 2022","1,050.25","1,040.00","1,060.00","1,030.00","1.25M","0.5%"',
        '"Jan 04, 2022","990.00","1,040.00","1,060.00","980.00","-","0.5%"',
    ]
    path = write(tmp_path / "A.csv", '"Date","Price","Open","High","Low","Vol.","Change %"', *rows)
    bars, report = read_bars(path)
    assert bars.iloc[0].tolist() == [1040, 1060, 1030, 1050.25, 1_250_000]
    assert (bars["close"].iloc[1], report.missing_volumes) == (990, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        # every line is so: the message says what to change, not that a line be corrected
        (lines(PLAIN, "%Y-%m-%d", ",", lambda number: f"{number}".replace(".", ",")), "decimal commas?"),
        (lines(PLAIN, "%Y-%m-%d", ",", lambda number: f'"{int(100 * number):,}"'), "without a mark for thousands"),
        (lines(PLAIN, "%Y-%m-%d", ",", lambda _: "x"), "and so are 40 of 40 lines: the column holds something else"),
        (lines(PLAIN, "%Y-%m-%d", ",", lambda number: str(-number)), "and so are 40 of 40 lines"),
        (lines(PLAIN, "day %d", ","), "is not a day as YYYY-MM-DD, and so are 40 of 40 lines"),
        (lines("Date,Open,Low,High,Close,Volume", "%Y-%m-%d"), "in 40 of 40 lines; are the columns named rightly?"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_every_line_is_said_of_the_file(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(MarketDataError) as error:
        read_bars(write(tmp_path / "A.csv", *rows))
    assert message in str(error.value)
    assert "correct or delete the line" not in str(error.value)


# Encodings and what stands above the header

TEXT = "\n".join(lines(PLAIN, "%Y-%m-%d")) + "\n"
POLISH = "\n".join(lines("Data,Otwarcie,Najwyższy,Najniższy,Zamknięcie,Wolumen", "%Y-%m-%d")) + "\n"
GERMAN = "\n".join(lines("Datum,Eröffnung,Hoch,Tief,Schluss,Volumen", "%Y-%m-%d")) + "\n"
CHINESE = "\n".join(lines("日期,开盘,最高,最低,收盘,成交量", "%Y-%m-%d")) + "\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TEXT, "utf-8"), (TEXT, "utf-8-sig"), (TEXT, "utf-16"), (TEXT, "utf-16-le"), (TEXT, "utf-16-be"),
        ("\ufeff" + TEXT, "utf-16-be"), (POLISH, "cp1250"), (POLISH, "utf-16"), (GERMAN, "cp1252"), (CHINESE, "gbk"),
        (CHINESE, "utf-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings(tmp_path: Path, text: str, encoding: str, end: str) -> None:
    (tmp_path / "A.csv").write_bytes(text.replace("\n", end).encode(encoding))
    assert_read(tmp_path / "A.csv")


@pytest.mark.parametrize(
    "above",
    [
        ["sep=,"],
        ["SEP=,"],
        ['"sep=,"'],
        ["sep=;"],
        ["https://www.example.com"],
        ["Historical prices of X", ""],
        ["", " "],
    ],
)
def test_lines_above_the_header(tmp_path: Path, above: list[str]) -> None:
    mark = ";" if above == ["sep=;"] else ","
    rows = lines(PLAIN.replace(",", mark), "%Y-%m-%d", mark)
    assert_read(write(tmp_path / "A.csv", *above, *rows))
    rows[5] = rows[5].replace(str(CLOSE[4]), "x")
    with pytest.raises(MarketDataError, match=f"line {len(above) + 6}, column Close: 'x' is not a number"):
        read_bars(write(tmp_path / "A.csv", *above, *rows))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\0\0", "Excel workbook"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PAR1\0", "Parquet file"),
        (b"\0\0\0\0", ""),
    ],
)
def test_files_that_are_no_texts(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "A.csv").write_bytes(data)
    with pytest.raises(MarketDataError) as error:
        read_bars(tmp_path / "A.csv")
    assert message in str(error.value)


# MetaTrader and yfinance


@pytest.mark.parametrize("volumes", [("7", "0"), ("7", "9")])
def test_metatrader(tmp_path: Path, volumes: tuple[str, str]) -> None:
    header = "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
    rows = ["\t".join([f"{day:%Y.%m.%d}", *cells[:4], *volumes, "3"]) for day, cells in zip(DAYS, texts(), strict=True)]
    bars, _ = read_bars(write(tmp_path / "A.csv", header, *rows))
    np.testing.assert_array_equal(bars["close"], CLOSE)
    assert set(bars["volume"]) == {7.0}


FIELDS = ["Open", "High", "Low", "Close", "Volume"]


def yfinance_header(tickers: list[str], *, by_ticker: bool, named: bool) -> list[str]:
    pairs = [(t, f) for t in tickers for f in FIELDS] if by_ticker else [(t, f) for f in FIELDS for t in tickers]
    ticker_line = ",".join(["Ticker" if named else "", *(ticker for ticker, _ in pairs)])
    field_line = ",".join(["Price" if named else "", *(field for _, field in pairs)])
    return [ticker_line, field_line] if by_ticker else [field_line, ticker_line]


@pytest.mark.parametrize("by_ticker", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("date_line", [["Date,,,,,"], ["Datetime,,,,,"], []])
def test_yfinance_of_one_ticker(tmp_path: Path, by_ticker: bool, named: bool, date_line: list[str]) -> None:
    header = yfinance_header(["AAPL"], by_ticker=by_ticker, named=named)
    assert_read(write(tmp_path / "A.csv", *header, *date_line, *lines(PLAIN, "%Y-%m-%d")[1:]))


# What nothing needs


@pytest.mark.parametrize("header", ["Date,Close", "DATE,DEXUSEU", "ds,y", "Date,Adj Close", "observation_date,SP500"])
def test_close_only(tmp_path: Path, header: str) -> None:
    rows = [f"{day:%Y-%m-%d},{close}" for day, close in zip(DAYS, CLOSE, strict=True)]
    bars, report = read_bars(write(tmp_path / "A.csv", header, *rows))
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(bars[name], CLOSE)
    assert report.absent_columns == ("Open", "High", "Low", "Volume")
    assert (bars["volume"] == 0).all()
    assert report.missing_volumes == report.zero_volume_rows == 0


def test_missing_values_of_a_close_only_series(tmp_path: Path) -> None:
    path = write(tmp_path / "A.csv", "DATE,DEXUSEU", "2022-01-03,1.13", "2022-01-04,.", "2022-01-05,1.14")
    bars, report = read_bars(path)
    assert (bars["close"].tolist(), report.rows_without_prices) == ([1.13, 1.14], 1)


def test_a_range_without_a_volume(tmp_path: Path) -> None:
    rows = [line.rpartition(",")[0] for line in lines(PLAIN, "%Y-%m-%d")]
    assert assert_read(write(tmp_path / "A.csv", *rows), volume=False).absent_columns == ("Volume",)
