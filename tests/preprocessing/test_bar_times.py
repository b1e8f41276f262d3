"""Times of bars: how texts and numbers are read, and what becomes of offsets, zones and days."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.bars import WARNINGS, MarketDataError
from preprocessing.config import BarRules, DataConfig
from preprocessing.market_data import read_bars
from preprocessing.reading.time_texts import parse_time
from tests.preprocessing.bar_files import PLAIN, bars_at, counts, write


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
        ("Foo 2, 2020", "is not a day as YYYY-MM-DD"),
        ("1-Jun-17", "does not say which number is the month and which the year"),
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


def test_days_with_an_offset_keep_the_day_of_the_exchange(tmp_path: Path) -> None:
    times = ["2024-03-11 00:00:00+09:00", "2024-03-12 00:00:00+09:00", "2024-03-13 00:00:00+09:00"]
    bars, report = read_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert [f"{day:%Y-%m-%d %H:%M}" for day in bars.index] == [f"{time[:10]} 00:00" for time in times]
    assert (report.interval, report.time_zone) == ("1d", None)


def test_times_with_an_offset_go_to_utc_across_the_change_of_clocks(tmp_path: Path) -> None:
    times = ["2024-03-08 15:55:00-05:00", "2024-03-11 09:30:00-04:00", "2024-03-11 09:35:00-04:00"]
    bars, report = read_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert [f"{t:%m-%d %H:%M}" for t in bars.index] == ["03-08 20:55", "03-11 13:30", "03-11 13:35"]
    assert report.time_zone == "utc"


def test_times_without_an_offset_stay_as_given(tmp_path: Path) -> None:
    rows = ["X,5,20240308,93000,10,10,10,10,1,0", "X,5,20240308,93500,10,10,10,10,1,0"]
    header = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>"
    bars, report = read_bars(write(tmp_path / "A.txt", header, *rows))
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
        read_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("frequency", "name"),
    [("30s", "30s"), ("5min", "5min"), ("90min", "90min"), ("h", "1h"), ("B", "1d"), ("W-FRI", "1wk"), ("BMS", "1mo")],
)
def test_the_interval_is_the_usual_spacing(tmp_path: Path, frequency: str, name: str) -> None:
    times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in pd.date_range("2020-01-01", periods=40, freq=frequency)]
    bars, report = read_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(times)))
    assert report.interval == name
    assert len(bars) == 40
    assert counts(report, WARNINGS) == {"stale_rows": 40}


def test_one_bar_has_no_interval(tmp_path: Path) -> None:
    assert read_bars(write(tmp_path / "A.csv", PLAIN, *bars_at(["2020-01-02"])))[1].interval is None


# Zones

REPEATED = ["2024-11-03 00:30", "2024-11-03 01:00", "2024-11-03 01:30", "2024-11-03 01:00", "2024-11-03 01:30",
            "2024-11-03 02:00", "2024-11-04 00:30"]  # fmt: skip


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_hour_that_comes_twice_needs_a_zone(tmp_path: Path, newest_first: bool) -> None:
    rows = bars_at(REPEATED, [10.0 + n for n in range(7)])
    path = write(tmp_path / "A.csv", PLAIN, *(rows[::-1] if newest_first else rows))
    with pytest.raises(
        MarketDataError, match=r"as the hour that comes twice when summer time ends; say where .* data.time"
    ):
        read_bars(path)
    bars, report = read_bars(path, BarRules(timezone="America/New_York"))
    assert [f"{time:%d %H:%M}" for time in bars.index] == [
        "03 04:30", "03 05:00", "03 05:30", "03 06:00", "03 06:30", "03 07:00", "04 05:30"
    ]  # fmt: skip
    assert bars["close"].tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert report.time_zone == "utc"


def test_an_hour_that_clocks_skip_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "A.csv", PLAIN, *bars_at(["2024-03-10 01:30", "2024-03-10 02:30", "2024-03-10 03:30"]))
    with pytest.raises(MarketDataError, match="line 3, column Date: '2024-03-10T02:30:00' is skipped by the clocks of"):
        read_bars(path, BarRules(timezone="America/New_York"))


def test_days_in_utc_of_a_market_ahead_of_it_need_a_zone(tmp_path: Path) -> None:
    days = pd.bdate_range("2024-01-02", periods=30)
    midnights = (days.tz_localize("Asia/Tokyo").as_unit("s").astype("int64")).astype(str).tolist()
    path = write(tmp_path / "A.csv", PLAIN, *bars_at(midnights))
    with pytest.raises(MarketDataError, match=r"from Sunday to Thursday; say where it is by data.timezone"):
        read_bars(path)
    bars, report = read_bars(path, BarRules(timezone="Asia/Tokyo"))
    assert bars.index.equals(pd.DatetimeIndex(days))
    assert (report.interval, report.time_zone) == ("1d", None)


def test_zones_are_known_by_name() -> None:
    with pytest.raises(ValueError, match=r"data\.timezone must be a name as America/New_York or UTC; got 'EST5EDX'"):
        DataConfig(timezone="EST5EDX")
