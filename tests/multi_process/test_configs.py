"""The shipped accelerate files and the SLURM example say what accelerate, TRL and the stages understand."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from trl.scripts.vllm_serve import ScriptArguments

from grpo.config import parse_run_config
from grpo.runs.stages import stage_of
from grpo.stages.training_settings import grpo_sections
from tests.multi_process.test_launch import CONFIGS, ROOT, clean_environment

FILES = sorted(CONFIGS.glob("*.yaml"))
BATCH = ROOT / "configs" / "slurm" / "grpo_with_vllm_server.sbatch"


def resolved(file: Path, *flags: str):
    """What `accelerate launch` makes of a file."""
    parser = launch_command_parser()
    arguments, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(file), *flags, "script.py"]))
    return arguments


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_knows_every_field(file):
    assert load_config_from_file(str(file)).num_processes >= 1  # refuses fields that it does not know
    flags = vars(launch_command_parser().parse_args(["script.py"]))
    content = yaml.safe_load(file.read_text())
    for section in ("deepspeed_config", "fsdp_config"):
        assert set(content.get(section, {})) <= set(flags), section
    assert content["mixed_precision"] == "no"  # a stage decides; DeepSpeed refuses two that differ


@pytest.mark.parametrize("stage", [2, 3])
def test_the_zero_files_ask_for_their_stage(stage):
    arguments = resolved(CONFIGS / f"zero{stage}.yaml")
    assert arguments.use_deepspeed
    assert arguments.zero_stage == stage


def test_the_fsdp_file_asks_for_its_second_version():
    arguments = resolved(CONFIGS / "fsdp2.yaml")
    assert arguments.use_fsdp
    environment = prepare_multi_gpu_env(arguments)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"


@pytest.mark.slow
def test_two_machines_meet_by_the_multi_node_file(tmp_path):
    (tmp_path / "who.py").write_text(
        "from accelerate import Accelerator\n"
        "state = Accelerator().state\n"
        "open(f'rank{state.process_index}', 'w').write(f'{state.num_processes} {state.local_process_index}')\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    launch += ["--config_file", str(CONFIGS / "multi_node.yaml"), "--main_process_port", port]
    environment = clean_environment(ACCELERATE_USE_CPU="true", PYTHONPATH=str(tmp_path))
    machines = [
        subprocess.Popen(
            [*launch, "--machine_rank", rank, "-m", "who"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for machine in machines:
        _, error = machine.communicate(timeout=120)
        assert machine.returncode == 0, error
    # two processes, each the first of its machine
    assert {path.name: path.read_text() for path in tmp_path.glob("rank*")} == {"rank0": "2 0", "rank1": "2 0"}


def commands_of(batch: Path) -> list[list[str]]:
    """The commands of a batch script, their lines joined and its variables as they stand."""
    joined = re.sub(r"\\\n\s*", " ", batch.read_text())
    return [shlex.split(line, comments=True) for line in joined.splitlines() if line.startswith("srun ")]


def flags_after(command: list[str], word: str) -> list[str]:
    return [part for part in command[command.index(word) + 1 :] if part != "&"]


def test_the_batch_script_parses():
    assert subprocess.run(["bash", "-n", str(BATCH)], capture_output=True, text=True).stderr == ""
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    assert subprocess.run([shellcheck, BATCH], capture_output=True, text=True).stdout == ""


def test_every_flag_of_the_batch_script_exists(tmp_path):
    server, trainers = commands_of(BATCH)
    given = {flag.removeprefix("--") for flag in flags_after(server, "vllm-serve") if flag.startswith("--")}
    assert given == {"model", "host", "port", "data_parallel_size"}
    assert given <= {field.name for field in dataclasses.fields(ScriptArguments)}

    launch = flags_after(trainers, "launch")
    module = launch.index("-m")
    parsed = launch_command_parser().parse_args([*launch[:module], "script.py"])
    assert (ROOT / parsed.config_file).is_file()
    assert f"--export=ALL,GRPO_NUM_PROCESSES={parsed.num_processes}" in trainers

    stage, *flags = launch[module + 1 :]
    assert stage == stage_of("stage1").module
    (tmp_path / "config.yaml").write_text("stock: AAPL\nmodel: Qwen/Qwen2.5-7B-Instruct\n")
    places = {"$run/config.yaml": f"{tmp_path}/config.yaml", "$run": str(tmp_path), "$address": "http://node1:8000"}
    config = parse_run_config([places.get(flag, flag) for flag in flags], prog=stage, description="")
    assert config.generation.vllm_server == "http://node1:8000"
    assert config.run_dir == tmp_path


def test_a_job_that_is_given_other_nodes_goes_on_with_the_same_run():
    def sections(address: str) -> dict[str, object]:
        flags = ["--generation.backend", "vllm", "--generation.vllm_server", address]
        config = parse_run_config(flags, prog="stage1", description="")
        return grpo_sections(config, config.stage1)

    assert sections("http://node1:8000") == sections("http://node7:8000")
