"""preprocessing/README.md says what the code does: every column, every simulated process, every field."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from preprocessing import combined_preprocessor
from preprocessing.combined_preprocessor import preprocess
from preprocessing.config import DataConfig
from preprocessing.indicators import IndicatorPeriods, compute_indicators
from preprocessing.laws import DRAWS, LAWS
from preprocessing.simulation import PROCESSES, parse_simulated_stock
from preprocessing.stock_windows import split_windows
from preprocessing.variance_memories import MEMORIES
from preprocessing.windows import INDICATORS, SCALES, WINDOW_STATISTICS
from preprocessing.windows_writer import write_windows

TEXT = (Path(combined_preprocessor.__file__).parent / "README.md").read_text()
COMMON = {"sigma", "tail"}


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = re.split(r"^#+ ", TEXT.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_of(heading: str) -> list[str]:
    return [name for row in rows_of(heading) for name in re.findall(r"`(\w+)`", row[0])]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Indicators, at the origin, on the whole past", INDICATORS),
        ("Statistics of the window", WINDOW_STATISTICS),
        ("Scales", SCALES),
        ("Memories", MEMORIES),
    ],
)
def test_every_feature_is_documented_and_every_documented_one_exists(heading: str, names: tuple[str, ...]) -> None:
    assert names_of(heading) == list(names)


def test_the_other_columns_are_those_of_the_files(tmp_path: Path) -> None:
    stock = parse_simulated_stock("sim:ou?rows=300")
    windows = split_windows({"A": stock.bars()}, DataConfig())[0]["test"]
    write_windows(windows, tmp_path / "x.csv", tmp_path / "y.csv")
    headers = {part: (tmp_path / f"{part}.csv").read_text().splitlines()[0].split(",") for part in "xy"}
    columns = [*names_of("X: what a forecaster may see"), *INDICATORS, *WINDOW_STATISTICS, *SCALES, *MEMORIES]
    assert columns == headers["x"]
    assert names_of("Y: what came after") == headers["y"]


def test_the_fields_of_the_report_are_documented(tmp_path: Path) -> None:
    report = preprocess("sim:ou?rows=400", DataConfig(), tmp_path)
    assert names_of("data_report.json")[: len(report)] == list(report)


def test_the_first_bars_and_periods_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"windows begin only after {IndicatorPeriods().warm_up} bars" in TEXT
    periods = vars(IndicatorPeriods())
    monkeypatch.setattr(IndicatorPeriods, "warm_up", 0)
    table = compute_indicators(parse_simulated_stock("sim:gbm?rows=100").bars())
    firsts = {name: 1 + int(np.flatnonzero(table[name].notna())[0]) for name in table}
    # these are neutral until they are defined: one change more than the period, the period, and an average of it
    p = IndicatorPeriods()
    firsts |= {"rsi": p.rsi + 1, "willr": p.willr, "stoch_k": p.stoch, "stoch_d": p.stoch + p.stoch_d - 1}
    for name, _, _, period, first, _ in rows_of("Indicators, at the origin, on the whole past"):
        name = name.strip("`")
        assert int(first) == firsts[name], name
        setting = {"stoch_k": "stoch", "macd_histogram": "macd_signal"}.get(name, name.split("_")[0])
        setting = {"macd_signal": "macd_signal", "stoch_d": "stoch_d"}.get(name, setting)
        want = f"{periods['macd_fast']}, {periods['macd_slow']}" if name == "macd" else str(periods[setting])
        assert period == want, name


def test_every_simulated_process_is_documented_with_its_parameters() -> None:
    assert names_of("Simulated stocks") == list(PROCESSES)
    for cells in rows_of("Simulated stocks"):
        process = PROCESSES[cells[0].strip("`")]
        stated = re.findall(r"`(\w+)` (\S+) \[(\S+), (\S+)\]", cells[1])
        want = [
            (name, f"{default:g}", *(f"{end:g}" for end in process.ranges[name]))
            for name, default in process.defaults.items()
            if name not in COMMON
        ]
        assert stated == want
        assert cells[3].startswith("nothing") == (cells[0].strip("`") not in LAWS)
    for name in COMMON:
        default, (low, high) = PROCESSES["gbm"].defaults[name], PROCESSES["gbm"].ranges[name]
        assert f": {default:g} [{low:g}, {high:g}]" in TEXT.split(f"`{name}` (")[1].split(")")[0].replace("\n", " ")
    assert f"the rest from {DRAWS} paths" in TEXT
    assert "sim:ou?half_life=10&seed=3" in TEXT
    assert parse_simulated_stock("sim:ou?half_life=10&seed=3").rows == 5000
