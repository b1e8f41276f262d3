"""The whole step: what a window holds, how stocks are pooled and split, and the command."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.combined_preprocessor import (
    EmptySplitError,
    fold_folder,
    fold_windows,
    main,
    make_windows,
    notices,
    preprocess,
    split_windows,
    windows_files,
)
from preprocessing.config import DataConfig
from preprocessing.files import slug
from preprocessing.indicators import compute_indicators
from preprocessing.market_data import TooFewRowsError, load_stocks
from preprocessing.scaling import StandardNorm
from preprocessing.simulation import parse_simulated_stock
from preprocessing.splits import CalendarCut, assign_split, walk_forward_cuts
from preprocessing.statistics import past_statistics
from preprocessing.stock_windows import hold_out
from preprocessing.windows import FEATURES, INDICATORS, WindowSet, concatenate
from preprocessing.windows_reader import read_windows
from tests.windows_factory import simulated_windows

STOCKNET = Path(__file__).parents[2].parent / "shared/data/stocknet"
SCALED_BY_TRAINING = ("norm_mean", "norm_std")


def simulate(name: str = "sim:gbm?rows=300&sigma=0.02&seed=1") -> pd.DataFrame:
    return parse_simulated_stock(name).bars()


BARS = simulate()
CONFIG = DataConfig()
NORM = StandardNorm.fit(BARS["close"].to_numpy()[:200])


def test_a_window_holds_its_past_its_future_and_the_features_of_its_origin() -> None:
    windows = make_windows("A", BARS, CONFIG, NORM)
    closes, days = BARS["close"].to_numpy(), BARS.index.to_numpy(dtype="datetime64[ns]")
    assert len(windows) == 300 - 84 - 10  # origins from the last bar of the warm-up to ten days before the end
    indicators, past = compute_indicators(BARS), past_statistics(closes)
    for row in (0, 57, len(windows) - 1):
        origin = 84 + row
        assert windows.context.origin[row] == days[origin]
        np.testing.assert_array_equal(windows.context.past[row, :, 0], closes[origin - 29 : origin + 1])
        np.testing.assert_array_equal(windows.truth.future[row], closes[origin + 1 : origin + 11])
        np.testing.assert_array_equal(windows.truth.dates[row], days[origin + 1 : origin + 11])
        assert windows.truth.next_open is not None
        assert windows.truth.next_open[row] == BARS["open"].iloc[origin + 1]
        for name in INDICATORS:
            assert windows.context.feature(name)[row] == indicators[name].iloc[origin]
        for name, values in past.items():
            assert windows.context.feature(name)[row] == values[origin]
        assert windows.context.feature("norm_mean")[row] == NORM.mean
        assert windows.context.feature("norm_std")[row] == NORM.std
    assert np.isfinite(windows.context.features).all()


def test_stride_keeps_every_nth_window() -> None:
    windows, strided = (make_windows("A", BARS, DataConfig(stride=stride), NORM) for stride in (1, 7))
    np.testing.assert_array_equal(strided.context.origin, windows.context.origin[::7])


def test_the_shortest_history_gives_one_window() -> None:
    assert CONFIG.rows_needed == 95
    assert len(make_windows("A", BARS.iloc[:95], CONFIG, NORM)) == 1
    with pytest.raises(TooFewRowsError, match="stock A has 94 rows, but one window needs 95"):
        make_windows("A", BARS.iloc[:94], CONFIG, NORM)


# Causality: test_leakage.py changes the future; here the present must matter


def change_bars(bars: pd.DataFrame, row: int, factors: list[float]) -> pd.DataFrame:
    """Bars with one day's prices multiplied, the range widened to hold them."""
    changed = bars.copy()
    values = changed[["open", "high", "low", "close"]].to_numpy()[row] * factors
    changed.iloc[row, :4] = [values[0], values.max(), values.min(), values[3]]
    return changed


def test_every_feature_of_an_origin_sees_that_day() -> None:
    """The causality test could pass by lag alone: the day itself must matter to all that are not fitted before."""
    before = make_windows("A", BARS, CONFIG, NORM).context
    changed = change_bars(BARS, 150, [1.3, 1.4, 1.1, 1.35])
    after = make_windows("A", changed, CONFIG, NORM).context
    row = 150 - 84
    unchanged = {name for i, name in enumerate(FEATURES) if after.features[row, i] == before.features[row, i]}
    assert unchanged <= {
        *SCALED_BY_TRAINING,
        "min",
        "min_timestep",
        "top_lag_1",
        "top_lag_2",
        "top_lag_3",
        "median",
        "trend_direction",
    } | {"median_timestep"}


@settings(max_examples=20, deadline=None)
@given(row=st.integers(0, len(BARS) - 1), factor=st.floats(0.01, 100.0))
def test_only_training_closes_move_the_scaler(row: int, factor: float) -> None:
    (before, cut), (after, _) = (
        split_windows({"A": bars}, CONFIG) for bars in (BARS, change_bars(BARS, row, [1.0, 1.0, 1.0, factor]))
    )
    scalers = [[sets["full"].context.feature(name)[0] for name in SCALED_BY_TRAINING] for sets in (before, after)]
    in_training = BARS.index.to_numpy(dtype="datetime64[ns]")[row] < cut.val_start
    if not in_training or factor == 1.0:
        assert scalers[0] == scalers[1]
    elif abs(np.log(factor)) > 0.01:
        assert scalers[0] != scalers[1]
    train = BARS["close"].to_numpy()[BARS.index.to_numpy(dtype="datetime64[ns]") < cut.val_start]
    assert scalers[0] == [train.mean(), train.std()]


# Several stocks


def origins_of(windows: WindowSet, name: str) -> np.ndarray:
    return windows.context.origin[np.array(windows.context.item_id) == name]


def test_stocks_are_pooled_by_one_calendar_cut() -> None:
    young = simulate("sim:ou?rows=400&seed=4").iloc[150:]
    sets, cut = split_windows({"OLD": BARS, "YOUNG": young}, CONFIG)
    days = np.unique(np.concatenate([BARS.index, young.index])).astype("datetime64[ns]")
    assert len(days) == 400
    assert (cut.val_start, cut.test_start) == (days[280], days[320])
    assert (cut.val_first, cut.test_first) == (days[300], days[340])
    # OLD ends on day 300: it only trains. YOUNG trains from day 150 + 84
    assert {name: len(origins_of(sets["train"], name)) for name in ("OLD", "YOUNG")} == {"OLD": 186, "YOUNG": 36}
    assert set(sets["val"].context.item_id) == set(sets["test"].context.item_id) == {"YOUNG"}
    assert sets["train"].truth.dates.max() < cut.val_start
    assert sets["val"].truth.dates.min() >= cut.val_first
    assert sets["val"].truth.dates.max() < cut.test_start
    assert sets["test"].truth.dates.min() >= cut.test_first
    for name, bars in (("OLD", BARS), ("YOUNG", young)):
        closes = bars["close"].to_numpy()[bars.index.to_numpy(dtype="datetime64[ns]") < cut.val_start]
        rows = np.array(sets["full"].context.item_id) == name
        np.testing.assert_array_equal(sets["full"].context.feature("norm_mean")[rows], closes.mean())


def test_a_pooled_stock_has_the_features_that_it_has_alone() -> None:
    alone = make_windows("B", BARS, CONFIG, NORM).context
    pooled, _ = split_windows({"A": simulate("sim:ou?rows=500"), "B": BARS}, CONFIG)
    rows = np.array(pooled["full"].context.item_id) == "B"
    free = [i for i, name in enumerate(FEATURES) if name not in SCALED_BY_TRAINING]
    np.testing.assert_array_equal(pooled["full"].context.features[rows][:, free], alone.features[:, free])


def test_a_stock_that_begins_after_the_cut_is_left_out_and_named(tmp_path: Path) -> None:
    for name, bars in (("OLD", simulate("sim:gbm?rows=1000")), ("NEW", simulate("sim:gbm?rows=1000").iloc[800:])):
        write_csv(tmp_path / f"{name}.csv", bars)
    report = preprocess("all", DataConfig(data_dir=tmp_path), tmp_path / "out")
    assert report["stocks"]["NEW"]["windows"] == {"train": 0, "val": 0, "test": 0, "full": 0}
    assert notices(report) == ["stock NEW is left out: it has no day before the first cut"]


@pytest.mark.parametrize(
    ("split", "rows", "name"),
    [((0.1, 0.2, 0.7), 400, "train"), ((0.7, 0.1, 0.2), 150, "val"), ((0.7, 0.25, 0.05), 400, "test")],
)
def test_an_empty_split_says_what_to_change(split: tuple[float, float, float], rows: int, name: str) -> None:
    with pytest.raises(EmptySplitError, match=rf"no window falls into {name}: .*Give a longer history, another split"):
        split_windows({"A": simulate(f"sim:gbm?rows={rows}")}, DataConfig(split=split))


def test_cuts_by_stock_follow_each_stocks_own_rows(tmp_path: Path) -> None:
    """Shares are rounded down: of 303 rows 212 train and the last 60 test, so 31 validate."""
    young = simulate("sim:ou?rows=400&seed=4").iloc[97:]
    write_csv(tmp_path / "OLD.csv", BARS)
    write_csv(tmp_path / "YOUNG.csv", young)
    config = DataConfig(data_dir=tmp_path, split_by="stock", window=10)
    bars, _ = load_stocks("all", config)
    sets, cut = split_windows(bars, config)
    assert cut is None
    for name, rows, train, test in (("OLD", 300, 210, 240), ("YOUNG", 303, 212, 243)):
        days = bars[name].index.to_numpy(dtype="datetime64[ns]")
        assert len(days) == rows
        first, last = ({split: sets[split].truth.dates[np.array(sets[split].context.item_id) == name][:, column]
                        for split in sets} for column in (0, -1))  # fmt: skip
        np.testing.assert_array_equal(first["train"], days[85 : train - 9])  # the warm-up takes 84 rows
        np.testing.assert_array_equal(last["val"], days[train + 9 : test])
        np.testing.assert_array_equal(first["val"], days[train : test - 9])
        np.testing.assert_array_equal(first["test"], days[test : rows - 9])
        own = np.array(sets["full"].context.item_id) == name
        assert set(sets["full"].context.feature("norm_mean")[own]) == {bars[name]["close"].to_numpy()[:train].mean()}
    report = preprocess("all", config, tmp_path / "out")
    assert report["cut"] is None
    assert report["split_by"] == "stock"
    assert report["windows"] == {split: len(windows) for split, windows in sets.items()}


# Walk-forward folds


def test_a_fold_is_scaled_by_the_days_before_its_own_validation() -> None:
    stocks = {"A": BARS, "B": simulate("sim:ou?rows=280&seed=4")}
    config = DataConfig(split=(0.6, 0.1, 0.3), embargo=3)
    sets, cut = split_windows(stocks, config)
    folds = walk_forward_cuts(BARS.index.to_numpy(), config.split, 3, 3)
    assert folds[0].val_start == cut.val_start
    for fold_cut in folds:
        fold = fold_windows(sets["full"], fold_cut)
        for name, bars in stocks.items():
            # the first origin is row 84, and the last target the last row
            days = bars.index.to_numpy(dtype="datetime64[ns]")[84:]
            train_closes = bars["close"].to_numpy()[84:][days < fold_cut.val_start]
            for windows in fold.values():
                rows = np.array(windows.context.item_id) == name
                assert set(windows.context.feature("norm_mean")[rows]) <= {train_closes.mean()}
                assert set(windows.context.feature("norm_std")[rows]) <= {train_closes.std()}
        split = assign_split(sets["full"].truth.dates, fold_cut)
        free = [i for i, name in enumerate(FEATURES) if name not in SCALED_BY_TRAINING]
        for name, windows in fold.items():
            want = sets["full"].take(split == name)
            assert len(windows) == len(want) > 0
            assert windows.context.item_id == want.context.item_id
            np.testing.assert_array_equal(windows.context.origin, want.context.origin)
            np.testing.assert_array_equal(windows.context.features[:, free], want.context.features[:, free])
            np.testing.assert_array_equal(windows.truth.future, want.truth.future)


def test_a_fold_leaves_out_a_stock_with_nothing_to_be_scaled_by() -> None:
    young = simulate("sim:ou?rows=400&seed=4").iloc[200:]
    full = concatenate([make_windows("OLD", simulate("sim:gbm?rows=400"), CONFIG, NORM),
                        make_windows("YOUNG", young, CONFIG, NORM)])  # fmt: skip
    days = simulate("sim:gbm?rows=400").index.to_numpy(dtype="datetime64[ns]")
    # YOUNG's first origin is day 284
    for val, want in ((284, {"OLD"}), (285, {"OLD", "YOUNG"})):
        cut = CalendarCut(days[val], days[330], days[val], days[330], days[399])
        assert set(fold_windows(full, cut)["test"].context.item_id) == want


# Files and the command


def write_csv(path: Path, bars: pd.DataFrame) -> None:
    table = pd.DataFrame(
        {
            "Open": bars["open"],
            "High": bars["high"],
            "Low": bars["low"],
            "Close": bars["close"],
            "Adj Close": bars["close"],
            "Volume": bars["volume"],
        }
    )
    path.write_text(table.to_csv(index_label="Date", date_format="%Y-%m-%d"))


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_the_command_writes_the_windows_and_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write_csv(data / "A.csv", simulate("sim:gbm?rows=400&seed=1"))
    write_csv(data / "B.csv", simulate("sim:ou?rows=400&seed=2"))
    lines = (data / "B.csv").read_text().splitlines()
    (data / "B.csv").write_text("\n".join([*lines[:5], "2000-01-08,null,null,null,null,null,null", *lines[5:]]))
    write_csv(data / "C.csv", simulate("sim:ou?rows=50"))
    assert run("--root_path", data, "--output-dir", out, "--stock", "A,B,C", "--window", "20") == 0

    names = {f"A-B-C_{split}_{part}.csv" for split in ("train", "val", "test", "full") for part in "xy"}
    assert {path.name for path in out.iterdir()} == names | {"data_report.json"}
    sets, cut = split_windows({name: read(data / f"{name}.csv") for name in "AB"}, DataConfig(window=20))
    for split, want in sets.items():
        got = read_windows(*windows_files("A,B,C", out, split))
        np.testing.assert_allclose(got.context.features, want.context.features, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(got.truth.future, want.truth.future, rtol=1e-14)
    report = json.loads((out / "data_report.json").read_text())
    assert report["cut"] == {name: str(day)[:10] for name, day in vars(cut).items()}
    assert report["embargo"] == 10
    assert report["windows"] == {split: len(windows) for split, windows in sets.items()}
    assert report["stocks"]["B"]["rows_read"] == 401
    assert report["stocks"]["B"]["rows_without_prices"] == 1
    assert report["stocks"]["A"]["windows"]["train"] == len(origins_of(sets["train"], "A"))
    assert report["stocks"]["C"]["windows"]["full"] == 0
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "warning: stock B was repaired: rows without prices 1"
    assert errors[1].startswith("warning: stock C is left out: stock C has 50 rows")


def test_bars_within_a_day_keep_their_times(tmp_path: Path) -> None:
    """78 bars of five minutes a day, half past nine to four."""
    bars = simulate("sim:ou?rows=780&seed=5")
    days = np.busday_offset("2024-01-02", np.arange(10), roll="forward").astype("datetime64[ns]")
    times = days[:, None] + np.timedelta64(570, "m") + np.arange(78) * np.timedelta64(5, "m")
    table = bars.rename(columns=str.capitalize).set_axis(pd.DatetimeIndex(times.ravel()))
    (tmp_path / "A.csv").write_text(table.to_csv(index_label="Datetime", date_format="%Y-%m-%d %H:%M:%S"))
    report = preprocess("A", DataConfig(data_dir=tmp_path, folds=2), tmp_path / "out")
    assert report["cut"]["val_start"] == "2024-01-11T09:30:00"  # bar 546 of 780: the first of the eighth day
    test = read_windows(*windows_files("A", tmp_path / "out", "test"))
    assert test.context.origin[0] == times.ravel()[624 + 20 - 1]
    np.testing.assert_array_equal(test.truth.dates[-1], times.ravel()[-10:])


def test_the_command_writes_folds(tmp_path: Path) -> None:
    arguments = ("--stock", "sim:ou?rows=600&seed=3", "--split_dates", "[2000-12-01,2001-03-01]", "--folds", "2")
    assert run("--output_dir", tmp_path, *arguments) == 0
    report = json.loads((tmp_path / "data_report.json").read_text())
    stock = "sim:ou?rows=600&seed=3"
    full = read_windows(*windows_files(stock, tmp_path, "full"))
    dates = simulate(stock).index.to_numpy(dtype="datetime64[ns]")
    cuts = walk_forward_cuts(dates, CONFIG.split, 20, 2, (date(2000, 12, 1), date(2001, 3, 1)))
    assert [fold["cut"] for fold in report["folds"]] == [
        {name: str(day)[:10] for name, day in vars(cut).items()} for cut in cuts
    ]
    assert report["cut"]["val_start"] == cuts[0].val_start.astype("datetime64[D]").astype(str) == "2000-12-01"
    for number, cut in enumerate(cuts, start=1):
        folder = fold_folder(tmp_path, number)
        assert folder.name == f"fold_{number}"
        for name, want in fold_windows(full, cut).items():
            got = read_windows(*windows_files(stock, folder, name))
            np.testing.assert_array_equal(got.context.features, want.context.features)
            np.testing.assert_array_equal(got.truth.dates, want.truth.dates)
            assert report["folds"][number - 1]["windows"][name] == len(want)


def read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, index_col="Date", parse_dates=True, na_values="null")
    return table.dropna().rename(columns=str.lower)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--root_path", "nowhere", "--stock", "A"), "error: data folder nowhere does not exist; correct --data-dir."),
        (("--stock", "sim:xx"), "error: stock 'sim:xx': unknown process 'xx'"),
        (("--stock", "sim:ou?rows=20"), "error: stock sim:ou?rows=20 has 20 rows, but one window needs 95"),
        (("--stock", "sim:ou?rows=120"), "error: no window falls into train"),
        (("--stock", "sim:ou?rows=500", "--folds", "101"), "error: data.folds must be from 1 to 100, the days of"),
        (("--stock", "sim:ou?rows=500", "--folds", "10"), "error: no window falls into test of fold 1"),
        (("--stock", "sim:ou?rows=500", "--split_dates", "[2030-01-01,2031-01-01]"), "error: data.split_dates"),
    ],
)
def test_bad_data_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("--output_dir", tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stok", "A"), "--stok"),
        (("--stock", "A", "--window", "many"), 'Parser key "window"'),
        (("--stock", "A", "--window", "2"), "data.window must be at least 3 days; got 2"),
        (("--stock", "A", "--outputs", "train,tset"), "outputs: there is no 'tset'; there are train, val, test, full"),
        (("--stock", "A", "--num_workers", "0"), "num_workers must be at least 1; got 0"),
        (("--stock", "A", "--split_by", "stock", "--folds", "2"), "data.split_by stock cuts by shares of rows alone"),
        (("--stock", "A", "--folds", "0"), "data.folds must be at least 1; got 0"),
        (("--stock", "A", "--split_dates", "[2020-01-01]"), "split_dates"),
        (("--stock", "A", "--split_dates", "[2020-01-02,2020-01-01]"), "data.split_dates must ascend"),
        (
            ("--stock", "A", "--split_dates", "[2020-01-01,2020-02-01]", "--split", "[0.6,0.2,0.2]"),
            "give data.split or data.split_dates, not both",
        ),
        (("--stock", "A", "--split", "[0.5,0.5,0.5]"), "three non-negative ratios that sum to 1"),
        (("--stock", "A", "--start", "yesterday"), "data.start must be a day as YYYY-MM-DD; got 'yesterday'"),
        (("--stock", "A", "--start", "2020-01-02", "--end", "2020-01-01"), "data.start must not lie after data.end"),
        (("--stock", "A", "--indicators.rsi", "1"), "indicators.rsi must be at least 2 bars; got 1"),
        ((), "stock"),
    ],
)
def test_wrong_flags_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--output_dir", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_outputs_and_formats(tmp_path: Path) -> None:
    arguments = ("--stock", "sim:ou?rows=500&seed=2")
    assert run(*arguments, "--output_dir", tmp_path / "csv") == 0
    chosen = (*arguments, "--outputs", "test,full", "--file_format", "parquet")
    assert run(*chosen, "--output_dir", tmp_path / "parquet") == 0
    stock = "sim:ou?rows=500&seed=2"
    names = {path.name for path in (tmp_path / "parquet").iterdir()}
    assert names == {f"{slug(stock)}_{split}_{part}.parquet" for split in ("test", "full") for part in "xy"} | {
        "data_report.json"
    }
    reports = [json.loads((tmp_path / kind / "data_report.json").read_text()) for kind in ("csv", "parquet")]
    assert reports[0] == reports[1]
    for split in ("test", "full"):
        csv, parquet = (
            read_windows(*windows_files(stock, tmp_path / kind, split, kind)) for kind in ("csv", "parquet")
        )
        np.testing.assert_array_equal(parquet.context.features, csv.context.features)
        np.testing.assert_array_equal(parquet.context.past, csv.context.past)
        np.testing.assert_array_equal(parquet.truth.dates, csv.truth.dates)
        np.testing.assert_array_equal(parquet.truth.next_open, csv.truth.next_open)


def test_the_files_hold_what_split_windows_gives(tmp_path: Path) -> None:
    for name in ("sim:ou?rows=500&seed=2", "sim:gbm?rows=400&seed=3"):
        write_csv(tmp_path / f"{slug(name)}.csv", simulate(name))
    config = DataConfig(data_dir=tmp_path, stride=3)
    preprocess("all", config, tmp_path / "out")
    bars, _ = load_stocks("all", config)
    for split, want in split_windows(bars, config)[0].items():
        got = read_windows(*windows_files("all", tmp_path / "out", split))
        assert got.context.item_id == want.context.item_id
        np.testing.assert_array_equal(got.context.features, want.context.features)
        np.testing.assert_array_equal(got.truth.future, want.truth.future)


def test_a_failed_write_leaves_nothing_half_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    assert run("--output_dir", tmp_path / "out", "--stock", "sim:ou?rows=500") == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(not STOCKNET.is_dir(), reason=f"the shared stocks are not at {STOCKNET}")
def test_a_real_stock_end_to_end(tmp_path: Path) -> None:
    report = preprocess("AAPL", DataConfig(data_dir=STOCKNET), tmp_path)
    assert report["cut"]["val_start"] == "2016-03-08"  # row 881 of 1,258
    # first target days: 85 to 871, 901 to 996, 1026 to 1248
    assert report["windows"] == {"train": 787, "val": 96, "test": 223, "full": 1164}
    train = read_windows(*windows_files("AAPL", tmp_path, "train"))
    assert (train.context.feature("rsi") > 0).all()
    assert train.truth.dates.max() < np.datetime64("2016-03-08")


# A folder without a name of a stock


def save_stocks(folder: Path, names: tuple[str, ...]) -> Path:
    folder.mkdir()
    for seed, name in enumerate(names):
        bars = parse_simulated_stock(f"sim:ou?rows=400&seed={seed}").bars()
        bars.to_csv(folder / f"{name}.csv")
    return folder


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_folder_alone_gives_files_of_each_stock(tmp_path: Path, pooled: bool, file_format: str) -> None:
    data, out = save_stocks(tmp_path / "data", ("AAPL", "MSFT")), tmp_path / "out"
    flags = ["--root_path", str(data), "--output_dir", str(out), "--file_format", file_format, "--folds", "2"]
    assert main([*flags, *(["--pooled"] if pooled else [])]) == 0
    names = {path.name.partition("_")[0] for path in out.glob(f"*.{file_format}")}
    assert names == {"AAPL", "MSFT", *(["all"] if pooled else [])}
    assert main([*flags[:3], str(tmp_path / "every"), *flags[4:], "--stock", "all"]) == 0
    for folder in ("", "fold_2"):
        parts = [read_windows(*windows_files(n, out / folder, "test", file_format)) for n in ("AAPL", "MSFT")]
        together = read_windows(*windows_files("all", tmp_path / "every" / folder, "test", file_format))
        assert [set(part.context.item_id) for part in parts] == [{"AAPL"}, {"MSFT"}]
        np.testing.assert_array_equal(
            np.concatenate([part.context.features for part in parts]), together.context.features
        )
    if pooled:
        for split in ("train", "val", "test", "full"):
            for one, other in zip(
                windows_files("all", out, split, file_format),
                windows_files("all", tmp_path / "every", split, file_format),
                strict=True,
            ):
                assert one.read_bytes() == other.read_bytes()


def test_many_stocks_do_not_hold_their_files_open(tmp_path: Path) -> None:
    import resource

    names = tuple(f"S{number}" for number in range(40))
    data = save_stocks(tmp_path / "data", names)
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, former[1]))  # 40 stocks have 320 files
    try:
        assert main(["--root_path", str(data), "--output_dir", str(tmp_path / "out")]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    assert len([*(tmp_path / "out").glob("*.csv")]) == 40 * 8


def test_without_folder_and_stock_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--output_dir", str(tmp_path / "out")])
    assert "give --root_path DIR for every stock of a folder, or --stock" in capsys.readouterr().err


def test_the_last_part_of_train_validates_where_nothing_else_does() -> None:
    train = simulated_windows("sim:ou?rows=500")["train"]
    rest, held = hold_out(train)
    assert abs(len(held) - len(train) / 8) <= 1
    assert rest.truth.dates.max() < held.context.origin.min()
    assert held.context.origin.max() == train.context.origin.max()
    assert len(train) - len(rest) - len(held) == train.horizon  # their targets reach into the part held out
    with pytest.raises(EmptySplitError, match="too few to validate on the last of them; name validation windows by"):
        hold_out(train.take(np.arange(5)))
