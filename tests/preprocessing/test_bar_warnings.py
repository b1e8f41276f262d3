"""What looks odd in bars and is counted, but left as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.bars import WARNINGS, BarsReport, MarketDataError
from preprocessing.market_data import read_bars
from tests.preprocessing.bar_files import HEADER, PLAIN, bars_at, counts, days, moving, write


def warned(path: Path, rows: list[str], header: str = PLAIN) -> tuple[dict[str, int], BarsReport]:
    _, report = read_bars(write(path / "A.csv", header, *rows))
    return counts(report, WARNINGS), report


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
