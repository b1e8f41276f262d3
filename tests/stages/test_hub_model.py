"""The path of a model from the Hub, with a small Qwen3 checkpoint in a local folder."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.tiny_models import save_tiny_model
from tests.tiny_runs import GROUP, PROMPTS, SLUG, TinyRun

FLAGS = ("--max-seq-length", 2048, "--lora-rank", 32, "--gpu-memory-utilization", 0.4, "--stage1.steps", 2)


@pytest.mark.parametrize(
    "flags", [(), ("--prompt.style", "reasoning", "--prompt.max_completion_length", 40)], ids=["direct", "reasoning"]
)
def test_a_model_that_cannot_answer_trains_without_harm(flags, tmp_path, capfd):
    """Every answer of its random weights is invalid: all rewards are equal, so nothing moves and nothing breaks."""
    model = save_tiny_model("qwen3", tmp_path / "Qwen3-Tiny")
    run = TinyRun(tmp_path).stages("preprocess")
    assert run.stage("stage1", "--model", model, *FLAGS, *flags) == 0
    error = capfd.readouterr().err
    assert error.count(f"step 1: none of the {GROUP * PROMPTS} answers is valid, so this step teaches nothing") == 1
    assert "stage1: no step had a single valid answer, so nothing was learnt" in error
    place = run.place("stage1")
    completions = pd.read_parquet(place / "completions" / "step_000000.parquet")
    assert len(completions) == GROUP * PROMPTS
    assert completions["levels"].isna().all()
    assert set(completions["reward_energy"]) == {-0.5}
    assert ("<think>" in completions["prompt"][0]) == bool(flags)
    kept = json.loads((place / "adapter" / "kept.json").read_text())
    assert (kept["step"], kept["eval_valid"]) == (2, 0)
    weights = load_file(place / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    assert all(weight.abs().max() == 0 for name, weight in weights.items() if "lora_B" in name)
    published = run.models / "Qwen3-Tiny" / SLUG / "grpo_lora_1st"
    settings = json.loads((published / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (32, "Qwen3-Tiny")
