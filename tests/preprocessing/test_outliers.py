"""Moves that no market makes: said, refused or put right, each by the right size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.bars import MarketDataError
from preprocessing.combined_preprocessor import notices, preprocess
from preprocessing.config import BarRules, DataConfig
from preprocessing.market_data import main, read_bars
from tests.preprocessing.bar_files import PLAIN, write

DAYS = pd.bdate_range("2020-01-01", periods=200)
CLOSE = np.round(50 + np.cumsum(np.sin(np.arange(200.0))), 2)
DAY = 120
REPAIR = BarRules(outliers="repair")


def table(factor: float = 1.0, first: int = DAY, last: int = DAY) -> pd.DataFrame:
    """Bars of which those from `first` to `last` are multiplied."""
    prices = {"Open": CLOSE - 0.2, "High": CLOSE + 0.5, "Low": CLOSE - 0.5, "Close": CLOSE}
    frame = pd.DataFrame(prices, index=DAYS).assign(Volume=1000.0)
    frame.iloc[first : last + 1, :4] *= factor
    return frame


def save(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index_label="Date", float_format="%.6f")
    return path


@pytest.mark.parametrize("factor", [10, 100, 1000, 0.1, 0.01])
@pytest.mark.parametrize("length", [1, 3])
def test_one_day_times_a_power_of_ten(tmp_path: Path, factor: float, length: int) -> None:
    path = save(tmp_path / "A.csv", table(factor, DAY, DAY + length - 1))
    bars, report = read_bars(path)
    assert (report.impossible_moves, report.suspected_splits) == (2, 0)
    assert report.moves[0].startswith(f"{DAYS[DAY]:%Y-%m-%d} {'x' if factor > 1 else '/'}")
    assert bars["close"].iloc[DAY] == pytest.approx(CLOSE[DAY] * factor)  # warned of, and as it was


@pytest.mark.parametrize("factor", [10, 100, 1000, 0.1, 0.01])
@pytest.mark.parametrize("length", [1, 3])
def test_what_comes_back_is_put_right_by_its_power(tmp_path: Path, factor: float, length: int) -> None:
    bars, report = read_bars(save(tmp_path / "A.csv", table(factor, DAY, DAY + length - 1)), REPAIR)
    clean, _ = read_bars(save(tmp_path / "B.csv", table()))
    np.testing.assert_allclose(bars, clean, rtol=1e-6)
    assert (report.repaired_outliers, report.impossible_moves) == (length, 0)
    assert report.moves


def test_a_spike_of_no_power_of_ten_is_left_out(tmp_path: Path) -> None:
    bars, report = read_bars(save(tmp_path / "A.csv", table(37.0)), REPAIR)
    assert (len(bars), report.repaired_outliers) == (199, 1)
    assert DAYS[DAY] not in bars.index


@pytest.mark.parametrize("column", ["High", "Low"])
def test_a_range_that_slipped(tmp_path: Path, column: str) -> None:
    frame = table()
    frame.iloc[DAY, frame.columns.get_loc(column)] *= 100.0 if column == "High" else 0.01
    path = save(tmp_path / "A.csv", frame)
    assert read_bars(path)[1].impossible_moves == 1
    clean, _ = read_bars(save(tmp_path / "B.csv", table()))
    np.testing.assert_allclose(read_bars(path, REPAIR)[0], clean, rtol=1e-6)


def test_a_jump_that_stays_is_refused_where_repair_is_asked(tmp_path: Path) -> None:
    path = save(tmp_path / "A.csv", table(100.0, DAY, 199))
    assert read_bars(path)[1].impossible_moves == 1
    with pytest.raises(MarketDataError, match=r"line 122, column Close: prices jump from .* and stay there"):
        read_bars(path, REPAIR)


def test_refuse_names_the_line_and_the_size(tmp_path: Path) -> None:
    path = save(tmp_path / "A.csv", table(100.0))
    with pytest.raises(MarketDataError) as error:
        read_bars(path, BarRules(outliers="refuse"))
    assert f"line {DAY + 2}, column Close: no market moves so ({DAYS[DAY]:%Y-%m-%d} x" in str(error.value)
    read_bars(save(tmp_path / "A.csv", table()), BarRules(outliers="refuse"))


@pytest.mark.parametrize("ratio", [2.0, 0.1, 3.0, 20.0])
def test_a_named_split_that_was_not_applied(tmp_path: Path, ratio: float) -> None:
    frame = table(1 / ratio, DAY, 199).assign(**{"Stock Splits": 0.0})
    frame.iloc[DAY, 5] = ratio
    path = save(tmp_path / "A.csv", frame)
    _, report = read_bars(path)
    assert (report.unapplied_splits, report.suspected_splits, report.impossible_moves) == (1, 0, 0)
    assert report.moves == (f"{DAYS[DAY]:%Y-%m-%d} split not applied",)
    bars, report = read_bars(path, REPAIR)
    assert report.repaired_outliers == 1
    np.testing.assert_allclose(bars["close"], CLOSE / ratio, rtol=1e-4)
    assert (bars["volume"].iloc[0], bars["volume"].iloc[-1]) == (1000 * ratio, 1000)


def test_a_named_split_that_was_applied_is_none(tmp_path: Path) -> None:
    frame = table().assign(**{"Stock Splits": 0.0})
    frame.iloc[DAY, 5] = 2.0
    assert read_bars(save(tmp_path / "A.csv", frame))[1].unapplied_splits == 0
    # and one whose adjusted close tells it
    frame = table(0.5, DAY, 199).assign(**{"Stock Splits": 0.0, "Adj Close": CLOSE / 2})
    frame.iloc[DAY, 5] = 2.0
    assert read_bars(save(tmp_path / "A.csv", frame))[1].unapplied_splits == 0


def test_moves_that_markets_make_are_none(tmp_path: Path) -> None:
    assert read_bars(save(tmp_path / "A.csv", table(4.5)))[1].impossible_moves == 0
    assert read_bars(save(tmp_path / "A.csv", table(1 / 4.5)))[1].impossible_moves == 0


def test_moves_are_told_by_check_report_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    save(data / "A.csv", table(100.0))
    assert main(["check", "--data-dir", str(data)]) == 0
    assert "warnings: impossible moves 2, moves: 2020-06-17 x" in capsys.readouterr().out
    report = preprocess("A", DataConfig(data_dir=data, embargo=0, split=(0.6, 0.2, 0.2)), tmp_path / "out")
    assert report["stocks"]["A"]["impossible_moves"] == 2
    assert notices(report)[0].startswith("stock A has, unchanged: impossible moves 2, moves: 2020-06-17 x")


def test_every_shared_stock_is_without_them(stocknet: Path) -> None:
    for path in sorted(stocknet.glob("*.csv")):
        report = read_bars(path, BarRules(outliers="refuse"))[1]
        assert report.impossible_moves == report.unapplied_splits == 0


def test_messages_show_prices_of_any_size(tmp_path: Path) -> None:
    with pytest.raises(
        MarketDataError, match=r"column High: 1.234567891e-05 leaves the bar's prices 1.1e-05 to 1.9e-05"
    ):
        read_bars(write(tmp_path / "A.csv", PLAIN, "2020-01-01,0.000019,0.00001234567891,0.000011,0.000012,1"))
