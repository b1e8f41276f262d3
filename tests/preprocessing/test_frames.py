"""Parquet files and data frames: the rules of a text file, whatever the index, the types and the order."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.bars import MarketDataError
from preprocessing.config import BarRules
from preprocessing.market_data import read_bars, read_frame

DAYS = pd.bdate_range("2022-01-03", periods=30, name="Date").as_unit("ns")
CLOSE = 100 + np.cumsum(np.sin(np.arange(30.0)))
FRAME = pd.DataFrame(
    {"Open": CLOSE, "High": CLOSE + 1, "Low": CLOSE - 1, "Close": CLOSE, "Volume": np.arange(30) + 5}, index=DAYS
)
EXPECTED = FRAME.rename(columns=str.lower).rename_axis("date").astype("float64")


def dated(values: object) -> pd.DataFrame:
    return FRAME.reset_index(drop=True).assign(Date=values)


def epochs(unit: str) -> np.ndarray:
    return DAYS.to_numpy(f"datetime64[{unit}]").astype(np.int64)


SAME = {
    "Yahoo's": FRAME,
    "lower case": FRAME.rename(columns=str.lower).rename_axis(None),
    "index without a name": FRAME.rename_axis(None),
    "a column Date beside row numbers": FRAME.reset_index(),
    "a filtered table": pd.concat([FRAME.reset_index(), FRAME.reset_index()]).iloc[30:],
    "row numbers kept as a column": FRAME.reset_index().reset_index(),
    "filtered, index kept": FRAME.reset_index().set_index(np.arange(100, 130)),
    "texts": dated([f"{day:%Y-%m-%d}" for day in DAYS]),
    "texts, day first": dated([f"{day:%d/%m/%Y}" for day in DAYS]),
    "texts as the index": FRAME.set_index(pd.Index([f"{day:%Y-%m-%d}" for day in DAYS])),
    "days of Python": dated([day.date() for day in DAYS]),
    "times of Python": dated(pd.Series(DAYS.to_pydatetime(), dtype=object)),
    "YYYYMMDD": dated([int(f"{day:%Y%m%d}") for day in DAYS]),
    "YYYYMMDD as the index": FRAME.set_index(pd.Index([int(f"{day:%Y%m%d}") for day in DAYS])),
    "seconds": dated(epochs("s")),
    "milliseconds": dated(epochs("ms")),
    "microseconds": dated(epochs("us")),
    "nanoseconds": dated(epochs("ns")),
    "seconds as floats": dated(epochs("s").astype(float)),
    "milliseconds as texts": dated([str(number) for number in epochs("ms")]),
    "time zone of the exchange": FRAME.tz_localize("America/New_York"),
    "time zone ahead of UTC": FRAME.tz_localize("Asia/Tokyo"),
    "UTC": FRAME.tz_localize("UTC"),
    "offsets of Python": dated(pd.Series(DAYS.tz_localize("Europe/Berlin").to_pydatetime(), dtype=object)),
    "periods": FRAME.to_period("D"),
    "coarse times": FRAME.set_index(DAYS.as_unit("s")),
    "newest first": FRAME[::-1],
    "integers with gaps": FRAME.assign(Volume=FRAME["Volume"].astype("Int64")),
    "columns as arrays of Arrow": FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "numbers as texts": FRAME.astype({"Close": str, "Open": str}),
    "a category": FRAME.assign(Close=FRAME["Close"].astype("category")),
    "fields and one ticker": pd.concat({"AAPL": FRAME}, axis=1).swaplevel(axis=1),
    "one ticker and fields": pd.concat({"AAPL": FRAME}, axis=1, names=["Ticker", "Price"]),
    "a column of one ticker": FRAME.assign(Symbol="AAPL"),
}
KINDS = [pytest.param(frame, id=name) for name, frame in SAME.items()]


@pytest.mark.parametrize("frame", KINDS)
def test_frames_of_every_kind(frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stocks = read_frame(frame, name="X")
    assert list(stocks) == ["X"]
    pd.testing.assert_frame_equal(stocks["X"], EXPECTED, check_freq=False)


@pytest.mark.parametrize(
    "frame", [kind for kind in KINDS if kind.id not in ("periods", "offsets of Python", "a filtered table")]
)
def test_parquet_of_every_kind(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_parquet(tmp_path / "A.parquet")
    bars, report = read_bars(tmp_path / "A.parquet")
    pd.testing.assert_frame_equal(bars, EXPECTED, check_freq=False)
    assert (report.interval, report.layout, report.place if hasattr(report, "place") else "") == ("1d", "parquet", "")


@pytest.mark.parametrize("name", ["filtered, index kept", "index without a name", "seconds"])
def test_parquet_without_the_notes_of_pandas(tmp_path: Path, name: str) -> None:
    table = pa.Table.from_pandas(SAME[name], preserve_index=True).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "A.parquet")
    pd.testing.assert_frame_equal(read_bars(tmp_path / "A.parquet")[0], EXPECTED, check_freq=False)


def test_what_was_repaired_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="stock AAPL was repaired: unsorted rows 29"):
        bars = read_frame(FRAME[::-1], name="AAPL")["AAPL"]
    assert bars.index[-1] == DAYS[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_frame(FRAME)


def with_cell(column: str, value: object) -> pd.DataFrame:
    frame = FRAME.astype({column: object}) if isinstance(value, str) else FRAME.copy()
    frame.iloc[7, frame.columns.get_loc(column)] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (with_cell("Close", CLOSE[7] * 10), r"row 8, column High: 101\.\d+ leaves the bar's prices"),
        (with_cell("Low", -1.0), "row 8, column Low: '-1' is not a positive price"),
        (with_cell("Close", "x"), "row 8, column Close: 'x' is not a number"),
        (FRAME.set_index(pd.RangeIndex(30)), r"the data frame lacks the column\(s\) Date; it has: Open"),
        (FRAME.drop(columns="Close"), r"the data frame lacks the column\(s\) Close; it has: Date, Open"),
        (dated(np.arange(30)), "column Date: '0' is a number that is no time"),
        (dated([*DAYS[:29], pd.NaT]), "row 30, column Date: '' is an empty cell"),
        (FRAME.iloc[:0], "holds no row with prices"),
        (pd.concat([FRAME, FRAME + 1]), r"rows 1 and 31, column Date: both are for 2022-01-03 but differ, and so on"),
        (pd.concat({"a": pd.concat({"b": FRAME}, axis=1)}, axis=1), "has columns of 3 levels"),
    ],
)
def test_frames_that_are_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(MarketDataError, match=message):
        read_frame(frame)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(MarketDataError, match="the data frame is a list, not a pandas DataFrame"):
        read_frame([1, 2])  # type: ignore[arg-type]


def test_adjusted_closes_put_the_other_prices_on_their_basis() -> None:
    bars = read_frame(FRAME.assign(**{"Adj Close": CLOSE / 2}))["the data frame"]
    np.testing.assert_allclose(bars["high"], (CLOSE + 1) / 2, rtol=1e-15)


def long_frame() -> pd.DataFrame:
    parts = [pd.DataFrame({"unique_id": name, "ds": DAYS, "y": CLOSE * scale}) for name, scale in (("B", 2), ("A", 1))]
    return pd.concat(parts, ignore_index=True)


LONG = {
    "unique_id, ds, y": long_frame(),
    "mixed up": long_frame().sample(frac=1, random_state=0),
    "both in the index": long_frame().set_index(["unique_id", "ds"]),
    "ticker in the index": long_frame().set_index("unique_id"),
    "Ticker and Close": long_frame().rename(columns={"unique_id": "Ticker", "ds": "Date", "y": "Close"}),
    "Symbol": long_frame().rename(columns={"unique_id": "Symbol", "y": "close"}),
    "item_id, timestamp, target": long_frame().set_axis(["item_id", "timestamp", "target"], axis=1),
    "columns of fields and tickers": pd.concat(
        {"Close": pd.DataFrame({"B": CLOSE * 2, "A": CLOSE}, index=DAYS)}, axis=1
    ),
    "columns of tickers and fields": pd.concat(
        {"B": pd.DataFrame({"Close": CLOSE * 2}, DAYS), "A": pd.DataFrame({"Close": CLOSE}, DAYS)}, axis=1
    ),
    "categories": long_frame().astype({"unique_id": "category"}),
}


@pytest.mark.parametrize("frame", LONG.values(), ids=LONG.keys())
def test_several_tickers_are_several_stocks(frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stocks = read_frame(frame)
    assert sorted(stocks) == ["A", "B"]
    for name, scale in (("A", 1), ("B", 2)):
        assert stocks[name].index.equals(pd.DatetimeIndex(DAYS))
        np.testing.assert_array_equal(stocks[name]["close"], CLOSE * scale)


def test_rules_choose_the_days_of_a_frame() -> None:
    frame = with_cell("Low", -1.0)
    bars = read_frame(frame, rules=BarRules(start=str(DAYS[8])[:10]))["the data frame"]
    assert bars.index.equals(pd.DatetimeIndex(DAYS[8:]))


def test_zoned_times_within_days_become_utc() -> None:
    times = pd.date_range("2024-03-08 09:30", periods=20, freq="5min", tz="America/New_York")
    frame = pd.DataFrame({"close": np.arange(20) + 10.0}, index=times)
    with pytest.warns(UserWarning, match=r"no column Open, High, Low, Volume \(the close stands in for prices"):
        bars = read_frame(frame)["the data frame"]
    assert bars.index[0] == pd.Timestamp("2024-03-08 14:30")
    assert isinstance(bars.index[0].to_pydatetime(), datetime.datetime)
