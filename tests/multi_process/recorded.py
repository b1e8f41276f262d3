"""Stages whose completions come from a table, so that nothing but the distribution of their work differs.

Tolerances are for float32: sums of some 100 tokens in another order. SGD keeps the weights as exact as the gradients,
which Adam's division would not.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_runs import TinyRun

PROMPTS, ROWS, STEPS = 4, 8, 3
TENSOR = {"rtol": 1e-4, "atol": 1e-6}  # the largest gradients are about 2e-2
LOSS = {"rel": 1e-5, "abs": 1e-6}
TRL = {"optim": "sgd", "num_iterations": 2}, {"optim": "sgd", "max_steps": STEPS, "warmup_steps": 0}


def flags_of(stage: str, count: int, **trl: Any) -> list[str]:
    """The same global batch, whatever the number of processes."""
    if stage == "stage1":
        settings = {
            "stage1.steps": STEPS,
            "stage1.eval_every": STEPS,
            "stage1.warmup_steps": 0,
            "stage1.beta": 0.1,
            "stage1.learning_rate": 1.0,
            "stage1.prompts_per_step": PROMPTS // count,
            "stage1.trl": json.dumps(TRL[0] | trl),
        }
    else:
        settings = {
            "stage2.start_from": "base",
            "stage2.learning_rate": 0.1,
            "stage2.batch_size": ROWS // count,
            "stage2.trl": json.dumps(TRL[1] | trl),
        }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


class Recorded:
    """What a finished stage left behind, and what each of its processes recorded.

    Attributes:
        gradients: of each rank and step, by parameter.
        seen: of each rank the windows and the rewards of each rollout.
        logged: a dictionary for each step.
        weights: after the last step.
        adapter: as published.
    """

    def __init__(self, run: TinyRun, stage: str, count: int):
        records = run.root / "record"
        self.gradients = [torch.load(records / f"rank{rank}.pt", weights_only=True) for rank in range(count)]
        self.seen: list[Any] = [json.loads((records / f"rank{rank}.json").read_text()) for rank in range(count)]
        history = json.loads((run.place(stage) / "log_history.json").read_text())
        self.logged = [entry for entry in history if "loss" in entry]
        self.weights = load_file(run.place(stage) / f"checkpoints/checkpoint-{STEPS}/adapter_model.safetensors")
        self.adapter = load_file(run.place(stage) / "adapter" / "adapter_model.safetensors")


def assert_same_training(found: Recorded, expected: Recorded) -> None:
    """The same losses, and the same weights at the end."""
    assert len(found.logged) == len(expected.logged) > 0
    for entry, expected_entry in zip(found.logged, expected.logged, strict=True):
        assert entry["loss"] == pytest.approx(expected_entry["loss"], **LOSS)
        assert entry.get("reward") == pytest.approx(expected_entry.get("reward"))
        assert entry.get("kl", 0) == pytest.approx(expected_entry.get("kl", 0), rel=1e-3, abs=1e-6)
    for tensors, expected_tensors in ((found.weights, expected.weights), (found.adapter, expected.adapter)):
        assert tensors.keys() == expected_tensors.keys()
        for name in tensors:
            torch.testing.assert_close(tensors[name], expected_tensors[name], **TENSOR)
    # B starts at zero: training has moved it a thousand tolerances away
    assert max(tensor.abs().max() for name, tensor in expected.weights.items() if "lora_B" in name) > 1e-3
