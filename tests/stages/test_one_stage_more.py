"""A stage more is one row of the table and one file: a copy of grpo with both, and nothing else changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = """    Stage(
        key="stage4",
        folder="stage4_grpo_again",
        module="grpo.stages.stage4_train_grpo_again",
        title="stage 4: GRPO again",
        adapter="grpo_lora_3rd",
        forecaster="grpo_3rd",
        settings_like="stage3",
    ),
"""
SCRIPT = """
import sys
from pathlib import Path
import grpo
from grpo.config import parse_run_config
from grpo.models.adapters import read_record
from grpo.publishing import push
from grpo.publishing.card import model_card
from grpo.runs.__main__ import stage_lines
from grpo.runs.stages import ADAPTER_STAGES, stage_of
from grpo.stages.training_settings import training_task, upload
from grpo.training.preflight import problems_of_run
from tests import tiny_runs

assert Path(grpo.__file__).is_relative_to(sys.argv[1]), grpo.__file__
run = tiny_runs.TinyRun(Path(sys.argv[1]))
tiny_runs.FLAGS["stage4"] = {f"stage4.{name}": value for name, value in tiny_runs.GRPO_FLAGS.items()}
row = stage_of("stage4")

# the table of contents, the flag, the settings and their defaults
assert "5/7 stage 3: GRPO from SFT" in stage_lines()
assert "grpo.stages.stage4_train_grpo_again\\tmany\\t6/7 stage 4: GRPO again" in stage_lines()
config = run.config("compare")
assert config.stage4 == parse_run_config([], prog="x", description="").stage3
flags = ["--grpo-saved-lora-3rd", "mine", "--stage4.steps", "7"]
told = parse_run_config(flags, prog="x", description="")
assert tiny_runs.paths_of(told).adapters["grpo_lora_3rd"] == Path("mine")
assert (told.stage4.steps, told.stage3.steps) == (7, 100)

# preflight
wrong = run.config("compare", "--stage4.trl", "{generation_batch_size: 7}")
paths = tiny_runs.paths_of(wrong)
tasks = [training_task(wrong, stage) for stage in ADAPTER_STAGES]
windows = paths.train_x, paths.train_y
problems = problems_of_run(tasks, wrong.run_folder, train=windows, processes=1, port=29500)
assert [problem for problem in problems if problem.startswith("stage4.trl.generation_batch_size 7")], problems

# training, its folder, and its adapter
assert run.stage("stage4") == 0
adapter = run.folder / "stage4_grpo_again" / "adapter"
assert read_record(adapter).stage == "stage4"
assert (run.models / "embedded" / tiny_runs.SLUG / "grpo_lora_3rd" / "adapter_config.json").is_file()

# the comparison and its page
assert run.stage("compare", "--forecasters", "llm") == 0
board = (run.folder / "model_comparison" / "leaderboard.csv").read_text()
assert all(f"{name}," in board for name in ("base", "grpo_1st", "sft", "grpo_2nd", "grpo_3rd")), board
assert "stage 4: GRPO again" in (run.folder / "model_comparison" / "report.html").read_text()

# the card and the Hub
named = {"repo_id": "me/demo-grpo-3rd", "license_name": None}
card = model_card(row, adapter, read_record(adapter), run=config.run_folder, **named)
assert "stage 4: GRPO again" in card
assert "CRPS relative to the random walk" in card

class Hub:
    pushed = []
    def create_repo(self, repository, **_):
        Hub.pushed.append(repository)
        return repository
    def model_info(self, repository):
        return type("Info", (), {"private": True})
    def upload_folder(self, **_): ...

push.HfApi = Hub
pushed = run.config("compare", "--hub.repo_id", "me/demo")
assert "me/demo-grpo-3rd" in push.push_run(upload(pushed, tiny_runs.paths_of(pushed))), Hub.pushed
assert len(Hub.pushed) == 4
print("all of it")
"""


@pytest.mark.slow
def test_a_fourth_stage_is_one_row_and_one_file(finished, tmp_path):
    shutil.copytree(ROOT / "grpo", tmp_path / "grpo", ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "grpo" / "runs" / "stages.py"
    last = '    Stage(\n        key="compare",'
    assert table.read_text().count(last) == 1
    table.write_text(table.read_text().replace(last, ROW + last))
    stages = tmp_path / "grpo" / "stages"
    text = (stages / "stage3_train_grpo_from_sft.py").read_text()
    text = (
        text.replace('"stage3"', '"stage4"').replace('"stage2"', '"stage3"').replace("config.stage3", "config.stage4")
    )
    (stages / "stage4_train_grpo_again.py").write_text(text)
    skipped = shutil.ignore_patterns("checkpoints", "model_comparison")
    shutil.copytree(finished.folder, tmp_path / "run", ignore=skipped)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "HF_TOKEN": "hf_x"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("all of it\n"), done.stderr[-3000:]
