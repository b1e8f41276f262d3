"""What a launcher starts: really several processes that train together, or one line that says why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from grpo.runs.processes import ASKED, SHARDING, num_processes
from grpo.training.launcher import run_training
from preprocessing.errors import UserError
from tests.multi_process.processes import LAUNCHER_VARIABLES
from tests.tiny_runs import TinyRun

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "accelerate"

# The environment that run_pipeline.sh would make: python is this one, for as far as stage 1.
STAND_IN = f"""#!/usr/bin/env bash
case "$*" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip "* | *ensurepip* | *version_info*) ;;
*rejection* | *sft_data* | *stage2* | *stage3* | *compare*) ;;
*) exec {sys.executable} "$@" ;;
esac
"""


def clean_environment(**changes: str) -> dict[str, str]:
    left_out = (*LAUNCHER_VARIABLES, ASKED, "CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changes


@pytest.mark.slow
def test_the_pipeline_trains_with_two_processes_on_a_cpu(tmp_path):
    checkout, binaries = tmp_path / "check out", tmp_path / "bin"
    for folder in (checkout, binaries):
        folder.mkdir()
    for name in ("run_pipeline.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / "configs", checkout / "configs")
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        (binaries / name).write_text(STAND_IN)
        (binaries / name).chmod(0o755)
    run = TinyRun(tmp_path)
    flags = ["--num-processes", "2", *run.arguments("stage1")]
    environment = clean_environment(PATH=f"{binaries}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="")
    finished = subprocess.run(
        ["bash", "run_pipeline.sh", *flags], cwd=checkout, env=environment, capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 0, finished.stderr
    assert "2 process(es) on the CPU" in finished.stderr
    manifest = json.loads((run.place("stage1") / "manifest.json").read_text())
    assert manifest["config"]["processes"] == 2
    checkpoints = run.place("stage1") / "checkpoints"
    assert {path.name for path in checkpoints.glob("*/rng_state_*.pth")} == {"rng_state_0.pth", "rng_state_1.pth"}


@pytest.mark.slow
def test_a_launcher_that_starts_one_process_for_two_is_found_out(tmp_path):
    run = TinyRun(tmp_path)
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    stage = ["-m", "grpo.stages.stage1_train_grpo", *run.arguments("stage1")]
    stopped = subprocess.run(
        [*launch, "--config_file", str(CONFIGS / "cpu.yaml"), *stage],
        cwd=tmp_path,
        env=clean_environment(**{ASKED: "2"}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert stopped.returncode != 0
    assert stopped.stderr.startswith("error: --num-processes 2: the launcher started 1; give an --accelerate-config ")
    assert not run.folder.exists()


def test_the_number_that_was_asked_for_must_have_started(monkeypatch):
    for name in (*LAUNCHER_VARIABLES, ASKED):
        monkeypatch.delenv(name, raising=False)
    assert num_processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert num_processes() == 4
    monkeypatch.setenv(ASKED, "4")
    assert num_processes() == 4
    monkeypatch.setenv(ASKED, "2")
    with pytest.raises(UserError, match=r"^--num-processes 2: the launcher started 4; "):
        num_processes()


def test_processes_that_do_not_know_of_each_other_are_found_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv(ASKED, raising=False)
    alone = SimpleNamespace(accelerator=SimpleNamespace(num_processes=1))
    with pytest.raises(UserError, match="2 processes were started, but each trains with 1"):
        run_training(alone, stage=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("sharding, variable", SHARDING.items())
def test_sharding_that_accelerate_would_leave_out_is_found_out(sharding, variable, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(variable, "true")
    plain = SimpleNamespace(num_processes=1, distributed_type=SimpleNamespace(value="MULTI_CPU"))
    with pytest.raises(UserError, match=f"asks for {sharding}, in place of which accelerate runs MULTI_CPU"):
        run_training(SimpleNamespace(accelerator=plain), stage=None)  # type: ignore[arg-type]
