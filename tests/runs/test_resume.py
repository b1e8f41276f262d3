from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grpo.config import RunConfig
from grpo.runs import __main__ as runs
from grpo.runs.folder import publish_adapter, stage_folder
from grpo.runs.log import stage_entry
from grpo.runs.resume import StageRun, run_stage
from grpo.training.config import GrpoConfig
from preprocessing.errors import UserError
from preprocessing.windows import WindowsError
from tests.tiny_runs import paths_of

ROOT = Path(__file__).parents[2]


class Toy:
    """A stage that copies its input to its output, and counts how often it worked."""

    def __init__(self, folder: Path):
        self.config = RunConfig(run_dir=folder / "run", stage1=GrpoConfig(steps=7))
        self.input = folder / "in.csv"
        self.input.write_text("a,b\n")
        self.output = stage_folder(self.config.run_folder, "stage1") / "adapter"
        self.manifest = stage_folder(self.config.run_folder, "stage1") / "manifest.json"
        self.runs: list[StageRun] = []

    def body(self, run: StageRun) -> dict[str, Any]:
        self.runs.append(run)
        self.output.mkdir(exist_ok=True)
        (self.output / "weights").write_text(self.input.read_text())
        return {"crps": np.float64(0.5), "skill": float("nan")}

    def run(self, **changes: Any) -> None:
        arguments: dict[str, Any] = {
            "sections": {"stage1": self.config.stage1, "seed": self.config.seed},
            "inputs": {"train_x": self.input},
            "outputs": {"adapter": self.output},
            "body": self.body,
        }
        run_stage("stage1", self.config.run_folder, seed=self.config.seed, **arguments | changes)

    def checkpoint(self, step: int) -> Path:
        """Write a checkpoint with the files of a Trainer's one."""
        folder = stage_folder(self.config.run_folder, "stage1") / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        weights = len(header).to_bytes(8, "little") + header + bytes(8)
        (folder / "adapter_model.safetensors").write_bytes(weights)
        # the end-of-directory record of an empty zip file
        (folder / "optimizer.pt").write_bytes(b"PK\x05\x06" + bytes(18))
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        return folder


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


# The resume rule


def test_a_finished_stage_leaves_a_manifest_that_says_what_it_did(toy: Toy):
    toy.run()
    manifest = json.loads(toy.manifest.read_text())
    file_hash = hashlib.sha256(b"a,b\n").hexdigest()
    folder_hash = hashlib.sha256(f"weights\0{file_hash}\n".encode()).hexdigest()
    assert manifest["stage"] == "stage1"
    assert manifest["inputs"] == {"train_x": {"path": str(toy.input), "sha256": file_hash}}
    assert manifest["outputs"] == {"adapter": {"path": str(toy.output), "sha256": folder_hash}}
    assert manifest["config"]["stage1"]["steps"] == 7
    assert manifest["metrics"] == {"crps": 0.5, "skill": None}
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["resumed_from"] is None
    assert "stage1: start" in (toy.config.run_dir / "pipeline.log").read_text()  # type: ignore[operator]


def test_an_equal_stage_is_skipped(toy: Toy, capsys: pytest.CaptureFixture[str]):
    toy.run()
    before = toy.manifest.read_bytes()
    toy.run()
    assert len(toy.runs) == 1
    assert toy.manifest.read_bytes() == before
    assert "stage1: already done" in capsys.readouterr().err


def test_a_moved_input_with_the_same_content_is_equal(toy: Toy):
    toy.run()
    moved = toy.input.rename(toy.input.with_name("moved.csv"))
    toy.run(inputs={"train_x": moved})
    assert len(toy.runs) == 1


def test_another_config_is_refused_key_by_key(toy: Toy):
    toy.run()
    other = dataclasses.replace(toy.config.stage1, steps=8, rewards={"crps": 1.0})
    with pytest.raises(UserError) as error:
        toy.run(sections={"stage1": other, "seed": toy.config.seed})
    message = str(error.value)
    assert "stage1.steps was 7, is 8" in message
    assert "stage1.rewards.crps was not set, is 1.0" in message
    assert "stage1.rewards.energy was 1.0, is not set" in message
    assert "learning_rate" not in message
    assert "another --run-dir" in message
    assert f"delete {toy.manifest.parent}" in message
    assert len(toy.runs) == 1


def test_another_input_is_refused(toy: Toy):
    toy.run()
    toy.input.write_text("a,c\n")
    with pytest.raises(UserError, match=r"input train_x \(.*in\.csv\) has another content"):
        toy.run()


def test_a_further_input_is_refused(toy: Toy):
    toy.run()
    with pytest.raises(UserError, match="input val_x was not given"):
        toy.run(inputs={"train_x": toy.input, "val_x": toy.input})


def test_a_changed_or_deleted_output_is_refused(toy: Toy):
    toy.run()
    (toy.output / "weights").write_text("tampered")
    with pytest.raises(UserError, match=r"output adapter .* is not what the stage wrote"):
        toy.run()
    (toy.output / "weights").unlink()
    toy.output.rmdir()
    with pytest.raises(UserError, match="output adapter is missing"):
        toy.run()


def test_a_stage_that_may_be_made_again_says_why(toy: Toy, capsys: pytest.CaptureFixture[str]):
    toy.run(remake=True)
    toy.run(remake=True)
    assert len(toy.runs) == 1
    toy.input.write_text("a,c\n")
    toy.run(remake=True, sections={"stage1": toy.config.stage1, "seed": 1})
    assert len(toy.runs) == 2
    error = capsys.readouterr().err
    assert "stage1: made again, since seed was 0, is 1; input train_x (" in error
    assert json.loads(toy.manifest.read_text())["config"]["seed"] == 1

    with pytest.raises(ZeroDivisionError):
        toy.run(remake=True, body=lambda run: {"x": 1 / 0})  # seed 0 again
    assert not toy.manifest.exists()


def test_a_damaged_manifest_is_refused(toy: Toy):
    toy.run()
    toy.manifest.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is not a stage's record; delete"):
        toy.run()


def test_a_missing_input_names_the_stage_that_makes_it(toy: Toy):
    paths = paths_of(toy.config)
    with pytest.raises(
        UserError, match=r"input sft_lora is missing at .*; run `python -m grpo\.stages\.stage2_train_sft`"
    ):
        toy.run(inputs=paths.named("sft_lora"))
    with pytest.raises(UserError, match="input train_x is missing at elsewhere; correct the path"):
        toy.run(inputs={"train_x": Path("elsewhere")})
    assert toy.runs == []


def test_a_stage_without_its_output_is_not_done(toy: Toy):
    with pytest.raises(UserError, match="ended without its output adapter"):
        toy.run(body=lambda run: {})
    assert not toy.manifest.exists()
    toy.run()
    assert toy.manifest.exists()


def test_an_unfinished_stage_resumes_from_its_newest_checkpoint(toy: Toy):
    for step in (9, 100, 20):
        toy.checkpoint(step)
    toy.run()
    assert toy.runs[0].resume_from == stage_folder(toy.config.run_folder, "stage1") / "checkpoints" / "checkpoint-100"
    assert json.loads(toy.manifest.read_text())["resumed_from"] == "checkpoint-100"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: (folder / "trainer_state.json").write_text('{"global'),
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: (folder / "optimizer.pt").write_bytes(b""),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""),
        lambda folder: os.truncate(folder / "adapter_model.safetensors", 70),
    ],
    ids=["no state", "half a state", "no optimizer", "empty optimizer", "no weights", "empty weights", "half weights"],
)
def test_a_broken_checkpoint_is_passed_by(toy: Toy, capsys: pytest.CaptureFixture[str], damage: Any):
    whole, broken = toy.checkpoint(10), toy.checkpoint(20)
    damage(broken)
    toy.run()
    assert toy.runs[0].resume_from == whole
    assert f"warning: ignoring {broken}" in capsys.readouterr().err


def test_a_checkpoint_of_another_config_is_not_resumed(toy: Toy):
    def interrupted(run: StageRun) -> dict[str, Any]:
        toy.checkpoint(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="--resume"):
        toy.run(body=interrupted)
    with pytest.raises(UserError, match="seed was 0, is 1"):
        toy.run(sections={"stage1": toy.config.stage1, "seed": 1})
    toy.run()
    assert toy.runs[0].resume_from is not None


def test_without_a_checkpoint_an_unfinished_stage_may_start_with_another_config(toy: Toy):
    with pytest.raises(ZeroDivisionError):
        toy.run(body=lambda run: {"x": 1 / 0})
    toy.run(sections={"stage1": toy.config.stage1, "seed": 1})
    assert json.loads(toy.manifest.read_text())["config"]["seed"] == 1


def test_only_rank_0_writes(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    toy.run()
    assert len(toy.runs) == 1
    assert sorted(path.name for path in stage_folder(toy.config.run_folder, "stage1").iterdir()) == ["adapter"]
    assert not (stage_folder(toy.config.run_folder, "stage1").parent / "pipeline.log").exists()


# Kill, full disk, errors

TOY_STAGE = """
    import sys, time
    from pathlib import Path
    from grpo.config import RunConfig
    from grpo.runs.log import stage_entry
    from grpo.runs.resume import run_stage

    folder, pause_at = Path(sys.argv[1]), int(sys.argv[2])

    def body(run):
        total = int((run.resume_from / "total").read_text()) if run.resume_from else 0
        first = int(run.resume_from.name.split("-")[1]) + 1 if run.resume_from else 1
        for step in range(first, 5):
            total += step
            checkpoint = run.folder / "checkpoints" / f"checkpoint-{step}"
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / "total").write_text(str(total))
            (checkpoint / "optimizer.pt").write_bytes(b"PK\\x05\\x06" + bytes(18))
            if step == pause_at:
                print("paused", flush=True)
                time.sleep(60)
            (checkpoint / "model.txt").write_text("w")
            (checkpoint / "trainer_state.json").write_text('{"global_step": %d}' % step)
        (run.folder / "result").write_text(str(total))
        return {"steps": 4 - first + 1}

    def main():
        output = folder / "stage1_grpo_training" / "result"
        run_stage("stage1", folder, seed=0, sections={}, inputs={}, outputs={"result": output}, body=body)

    sys.exit(stage_entry(main))
"""


def start_toy_process(tmp_path: Path, pause_at: int) -> subprocess.Popen[str]:
    script = tmp_path / "toy_stage.py"
    script.write_text(textwrap.dedent(TOY_STAGE))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path / "run"), str(pause_at)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c() -> None:
    """A shell starts its background jobs with SIGINT ignored, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_stage_goes_on_from_its_last_whole_checkpoint(tmp_path: Path, how: signal.Signals):
    process = start_toy_process(tmp_path, pause_at=3)
    assert process.stdout is not None
    assert process.stdout.readline() == "paused\n"
    process.send_signal(how)
    _, error = process.communicate(timeout=30)
    stage = tmp_path / "run" / "stage1_grpo_training"
    assert not (stage / "manifest.json").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert error.splitlines()[-1] == f"error: interrupted; go on with: ./run_pipeline.sh --resume {tmp_path}/run"
        assert "Traceback" not in error

    again = start_toy_process(tmp_path, pause_at=0)
    _, error = again.communicate(timeout=30)
    assert again.returncode == 0
    assert "resume from" in error
    manifest = json.loads((stage / "manifest.json").read_text())
    assert manifest["resumed_from"] == "checkpoint-2"
    assert manifest["metrics"] == {"steps": 2}
    assert (stage / "result").read_text() == "10"  # 1 + 2 + 3 + 4


def test_a_full_disk_is_one_line_with_the_way_out(toy: Toy, capsys: pytest.CaptureFixture[str]):
    def body(run: StageRun) -> dict[str, Any]:
        with open("/dev/full", "w") as file:
            file.write("x")
        return {}

    assert stage_entry(lambda: toy.run(body=body)) == 1
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("error: disk full: free space on the disk of")
    assert last_line.endswith(f"--resume {toy.config.run_dir}")
    assert not toy.manifest.exists()


FULL_DISK = """
    import sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from grpo.runs.log import stage_entry
    from grpo.runs.resume import run_stage

    def body(run):
        weights = {"w": torch.zeros(1_000_000)}
        save_file(weights, run.folder / "w") if sys.argv[2] == "safetensors" else torch.save(weights, run.folder / "w")
        return {}

    arguments = {"seed": 0, "sections": {}, "inputs": {}, "outputs": {}, "body": body}
    sys.exit(stage_entry(lambda: run_stage("stage1", Path(sys.argv[1], "run"), **arguments)))
"""


@pytest.mark.parametrize("writer", ["torch", "safetensors"])
def test_weights_that_do_not_fit_the_disk_are_one_line(tmp_path: Path, writer: str):
    script = tmp_path / "full.py"
    script.write_text(textwrap.dedent(FULL_DISK))
    disk = tmp_path / "disk"
    disk.mkdir()
    in_small_disk = "mount -t tmpfs -o size=1m tmpfs $0 || exit 77; exec $1 $2 $0 $3"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", in_small_disk]
    command = [*unshare, str(disk), sys.executable, str(script), writer]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "unshare" in process.stderr or process.returncode == 77:
        pytest.skip("no right to mount a small disk")
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(f"error: disk full: free space on the disk of {disk}/run")
    assert "Traceback" not in process.stderr


def test_a_disk_that_fills_up_at_the_manifest_leaves_none(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    def body(run: StageRun) -> dict[str, Any]:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        return toy.body(run)

    with pytest.raises(UserError, match="disk full"):
        toy.run(body=body)
    assert sorted(path.name for path in toy.manifest.parent.iterdir()) == ["adapter", "started.json"]


@pytest.mark.parametrize(
    "error, line",
    [
        (UserError("no input"), "error: no input"),
        (WindowsError("x.csv:\n  line 3"), "error: x.csv: line 3"),
        (FileNotFoundError(2, "No such file", "a.csv"), "error: [Errno 2] No such file: 'a.csv'"),
    ],
)
def test_expected_errors_are_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]):
    def main() -> None:
        raise error

    assert stage_entry(main) == 1
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("error", [ValueError("shapes differ"), KeyError("x"), RuntimeError("CUDA error")])
def test_a_bug_keeps_its_traceback(toy: Toy, error: Exception):
    def body(run: StageRun) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        stage_entry(lambda: toy.run(body=body))
    log = (stage_folder(toy.config.run_folder, "stage1").parent / "pipeline.log").read_text()
    assert f"ERROR unexpected {type(error).__name__}" in log
    assert "Traceback (most recent call last)" in log


def test_publishing_replaces_the_former_adapter_and_leaves_nothing_else(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "models" / "M" / "AAPL" / "grpo_lora_1st"
    source.mkdir()
    (source / "adapter_config.json").write_text("1")
    (source / "extra").write_text("1")
    publish_adapter(source, target)
    (source / "adapter_config.json").write_text("2")
    (source / "extra").unlink()
    publish_adapter(source, target)
    assert [(path.name, path.read_text()) for path in target.iterdir()] == [("adapter_config.json", "2")]
    assert list(target.parent.iterdir()) == [target]


# Paths, start and resume


def test_paths_given_are_kept_and_the_others_lie_in_the_run_folder():
    config = RunConfig(stock="AAPL", run_dir=Path("r"))
    config = dataclasses.replace(config, paths=dataclasses.replace(config.paths, train_x=Path("mine.csv")))
    paths = paths_of(config)
    assert paths.train_x == Path("mine.csv")
    assert paths.test_y == Path("r/data/AAPL_test_y.csv")
    assert paths.sft_data == Path("r/sft_data_generation/AAPL_sft_training_data.csv")
    assert paths.adapters["grpo_lora_2nd"] == Path("r/stage3_grpo_from_sft/adapter")
    assert all(value is not None for value in dataclasses.asdict(paths).values())


def call_runs(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "grpo.runs", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_start_makes_a_run_folder_and_prints_nothing_else(tmp_path: Path):
    started = call_runs("start", "--stock", "AAPL,MSFT", "--lora-rank", "32", cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    assert re.fullmatch(r"results/AAPL-MSFT_\d{8}-\d{6}\n", started.stdout)
    folder = tmp_path / started.stdout.strip()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    resumed = call_runs("resume", started.stdout.strip(), cwd=tmp_path)
    assert (resumed.returncode, resumed.stdout) == (0, started.stdout)


def test_two_runs_in_the_same_second_get_two_folders(tmp_path: Path):
    second = int(time.time())
    folders = {runs.start(RunConfig(results_dir=tmp_path)) for _ in range(3)}
    assert len(folders) == 3
    assert int(time.time()) - second < 30
    assert all((folder / "config.yaml").is_file() for folder in folders)


def test_start_refuses_a_folder_with_another_config(tmp_path: Path):
    config = RunConfig(run_dir=tmp_path / "r")
    assert runs.start(config) == runs.start(config) == tmp_path / "r"
    with pytest.raises(UserError, match=r"seed was 0, is 3\. Give another --run-dir, .*--resume"):
        runs.start(dataclasses.replace(config, seed=3))


def test_resume_of_a_wrong_folder_lists_the_runs(tmp_path: Path):
    there = runs.start(RunConfig(results_dir=tmp_path))
    with pytest.raises(UserError, match=rf"nope is not a run folder, it has no config\.yaml; runs there: {there}"):
        runs.resume(tmp_path / "nope")
    wrong = call_runs("resume", "nope", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert len(wrong.stderr.splitlines()) == 1


def test_resume_of_a_broken_config_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = runs.start(RunConfig(run_dir=tmp_path / "r"))
    with (folder / "config.yaml").open("a") as file:
        file.write("bogus: 1\n")
    with pytest.raises(SystemExit):
        runs.resume(folder)
    error = capsys.readouterr().err
    assert str(folder / "config.yaml") in error
    assert "bogus" in error


def test_an_error_of_a_third_party_on_the_public_base_class_is_one_line(capsys):
    theirs = type("TheirError", (UserError,), {"__module__": "their_package.forecaster"})

    def main() -> None:
        raise theirs("their_package: the key is missing; set THEIR_KEY")

    assert stage_entry(main) == 1
    assert capsys.readouterr().err == "error: their_package: the key is missing; set THEIR_KEY\n"
