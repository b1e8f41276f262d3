"""A training stage killed with SIGKILL and resumed ends where the uninterrupted one does, to the last bit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_runs import TinyRun

ROOT = Path(__file__).parents[2]
KILLED_AT_STEP_3 = """
import os, signal, sys
from pathlib import Path
from grpo.training.validation_guard import StageProgress
from tests.tiny_runs import TinyRun

def on_step_begin(self, args, state, control, **kwargs):
    if state.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

StageProgress.on_step_begin = on_step_begin
TinyRun(Path(sys.argv[1])).stage(sys.argv[2])
"""


def copy_without(finished: TinyRun, stage: str, root: Path) -> TinyRun:
    """The run as it was before a stage began; later stages are left aside."""
    run = TinyRun(Path(shutil.copytree(finished.root, root)))
    shutil.rmtree(run.place(stage))
    return run


def last_checkpoint(run: TinyRun, stage: str) -> Path:
    return max((run.place(stage) / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))


def assert_same_training(run: TinyRun, other: TinyRun, stage: str) -> None:
    last, expected = last_checkpoint(run, stage), last_checkpoint(other, stage)
    assert last.name == expected.name
    for folder, expected_folder in ((last, expected), (run.place(stage) / "adapter", other.place(stage) / "adapter")):
        weights, expected_weights = (
            load_file(place / "adapter_model.safetensors") for place in (folder, expected_folder)
        )
        assert weights.keys() == expected_weights.keys()
        assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)
    optimizer, expected_optimizer = (
        torch.load(place / "optimizer.pt", weights_only=True)["state"] for place in (last, expected)
    )
    assert all(torch.equal(optimizer[i]["exp_avg"], expected_optimizer[i]["exp_avg"]) for i in expected_optimizer)
    assert learning_curve(run, stage) == learning_curve(other, stage)
    if stage != "stage2":
        assert (run.place(stage) / "kept" / "kept.json").read_text() == (
            other.place(stage) / "kept" / "kept.json"
        ).read_text()


def learning_curve(run: TinyRun, stage: str) -> list[tuple[int, str, float]]:
    history = json.loads((run.place(stage) / "log_history.json").read_text())
    names = ("reward", "grad_norm", "learning_rate", "eval_crps")
    if stage == "stage2":  # the loss of GRPO on the policy's own samples is zero up to rounding
        names += ("loss",)
    return [(entry["step"], name, entry[name]) for entry in history for name in names if name in entry]


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_a_killed_stage_ends_at_the_uninterrupted_weights(finished, stage, tmp_path, capsys):
    run = copy_without(finished, stage, tmp_path / "killed")
    command = [sys.executable, "-c", KILLED_AT_STEP_3, str(run.root), stage]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    assert last_checkpoint(run, stage).name == "checkpoint-2"
    assert not (run.place(stage) / "manifest.json").exists()
    assert not (run.place(stage) / "adapter").exists()
    assert run.stage(stage) == 0
    assert "resume from" in capsys.readouterr().err
    assert json.loads((run.place(stage) / "manifest.json").read_text())["resumed_from"] == "checkpoint-2"
    assert_same_training(run, finished, stage)


@pytest.mark.parametrize("file", ["trainer_state.json", "optimizer.pt", "adapter_model.safetensors"])
def test_a_checkpoint_cut_short_is_passed_over(finished, file, tmp_path, capsys):
    run = TinyRun(Path(shutil.copytree(finished.root, tmp_path / "cut")))
    (run.place("stage1") / "manifest.json").unlink()
    broken = last_checkpoint(run, "stage1") / file
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    assert run.stage("stage1") == 0
    error = capsys.readouterr().err
    assert f"ignoring {broken.parent}: {file} is " in error
    assert "checkpoint-2" in error.split("resume from ")[1].splitlines()[0]
    assert_same_training(run, finished, "stage1")
