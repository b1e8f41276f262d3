"""One process and several that share the same global batch compute the same loss, gradient and weights.

Completions come from a table, so that only the distribution of the work differs. Tolerances are for float32: sums of
some 100 tokens in another order. SGD keeps the weights as exact as the gradients, which Adam's division would not.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.multi_process.processes import run_together
from tests.multi_process.workers import recorded_stage
from tests.tiny_runs import TinyRun

PROMPTS, ROWS = 4, 8
COUNTS = [1, 2, 4]
GRADIENT = {"rtol": 1e-4, "atol": 1e-6}  # the largest entries are about 2e-2
LOSS = {"rel": 1e-5, "abs": 1e-6}
STAGES = {
    "stage1": [
        *("--stage1.steps", "3", "--stage1.eval_every", "3", "--stage1.warmup_steps", "0", "--stage1.beta", "0.1"),
        *("--stage1.learning_rate", "1.0", "--stage1.trl", "{optim: sgd, num_iterations: 2}"),
    ],
    "stage2": [
        *("--stage2.start_from", "base", "--stage2.learning_rate", "0.1"),
        *("--stage2.trl", "{optim: sgd, max_steps: 3, warmup_steps: 0}"),
    ],
}


class Recorded:
    """A stage that `count` processes trained, and what each of them recorded."""

    def __init__(self, run: TinyRun, stage: str, count: int):
        share = {
            "stage1": ["--stage1.prompts_per_step", PROMPTS // count],
            "stage2": ["--stage2.batch_size", ROWS // count],
        }
        flags = [*STAGES[stage], *map(str, share[stage])]
        outcome = run_together(count, run.root / "logs", recorded_stage, run.root, stage, flags, run.root / "record")
        assert outcome.codes == [0] * count, "\n".join(outcome.texts)
        records = run.root / "record"
        self.gradients = [torch.load(records / f"rank{rank}.pt", weights_only=True) for rank in range(count)]
        self.seen: list[Any] = [json.loads((records / f"rank{rank}.json").read_text()) for rank in range(count)]
        history = json.loads((run.place(stage) / "log_history.json").read_text())
        self.logged = [entry for entry in history if "loss" in entry]
        self.weights = load_file(run.place(stage) / "checkpoints" / "checkpoint-3" / "adapter_model.safetensors")


@pytest.fixture(scope="module", params=STAGES)
def by_count(request, prepared, tmp_path_factory) -> dict[int, Recorded]:
    root = tmp_path_factory.mktemp(request.param)
    return {count: Recorded(prepared(root / str(count)), request.param, count) for count in COUNTS}


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS[1:])
def test_several_processes_compute_what_one_does(by_count, count):
    one, several = by_count[1], by_count[count]
    assert len(one.gradients[0]) == len(several.gradients[0]) == 3
    for expected, found in zip(one.gradients[0], several.gradients[0], strict=True):
        assert expected.keys() == found.keys()
        assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], **GRADIENT)
    for expected, found in zip(one.logged, several.logged, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], **LOSS)
        assert found.get("reward") == pytest.approx(expected.get("reward"))
        assert found.get("kl", 0) == pytest.approx(expected.get("kl", 0), rel=1e-3, abs=1e-6)
    assert one.weights.keys() == several.weights.keys()
    for name in one.weights:
        torch.testing.assert_close(several.weights[name], one.weights[name], **GRADIENT)


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS[1:])
def test_all_ranks_step_by_the_same_gradient(by_count, count):
    first, *others = by_count[count].gradients
    for other in others:
        for expected, found in zip(first, other, strict=True):
            assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("by_count", ["stage1"], indirect=True)
@pytest.mark.parametrize("count", COUNTS[1:])
def test_whole_groups_and_all_prompts_of_a_step_are_dealt_to_the_ranks(by_count, count):
    one, several = by_count[1].seen[0], [rank["windows"] for rank in by_count[count].seen]
    group = 4
    for step, windows in enumerate(one["windows"]):
        dealt = [rank[step] for rank in several]
        for share in dealt:
            assert len(share) == PROMPTS // count * group
            assert all(share.count(window) == group for window in share)
        assert [window for share in dealt for window in share] == windows
    assert [rank["rewards"] for rank in by_count[count].seen] == [one["rewards"]] * count  # gathered, in one order
