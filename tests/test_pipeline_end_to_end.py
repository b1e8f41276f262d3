"""run_pipeline.sh from its first line to the table, with tiny settings, in the environment that is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from grpo.runs.stages import STAGES, stage_of
from tests.tiny_runs import FLAGS, STOCK

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv"


def pipeline(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "RANK")}
    command = [str(ROOT / "run_pipeline.sh"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=240)


@pytest.fixture
def settings(tmp_path) -> list[str]:
    if Path(sys.prefix) != VENV:
        pytest.skip(f"the tests do not run in {VENV}, which the script would have to make")
    if not any((VENV / f"installed-{extras}").exists() for extras in ("base", "dev")):
        pytest.skip(f"{VENV} was not made by the script, which would install it again")
    values = {"stock": STOCK, "results_dir": tmp_path / "results", "models_dir": tmp_path / "models"}
    for flags in FLAGS.values():
        values |= flags
    return [str(part) for name, value in values.items() for part in (f"--{name}", value)]


def test_one_command_ends_with_the_table_and_a_resumed_run_skips_all(settings, tmp_path):
    stamps = {file: file.stat().st_mtime_ns for file in VENV.glob("installed-*")}
    first = pipeline(*settings)
    assert first.returncode == 0, first.stderr
    [run] = (path for path in (tmp_path / "results").iterdir() if path.is_dir())
    report = run / stage_of("compare").folder
    assert first.stdout.startswith((report / "leaderboard.md").read_text())
    assert first.stdout.splitlines()[-1].endswith(str(report))
    assert (report / "report.html").is_file()
    names = {"base", "grpo_1st", "sft", "grpo_2nd", "random_walk", "random_walk_drift", "fhs_drift", "ridge", "optimum"}
    assert set(pd.read_csv(report / "leaderboard.csv")["forecaster"]) == names
    headings = re.findall(r"^\[(\d)/6 ", first.stderr, flags=re.MULTILINE)
    assert headings == list("123456")

    written = {file: file.stat().st_mtime_ns for file in run.rglob("manifest.json")}
    assert len(written) == len(STAGES)
    again = pipeline("--resume", run)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already done") == len(STAGES)
    assert again.stdout == first.stdout
    assert {file: file.stat().st_mtime_ns for file in run.rglob("manifest.json")} == written
    assert {file: file.stat().st_mtime_ns for file in VENV.glob("installed-*")} == stamps, "it installed something"
