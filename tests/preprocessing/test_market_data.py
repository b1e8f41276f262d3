"""Reading OHLCV files: what is repaired, what is refused and in which words, and how stocks are found."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from preprocessing.config import DataConfig
from preprocessing.market_data import (
    REPAIRS,
    MarketDataError,
    TooFewRowsError,
    load_stocks,
    read_bars,
)
from preprocessing.simulation import SimulationError

STOCKNET = Path(__file__).parents[2].parent / "shared/data/stocknet"
HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"
ROWS = (
    "2020-01-01,10,12,9,11,5.5,100",
    "2020-01-02,11,13,10,12,6,200",
    "2020-01-03,12,14,11,13,6.5,300",
)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def repairs(report: object) -> dict[str, int]:
    return {name: getattr(report, name) for name in REPAIRS if getattr(report, name)}


def long_history(rows: int = 130, first: str = "2020-01-01") -> list[str]:
    days = pd.bdate_range(first, periods=rows)
    prices = 100 + np.cumsum(np.sin(np.arange(rows)))
    return [f"{day:%Y-%m-%d},{p},{p + 1},{p - 1},{p},{p},5" for day, p in zip(days, prices, strict=True)]


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
        ((HEADER, "02/01/2020,11,13,9,12,6,2"), "line 2, column Date: '02/01/2020' is not a day as YYYY-MM-DD"),
        ((HEADER, "2020-02-30,11,13,9,12,6,2"), "line 2, column Date: '2020-02-30' is not a day"),
        ((HEADER, "2020-01-01,10,10.8,9,11,11,1"), "line 2, column High: 10.8 leaves the day's prices 9 to 11"),
        ((HEADER, "2020-01-01,10,12,10.5,11,11,1"), "line 2, column Low: 10.5 leaves the day's prices 10 to 12"),
        ((HEADER, "2020-01-01,10,9,12,10,10,1"), "line 2, column High: 9 leaves the day's prices 9 to 12"),
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


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_bytes(("\ufeff" + "\r\n".join((HEADER, *ROWS)) + "\r\n").encode())
    assert read_bars(tmp_path / "A.csv")[0]["close"].tolist() == [5.5, 6.0, 6.5]


# Stocks by name


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("AAPL", "MSFT"):
        write(folder / f"{name}.csv", HEADER, *long_history())
    write(folder / "SHORT.csv", HEADER, *long_history(94))
    (folder / "LICENSE").write_text("not a stock")
    return folder


@pytest.mark.parametrize(
    ("stock", "names"),
    [
        ("AAPL", ["AAPL"]),
        ("aapl", ["AAPL"]),
        ("MSFT, AAPL", ["MSFT", "AAPL"]),
        ("all", ["AAPL", "MSFT"]),
        ("AAPL,sim:ou?rows=300&seed=2,sim:gbm?rows=200", ["AAPL", "sim:ou?rows=300&seed=2", "sim:gbm?rows=200"]),
    ],
)
def test_stocks_are_found_by_name(data_dir: Path, stock: str, names: list[str]) -> None:
    bars, _ = load_stocks(stock, DataConfig(data_dir=data_dir))
    assert list(bars) == names


def test_a_short_stock_among_several_is_left_out_and_says_why(data_dir: Path) -> None:
    bars, reports = load_stocks("AAPL,SHORT", DataConfig(data_dir=data_dir))
    assert list(bars) == ["AAPL"]
    assert reports["AAPL"].skipped is None
    assert "stock SHORT has 94 rows, but one window needs 95" in (reports["SHORT"].skipped or "")


def test_a_short_stock_alone_is_an_error(data_dir: Path) -> None:
    with pytest.raises(TooFewRowsError, match="stock SHORT has 94 rows, but one window needs 95"):
        load_stocks("SHORT", DataConfig(data_dir=data_dir))
    with pytest.raises(TooFewRowsError, match="none of the 2 stocks is long enough"):
        load_stocks("SHORT,AAPL", DataConfig(data_dir=data_dir, start="2020-06-01"))


def test_start_and_end_choose_days_and_both_are_included(data_dir: Path) -> None:
    config = DataConfig(data_dir=data_dir, start="2020-01-08", end="2020-06-26")
    bars, reports = load_stocks("AAPL", config)
    days = pd.bdate_range("2020-01-08", "2020-06-26")
    assert bars["AAPL"].index.equals(pd.DatetimeIndex(days))
    assert (reports["AAPL"].rows_read, reports["AAPL"].rows) == (130, len(days))
    assert (reports["AAPL"].first_date, reports["AAPL"].last_date) == ("2020-01-08", "2020-06-26")


@pytest.mark.parametrize(
    ("stock", "message"),
    [
        ("AAPPL", r"stock 'AAPPL' has no file AAPPL\.csv in .*; close names there: AAPL\.$"),
        ("QQQ", r"there are, for example: AAPL, MSFT, SHORT\.$"),
        ("AAPL,aapl", r"names AAPL twice"),
        ("all,MSFT", r"names MSFT twice"),
        ("AAPL,", r"stock 'AAPL,' holds an empty name"),
        ("../AAPL", r"stock '\.\./AAPL' has no file"),
    ],
)
def test_wrong_names_are_refused(data_dir: Path, stock: str, message: str) -> None:
    with pytest.raises(MarketDataError, match=message):
        load_stocks(stock, DataConfig(data_dir=data_dir))


def test_wrong_simulated_names_and_folders_are_refused(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="unknown process 'uo'"):
        load_stocks("AAPL,sim:uo", DataConfig(data_dir=data_dir))
    with pytest.raises(MarketDataError, match=r"data folder .*nowhere does not exist"):
        load_stocks("AAPL", DataConfig(data_dir=tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(MarketDataError, match=r"holds no CSV file; it must hold one TICKER\.csv per stock"):
        load_stocks("all", DataConfig(data_dir=tmp_path / "bare"))


def test_case_decides_only_where_files_differ_by_case(data_dir: Path) -> None:
    write(data_dir / "aapl.csv", HEADER, *long_history())
    if len(list(data_dir.glob("*.csv"))) == 3:
        pytest.skip("this file system does not tell case apart")
    assert list(load_stocks("aapl", DataConfig(data_dir=data_dir))[0]) == ["aapl"]
    with pytest.raises(MarketDataError, match="could be AAPL or aapl"):
        load_stocks("Aapl", DataConfig(data_dir=data_dir))


# Download


def recorded_frame(rows: int = 130) -> pd.DataFrame:
    """What yfinance 1.7 returns for one ticker with auto_adjust and multi_level_index off."""
    days = pd.bdate_range("2020-01-01", periods=rows, name="Date")
    close = pd.Series(300 + np.arange(rows) / 4, index=days)
    frame = pd.DataFrame({"Adj Close": close / 2, "Close": close, "High": close + 1, "Low": close - 1, "Open": close})
    return frame.assign(Volume=1000).rename_axis(columns="Price")


def fake_yahoo(monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame | None) -> list[str]:
    calls: list[str] = []

    def download(ticker: str, **options: object) -> pd.DataFrame | None:
        assert options["auto_adjust"] is False
        calls.append(ticker)
        return frame

    monkeypatch.setitem(sys.modules, "yfinance", SimpleNamespace(download=download))
    return calls


def test_a_download_is_cached_in_yahoo_layout_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = recorded_frame()
    frame.loc[frame.index[3], :] = np.nan
    calls = fake_yahoo(monkeypatch, frame)
    config = DataConfig(cache_dir=tmp_path / "cache")
    first, reports = load_stocks("aapl", config)
    again, _ = load_stocks("AAPL", config)
    assert calls == ["AAPL"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["AAPL.csv"]
    assert (tmp_path / "cache/AAPL.csv").read_text().startswith(HEADER + "\n2020-01-01,300.0,301.0,299.0,300.0,150.0,")
    assert repairs(reports["AAPL"]) == {"rows_without_prices": 1}
    assert first["AAPL"]["close"].iloc[:4].tolist() == [150.0, 150.125, 150.25, 150.5]
    pd.testing.assert_frame_equal(first["AAPL"], again["AAPL"])


def test_the_bar_of_today_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = recorded_frame()
    today = pd.Timestamp.today().normalize()
    frame.index = pd.date_range(end=today, periods=len(frame), name="Date")
    fake_yahoo(monkeypatch, frame)
    bars, _ = load_stocks("AAPL", DataConfig(cache_dir=tmp_path))
    assert bars["AAPL"].index[-1] == today - pd.Timedelta(days=1)


@pytest.mark.parametrize("frame", [None, recorded_frame(0)])
def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: pd.DataFrame | None
) -> None:
    fake_yahoo(monkeypatch, frame)
    with pytest.raises(MarketDataError, match=r"the download of AAPL from Yahoo failed; check the .* --data-dir\."):
        load_stocks("AAPL", DataConfig(cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("stock", "message"), [("all", "name the folder with --data-dir"), ("a/b", "not a ticker")])
def test_names_that_cannot_be_downloaded(tmp_path: Path, stock: str, message: str) -> None:
    with pytest.raises(MarketDataError, match=message):
        load_stocks(stock, DataConfig(cache_dir=tmp_path))


@pytest.mark.skipif(not STOCKNET.is_dir(), reason=f"the shared stocks are not at {STOCKNET}")
def test_every_shared_stock_loads() -> None:
    bars, reports = load_stocks("all", DataConfig(data_dir=STOCKNET))
    assert len(bars) == 68
    assert {name: repairs(report) for name, report in reports.items() if repairs(report)} == {
        "PTR": {"rows_without_prices": 1},
        "SNP": {"rows_without_prices": 1},
    }
    lengths = {name: len(table) for name, table in bars.items() if len(table) != 1258}
    assert lengths == {"ABBV": 1177, "AGFS": 701, "PTR": 1257, "SNP": 1257}
    assert bars["AAPL"]["close"].iloc[0] == 87.121140
    # 95.108574 * 87.121140 / 96.424286
    assert bars["AAPL"]["open"].iloc[0] == pytest.approx(85.9323700, abs=1e-6)
