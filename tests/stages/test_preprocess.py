"""The preprocess stage as a user runs it: files, manifest, resume rule, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grpo.stages.preprocess", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    days = [date(2000, 1, 1) + timedelta(days=i) for i in range(700)]
    prices = [100 + (7 * i) % 13 + i / 50 for i in range(700)]
    rows = [f"{day},{p},{p + 1},{p - 1},{p},{p},1" for day, p in zip(days, prices, strict=True)]
    (folder / "A.csv").write_text("\n".join(["Date,Open,High,Low,Close,Adj Close,Volume", *rows]))
    return folder


def test_the_stage_writes_skips_and_refuses(tmp_path: Path, data_dir: Path) -> None:
    arguments = ("--stock", "A", "--data-dir", data_dir, "--run-dir", tmp_path / "run")
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "run/data"
    files = {f"A_{split}_{part}.csv" for split in ("train", "val", "test", "full") for part in "xy"}
    assert files | {"data_report.json", "manifest.json"} <= {path.name for path in folder.iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"A"}
    assert (
        manifest["metrics"]["train_windows"]
        == json.loads((folder / "data_report.json").read_text())["windows"]["train"]
    )

    again = run(*arguments)
    assert again.returncode == 0
    assert "already done" in again.stderr

    changed = run(*arguments, "--data.window", "25")
    assert changed.returncode == 1
    assert "data.window was 30, is 25" in changed.stderr

    (data_dir / "A.csv").write_text((data_dir / "A.csv").read_text().replace(",1\n", ",2\n", 1))
    touched = run(*arguments)
    assert touched.returncode == 1
    assert "has another content" in touched.stderr


def test_folds_are_outputs_of_the_stage(tmp_path: Path) -> None:
    arguments = ("--stock", "sim:ou?rows=600", "--data.folds", "2", "--run-dir", tmp_path / "run")
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    manifest = json.loads((tmp_path / "run/data/manifest.json").read_text())
    folds = {
        f"fold_{number}_{split}_{part}" for number in (1, 2) for split in ("train", "val", "test") for part in "xy"
    }
    assert {name for name in manifest["outputs"] if name.startswith("fold")} == folds
    (tmp_path / "run/data/fold_2/sim_ou_rows-600_test_y.csv").unlink()
    again = run(*arguments)
    assert again.returncode == 1
    assert "fold_2" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stock", "A", "--data-dir", "nowhere"), "error: data folder nowhere does not exist"),
        (("--stock", "sim:xx"), "error: stock 'sim:xx': unknown process 'xx'"),
    ],
)
def test_bad_data_is_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    failed = run(*arguments, "--run-dir", tmp_path / "run")
    assert failed.returncode == 1
    assert failed.stderr.startswith(message)
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
