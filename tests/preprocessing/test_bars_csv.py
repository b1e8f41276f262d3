"""Text files of bars: which layouts are known, what is repaired, refused or warned of, and in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import bars_csv
from preprocessing.bars import REPAIRS, WARNINGS, BarsReport, MarketDataError, check_bars
from preprocessing.bars_csv import looks_like_bars, parse_time, read_csv_bars

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"
PLAIN = "Date,Open,High,Low,Close,Volume"
ROWS = (
    "2020-01-01,10,12,9,11,5.5,100",
    "2020-01-02,11,13,10,12,6,200",
    "2020-01-03,12,14,11,13,6.5,300",
)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def counts(report: object, names: tuple[str, ...]) -> dict[str, int]:
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def repairs(report: object) -> dict[str, int]:
    return counts(report, REPAIRS)


def test_prices_are_put_on_the_basis_of_the_adjusted_close(tmp_path: Path) -> None:
    bars, report = read_csv_bars(write(tmp_path / "A.csv", HEADER, *ROWS))
    assert bars["open"].tolist() == [5.0, 5.5, 6.0]
    assert bars["high"].tolist() == [6.0, 6.5, 7.0]
    assert bars["low"].tolist() == [4.5, 5.0, 5.5]
    assert bars["close"].tolist() == [5.5, 6.0, 6.5]
    assert bars["volume"].tolist() == [100, 200, 300]
    assert [f"{day:%Y-%m-%d}" for day in bars.index] == ["2020-01-01", "2020-01-02", "2020-01-03"]
    assert (report.rows_read, report.rows, report.first_date, report.last_date) == (3, 3, "2020-01-01", "2020-01-03")
    assert repairs(report) == {}


def test_without_adj_close_prices_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "A.csv", "Date,Open,High,Low,Close,Volume", "2020-01-01,10,12,9,11,100")
    bars, _ = read_csv_bars(path)
    assert bars.iloc[0].tolist() == [10, 12, 9, 11, 100]


def test_rounding_never_moves_the_close_out_of_the_range(tmp_path: Path) -> None:
    prices = np.linspace(1, 9, 28)
    # the high times the rounded ratio falls short of the adjusted close on some of these days
    assert (prices * (np.round(prices * 0.7, 6) / prices) < np.round(prices * 0.7, 6)).any()
    rows = [f"2020-01-{day:02},{p},{p},{p},{p},{round(p * 0.7, 6)},1" for day, p in enumerate(prices, start=1)]
    bars, report = read_csv_bars(write(tmp_path / "A.csv", HEADER, *rows))
    assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars["high"] >= bars[["open", "close"]].max(axis=1)).all()
    assert repairs(report) == {}


@pytest.mark.parametrize(
    ("rows", "expected", "closes"),
    [
        ((ROWS[0], "2020-01-02,null,null,null,null,null,null", ROWS[2]), {"rows_without_prices": 1}, [5.5, 6.5]),
        ((ROWS[0], "2020-01-02,,,,,,", ROWS[2]), {"rows_without_prices": 1}, [5.5, 6.5]),
        ((ROWS[0], "2020-01-02,11,13,10,,6,200", ROWS[2]), {"rows_without_prices": 1}, [5.5, 6.5]),
        ((ROWS[0], ROWS[0], ROWS[1]), {"repeated_rows": 1}, [5.5, 6.0]),
        ((ROWS[2], ROWS[1], ROWS[0]), {"unsorted_rows": 2}, [5.5, 6.0, 6.5]),
        ((ROWS[1], ROWS[0], ROWS[1]), {"repeated_rows": 1, "unsorted_rows": 1}, [5.5, 6.0]),
        (("2020-01-01,10,10.95,9,11,11,1", ROWS[1]), {"widened_ranges": 1}, [11, 6.0]),
        (("2020-01-01,10,12,10.05,11,11,1", ROWS[1]), {"widened_ranges": 1}, [11, 6.0]),
        (("2020-01-01,10,12,9,11,5.5,null", ROWS[1]), {"missing_volumes": 1}, [5.5, 6.0]),
        (("2020-01-01,10,12,9,11,5.5,0", "", ROWS[1]), {}, [5.5, 6.0]),
    ],
)
def test_repairs_are_counted(
    tmp_path: Path, rows: tuple[str, ...], expected: dict[str, int], closes: list[float]
) -> None:
    bars, report = read_csv_bars(write(tmp_path / "A.csv", HEADER, *rows))
    assert repairs(report) == expected
    assert bars["close"].tolist() == closes
    assert bars.index.is_monotonic_increasing
    assert bars.index.is_unique


def test_widened_range_holds_open_and_close(tmp_path: Path) -> None:
    bars, _ = read_csv_bars(write(tmp_path / "A.csv", HEADER, "2020-01-01,10,10.95,10.05,11,11,1"))
    assert bars[["high", "low"]].iloc[0].tolist() == [11, 10]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "A.csv is empty"),
        ((HEADER,), "A.csv holds no row with prices"),
        ((HEADER, "2020-01-01,null,null,null,null,null,null"), "A.csv holds no row with prices"),
        (("<html>", "<body>"), "A.csv lacks the column(s) Date, Open, High, Low, Close, Volume; it has: <html>"),
        (("Date,Open,High,Low,Close", "2020-01-01,1,1,1,1"), "lacks the column(s) Volume; it has: Date, Open, High"),
        ((HEADER, ROWS[0], "2020-01-02,11,13"), "line 3 has 3 fields but the first line names 7"),
        ((HEADER, ROWS[0] + ",7"), "line 2 has 8 fields"),
        ((HEADER, ROWS[0], "2020-01-02,11,13,10,twelve,6,2"), "line 3, column Close: 'twelve' is not a number"),
        ((HEADER, '2020-01-02,11,13,10,"1,200",6,2'), "line 2, column Close: '1,200' is not a number"),
        ((HEADER, ROWS[0], "", "2020-01-02,-11,13,10,12,6,2"), "line 4, column Open: '-11' is not a positive price"),
        ((HEADER, "2020-01-02,11,13,0,12,6,2"), "line 2, column Low: '0' is not a positive price"),
        ((HEADER, "2020-01-02,11,inf,9,12,6,2"), "line 2, column High: 'inf' is not a positive price"),
        ((HEADER, "2020-01-02,11,13,9,12,0,2"), "line 2, column Adj Close: '0' is not a positive price"),
        ((HEADER, "2020-01-02,11,13,9,12,6,-2"), "line 2, column Volume: '-2' is not a volume of 0 or more"),
        ((HEADER, "2020-01-02,11,13,9,12,6,many"), "line 2, column Volume: 'many' is not a number"),
        (
            (HEADER, "02/01/2020,11,13,9,12,6,2"),
            "line 2, column Date: '02/01/2020' does not say which number is the month; write",
        ),
        ((HEADER, "1677-01-01,11,13,9,12,6,2"), "'1677-01-01' is not a day of the years 1700 to 2261"),
        ((HEADER, "2262-01-01,11,13,9,12,6,2"), "'2262-01-01' is not a day of the years 1700 to 2261"),
        ((HEADER, "2020-01-02,11,13,9,12,6,#N/A"), "line 2, column Volume: '#N/A' is not a number"),
        ((HEADER, "2020-02-30,11,13,9,12,6,2"), "line 2, column Date: '2020-02-30' is not a day"),
        ((HEADER, "2020-01-01,10,10.8,9,11,11,1"), "line 2, column High: 10.8 leaves the bar's prices 9 to 11"),
        ((HEADER, "2020-01-01,10,12,10.5,11,11,1"), "line 2, column Low: 10.5 leaves the bar's prices 10 to 12"),
        ((HEADER, "2020-01-01,10,9,12,10,10,1"), "line 2, column High: 9 leaves the bar's prices 9 to 12"),
        ((HEADER, ROWS[0], ROWS[1], ROWS[0].replace("5.5", "5.6")), "lines 2 and 4, column Date: both are for 2020-01"),
    ],
)
def test_refused_files_name_the_place(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    path = tmp_path / "A.csv"
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(MarketDataError) as error:
        read_csv_bars(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(MarketDataError, match=r"A\.csv cannot be read as CSV: 'utf-8' codec"):
        read_csv_bars(tmp_path / "A.csv")
    with pytest.raises(MarketDataError, match=r"B\.csv cannot be read as CSV: No such file"):
        read_csv_bars(tmp_path / "B.csv")


def test_a_quoted_note_of_two_lines_is_one_row(tmp_path: Path) -> None:
    lines = (HEADER + ",Note", ROWS[0] + ',"halted until', ROWS[1] + ',noon"', ROWS[2] + ",")
    bars, report = read_csv_bars(write(tmp_path / "A.csv", *lines))
    assert bars["close"].tolist() == [5.5, 6.5]
    assert report.rows_read == 2


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_bytes(("\ufeff" + "\r\n".join((HEADER, *ROWS)) + "\r\n").encode())
    assert read_csv_bars(tmp_path / "A.csv")[0]["close"].tolist() == [5.5, 6.0, 6.5]


# Layouts

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
    bars, report = read_csv_bars(write(tmp_path / "A.csv", *lines))
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
    bars, report = read_csv_bars(write(tmp_path / "A.csv", *lines))
    assert (report.layout, report.time_zone) == (layout, None)
    assert bars.index.tolist() == [DAY]
    assert bars.iloc[0].tolist() == [11, 13, 10, 12, 200]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("2020-01-02\t0.01\t0.02\t0.03\t-0.01\t0.01\t200",), "StockNet's price/preprocessed: its numbers are move"),
        (("2020-01-02,11,13,10,12,6,200",), "line 1 holds data where the names of the columns should stand; put Date,"),
        (("Date,Open,High,Low,Close,Adj Close,Adj_Close,Volume",), "line 1 names the column Adj Close twice"),
        (
            ("Price,Close,Close", "Ticker,AAPL,MSFT", "Date,,", "2020-01-02,1,2"),
            "holds several tickers (AAPL, MSFT); write one file per ticker",
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
        read_csv_bars(write(tmp_path / "A.csv", *lines))
    assert message in str(error.value)


def test_text_files_that_are_no_bars_are_told_apart(tmp_path: Path) -> None:
    assert looks_like_bars(write(tmp_path / "a.us.txt", "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>"))
    assert looks_like_bars(write(tmp_path / "A.txt", "2020-01-02\t0.01\t0.02\t0.03\t-0.01\t0.01\t200"))
    assert not looks_like_bars(write(tmp_path / "README.txt", "Daily prices, collected by the date of trade"))
    assert not looks_like_bars(tmp_path / "nowhere.txt")


# Times


@pytest.mark.parametrize(
    ("cell", "time", "offset"),
    [
        ("2020-01-02", "2020-01-02", None),
        ("2020/1/2", "2020-01-02", None),
        ("20200102", "2020-01-02", None),
        ("2020-01-02 09:30", "2020-01-02T09:30", None),
        ("20200102 093005", "2020-01-02T09:30:05", None),
        ("2020-01-02T09:30:00.25", "2020-01-02T09:30:00.25", None),
        ("2020-01-02 09:30:00-05:00", "2020-01-02T09:30", -300),
        ("2020-01-02T09:30:00Z", "2020-01-02T09:30", 0),
        ("2020-01-02T09:30:00 +0530", "2020-01-02T09:30", 330),
    ],
)
def test_times_that_are_read(cell: str, time: str, offset: float | None) -> None:
    parsed, minutes = parse_time(cell)
    assert np.datetime64(parsed) == np.datetime64(time)
    assert np.isnan(minutes) if offset is None else minutes == offset


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("03/04/2016", "does not say which number is the month; write all dates as YYYY-MM-DD"),
        ("3-4-16", "does not say which number is the month"),
        ("25.12.2016", "does not say which number is the month"),
        ("03/04/2016 09:30", "does not say which number is the month"),
        ("Jan 2, 2020", "is not a day as YYYY-MM-DD"),
        ("", "is not a day as YYYY-MM-DD"),
        ("2020-13-01", "is not a day as YYYY-MM-DD"),
        ("2020-01/02", "is not a day as YYYY-MM-DD"),
        ("2020-01-02 24:00", "is not a day as YYYY-MM-DD"),
        ("2020-01-02x09:30", "nor one with a time as HH:MM:SS"),
        ("2020-01-02 noon", "nor one with a time as HH:MM:SS"),
        ("2020-01-02 09:30 EST", "ends with 'EST', which is not an offset as"),
        ("2020-01-02 09:30+15:00", "further from UTC than any place"),
        ("1582-10-15", "is not a day of the years 1700 to 2261"),
    ],
)
def test_times_that_are_refused(cell: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_time(cell)
    assert message in str(error.value)


def bars_at(times: list[str], close: float | list[float] = 10.0, volume: float | list[float] = 5.0) -> list[str]:
    """Plain rows with O = H = L = C."""
    closes = [close] * len(times) if isinstance(close, float) else close
    volumes = [volume] * len(times) if isinstance(volume, float) else volume
    return [f"{t},{c},{c},{c},{c},{v}" for t, c, v in zip(times, closes, volumes, strict=True)]


def test_days_with_an_offset_keep_the_day_of_the_exchange(tmp_path: Path) -> None:
    times = ["2024-03-11 00:00:00+09:00", "2024-03-12 00:00:00+09:00", "2024-03-13 00:00:00+09:00"]
    bars, report = read_csv_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert [f"{day:%Y-%m-%d %H:%M}" for day in bars.index] == [f"{time[:10]} 00:00" for time in times]
    assert (report.interval, report.time_zone) == ("1d", None)


def test_times_with_an_offset_go_to_utc_across_the_change_of_clocks(tmp_path: Path) -> None:
    times = ["2024-03-08 15:55:00-05:00", "2024-03-11 09:30:00-04:00", "2024-03-11 09:35:00-04:00"]
    bars, report = read_csv_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert [f"{t:%m-%d %H:%M}" for t in bars.index] == ["03-08 20:55", "03-11 13:30", "03-11 13:35"]
    assert report.time_zone == "utc"


def test_times_without_an_offset_stay_as_given(tmp_path: Path) -> None:
    rows = ["X,5,20240308,93000,10,10,10,10,1,0", "X,5,20240308,93500,10,10,10,10,1,0"]
    header = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>"
    bars, report = read_csv_bars(write(tmp_path / "A.txt", header, *rows))
    assert [f"{t:%m-%d %H:%M}" for t in bars.index] == ["03-08 09:30", "03-08 09:35"]
    assert (report.time_zone, report.interval, report.layout) == ("as given", "5min", "stooq")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-03-08 09:30:00-05:00", "2024-03-08 09:35:00"], "line 3, column Date: the time has no offset from UTC"),
        (["2024-03-08 09:30:00", "2024-03-08 09:35:00Z"], "line 3, column Date: the time has an offset from UTC"),
        (
            ["2024-03-07", "2024-03-08", "2024-03-11 14:31:07"],
            "line 4, column Date: '2024-03-11T14:31:07' has a time of day but most rows are whole days",
        ),
    ],
)
def test_times_that_do_not_go_together_are_refused(tmp_path: Path, times: list[str], message: str) -> None:
    with pytest.raises(MarketDataError) as error:
        read_csv_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("frequency", "name"),
    [("30s", "30s"), ("5min", "5min"), ("90min", "90min"), ("h", "1h"), ("B", "1d"), ("W-FRI", "1wk"), ("BMS", "1mo")],
)
def test_the_interval_is_the_usual_spacing(tmp_path: Path, frequency: str, name: str) -> None:
    times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in pd.date_range("2020-01-01", periods=40, freq=frequency)]
    bars, report = read_csv_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert report.interval == name
    assert len(bars) == 40
    assert counts(report, WARNINGS) == {"stale_rows": 40}


def test_one_bar_has_no_interval(tmp_path: Path) -> None:
    assert read_csv_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(["2020-01-02"])))[1].interval is None


# What is counted and left


def moving(rows: int) -> list[float]:
    return [100.0 + step % 2 for step in range(rows)]


def warned(path: Path, rows: list[str], header: str = PLAIN) -> tuple[dict[str, int], BarsReport]:
    _, report = read_csv_bars(write(path / "A.csv", header, *rows))
    return counts(report, WARNINGS), report


def days(first: str, periods: int, frequency: str = "B") -> list[str]:
    return [f"{day:%Y-%m-%d}" for day in pd.date_range(first, periods=periods, freq=frequency)]


def test_zero_volume_is_counted_and_a_missing_one_is_not(tmp_path: Path) -> None:
    rows = bars_at(days("2020-01-01", 4), moving(4), [5.0, 0.0, 0.0, 7.0])
    rows.append("2020-01-07,100,100,100,100,")
    found, report = warned(tmp_path, rows)
    assert found == {"zero_volume_rows": 2}
    assert report.missing_volumes == 1


def test_stale_closes_are_counted_from_ten_on(tmp_path: Path) -> None:
    closes = moving(3) + [103.0] * 9 + moving(2) + [104.0] * 10 + moving(2)
    assert warned(tmp_path, bars_at(days("2020-01-01", len(closes)), closes))[0] == {"stale_rows": 10}


@pytest.mark.parametrize(("closed", "gaps"), [(5, 0), (6, 1)])
def test_weekends_and_a_week_of_holidays_are_no_gap(tmp_path: Path, closed: int, gaps: int) -> None:
    every = days("2020-01-01", 60)
    times = every[:30] + every[30 + closed :]
    found, report = warned(tmp_path, bars_at(times, moving(len(times))))
    assert found == ({"gaps": 1} if gaps else {})
    # every[29] is Tuesday 11 February; six weekdays later is Thursday 20 February
    assert report.longest_gap_days == (9.0 if gaps else 0.0)


def test_every_missing_bar_is_a_gap_where_trading_never_ends(tmp_path: Path) -> None:
    times = days("2020-01-01", 60, "D")
    del times[40], times[20:22]
    found, report = warned(tmp_path, bars_at(times, moving(57)))
    assert found == {"gaps": 2}
    assert report.longest_gap_days == 3.0


def test_weeks_that_are_missing_in_weekly_bars_are_gaps(tmp_path: Path) -> None:
    times = days("2020-01-03", 60, "W-FRI")
    del times[20:22]
    found, report = warned(tmp_path, bars_at(times, moving(58)))
    assert (found, report.longest_gap_days) == ({"gaps": 1}, 21.0)


def five_minutes(sessions: int, lunch: bool) -> list[pd.Timestamp]:
    """Sessions from 9:30 to 16:00, every second one with a lunch from 11:30 to 13:00."""
    times = []
    for number, day in enumerate(pd.bdate_range("2024-01-02", periods=sessions)):
        day_times = pd.date_range(day + pd.Timedelta("9h30min"), periods=78, freq="5min")
        times += [
            t for t in day_times if not (lunch and number % 2 and 11 * 60 + 30 <= t.hour * 60 + t.minute < 13 * 60)
        ]
    return times


@pytest.mark.parametrize("lunch", [False, True])
def test_nights_and_lunch_are_no_gap_but_a_halt_is(tmp_path: Path, lunch: bool) -> None:
    times = five_minutes(40, lunch)
    found, _ = warned(tmp_path, bars_at([str(t) for t in times], moving(len(times))))
    assert found == {}
    halted = [t for t in times if not pd.Timestamp("2024-01-10 14:00") < t < pd.Timestamp("2024-01-10 14:40")]
    found, report = warned(tmp_path, bars_at([str(t) for t in halted], moving(len(halted))))
    assert found == {"gaps": 1}
    assert report.longest_gap_days == round(40 / 1440, 2)


def test_a_regular_stretch_of_another_interval_in_daily_bars_is_refused(tmp_path: Path) -> None:
    monthly, daily = days("2000-01-03", 12, "BMS"), days("2001-01-01", 60)
    with pytest.raises(MarketDataError, match=r"line \d+, column Date: from 2000-\d\d-\d\d on, bars lie .* days apart"):
        warned(tmp_path, bars_at(monthly + daily, moving(72)))
    weekly = days("2001-03-30", 7, "W-FRI")  # the last daily bar is of 23 March
    with pytest.raises(MarketDataError, match=r"on, bars lie 7 days apart, the others 1; keep bars of one interval"):
        warned(tmp_path, bars_at(daily + weekly, moving(67)))
    assert warned(tmp_path, bars_at(daily + weekly[:5], moving(65)))[0] == {"mixed_interval_rows": 6}  # and a weekend
    assert warned(tmp_path, bars_at(daily + weekly[:4], moving(64)))[0] == {}


def test_hours_among_minutes_are_counted(tmp_path: Path) -> None:
    hours = [str(t) for t in pd.date_range("2024-01-02 09:30", periods=7, freq="h")]
    minutes = [str(t) for t in five_minutes(30, lunch=False) if t > pd.Timestamp("2024-01-03")]
    found, _ = warned(tmp_path, bars_at(hours + minutes, moving(len(hours + minutes))))
    # six spacings of an hour and the night; a pause of an hour on one of 30 days is a gap too
    assert found == {"mixed_interval_rows": 7, "gaps": 6}


def test_minutes_among_hours_are_counted(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-02", periods=100, freq="h")
    minutes = hours[-1] + pd.timedelta_range("5min", periods=12, freq="5min")
    found, _ = warned(tmp_path, bars_at([str(t) for t in [*hours, *minutes]], moving(112)))
    assert found == {"mixed_interval_rows": 12}


def split_rows(factor: float, turnover: float = 1.0, ratio: float | None = None) -> list[str]:
    """60 days; on day 30 prices fall by `factor`, or by `ratio`, and turnover is multiplied."""
    closes = np.array(moving(60))
    volumes = np.full(60, 1000.0)
    closes[30:] /= ratio or factor
    volumes[30:] *= factor
    volumes[30] *= turnover
    return bars_at(days("2020-01-01", 60), closes.round(4).tolist(), volumes.tolist())


@pytest.mark.parametrize("factor", [2, 3, 1.5, 4, 5, 7, 10, 20, 1 / 2, 1 / 3, 2 / 3, 1 / 20])
def test_overnight_split_ratios_are_suspected(tmp_path: Path, factor: float) -> None:
    assert warned(tmp_path, split_rows(factor))[0] == {"suspected_splits": 1}


def test_a_split_is_suspected_within_two_percent(tmp_path: Path) -> None:
    # 101 to 100 / 2.018 is 1.9 % from a half
    assert warned(tmp_path, split_rows(2, ratio=2.018))[0] == {"suspected_splits": 1}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (split_rows(2, turnover=5), "the turnover is that of a crash"),
        (split_rows(2, ratio=2.022), "101 to 100 / 2.022 is 2.1 % from a half"),
        (split_rows(1.2), "no split ratio"),
    ],
)
def test_moves_that_are_no_splits(tmp_path: Path, rows: list[str], why: str) -> None:
    assert warned(tmp_path, rows)[0] == {}, why


def test_an_adjusted_close_tells_splits_and_dividends(tmp_path: Path) -> None:
    # 100, then a dividend of 1 (99 / 100), a split 2:1, and a close of two decimals that only rounds
    rows = [
        "2020-01-01,100,100,100,100,49.5,1",
        "2020-01-02,100,100,100,100,49.5,1",
        "2020-01-03,99,99,99,99,49.5,1",
        "2020-01-06,49.5,49.5,49.5,49.5,49.5,1",
        "2020-01-07,33.33,33.33,33.33,33.33,33.33,1",
    ]
    found, report = warned(tmp_path, rows, HEADER)
    assert found == {}
    assert (report.dividends, report.splits) == (1, 1)


def test_rounding_to_cents_is_no_dividend(tmp_path: Path) -> None:
    prices = np.round(np.linspace(20, 40, 60) + np.sin(np.arange(60)), 2)
    rows = [
        f"{d},{p},{p},{p},{p},{a},1"
        for d, p, a in zip(days("2020-01-01", 60), prices, (prices * 0.7).round(2), strict=True)
    ]
    ratio = (prices * 0.7).round(2) / prices
    assert (ratio[1:] / ratio[:-1] - 1).max() > 1e-4  # more than the smallest dividend
    assert warned(tmp_path, rows, HEADER)[1].dividends == 0


def test_columns_tell_splits_and_dividends(tmp_path: Path) -> None:
    header = PLAIN + ",Dividends,Stock Splits"
    extra = [(0, 0), (0.5, 0), (0, 2.0), (0.25, 0), (0, 0)]
    rows = [f"{row},{d},{s}" for row, (d, s) in zip(bars_at(days("2020-01-01", 5), moving(5)), extra, strict=True)]
    report = warned(tmp_path, rows, header)[1]
    assert (report.dividends, report.splits, report.layout) == (2, 1, "yfinance")


# Whole files against rows


def outcome(path: Path, read: object) -> object:
    try:
        bars, report = read(path)  # type: ignore[operator]
    except MarketDataError as error:
        return str(error)
    return bars.to_numpy().tobytes(), bars.index.to_numpy().tobytes(), bars.dtypes.tolist(), bars.index.dtype, report


def row_by_row(path: Path) -> tuple[pd.DataFrame, BarsReport]:
    return check_bars(bars_csv._parse_rows(path, bars_csv._read_text(path)))


def test_shared_stocks_read_the_same_row_by_row(stocknet: Path) -> None:
    quick = 0
    for path in sorted(stocknet.glob("*.csv")):
        assert outcome(path, read_csv_bars) == outcome(path, row_by_row), path.name
        quick += bars_csv._parse_quickly(path, bars_csv._read_text(path)) is not None
    assert quick == 66  # all but the two with a row of nulls


NUMBERS = st.floats(min_value=1e-3, max_value=1e6).map(repr) | st.sampled_from(["10", "10.5", "11.25", "1e2"])
ODD = st.sampled_from(
    ['"9""', '9"', "", "null", "NaN", "inf", "-1", "0", "+7", " 8 ", "1_0", "x", '"9"', '"1,2"', "1e400", "１", "\t5"]
)
DATES = st.dates(pd.Timestamp("2019-12-25").date(), pd.Timestamp("2020-01-10").date()).map(str)
ODD_DATES = st.sampled_from(
    ["2020-02-30", "20200103", "2020/01/03", "03/04/2020", "2020-01-03 09:30:00", "2020-01-03T00:00:00",
     "2020-01-03 09:30:00-05:00", "2020-01-03 24:00:00", "2020-01-03 09:60:00", "2020-01-03 09:30:00+25:00",
     "1677-01-01", "2300-01-01", "", " 2020-01-03 ", "0000-00-00"]
)  # fmt: skip
TIMES = st.datetimes(pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-03")).map(lambda t: t.strftime("%F %T"))
CELLS = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD)
EVERY_DATE = st.one_of(DATES, DATES, DATES, ODD_DATES)
LINE = st.one_of(
    *[st.tuples(EVERY_DATE, *[CELLS] * 6).map(",".join)],
    st.sampled_from(["", "   ", ",,,,,,", "2020-01-03,1,2", "a,b,c,d,e,f,g,h"]),
)
# quotes matter in a column that is not read
NOTES = st.sampled_from(["", "ok", '"x', 'y"', '"z"', 'a"b', '"a"b', '""', '"p,q"', ' "', '"q""'])
NOTED = st.tuples(DATES, NOTES).map(lambda row: f"{row[0]},1,1,1,1,1,{row[1]}")
# rows whose open, high, low and close are one number pass every check
FLAT = st.tuples(EVERY_DATE | TIMES, NUMBERS, NUMBERS).map(
    lambda r: f"{r[0]},{r[1]},{r[1]},{r[1]},{r[1]},{r[1]},{r[2]}"
)
ZONED = st.tuples(TIMES, st.sampled_from(["-05:00", "+05:30", "+00:00"]), NUMBERS).map(
    lambda r: f"{r[0]}{r[1]},{r[2]},{r[2]},{r[2]},{r[2]},{r[2]},1"
)
TABLES = st.one_of(*[st.lists(kind, max_size=8) for kind in (LINE, FLAT | LINE, FLAT, ZONED, NOTED)])


@settings(max_examples=400, deadline=None)
@given(
    header=st.sampled_from([HEADER, HEADER, "", PLAIN + ",Note", PLAIN + ",Ticker", "\ufeff" + HEADER]),
    lines=TABLES,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
)
def test_messy_files_read_the_same_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, header: str, lines: list[str], end: str, last: bool
) -> None:
    path = tmp_path_factory.mktemp("messy") / "A.csv"
    path.write_bytes((end.join([header, *lines]) + end * last).encode())
    assert outcome(path, read_csv_bars) == outcome(path, row_by_row)
