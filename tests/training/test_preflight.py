"""Problems that are named before training, against TRL's own rules and against what the machine is said to have."""

from __future__ import annotations

import dataclasses
import math
import re
import socket
from pathlib import Path

import pytest
from trl import GRPOConfig

from grpo import preflight as command
from grpo.config import RunConfig
from grpo.language.config import PromptConfig
from grpo.language.prompts import STYLES
from grpo.machine import memory
from grpo.machine.memory import Batch, model_size
from grpo.models import hardware as machine
from grpo.models.chat import tokenize_prompts
from grpo.models.config import EMBEDDED, LoadingConfig, LoraSettings
from grpo.models.hardware import Package, declared_packages, free_disk, is_port_free, loading_problems
from grpo.models.loading import load_tokenizer
from grpo.models.spec import ModelSpec
from grpo.publishing.config import HubConfig
from grpo.runs.folder import stage_manifest
from grpo.runs.log import stage_entry
from grpo.runs.stages import ADAPTER_STAGES, stage_of
from grpo.sampling.config import GenerationConfig
from grpo.stages.training_settings import training_task
from grpo.training import preflight
from grpo.training.config import GrpoConfig
from grpo.training.preflight import (
    PreflightError,
    batch_problems,
    check_training,
    disk_problems,
    memory_problems,
    port_problems,
    problems_of_run,
    version_problems,
)
from grpo.training.task import AnyTask
from preprocessing.windows_writer import write_windows
from tests.tiny_runs import paths_of
from tests.windows_factory import simulated_windows

SIZE = model_size(ModelSpec(), LoraSettings())
PROMPTS = [[1] * 300] * 64


def task_of(config: RunConfig, stage: str) -> AnyTask:
    return training_task(config, stage_of(stage))


def problems_of(config: RunConfig, processes: int, port: int) -> list[str]:
    paths = paths_of(config)
    tasks = [training_task(config, stage) for stage in ADAPTER_STAGES]
    train = paths.train_x, paths.train_y
    return problems_of_run(tasks, config.run_folder, train=train, processes=processes, port=port)


def settings(group: int, prompts: int = 2, **trl) -> GrpoConfig:
    return GrpoConfig(num_generations=group, prompts_per_step=prompts, trl=trl)


CASES = [
    settings(8),
    settings(8, per_device_train_batch_size=12),
    settings(8, per_device_train_batch_size=12, gradient_accumulation_steps=2),
    settings(6, per_device_train_batch_size=4, steps_per_generation=3),
    settings(5, per_device_train_batch_size=4, steps_per_generation=3),
    settings(8, generation_batch_size=48),
    settings(8, generation_batch_size=40),
    settings(4, per_device_train_batch_size=6, generation_batch_size=18),
    settings(8, generation_batch_size=32, steps_per_generation=2),
]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("given", CASES, ids=lambda case: f"G{case.num_generations} {case.trl}")
def test_the_batch_is_refused_where_trl_refuses_it_or_would_split_a_group(given, processes, monkeypatch, tmp_path):
    monkeypatch.setattr(GRPOConfig, "world_size", property(lambda self: processes))
    own = {
        "per_device_train_batch_size": given.prompts_per_step * given.num_generations,
        "num_generations": given.num_generations,
        "output_dir": str(tmp_path),
        "use_cpu": True,
    }
    try:
        trl = GRPOConfig(**own | given.trl)
        refused = bool(trl.per_device_train_batch_size * trl.steps_per_generation % trl.num_generations)
    except ValueError:
        refused = True
    assert bool(batch_problems(given, "stage1", processes, None)) == refused


def test_the_nearest_valid_sizes_are_proposed():
    [problem] = batch_problems(settings(8, per_device_train_batch_size=12), "stage1", 1, None)
    assert "num_generations 8 does not divide the 12 completions of a process (12 rows x 1)" in problem
    # multiples of 8 around 12, divisors of 12 around 8
    assert "take per_device_train_batch_size 8 or 16, or num_generations 6 or 12" in problem
    [problem] = batch_problems(settings(8, per_device_train_batch_size=3, gradient_accumulation_steps=2), "s", 2, None)
    assert "the 6 completions of a process (3 rows x 2)" in problem
    assert problem.endswith("take per_device_train_batch_size 4, or num_generations 6")  # 4 x 2 = 8, 3 x 2 = 6
    [problem] = batch_problems(
        settings(8, per_device_train_batch_size=4), "stage1", 2, None
    )  # a group over 2 processes
    assert problem.endswith("take per_device_train_batch_size 8, or num_generations 4")
    [problem] = batch_problems(settings(8, generation_batch_size=40), "stage3", 2, None)
    assert "stage3.trl.generation_batch_size 40 is no multiple of 2 process(es) x 16 rows; take 32 or 64" in problem
    assert math.lcm(2 * 16, 8) == 32


def test_more_prompts_a_step_than_windows():
    assert batch_problems(settings(4, prompts=10), "stage1", 2, 20) == []
    [problem] = batch_problems(settings(4, prompts=10), "stage1", 2, 19)
    assert "a step takes 20 prompts, but there are 19 training windows" in problem


def test_the_defaults_have_no_problem_and_say_nothing(caplog):
    check_training(task_of(RunConfig(), "stage1"), Path(), prompt_ids=PROMPTS, completion_length=14, processes=1)
    check_training(task_of(RunConfig(), "stage2"), Path(), prompt_ids=PROMPTS, completion_length=14, processes=2)
    assert caplog.messages == []


def test_all_problems_are_named_at_once(caplog, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("grpo.publishing.push.get_token", lambda: None)
    config = RunConfig(
        prompt=PromptConfig(max_seq_length=310),
        loading=LoadingConfig(dtype="float16"),
        hub=HubConfig(repo_id="me/demo"),
        stage1=settings(8, per_device_train_batch_size=12),
    )
    with pytest.raises(PreflightError, match="stage1: 4 problems, named above; nothing was loaded"):
        check_training(
            task_of(config, "stage1"), config.run_folder, prompt_ids=PROMPTS, completion_length=14, processes=1
        )
    lines = [record.getMessage() for record in caplog.records]
    for part in ("--max-seq-length 310", "loading.dtype float16", "no token to push to me/demo", "does not divide"):
        assert sum(part in line for line in lines) == 1, part


def test_grpo_refuses_rollouts_that_are_held_to_a_form():
    config = RunConfig(generation=GenerationConfig(backend="vllm", structured="regex"))
    with pytest.raises(
        PreflightError, match=r"^generation\.structured regex: GRPO trains the law that it samples from"
    ):
        check_training(
            task_of(config, "stage1"), config.run_folder, prompt_ids=PROMPTS, completion_length=14, processes=1
        )
    check_training(
        task_of(config, "stage2"), config.run_folder, prompt_ids=PROMPTS, completion_length=14, processes=1
    )  # samples nothing
    assert len(problems_of(config, 1, 0)) == 1


def test_one_problem_is_the_error_itself():
    with pytest.raises(PreflightError, match=r"^the longest prompt has 300 tokens and its answer may take 900"):
        check_training(task_of(RunConfig(), "stage3"), Path(), prompt_ids=PROMPTS, completion_length=900, processes=1)


GPU = {"cuda_devices": lambda: ["H200"], "has_bfloat16": lambda: True}


@pytest.mark.parametrize(
    ("loading", "has", "expected"),
    [
        (LoadingConfig(), {}, []),
        (LoadingConfig(quantization="4bit"), {}, ["PyTorch sees no GPU", "bitsandbytes is not installed"]),
        (LoadingConfig(quantization="4bit"), GPU, ["bitsandbytes is not installed; run `pip install bitsandbytes`"]),
        (LoadingConfig(quantization="4bit"), GPU | {"has_module": lambda name: name == "bitsandbytes"}, []),
        (LoadingConfig(attention="flash_attention_2"), GPU, ["flash-attn is not installed.*attention sdpa"]),
        (LoadingConfig(attention="flash_attention_2"), {"has_module": lambda name: True}, ["PyTorch sees no GPU"]),
        (LoadingConfig(attention="eager", gradient_checkpointing=True), {}, []),
        (LoadingConfig(liger=True), {}, ["PyTorch sees no GPU", "liger-kernel is not installed"]),
        (LoadingConfig(dtype="float16"), {}, ["PyTorch sees no GPU"]),
        (LoadingConfig(dtype="float16"), GPU, []),
        (LoadingConfig(dtype="bfloat16"), {}, []),
        (LoadingConfig(dtype="bfloat16"), GPU | {"has_bfloat16": lambda: False}, ["this GPU cannot compute in it"]),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_named_with_a_way_out(loading, has, expected, monkeypatch):
    for name in ("cuda_devices", "has_bfloat16", "has_module"):
        default = {"cuda_devices": list, "has_bfloat16": lambda: True, "has_module": lambda name: False}[name]
        monkeypatch.setattr(machine, name, has.get(name, default))
    problems = loading_problems(loading)
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert re.search(part, problem), problem
        assert "\n" not in problem


def test_memory_that_is_surely_too_little_is_a_problem_and_a_doubt_is_a_warning(monkeypatch, caplog):
    config, batch = RunConfig(), Batch(prompts=16, rows=128, prompt_length=300, completion_length=14)
    needed = memory.estimate(SIZE, config.spec(), batch, batch)
    for free, problems, warnings in (
        (needed.total, 0, 0),
        (needed.total - 1, 0, 1),
        (needed.fixed, 0, 1),
        (needed.fixed - 1, 1, 0),
    ):
        caplog.clear()
        monkeypatch.setattr(preflight, "free_memory", lambda processes, free=free: free)
        found = memory_problems(task_of(config, "stage1"), SIZE, batch, batch, 1)
        assert (len(found), len(caplog.messages)) == (problems, warnings), free
    assert "loading.quantization 4bit" in found[0]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    caplog.clear()
    monkeypatch.setattr(preflight, "free_memory", lambda processes: needed.total - needed.fixed // 2)
    assert memory_problems(task_of(config, "stage1"), SIZE, batch, batch, 2) == []
    assert caplog.messages == []
    monkeypatch.setattr(preflight, "free_memory", lambda processes: needed.fixed // 2 - 1)
    assert len(memory_problems(task_of(config, "stage1"), SIZE, batch, batch, 2)) == 1


def test_a_disk_without_room_for_the_checkpoints(monkeypatch, tmp_path):
    config = RunConfig(run_dir=tmp_path / "not" / "there" / "yet")
    needed = (3 * 12 + 4 * 4) * SIZE.lora
    monkeypatch.setattr(preflight, "free_disk", lambda folder: needed)
    assert disk_problems(config.run_folder, SIZE) == []
    monkeypatch.setattr(preflight, "free_disk", lambda folder: needed - 1)
    [problem] = disk_problems(config.run_folder, SIZE)
    assert "free space, or give another --run-dir" in problem
    assert free_disk(tmp_path / "not" / "there" / "yet") > 0


def test_a_port_that_something_holds():
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert not is_port_free(port)
        [problem] = port_problems(port, 2)
        proposed = int(problem.rsplit(" ", 1)[1])
        assert proposed != port
        assert is_port_free(proposed)
        assert port_problems(port, 1) == [], "one process meets nobody"
    assert port_problems(port, 2) == []


def test_versions_outside_of_their_range(monkeypatch):
    assert version_problems() == []
    torch = next(package for package in declared_packages()[""] if package.name == "torch")
    packages = [torch, Package(name="torch", tested=">=2.11,<2.14", installed="2.10.1")]
    packages.append(Package(name="trl", tested=">=1.14.2,<1.15", installed=None))
    monkeypatch.setattr(preflight, "declared_packages", lambda: {"": packages})
    assert version_problems() == [
        "torch 2.10.1, tested is >=2.11,<2.14: run ./run_pipeline.sh --install",
        "trl missing, tested is >=1.14.2,<1.15: run ./run_pipeline.sh --install",
    ]


def test_the_extras_are_those_of_the_project():
    packages = declared_packages()
    assert {"torch", "trl", "peft", "pandas"} <= {package.name for package in packages[""]}
    assert [package.name for package in packages["vllm"]] == ["vllm"]
    assert "torch" not in {package.name for package in packages["dev"]}


def test_a_run_is_checked_as_a_whole_before_it_starts(tmp_path, monkeypatch, capsys):
    assert problems_of(RunConfig(), 2, 0) == []
    config = RunConfig(stage1=settings(8, per_device_train_batch_size=12), stage3=settings(8, generation_batch_size=40))
    found = problems_of(dataclasses.replace(config, model=str(tmp_path / "nowhere")), 1, 29500)
    assert [problem.partition(":")[0] for problem in found] == [
        f"--model {tmp_path / 'nowhere'}", "stage1", "stage3.trl.generation_batch_size 40 is no multiple of 1 "
        "process(es) x 16 rows; take 32 or 48",
    ]  # fmt: skip
    batch = "{per_device_train_batch_size: 12, generation_batch_size: 24}"
    flags = ["--num-processes", "2", "--model", EMBEDDED, "--stage1.trl", batch]
    assert stage_entry(lambda: command.main(flags[2:])) == 0  # 24 is a multiple of 8
    assert capsys.readouterr().out == "no problem found\n"
    assert stage_entry(lambda: command.main(flags)) == 1  # 12 is none
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("error: stage1: num_generations 8 does not divide")
    assert stage_entry(lambda: command.main([*flags, "--backend", "unsloth"])) == 1
    assert re.fullmatch(r"error: [23] problems, named above", capsys.readouterr().err.splitlines()[-1])


def test_what_is_finished_needs_no_room_any_more(tmp_path, monkeypatch):
    config = RunConfig(run_dir=tmp_path)
    monkeypatch.setattr(preflight, "memory_problems", lambda task, *args: [f"{task.stage} needs more memory"])
    for finished, stage in enumerate(["stage1", "stage2", "stage3"]):
        assert len(problems_of(config, 1, 0)) == 3 - finished
        manifest = stage_manifest(config.run_folder, stage)
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
    assert problems_of(config, 1, 0) == []


def test_prompts_that_cannot_fit_are_known_before_there_are_windows(tmp_path):
    config = RunConfig(run_dir=tmp_path)
    [problem] = problems_of(dataclasses.replace(config, prompt=PromptConfig(max_seq_length=90)), 1, 0)
    assert "more than --max-seq-length 90" in problem
    longest = int(re.findall(r"longest prompt has (\d+) tokens", problem)[0])
    tight = dataclasses.replace(
        config, prompt=PromptConfig(max_seq_length=longest + 14)
    )  # ten numbers and four to spare
    assert problems_of(tight, 1, 0) == []
    train = simulated_windows()["train"]
    write_windows(train, *(tmp_path / "data" / f"{config.stock_slug}_train_{part}.csv" for part in "xy"))
    ids = tokenize_prompts(STYLES["direct"].render(train.context, 10), load_tokenizer(config.spec()))
    [problem] = problems_of(dataclasses.replace(config, prompt=PromptConfig(max_seq_length=90)), 1, 0)
    assert f"the longest prompt has {max(map(len, ids))} tokens" in problem


def test_what_the_launcher_decides_is_taken_over(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.yaml"
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        file.write_text(f"distributed_type: FSDP\nmain_process_port: {port}\n")
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "")  # set back when the test ends
        flags = ["--num-processes", "2", "--accelerate-config", str(file)]
        assert stage_entry(lambda: command.main(flags)) == 1
    assert f"port {port} is taken" in capsys.readouterr().err
    assert machine.splits_weights()
    for text in ("a: [", "nothing"):
        file.write_text(text)
        assert stage_entry(lambda: command.main(flags)) == 1
        [error] = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: --accelerate-config {file}")
