"""run_pipeline.sh itself: the real script, with a stand-in for Python that writes down how it was called."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo.runs.__main__ import stage_lines
from grpo.runs.stages import ADAPTER_STAGES, STAGES

ROOT = Path(__file__).parents[1]
SCRIPTS = ["run_pipeline.sh", "tests/run.sh", ".ci/run"]
MODULES = [stage.module for stage in STAGES]

STAND_IN = """#!/usr/bin/env bash
asked=${GRPO_NUM_PROCESSES:+ asked=$GRPO_NUM_PROCESSES}
echo "$* | cuda=${CUDA_VISIBLE_DEVICES:-} cpu=${ACCELERATE_USE_CPU:-}$asked" >>"$CALLS"
case "$*" in
"-c "*device_count*) echo "${GPUS:-0}" ;;
"-c "*) exit "${BAD_PYTHON:-0}" ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip "*) exit "${PIP_EXIT:-0}" ;;
"-m grpo.runs start"*print_config*) echo "stock: sim:ou" ;;
"-m grpo.runs start"*) mkdir -p results/run && echo results/run ;;
"-m grpo.runs stages"*) echo "$STAGES" ;;
"-m grpo.runs resume"*) [[ -d $4 ]] && echo "$4" ;;
*grpo.stages.${SLOW_STAGE:-none}*) echo slow && sleep 30 ;;
"-m grpo.preflight"*) [[ -z ${UNFIT:-} ]] || { echo "error: $UNFIT" >&2 && exit 1; } ;;
*grpo.stages.${BAD_STAGE:-none}*) echo "error: bad input" >&2 && exit 1 ;;
esac
"""


class Checkout:
    """A copy of what the script needs, where `python3` is the stand-in."""

    def __init__(self, folder: Path):
        self.folder = folder / "check out"  # with a blank, as real paths have
        self.folder.mkdir()
        for name in ("run_pipeline.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        binaries = folder / "bin"
        binaries.mkdir()
        for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
            (binaries / name).write_text(STAND_IN)
            (binaries / name).chmod(0o755)
        self.calls_file = folder / "calls"
        clean = {
            key: value for key, value in os.environ.items() if key not in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU")
        }
        self.environment = clean | {"PATH": f"{binaries}:{os.environ['PATH']}", "CALLS": str(self.calls_file)}
        self.environment["STAGES"] = stage_lines()

    def command(self, *arguments: str) -> list[str]:
        return ["bash", str(self.folder / "run_pipeline.sh"), *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self, containing: str) -> list[str]:
        return [line for line in self.calls_file.read_text().splitlines() if containing in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_shell_scripts_parse_and_may_be_executed(script: str):
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True).stderr == ""


def test_help_lists_the_flags_and_installs_nothing(checkout: Checkout):
    helped = checkout.run("--help")
    assert helped.returncode == 0
    for flag in ("--resume", "--cuda-devices", "--num-processes", "--accelerate-config", "--install", "preflight"):
        assert flag in helped.stdout
    assert not (checkout.folder / ".venv").exists()


def test_help_goes_on_with_the_settings_once_installed(checkout: Checkout):
    checkout.run("--install")
    assert checkout.run("--help").returncode == 0
    assert len(checkout.calls("-m grpo.runs start --help")) == 1


def test_the_settings_of_help_name_every_field():
    command = [sys.executable, "-m", "grpo.runs", "start", "--help"]
    helped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0
    for flag in ("--stock", "--lora.rank", "--stage3.learning_rate", "--paths.sft_data", "--lora_rank = --lora.rank"):
        assert flag in " ".join(helped.stdout.split())


def test_the_stages_run_in_order_with_the_run_s_config(checkout: Checkout):
    finished = checkout.run("--stock", "AAPL", "--lora-rank", "32")
    assert finished.returncode == 0, finished.stderr
    assert checkout.calls("grpo.runs")[0].startswith("-m grpo.runs start --stock AAPL --lora-rank 32 |")
    stages = [call.split(" |")[0] for call in checkout.calls("grpo.stages")]
    settings = "--config results/run/config.yaml --run-dir results/run"
    assert stages == [f"-m {module} {settings}" for module in MODULES]
    headings = [line for line in finished.stderr.splitlines() if line.startswith("[")]
    assert headings == [f"[{number}/6 {stage.title}]" for number, stage in enumerate(STAGES, start=1)]


def test_the_stages_that_train_and_no_others_share_their_work(checkout: Checkout):
    assert checkout.run("--num-processes", "2").returncode == 0
    launched = [call for call in checkout.calls("grpo.stages") if "accelerate_cli launch" in call]
    assert len(launched) == len(ADAPTER_STAGES)
    assert all(f"-m {stage.module} " in call for stage, call in zip(ADAPTER_STAGES, launched, strict=True))


def test_a_setup_that_cannot_work_stops_before_any_stage(checkout: Checkout):
    refused = checkout.run("--num-processes", "2", UNFIT="port 29500 is taken")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1] == "error: port 29500 is taken"
    [call] = checkout.calls("grpo.preflight")
    settings = "--config results/run/config.yaml --run-dir results/run --num-processes 2"
    assert call.startswith(f"-m grpo.preflight {settings} |")
    assert checkout.calls("grpo.stages") == []
    (checkout.folder / "mine.yaml").write_text("distributed_type: FSDP\nnum_processes: 3\n")
    checkout.run("--accelerate-config", "mine.yaml")
    [call] = checkout.calls("grpo.preflight")
    assert "--num-processes 3 --accelerate-config mine.yaml |" in call


def test_the_real_preflight_stops_the_real_stages(checkout: Checkout):
    """The script with this interpreter: one line, and nothing but the run's config in its folder."""
    real = f'#!/usr/bin/env bash\ncase "$*" in "-m venv "*|"-m pip "*) ;; *) exec {sys.executable} "$@" ;; esac\n'
    checkout.run("--install")
    (checkout.folder / ".venv" / "bin" / "python").write_text(real)
    refused = checkout.run("--max-seq-length", "90", PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1")
    assert refused.returncode == 1
    [error] = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"the longest prompt has \d+ tokens .* more than --max-seq-length 90; raise it", error)
    assert "Traceback" not in refused.stderr
    [run] = (checkout.folder / "results").iterdir()
    assert {path.name for path in run.iterdir()} <= {"config.yaml", "pipeline.log"}


def test_print_config_runs_nothing(checkout: Checkout):
    printed = checkout.run("--print_config")
    assert (printed.returncode, printed.stdout) == (0, "stock: sim:ou\n")
    assert checkout.calls("grpo.stages") == []


def test_a_second_run_installs_nothing_until_the_lock_changes(checkout: Checkout):
    checkout.run()
    assert len(checkout.calls("-m pip install")) == 1
    assert "-c " + str(checkout.folder / "constraints.txt") in checkout.calls("-m pip install")[0]
    checkout.run()
    assert checkout.calls("-m pip") == checkout.calls("-m venv") == []
    with (checkout.folder / "constraints.txt").open("a") as file:
        file.write("nothing==1\n")
    checkout.run()
    assert len(checkout.calls("-m pip install")) == 1
    assert checkout.calls("-m venv") == []


def test_the_development_install_serves_the_pipeline_too(checkout: Checkout):
    checkout.run("--install", "dev")
    assert f"-e {checkout.folder}[dev] -c" in checkout.calls("-m pip install")[0]
    checkout.run()
    assert checkout.calls("-m pip") == []


def test_an_interrupted_install_is_made_again_from_nothing(checkout: Checkout):
    assert checkout.run(PIP_EXIT="9").returncode == 9
    left_over = checkout.folder / ".venv" / "half a package"
    left_over.touch()
    assert checkout.run().returncode == 0
    assert len(checkout.calls("-m venv")) == 1
    assert not left_over.exists()


def test_without_a_fitting_python_it_says_so(checkout: Checkout):
    refused = checkout.run(BAD_PYTHON="1")
    assert refused.returncode == 2
    assert refused.stderr == "error: no Python from 3.11 to 3.13 on the PATH; install one and run again\n"


def test_a_failing_stage_stops_the_pipeline_and_shows_how_to_go_on(checkout: Checkout):
    stopped = checkout.run(BAD_STAGE="stage2_train_sft")
    assert stopped.returncode == 1
    assert len(checkout.calls("grpo.stages")) == 4
    assert "Stopped in [4/6 stage 2: SFT]. Go on with:" in stopped.stderr
    assert stopped.stderr.rstrip().endswith("--resume results/run")


def test_resume_takes_the_folder_and_nothing_else(checkout: Checkout):
    (checkout.folder / "results" / "old").mkdir(parents=True)
    assert checkout.run("--resume", "results/old/").returncode == 0
    assert checkout.calls("grpo.runs")[0].startswith("-m grpo.runs resume results/old |")
    assert all("--run-dir results/old |" in call for call in checkout.calls("grpo.stages"))
    refused = checkout.run("--resume=results/old", "--seed", "3")
    assert refused.returncode == 2
    assert "leave out --seed 3" in refused.stderr
    assert checkout.run("--resume", "results/none").returncode == 1
    assert checkout.calls("grpo.stages") == []


def test_ctrl_c_shows_how_to_go_on(checkout: Checkout):
    checkout.run("--install")
    environment = checkout.environment | {"SLOW_STAGE": "stage1_train_grpo"}
    process = subprocess.Popen(
        checkout.command(),
        cwd=checkout.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell starts its background jobs with SIGINT ignored, and their children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "slow\n"
    time.sleep(0.2)  # until the stand-in waits for its child
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Stopped in [2/6 stage 1: GRPO]" in error
    assert error.rstrip().endswith("--resume results/run")


def test_one_process_per_gpu_of_cuda_devices(checkout: Checkout):
    assert checkout.run("--cuda-devices", "2,3", GPUS="2").returncode == 0
    call = checkout.calls("grpo.stages.stage1")[0]
    assert "accelerate_cli launch --num_processes 2" in call
    assert f"--config_file {checkout.folder}/configs/accelerate/ddp.yaml" in call
    assert call.endswith("| cuda=2,3 cpu= asked=2")


def test_gpus_that_are_not_there_are_an_error(checkout: Checkout):
    refused = checkout.run("--cuda-devices=0,1", GPUS="1")
    assert refused.returncode == 2
    assert "error: --cuda-devices 0,1: PyTorch sees 1 of these" in refused.stderr
    assert checkout.calls("grpo.stages") == []


def test_processes_on_a_cpu_are_told_so(checkout: Checkout):
    assert checkout.run("--num-processes", "2").returncode == 0
    call = checkout.calls("grpo.stages.stage1")[0]
    assert "launch --num_processes 2" in call
    assert call.endswith("| cuda= cpu=true asked=2")


def test_another_accelerate_config_is_passed_on(checkout: Checkout):
    (checkout.folder / "mine.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 3  # by default\n")
    assert checkout.run("--accelerate-config", "mine.yaml").returncode == 0
    assert "launch --num_processes 3 --config_file mine.yaml -m" in checkout.calls("grpo.stages.stage1")[0]
    assert checkout.run("--accelerate-config", "mine.yaml", "--num-processes", "2").returncode == 0
    assert "launch --num_processes 2 --config_file mine.yaml -m" in checkout.calls("grpo.stages.stage1")[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--resume"], "--resume needs a value"),
        (["--cuda-devices", "--stock", "AAPL"], "--cuda-devices needs a value"),
        (["--num-processes", "two"], "--num-processes must be a positive number; got two"),
        (["--num-processes=0"], "--num-processes must be a positive number; got 0"),
        (["--accelerate-config", "none.yaml"], "--accelerate-config none.yaml: no such file"),
    ],
)
def test_wrong_flags_stop_before_the_install(checkout: Checkout, arguments: list[str], message: str):
    refused = checkout.run(*arguments)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (checkout.folder / ".venv").exists()


def test_the_ddp_config_makes_two_processes_that_know_of_each_other_on_a_cpu(tmp_path: Path):
    pytest.importorskip("accelerate")
    (tmp_path / "who.py").write_text(
        "from accelerate import Accelerator\n"
        "state = Accelerator().state\n"
        "open(f'rank{state.process_index}', 'w').write(f'{state.num_processes} {state.device.type}')\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    subprocess.run(
        [*launch, "--config_file", str(ROOT / "configs" / "accelerate" / "ddp.yaml"), "-m", "who"],
        cwd=tmp_path,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert {path.name: path.read_text() for path in tmp_path.glob("rank*")} == {"rank0": "2 cpu", "rank1": "2 cpu"}
