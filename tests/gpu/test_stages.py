"""Stage 1 on a CUDA device, in each way that only a GPU allows."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from grpo.models.adapters import EMBEDDED_FOLDER
from tests.tiny_runs import STEPS, TinyRun

ROOT = Path(__file__).parents[2]
# large enough steps for the weights to move visibly in four of them
FAST = ("--stage1.learning_rate", "0.01")


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def require_trained(run: TinyRun) -> list[dict]:
    """Check that stage 1 took every step and moved every layer's adapter; gives the log."""
    history = json.loads((run.place("stage1") / "log_history.json").read_text())
    rewards = [entry["reward"] for entry in history if "reward" in entry]
    assert len(rewards) == STEPS
    assert all(reward == reward for reward in rewards)
    weights = load_file(run.place("stage1") / "checkpoints" / f"checkpoint-{STEPS}" / "adapter_model.safetensors")
    moved = [weight.abs().max() > 1e-5 for name, weight in weights.items() if "lora_B" in name]
    assert len(moved) == 4 * 7  # layers x (q, k, v, o, gate, up, down)
    assert all(moved)
    return history


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="plain"),
        pytest.param(("--loading.dtype", "bfloat16"), id="bfloat16"),
        pytest.param(("--loading.gradient_checkpointing", "true"), id="checkpointing"),
        pytest.param(("--loading.quantization", "4bit"), id="QLoRA", marks=needs("bitsandbytes")),
        pytest.param(("--loading.liger", "true"), id="Liger", marks=needs("liger_kernel")),
        pytest.param(
            ("--loading.attention", "flash_attention_2", "--loading.dtype", "bfloat16"),
            id="FlashAttention 2",
            marks=needs("flash_attn"),
        ),
    ],
)
def test_stage_1_trains(flags, tmp_path):
    run = TinyRun(tmp_path).stages("preprocess")
    assert run.stage("stage1", *FAST, *flags) == 0
    require_trained(run)


@needs("vllm")
def test_stage_1_trains_on_rollouts_of_vllm_in_the_same_process(tmp_path):
    run = TinyRun(tmp_path).stages("preprocess")
    assert run.stage("stage1", *FAST, "--generation.backend", "vllm", "--gpu-memory-utilization", "0.2") == 0
    history = require_trained(run)
    assert [entry for entry in history if "sampling/canary" in entry]


@needs("vllm")
def test_stage_1_trains_on_rollouts_of_a_vllm_server(tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("trl vllm-serve needs a GPU of its own beside the trainer's")
    run = TinyRun(tmp_path).stages("preprocess")
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    serve = [sys.executable, "-m", "trl.cli.main", "vllm-serve", "--model", str(EMBEDDED_FOLDER), "--port", str(port)]
    server = subprocess.Popen(serve, env=os.environ | {"CUDA_VISIBLE_DEVICES": "1"})
    try:
        address = f"http://localhost:{port}"
        wait_for(f"{address}/health/", server)
        assert run.stage("stage1", *FAST, "--generation.backend", "vllm", "--generation.vllm_server", address) == 0
    finally:
        server.terminate()
        server.wait(timeout=60)
    history = require_trained(run)
    assert [entry for entry in history if "sampling/canary" in entry]


def wait_for(address: str, server: subprocess.Popen, seconds: int = 240) -> None:
    for _ in range(seconds):
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise TimeoutError(address)


def test_one_process_of_ddp_over_nccl_trains_as_a_process_alone(tmp_path):
    alone, launched = (TinyRun(tmp_path / name).stages("preprocess") for name in ("alone", "launched"))
    assert alone.stage("stage1", *FAST) == 0
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "1"]
    launch += ["--config_file", str(ROOT / "configs" / "accelerate" / "ddp.yaml"), "-m"]
    flags = launched.arguments("stage1", *FAST)
    subprocess.run([*launch, "grpo.stages.stage1_train_grpo", *flags], cwd=ROOT, check=True)
    first, second = (
        next(entry["reward"] for entry in require_trained(run) if "reward" in entry) for run in (alone, launched)
    )
    assert first == pytest.approx(second, abs=1e-5)  # the same samples from the same weights
