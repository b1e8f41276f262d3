"""Bad input to the stages of the language model: one clear line, exit code not 0, and no manifest."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_model
from tests.tiny_runs import TinyRun, paths_of


@pytest.fixture
def run(finished, tmp_path) -> TinyRun:
    """A run folder of its own that reads the windows of the finished one."""
    run = TinyRun(tmp_path / "bad")
    shutil.copytree(finished.place("preprocess"), run.place("preprocess"))
    return run


@pytest.fixture
def refused(run, capsys):
    """refused(stage, *flags) runs a stage that must fail and gives its one line of error."""

    def refused(stage: str, *flags: object) -> str:
        assert run.stage(stage, *flags) == 1
        assert not (run.place(stage) / "manifest.json").exists()
        assert not run.models.exists()
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        return errors[0]

    return refused


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_a_folder_that_is_not_a_model(refused, tmp_path):
    assert f"--model {tmp_path} is a folder without config.json" in refused("stage1", "--model", tmp_path)


def test_a_model_cut_short(refused, tmp_path):
    model = save_tiny_model("qwen3", tmp_path / "tiny")
    cut(model / "model.safetensors")
    assert f"--model {model} cannot be loaded" in refused("stage1", "--model", model)


ADAPTER_READERS = {"rejection": "grpo_saved_lora_1st", "stage2": "grpo_saved_lora_1st", "stage3": "sft_saved_lora"}


@pytest.fixture
def sft_data(finished) -> tuple[object, ...]:
    return ("--sft-data-path", paths_of(finished.config("stage2")).sft_data)


@pytest.mark.parametrize(("stage", "flag"), ADAPTER_READERS.items())
def test_an_adapter_that_is_missing(refused, sft_data, stage, flag, tmp_path):
    flags = sft_data if stage == "stage2" else ()
    assert "is missing at" in refused(stage, *flags, f"--{flag}", tmp_path / "nowhere")


@pytest.mark.parametrize(("stage", "flag"), ADAPTER_READERS.items())
def test_an_adapter_cut_short(finished, refused, sft_data, stage, flag, tmp_path):
    adapter = Path(shutil.copytree(finished.place("stage1") / "adapter", tmp_path / "adapter"))
    cut(adapter / "adapter_model.safetensors")
    flags = sft_data if stage == "stage2" else ()
    assert f"adapter {adapter} cannot be loaded" in refused(stage, *flags, f"--{flag}", adapter)


@pytest.mark.parametrize(("stage", "flag"), ADAPTER_READERS.items())
def test_an_adapter_of_another_base(finished, refused, sft_data, stage, flag, tmp_path):
    adapter = Path(shutil.copytree(finished.place("stage1") / "adapter", tmp_path / "adapter"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "Qwen/Qwen2-7B"}))
    flags = sft_data if stage == "stage2" else ()
    error = refused(stage, *flags, f"--{flag}", adapter)
    assert "was trained on base model 'Qwen/Qwen2-7B', but --model is 'embedded'" in error


def test_an_adapter_of_a_base_of_the_same_name_but_another_shape(finished, refused, tmp_path):
    model = save_tiny_model("qwen3", tmp_path / "embedded")
    adapter = finished.place("stage2") / "adapter"
    error = refused("stage3", "--model", model, "--sft-saved-lora", adapter)
    assert f"adapter {adapter} cannot be loaded onto embedded: size mismatch" in error


@pytest.mark.parametrize("stage", ["stage1", "rejection"])
def test_a_prompt_that_does_not_fit(finished, refused, stage):
    adapter = finished.place("stage1") / "adapter"
    error = refused(stage, "--max-seq-length", 60, "--grpo-saved-lora-1st", adapter)
    assert "the longest prompt has 95 tokens" in error
    assert "--max-seq-length 60" in error


def test_an_sft_example_that_does_not_fit(finished, refused, sft_data):
    adapter = finished.place("stage1") / "adapter"
    error = refused("stage2", *sft_data, "--grpo-saved-lora-1st", adapter, "--max-seq-length", 100)
    assert "the longest prompt has 95 tokens and its answer may take 11, more than --max-seq-length 100" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stage1.trl", "{learnin_rate: 3}"), "stage1.trl: GRPOConfig has no field learnin_rate"),
        (("--stage1.trl", "{optim: nonsense}"), "stage1.trl: GRPOConfig refuses {'optim': 'nonsense'}"),
        (
            ("--stage1.trl", "{generation_batch_size: 7}"),
            "stage1.trl.generation_batch_size 7 is no multiple of 1 process.* take 8",
        ),
        (("--stage1.trl", "{reward_weights: [1.0, 2.0]}"), "stage1: Number of reward weights"),
        (("--lora.target_modules", "[nothing]"), "stage1: Target modules {'nothing'} not found"),
    ],
)
def test_settings_that_trl_or_peft_refuses(refused, flags, message):
    assert re.search(message, refused("stage1", *flags))


def test_a_tracker_that_is_not_installed(refused):
    assert "stage1.trl: report_to wandb is not installed; install it, or take" in refused(
        "stage1", "--stage1.trl", "{report_to: [wandb]}"
    )


def test_a_field_that_sft_does_not_know(finished, refused, sft_data):
    flags = (*sft_data, "--grpo-saved-lora-1st", finished.place("stage1") / "adapter")
    assert "stage2.trl: SFTConfig has no field beta" in refused("stage2", *flags, "--stage2.trl", "{beta: 1}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stage1.rewards", "{mse: 1.0}"), "there is no reward 'mse'; there are accuracy, crps"),
        (("--stage1.rewards", "{gone.py:f: 1.0}"), "reward 'gone.py:f': there is no file /"),
        (("--stage1.num_generations", 2), "num_generations must be at least 3 with the reward energy; got 2"),
        (("--stage1.trl", "{num_generations: 2}"), "num_generations must be at least 3 with the reward energy; got 2"),
        (("--prompt.style", "poem"), "there is no prompt style 'poem'; there are direct, reasoning, spaced"),
    ],
)
def test_a_reward_or_style_that_is_not_there_stops_the_stage_at_once(run, refused, flags, message):
    assert message in refused("stage1", *flags)
    assert not run.place("stage1").exists()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_that_is_not_installed(refused):
    error = refused("stage1", "--generation.backend", "vllm")
    assert "vLLM is not installed; run `./run_pipeline.sh --install vllm`" in error


def test_windows_that_are_missing(run, refused):
    shutil.rmtree(run.place("preprocess"))
    assert "run `python -m grpo.stages.preprocess` first" in refused("stage1")


def test_answers_none_of_which_is_valid(finished, refused):
    adapter = finished.place("stage1") / "adapter"
    flags = ("--grpo-saved-lora-1st", adapter, "--prompt.max_completion_length", 10)  # ten numbers and no end
    assert "no sampled answer was valid" in refused("rejection", *flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'prompt'"),
        ("prompt,answer\na,b\n", "lacks the column 'completion'"),
        ("prompt,completion\n", "has no rows below its header"),
        ("prompt,completion\na,1 2\nb,\n", "row 2 has an empty 'completion'"),
        ("prompt,completion\na,1,2,3\n", "row 1 has 4 cells, the header 2"),
        ('prompt,completion\na,"1 2\n', "is not a readable CSV file: unexpected end of data"),
        ("prompt,completion\n\udcff,1\n", "is not a readable CSV file: 'utf-8' codec"),
    ],
)
def test_malformed_sft_data(finished, refused, text, message, tmp_path):
    file = tmp_path / "sft.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    adapter = finished.place("stage1") / "adapter"
    error = refused("stage2", "--sft-data-path", file, "--grpo-saved-lora-1st", adapter)
    assert error.startswith(f"error: {file}")
    assert message in error
