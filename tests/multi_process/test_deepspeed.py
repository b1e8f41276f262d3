"""ZeRO-2 and ZeRO-3 with the shipped files, on the CPU: the same losses and weights as one process.

`tests/run_deepspeed.sh` lays DeepSpeed over .venv and runs this.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.multi_process.processes import run_together
from tests.multi_process.recorded import Recorded, assert_same_training, flags_of
from tests.multi_process.test_launch import CONFIGS, ROOT, clean_environment
from tests.multi_process.workers import recorded_stage, run_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed: tests/run_deepspeed.sh"
    ),
]
# accelerate takes DeepSpeed for a GPU's unless it is told both
ON_CPU = {"use_cpu": False, "ddp_backend": "gloo"}


def launch(config: str, *arguments: object) -> None:
    """Two processes under accelerate with one of the shipped files."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    command += ["--config_file", str(CONFIGS / config), "-m", *map(str, arguments)]
    environment = clean_environment(DS_ACCELERATOR="cpu", GRPO_NUM_PROCESSES="2")
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr[-5000:]


@pytest.fixture(scope="module", params=["stage1", "stage2"])
def alone(request, prepared, tmp_path_factory) -> tuple[str, Recorded]:
    stage, run = request.param, prepared(tmp_path_factory.mktemp("alone") / "run")
    outcome = run_together(
        1, run.root / "logs", recorded_stage, run.root, stage, run.root / "record", flags_of(stage, 1)
    )
    assert outcome.codes == [0], outcome.texts[0]
    return stage, Recorded(run, stage, 1)


@pytest.mark.parametrize("config", ["zero2.yaml", "zero3.yaml"])
def test_zero_trains_as_one_process_does(alone, config, prepared, tmp_path):
    stage, expected = alone
    run = prepared(tmp_path / "run")
    flags = flags_of(stage, 2, **ON_CPU)
    launch(config, "tests.multi_process.workers", run.root, stage, run.root / "record", *flags)
    # DeepSpeed's own checkpoint shows that it trained, and not DDP in its place; ZeRO-3 alone has weights of each rank
    shards = sorted((run.place(stage) / "checkpoints").glob("checkpoint-3/global_step3/*model_states.pt"))
    assert len(shards) == (2 if config == "zero3.yaml" else 1)
    assert_same_training(Recorded(run, stage, 2), expected)


@pytest.mark.parametrize("config", ["zero2.yaml", "zero3.yaml"])
def test_samples_of_the_model_itself_are_those_of_plain_processes(config, prepared, tmp_path):
    flags = ["--stage1.steps", "2", "--stage1.eval_every", "2"]
    rewards = []
    for name, trl in (("plain", {}), ("zero", ON_CPU)):
        run = prepared(tmp_path / name)
        given = [*run.arguments("stage1"), *flags, "--stage1.trl", json.dumps(trl)]
        if name == "plain":
            outcome = run_together(2, run.root / "logs", run_stage, run.root, "stage1", given)
            assert outcome.codes == [0, 0], "\n".join(outcome.texts)
        else:
            launch(config, "grpo.stages.stage1_train_grpo", *given)
        history = json.loads((run.place("stage1") / "log_history.json").read_text())
        rewards.append([entry[key] for entry in history for key in ("reward", "eval_crps") if key in entry])
    assert len(rewards[0]) > 3
    assert rewards[1] == pytest.approx(rewards[0], rel=1e-5)
