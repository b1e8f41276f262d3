"""What the doctor says of machines that are described to it, and of this one."""

from __future__ import annotations

import dataclasses
import json
import socket

import pytest

from grpo.machine import doctor
from grpo.machine.doctor import Machine, abilities, main, to_json, to_text
from grpo.models.hardware import Package

GIB = 2**30
TORCH = Package(name="torch", tested=">=2.11,<2.14", installed="2.13.0")
COMPLETE = Machine(
    python="3.11.7",
    torch="2.13.0",
    torch_works=True,
    gpus=("NVIDIA H200",),
    bfloat16=True,
    packages={
        "": [TORCH],
        "vllm": [Package(name="vllm", tested=">=0.30,<0.31", installed="0.30.0")],
        "unsloth": [Package(name="unsloth", tested=">=2026.9", installed="2026.10.7")],
        "stats": [Package(name="arch", tested=">=8,<9", installed="8.0.0")],
    },
    optional={"bitsandbytes": "0.50.2", "flash-attn": "2.8", "liger-kernel": "0.6", "deepspeed": "0.19"},
    cores=16,
    memory=100 * GIB,
    memory_total=128 * GIB,
    disk=50 * GIB,
    token=True,
    endpoint="https://huggingface.co",
    endpoint_answers=True,
    browser="/usr/bin/chromium",
)


def lacks(machine: Machine) -> dict[str, tuple[str, ...]]:
    return {ability.name: ability.lacks for ability in abilities(machine) if not ability.works}


def with_package(extra: str, package: Package) -> Machine:
    return dataclasses.replace(COMPLETE, packages={**COMPLETE.packages, extra: [package]})


def test_a_complete_machine_runs_all():
    assert lacks(COMPLETE) == {}
    assert abilities(COMPLETE)[0].name == "default pipeline"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (
            dataclasses.replace(COMPLETE, gpus=()),
            dict.fromkeys(
                ["training on a GPU", "vLLM", "Unsloth", "4-bit weights (QLoRA)", "FlashAttention 2", "Liger kernels"],
                ("a CUDA device",),
            ),
        ),
        (
            with_package("vllm", Package(name="vllm", tested=">=0.30,<0.31", installed="0.31.0")),
            {"vLLM": ("vllm>=0.30,<0.31 (here: 0.31.0)",)},
        ),
        (
            with_package("stats", Package(name="arch", tested=">=8,<9", installed=None)),
            {"extra stats": ("arch>=8,<9",)},
        ),
        (
            dataclasses.replace(COMPLETE, optional=COMPLETE.optional | {"bitsandbytes": None}),
            {"4-bit weights (QLoRA)": ("bitsandbytes (pip install bitsandbytes)",)},
        ),
        (dataclasses.replace(COMPLETE, token=False), {"push to the Hub": ("a token (hf auth login, or HF_TOKEN)",)}),
        (
            dataclasses.replace(COMPLETE, endpoint_answers=False),
            dict.fromkeys(["models from the Hub", "push to the Hub"], ("a network to https://huggingface.co",)),
        ),
        (dataclasses.replace(COMPLETE, python="3.14.0"), {"default pipeline": ("Python from 3.11 to 3.13",)}),
        (dataclasses.replace(COMPLETE, memory=GIB), {"default pipeline": ("2 GiB of free memory",)}),
        (dataclasses.replace(COMPLETE, disk=GIB // 4), {"default pipeline": ("0.5 GiB of free disk",)}),
        (dataclasses.replace(COMPLETE, torch_works=False), {"default pipeline": ("a PyTorch that can be imported",)}),
        (
            with_package("", dataclasses.replace(TORCH, installed="2.14.0")),
            {"default pipeline": ("torch>=2.11,<2.14 (here: 2.14.0)",)},
        ),
        (dataclasses.replace(COMPLETE, browser=None), {"report in a browser (tests)": ("a Chromium on the PATH",)}),
    ],
)
def test_what_is_lacking_is_named_and_nothing_else(machine, expected):
    assert lacks(machine) == expected


def test_vllm_for_the_cpu_needs_no_gpu():
    machine = with_package("vllm", Package(name="vllm", tested=">=0.30,<0.31", installed="0.30.0+cpu"))
    assert "vLLM" not in lacks(dataclasses.replace(machine, gpus=()))


def test_text_and_json_agree(capsys):
    machine = dataclasses.replace(COMPLETE, gpus=(), disk=GIB // 4)
    found = abilities(machine)
    text, values = to_text(machine, found), json.loads(to_json(machine, found))
    assert "CPU alone" in text
    for name, state in values["can_run"].items():
        [line] = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
        assert line.split(name)[1].strip().startswith("yes" if state["works"] else f"no: needs {state['lacks'][0]}")
    assert values["packages"][""][0] == {"name": "torch", "tested": ">=2.11,<2.14", "installed": "2.13.0", "fits": True}


def test_the_exit_code_is_the_default_pipelines(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: dataclasses.replace(COMPLETE, gpus=()))
    assert main([]) == 0
    monkeypatch.setattr(doctor, "examine", lambda: dataclasses.replace(COMPLETE, memory=0))
    assert main(["--json"]) == 1
    assert main(["--jason"]) == 2
    assert "takes --json alone" in capsys.readouterr().err


def test_this_machine_is_examined(monkeypatch):
    """The suite runs the default pipeline, so the doctor must say that this machine can."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        machine = doctor.examine()
    assert machine.endpoint_answers
    assert abilities(machine)[0].works, abilities(machine)[0].lacks
    assert not doctor.examine().endpoint_answers, "nothing listens there any more"
