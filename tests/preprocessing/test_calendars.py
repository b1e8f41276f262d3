"""The times of bars to come: exchanges and their holidays, every day, weeks, months and bars within days."""

from __future__ import annotations

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from preprocessing.calendars import CalendarError, next_times


def sessions(name: str, last: str, years: int = 2) -> pd.DatetimeIndex:
    end = pd.Timestamp(last)
    return exchange_calendars.get_calendar(name, start=end - pd.DateOffset(years=years), end=end).sessions


def following(times: pd.DatetimeIndex, horizon: int = 2, calendar: str = "auto") -> tuple[str, ...] | None:
    ahead = next_times(times.to_numpy(), horizon, calendar)
    return None if ahead is None else tuple(str(time)[:16].removesuffix("T00:00") for time in ahead)


@pytest.mark.parametrize(
    ("exchange", "last", "expected"),
    [
        ("XNYS", "2017-09-01", ("2017-09-05", "2017-09-06")),  # Labor Day
        ("XNYS", "2023-12-22", ("2023-12-26", "2023-12-27")),
        ("XNYS", "2024-03-28", ("2024-04-01", "2024-04-02")),  # Good Friday
        ("XLON", "2023-12-22", ("2023-12-27", "2023-12-28")),  # Boxing Day
        ("XETR", "2024-03-28", ("2024-04-02", "2024-04-03")),  # Easter Monday
        ("XTKS", "2023-12-29", ("2024-01-04", "2024-01-05")),
        ("XHKG", "2024-02-09", ("2024-02-14", "2024-02-15")),  # Lunar New Year
        ("XSHG", "2023-09-28", ("2023-10-09", "2023-10-10")),
    ],
)
def test_days_of_an_exchange_are_told_by_its_holidays(exchange: str, last: str, expected: tuple[str, ...]) -> None:
    days = sessions(exchange, last)
    assert following(days) == expected
    assert following(days.drop(days[-100])) == expected  # a halt
    assert following(days[-100:], calendar=exchange) == expected


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (pd.bdate_range("2022-11-01", "2024-01-05"), ("2024-01-08", "2024-01-09")),  # no exchange never rests
        (pd.date_range("2023-11-01", "2024-01-05"), ("2024-01-06", "2024-01-07")),  # prices on every day
        (pd.date_range("2023-01-06", "2024-01-05", freq="7D"), ("2024-01-12", "2024-01-19")),
        (pd.date_range("2020-01-31", "2024-01-31", freq="ME"), ("2024-02-29", "2024-03-31")),
        (pd.date_range("2020-01-01", "2024-01-01", freq="MS"), ("2024-02-01", "2024-03-01")),
        (pd.date_range("2020-01-01", "2024-01-31", freq="BME"), ("2024-02-29", "2024-03-29")),
        (pd.date_range("2020-01-01", "2024-01-31", freq="BMS"), ("2024-02-01", "2024-03-01")),
        (pd.date_range("2020-01-15", periods=40, freq="MS") + pd.Timedelta(days=14), ("2023-06-15", "2023-07-15")),
        (pd.date_range("2010-03-31", "2023-12-31", freq="QE"), ("2024-03-31", "2024-06-30")),
        (pd.bdate_range("2023-01-02", "2024-01-05")[::2], None),
        (pd.date_range("2023-11-01", "2024-01-05").drop("2023-12-25"), None),  # weekends, but not every day
        (pd.bdate_range("2024-01-01", "2024-01-05"), None),  # too few to tell
        (pd.DatetimeIndex(["2024-01-01"]), None),
    ],
)
def test_days_that_are_of_no_exchange(days: pd.DatetimeIndex, expected: tuple[str, ...] | None) -> None:
    assert following(days) == expected


def test_a_name_decides() -> None:
    days = sessions("XNYS", "2017-09-01")
    assert following(days, calendar="weekdays") == ("2017-09-04", "2017-09-05")
    assert following(days, calendar="24/7") == ("2017-09-02", "2017-09-03")
    assert following(days[-5:], calendar="XNYS") == ("2017-09-05", "2017-09-06")
    with pytest.raises(CalendarError, match=r"there is no 'NYSE2'; take auto, 24/7, weekdays or one of .*XNYS"):
        following(days, calendar="NYSE2")


def test_bars_within_days() -> None:
    clocks = pd.to_timedelta([f"{hour}:30:00" for hour in range(9, 16)])
    hours = pd.DatetimeIndex([day + clock for day in sessions("XNYS", "2017-09-01", 1) for clock in clocks])
    assert following(hours) == ("2017-09-05T09:30", "2017-09-05T10:30")
    assert following(hours[:-2]) == ("2017-09-01T14:30", "2017-09-01T15:30")
    crypto = pd.date_range("2024-01-02 09:00", periods=800, freq="h")
    assert following(crypto) == (str(crypto[-1] + pd.Timedelta("1h"))[:16].replace(" ", "T"), following(crypto)[1])
    assert next_times(crypto.to_numpy(), 30)[-1] == np.datetime64(crypto[-1] + pd.Timedelta("30h"))
