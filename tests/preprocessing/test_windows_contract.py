"""Windows files of others, without date and stock: what is given, what is computed, what is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.windows import FEATURES, WindowsError, WindowSet
from preprocessing.windows_contract import EXTREMES, THIRTEEN
from preprocessing.windows_reader import read_windows
from preprocessing.windows_writer import write_windows
from tests.windows_factory import simulated_windows

COMPUTED = ("volatility", "trend", "trend_r2", "trend_direction", "top_lag_1", "top_lag_3_correlation", *EXTREMES)


@pytest.fixture(scope="module")
def ours() -> WindowSet:
    return simulated_windows()["test"]


@pytest.fixture
def paths(ours: WindowSet, tmp_path: Path) -> tuple[Path, Path]:
    x, y = tmp_path / "AAPL_test_x.csv", tmp_path / "AAPL_test_y.csv"
    write_windows(ours, x, y)
    pd.read_csv(x)[["sequence", *THIRTEEN, *EXTREMES]].to_csv(x, index=False)
    pd.read_csv(y)[["sequence"]].to_csv(y, index=False)
    return x, y


def test_exactly_its_columns_are_read(
    ours: WindowSet, paths: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        windows = read_windows(*paths)
    np.testing.assert_array_equal(windows.context.past, ours.context.past)
    np.testing.assert_array_equal(windows.truth.future, ours.truth.future)
    for name in (*THIRTEEN, *COMPUTED):
        # a sum over other rows beside it may round otherwise
        expected = ours.context.feature(name)
        np.testing.assert_allclose(windows.context.feature(name), expected, rtol=1e-12, atol=1e-14, err_msg=name)
    assert np.isfinite(windows.context.features).all()
    assert set(windows.context.item_id) == {"AAPL"}
    assert windows.truth.next_open is None
    days = windows.context.origin.astype("datetime64[D]")
    assert (days[0], days[-1] - days[0]) == (np.datetime64("2000-01-01"), np.timedelta64(len(ours) - 1, "D"))
    assert (np.diff(windows.truth.dates, axis=1) == np.timedelta64(1, "D")).all()
    assert "has no date and no stock: rows count as days from 2000-01-01 on, all of stock AAPL" in caplog.text


def test_the_past_is_that_of_the_window(paths: tuple[Path, Path]) -> None:
    context = read_windows(*paths).context
    returns = np.diff(np.log(context.past[:, :, 0]), axis=1)
    np.testing.assert_allclose(context.feature("past_drift"), returns.mean(1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(context.feature("past_volatility"), context.feature("volatility"), rtol=1e-9)
    np.testing.assert_array_equal(context.feature("yang_zhang_volatility"), context.feature("volatility"))
    np.testing.assert_allclose(context.feature("norm_mean"), context.past[:, :, 0].mean(1))
    np.testing.assert_array_equal(context.feature("macd_signal"), context.feature("macd"))
    assert len(FEATURES) == context.features.shape[1]


SPELLED = {"sequence": "Close_Sequence", "bbands_upper": "BB_Upper", "stoch_k": "slowk", "min_timestep": "Min TimeStep"}


def test_other_spellings_types_and_files(ours: WindowSet, paths: tuple[Path, Path]) -> None:
    expected = read_windows(*paths)
    x, y = map(pd.read_csv, paths)
    x.rename(columns=SPELLED).rename(columns=lambda name: name.upper()).to_csv(paths[0], index=False)
    np.testing.assert_array_equal(read_windows(*paths).context.features, expected.context.features)
    x.drop(columns=[*EXTREMES]).to_csv(paths[0], index=False)
    np.testing.assert_array_equal(read_windows(*paths).context.features, expected.context.features)
    x.assign(sequence=[row.replace(",", "") for row in x["sequence"]]).to_csv(paths[0], index=False)
    np.testing.assert_array_equal(read_windows(*paths).context.features, expected.context.features)
    parquet = [path.with_suffix(".parquet") for path in paths]
    for frame, rows, path in ((x, ours.context.past[:, :, 0], parquet[0]), (y, ours.truth.future, parquet[1])):
        frame.assign(sequence=list(rows)).to_parquet(path)
    np.testing.assert_array_equal(read_windows(*parquet).context.features, expected.context.features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.drop(columns="rsi"), r"AAPL_test_x\.csv lacks the column\(s\) rsi"),
        (lambda x: x.assign(rsi="x"), r"line 2, column 'rsi' is not a finite number"),
        (lambda x: x.iloc[:-1], r"make both with one command"),
        (lambda x: x.assign(sequence="x"), r"line 2, column 'sequence' is not a JSON list"),
        (lambda x: x.iloc[:0], "has no rows"),
        (lambda x: x.assign(date="2020-01-01"), r"lacks the column\(s\) stock, macd_signal"),
    ],
)
def test_what_is_missing_is_named(paths: tuple[Path, Path], change: object, message: str) -> None:
    change(pd.read_csv(paths[0])).to_csv(paths[0], index=False)  # type: ignore[operator]
    with pytest.raises(WindowsError, match=message):
        read_windows(*paths)
