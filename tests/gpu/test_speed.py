"""A GRPO step of Qwen2.5's architecture in bfloat16, by the benchmark that README names."""

from __future__ import annotations

import pytest

from benchmarks.grpo_step import measure, measure_unsloth
from tests.tiny_runs import NEEDS_UNSLOTH

SHAPE = (512, 48, 8, 4)


@pytest.mark.parametrize("size", ["qwen2.5-0.5b", "qwen2.5-1.5b"])
def test_a_step_with_shared_prompts_is_faster_than_stock_trls(size):
    seconds = measure(("stock", "shared"), size, SHAPE, "cuda", "bfloat16", rounds=3)
    print(f"{size}: {seconds}")
    assert seconds["shared"]["step"] < seconds["stock"]["step"]


@NEEDS_UNSLOTH
def test_unsloths_own_step_can_be_set_beside_it():
    seconds = measure_unsloth("qwen2.5-0.5b", SHAPE, "cuda", "bfloat16", rounds=3)
    print(f"Unsloth: {seconds}")
    assert seconds["step"] > 0
