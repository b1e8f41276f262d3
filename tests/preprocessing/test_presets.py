"""The published protocol: its settings, its windows, and the random walk on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from preprocessing.combined_preprocessor import main, split_windows, windows_files
from preprocessing.config import DataConfig
from preprocessing.market_data import load_stocks
from preprocessing.presets import PRESETS, expand_preset, preset
from preprocessing.windows import WindowSet
from preprocessing.windows_reader import read_windows


def random_walk_errors(windows: WindowSet) -> tuple[float, float]:
    """MSE and MAE of repeating the last close, on z-scores by the training closes."""
    context = windows.context
    error = (windows.truth.future - context.last_price[:, None]) / context.feature("norm_std")[:, None]
    return float((error**2).mean()), float(np.abs(error).mean())


def test_the_preset_is_the_published_protocol() -> None:
    config = preset("vta-10", data_dir=Path("somewhere"))
    assert config == DataConfig(window=10, split_by="stock", embargo=0, data_dir=Path("somewhere"))
    assert (config.horizon, config.stride, config.split) == (10, 1, (0.7, 0.1, 0.2))


def published_test_windows(rows: int) -> int:
    """Windows of 10 targets within the last int(.2 n) rows."""
    return int(rows * 0.2) - 9


def test_the_published_number_of_test_windows() -> None:
    """68 stocks as they are shared; of the other 20, BABA has the 745 days since its listing, GMRE 297, others all."""
    lengths = [1258] * 82 + [1257] * 2 + [1177, 701, 745, 297]
    assert len(lengths) == 88
    assert sum(map(published_test_windows, lengths)) == 20_875


def test_the_random_walk_by_an_independent_path(stocknet: Path) -> None:
    """Row by row from the files' adjusted closes, without this project's windows."""
    sets, _ = split_windows(load_stocks("all", preset("vta-10", data_dir=stocknet))[0], preset("vta-10"))
    squared, absolute, windows = [], [], 0
    for file in sorted(stocknet.glob("*.csv")):
        rows = [line.split(",") for line in file.read_text().splitlines()]
        column = rows[0].index("Adj Close")
        closes = np.array([float(row[column]) for row in sorted(rows[1:]) if row[column] != "null"])
        train, test = int(len(closes) * 0.7), len(closes) - int(len(closes) * 0.2)
        z = (closes - closes[:train].mean()) / closes[:train].std()
        for origin in range(test - 1, len(closes) - 10):
            error = z[origin + 1 : origin + 11] - z[origin]
            squared.append((error**2).mean())
            absolute.append(np.abs(error).mean())
            windows += 1
    assert len(sets["test"]) == windows == 16_329
    assert random_walk_errors(sets["test"]) == pytest.approx((np.mean(squared), np.mean(absolute)), rel=1e-9)


def test_the_random_walk_on_the_shared_stocks(stocknet: Path, tmp_path: Path) -> None:
    """68 of the 88 stocks; on all of them .0606 and .1623 were published."""
    arguments = ("--preset", "vta-10", "--root_path", stocknet, "--stock", "all", "--output_dir", tmp_path)
    assert main([*map(str, arguments), "--outputs", "test"]) == 0
    test = read_windows(*windows_files("all", tmp_path, "test"))
    assert len(set(test.context.item_id)) == 68
    assert len(test) == 16_329
    mse, mae = random_walk_errors(test)
    assert (round(mse, 4), round(mae, 4)) == (0.0565, 0.1575)


def test_flags_win_over_the_preset(tmp_path: Path) -> None:
    for number, arguments in enumerate((("--preset=vta-10",), ("--stride", "5", "--preset", "vta-10"))):
        out = tmp_path / str(number)
        assert main(["--stock", "sim:ou?rows=500", "--output_dir", str(out), *arguments]) == 0
        report = json.loads((out / "data_report.json").read_text())
        assert (report["window"], report["split_by"], report["stride"]) == (10, "stock", (1, 5)[number])
        # 100 test rows: 91 origins from row 399, or every fifth of them, counted from the first origin, row 84
        assert report["windows"]["test"] == (91, 19)[number]


def test_expansion_leaves_other_arguments_alone() -> None:
    assert expand_preset(["--stock", "vta-10", "--window", "7"]) == ["--stock", "vta-10", "--window", "7"]
    assert expand_preset(["--preset"]) == ["--preset"]
    expanded = expand_preset(["--preset", "vta-10"])
    assert expanded[-2:] == ["--preset", "vta-10"]
    assert len(expanded) == len(PRESETS["vta-10"]) + 2


def test_an_unknown_preset_and_one_in_a_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--stock", "sim:ou", "--output_dir", str(tmp_path), "--preset", "vta"])
    assert stop.value.code == 2
    assert "vta-10" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text(f"stock: sim:ou\noutput_dir: {tmp_path}\npreset: vta-10\n")
    assert main(["--config", str(tmp_path / "c.yaml")]) == 2
    assert capsys.readouterr().err == "error: give --preset as a flag; a config file cannot hold it\n"


def test_the_preset_leaks_through_stocks_and_the_default_does_not() -> None:
    """What `split_by` warns of: with stocks of two lengths, one trains on days on which the other is tested."""
    bars = load_stocks("sim:gbm?rows=400&seed=1,sim:gbm?rows=800&seed=2", DataConfig())[0]
    for config, leaks in ((preset("vta-10"), True), (DataConfig(window=10, embargo=0), False)):
        sets, _ = split_windows(bars, config)
        assert (sets["train"].truth.dates.max() >= sets["test"].truth.dates.min()) == leaks
