"""The benchmark of a GRPO step, on shapes so small that its figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import grpo_step
from benchmarks.grpo_step import MODELS, PARTS, llama, measure, step_flops
from tests.tiny_runs import NEEDS_UNSLOTH, UNSLOTH_ANYWHERE


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", llama(64, 1))


def test_both_trainers_make_whole_steps(tiny):
    seconds = measure(("stock", "shared"), "tiny", (12, 3, 3, 2), "cpu", "float32", rounds=1)
    for parts in seconds.values():
        assert all(parts[part] > 0 for part in PARTS)
        assert parts["generation"] + parts["forward"] + parts["backward"] < 1.05 * parts["step"]


@NEEDS_UNSLOTH
def test_unsloths_own_trainer_makes_whole_steps(tmp_path):
    code = f"""{UNSLOTH_ANYWHERE}
from benchmarks.grpo_step_unsloth import main
main(["1M", "12x3x3x2", "{"cuda" if torch.cuda.is_available() else "cpu"}", "float32", "1"])
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = json.loads(done.stdout.splitlines()[-1])
    assert set(seconds) == set(PARTS)
    assert all(second > 0 for second in seconds.values())


def test_the_operations_of_a_step_are_those_counted_by_hand(tiny):
    vocabulary = len(grpo_step.build_tokenizer(10))
    body = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192  # q and o, k and v of one head for two, and the three of the MLP
    tokens, sampled = 12 + 3 * 4, 3 * 4
    pairs = 12**2 / 2 + sampled * (12 + 4 / 2)
    forward = 2 * body * tokens + 2 * 64 * vocabulary * sampled + 4 * 64 * pairs
    assert step_flops("tiny", (12, 4, 3, 5)) == 5 * 3 * forward


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "400x60"], "400x60 is not prompt x completion x group"),
        (["--shapes", "400x60x0"], "400x60x0 is not"),
        (["--completions", "20"], "--completions 20 is no multiple of the group 8"),
        (["--sizes", "3M"], "--sizes 3M: there are 1M, 5M"),
    ],
)
def test_wrong_flags_get_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["grpo_step.py", *arguments])
    with pytest.raises(SystemExit):
        grpo_step.main()
    assert message in capsys.readouterr().err.splitlines()[-1]
