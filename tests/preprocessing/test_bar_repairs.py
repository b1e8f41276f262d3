"""Bars of one file: which rows are repaired, which are refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.bars import REPAIRS, MarketDataError
from preprocessing.market_data import read_bars
from tests.preprocessing.bar_files import HEADER, ROWS, counts, write


def repairs(report: object) -> dict[str, int]:
    return counts(report, REPAIRS)


def test_prices_are_put_on_the_basis_of_the_adjusted_close(tmp_path: Path) -> None:
    bars, report = read_bars(write(tmp_path / "A.csv", HEADER, *ROWS))
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
    bars, _ = read_bars(path)
    assert bars.iloc[0].tolist() == [10, 12, 9, 11, 100]


def test_rounding_never_moves_the_close_out_of_the_range(tmp_path: Path) -> None:
    prices = np.linspace(1, 9, 28)
    # the high times the rounded ratio falls short of the adjusted close on some of these days
    assert (prices * (np.round(prices * 0.7, 6) / prices) < np.round(prices * 0.7, 6)).any()
    rows = [f"2020-01-{day:02},{p},{p},{p},{p},{round(p * 0.7, 6)},1" for day, p in enumerate(prices, start=1)]
    bars, report = read_bars(write(tmp_path / "A.csv", HEADER, *rows))
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
    bars, report = read_bars(write(tmp_path / "A.csv", HEADER, *rows))
    assert repairs(report) == expected
    assert bars["close"].tolist() == closes
    assert bars.index.is_monotonic_increasing
    assert bars.index.is_unique


def test_widened_range_holds_open_and_close(tmp_path: Path) -> None:
    bars, _ = read_bars(write(tmp_path / "A.csv", HEADER, "2020-01-01,10,10.95,10.05,11,11,1"))
    assert bars[["high", "low"]].iloc[0].tolist() == [11, 10]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "A.csv is empty"),
        ((HEADER,), "A.csv holds no row with prices"),
        ((HEADER, "2020-01-01,null,null,null,null,null,null"), "A.csv holds no row with prices"),
        (("<html>", "<body>"), "A.csv lacks the column(s) Date, Close; it has: <html>"),
        (("Date,Open,High,Low,Volume", "2020-01-01,1,1,1,1"), "lacks the column(s) Close; it has: Date, Open, High"),
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
        read_bars(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(MarketDataError, match=r"A\.csv cannot be read as CSV: 'utf-8' codec"):
        read_bars(tmp_path / "A.csv")
    with pytest.raises(MarketDataError, match=r"B\.csv cannot be read as CSV: No such file"):
        read_bars(tmp_path / "B.csv")


def test_a_quoted_note_of_two_lines_is_one_row(tmp_path: Path) -> None:
    lines = (HEADER + ",Note", ROWS[0] + ',"halted until', ROWS[1] + ',noon"', ROWS[2] + ",")
    bars, report = read_bars(write(tmp_path / "A.csv", *lines))
    assert bars["close"].tolist() == [5.5, 6.5]
    assert report.rows_read == 2


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_bytes(("\ufeff" + "\r\n".join((HEADER, *ROWS)) + "\r\n").encode())
    assert read_bars(tmp_path / "A.csv")[0]["close"].tolist() == [5.5, 6.0, 6.5]
