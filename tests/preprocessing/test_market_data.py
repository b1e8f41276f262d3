"""Stocks by name: how they are found, cut, left out and refused, and the commands that check and list them."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preprocessing.config import DataConfig
from preprocessing.market_data import (
    REPAIRS,
    MarketDataError,
    TooFewRowsError,
    load_stock,
    load_stocks,
    locate_stocks,
    main,
    read_bars,
)
from preprocessing.simulation import SimulationError

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def repairs(report: object) -> dict[str, int]:
    return {name: getattr(report, name) for name in REPAIRS if getattr(report, name)}


def long_history(rows: int = 130, first: str = "2020-01-01") -> list[str]:
    days = pd.bdate_range(first, periods=rows)
    prices = 100 + np.cumsum(np.sin(np.arange(rows)))
    return [f"{day:%Y-%m-%d},{p},{p + 1},{p - 1},{p},{p},5" for day, p in zip(days, prices, strict=True)]


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
    with pytest.raises(TooFewRowsError, match="none of the 2 stocks can be used"):
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
    with pytest.raises(MarketDataError, match=r"holds no CSV file of bars; it must hold one TICKER\.csv per stock"):
        load_stocks("all", DataConfig(data_dir=tmp_path / "bare"))


def test_case_decides_only_where_files_differ_by_case(data_dir: Path) -> None:
    write(data_dir / "aapl.csv", HEADER, *long_history())
    if len(list(data_dir.glob("*.csv"))) == 3:
        pytest.skip("this file system does not tell case apart")
    assert list(load_stocks("aapl", DataConfig(data_dir=data_dir))[0]) == ["aapl"]
    with pytest.raises(MarketDataError, match="could be AAPL or aapl"):
        load_stocks("Aapl", DataConfig(data_dir=data_dir))


def test_one_stock_is_loaded_as_among_many(data_dir: Path) -> None:
    config = DataConfig(data_dir=data_dir, end="2020-06-01")
    bars, reports = load_stocks("AAPL,sim:ou?rows=300", config)
    for name, path in locate_stocks("AAPL,sim:ou?rows=300", config).items():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
            one, report = worker.submit(load_stock, name, path, config).result()
        pd.testing.assert_frame_equal(one, bars[name])
        assert report == reports[name]
    short, report = load_stock("SHORT", data_dir / "SHORT.csv", config)
    assert "stock SHORT has 94 rows, but one window needs 95" in (report.skipped or "")
    assert len(short) == 94


def test_files_of_every_kind_are_stocks(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5}, [pd.Timestamp("2020-01-02")]
    )
    write(tmp_path / "A.CSV", HEADER, "2020-01-02,10,12,9,11,11,5")
    write(tmp_path / "b.us.txt", "<DATE>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>", "20200102;10;12;9;11;5")
    frame.to_parquet(tmp_path / "C.parquet")
    frame.rename_axis("Date").tz_localize("America/New_York").to_parquet(tmp_path / "D.parquet")
    write(tmp_path / "README.txt", "Prices, collected by date")
    files = locate_stocks("all", DataConfig(data_dir=tmp_path))
    assert list(files) == ["A", "C", "D", "b.us"]
    for path in files.values():
        assert path is not None
        bars, report = read_bars(path)
        assert bars.iloc[0].tolist() == [10, 12, 9, 11, 5]
        assert bars.index.tolist() == [pd.Timestamp("2020-01-02")]
        assert report.time_zone is None
    write(tmp_path / "A.txt", HEADER)
    with pytest.raises(MarketDataError, match=r"A\.CSV and .*A\.txt are both for A; keep one of them"):
        locate_stocks("all", DataConfig(data_dir=tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="Close"), "lacks the column(s) Close; it has: "),
        (lambda f: f.assign(adj_close=1, AdjClose=1), "A.parquet names the column Adj Close twice"),
        (lambda f: f.assign(Close="x"), "row 1, column Close: 'x' is not a number; correct or delete the row."),
        (lambda f: f.assign(Low=-1.0), "row 1, column Low: '-1' is not a positive price; correct or delete the row."),
        (lambda f: f.reset_index().assign(Date="03/04/2020"), "does not say which number is the month"),
        (lambda f: f.reset_index().assign(Date=None), "row 1, column Date: '' is not a day"),
        (lambda f: f.reset_index().assign(Date=7), "row 1, column Date: '7' is a number that is no time"),
    ],
)
def test_parquet_files_that_are_refused(tmp_path: Path, change: object, message: str) -> None:
    index = pd.DatetimeIndex(["2020-01-02"], name="Date")
    frame = pd.DataFrame({"Open": 10.0, "High": 12.0, "Low": 9.0, "Close": 11.0, "Volume": 5}, index)
    change(frame).to_parquet(tmp_path / "A.parquet")  # type: ignore[operator]
    with pytest.raises(MarketDataError) as error:
        read_bars(tmp_path / "A.parquet")
    assert message in str(error.value)


def test_every_shared_stock_loads(stocknet: Path) -> None:
    bars, reports = load_stocks("all", DataConfig(data_dir=stocknet))
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
    # Apple paid 20 dividends in these five years; Berkshire, Amazon, Facebook and Charter none
    assert {name: reports[name].dividends for name in ("AAPL", "BRK-A", "AMZN", "FB", "CHTR")} == {
        "AAPL": 20,
        "BRK-A": 0,
        "AMZN": 0,
        "FB": 0,
        "CHTR": 0,
    }
    assert not any(report.splits or report.gaps or report.mixed_interval_rows for report in reports.values())
    assert {(report.layout, report.interval, report.time_zone) for report in reports.values()} == {
        ("yahoo", "1d", None)
    }


# Commands


def test_check_names_every_refused_file_and_describes_the_others(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--data-dir", str(data_dir)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "AAPL: 130 rows, 2020-01-01 to 2020-06-30, 1d bars, yahoo"
    write(data_dir / "BAD.csv", HEADER, "2020-01-01,x,1,1,1,1,1")
    write(data_dir / "NULL.csv", HEADER, "2020-01-01,,,,,,", *bars_with_a_gap())
    write(data_dir / "WORSE.csv", "<html>")
    assert main(["check", "--data-dir", str(data_dir)]) == 1
    shown = capsys.readouterr()
    assert [line.partition(":")[0] for line in shown.out.splitlines()] == ["AAPL", "MSFT", "NULL", "SHORT"]
    assert shown.out.splitlines()[2].endswith(
        "; repairs: rows without prices 1; warnings: gaps 1 (longest gap 15 days)"
    )
    refusals = shown.err.splitlines()
    assert "refused: BAD: " in refusals[0]
    assert "line 2, column Open: 'x' is not a number" in refusals[0]
    assert "WORSE.csv lacks the column(s) Date, Close" in refusals[1]
    assert refusals[2] == "error: 2 of 6 refused: BAD,WORSE"


def bars_with_a_gap() -> list[str]:
    return long_history(10, "2020-01-02") + long_history(10, "2020-01-30")


def test_check_says_one_line_when_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data-dir", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == f"error: data folder {tmp_path / 'nowhere'} does not exist; correct --data-dir.\n"


@pytest.mark.parametrize("command", ["download", "list", "check"])
def test_help_explains_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: python -m preprocessing.market_data {command}" in shown
    assert "Folder" in shown


def test_a_wrong_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dowload"]) == 2
    assert "'dowload' is no command; take download, list or check" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "download --stock AAPL,MSFT" in capsys.readouterr().out
