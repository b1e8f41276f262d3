"""What this machine can run, and what to do about what it cannot.

    python -m grpo.doctor [--json]

Looks at Python, PyTorch and its devices, the declared packages and their tested ranges, memory, disk, the Hub and the
browser of the report tests, and says for each way of running the pipeline whether it would. The exit code is 0 unless
the default pipeline (embedded model, simulated stock, CPU) cannot run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from grpo.models.hardware import (
    OPTIONAL,
    Package,
    cuda_devices,
    declared_packages,
    free_disk,
    has_bfloat16,
    has_module,
    installed_version,
)
from preprocessing.files import JsonObject

PYTHONS = ((3, 11), (3, 14))
"""Tested versions of Python, the last not included."""
NEEDED_MEMORY, NEEDED_DISK = 2 * 2**30, 2**29
"""Bytes that the default pipeline takes."""
TIMEOUT_SECONDS = 1.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was found.

    Attributes:
        python: version.
        torch: version, or why it cannot be imported.
        torch_works: whether PyTorch can be imported.
        gpus: names of the GPUs that PyTorch sees.
        bfloat16: whether the training device computes in bfloat16.
        packages: the declared packages by extra, "" for what is always needed.
        optional: versions of packages that no extra declares; None: not installed.
        cores: that this process may use.
        memory: bytes free, of `memory_total`.
        disk: bytes free in the current folder.
        token: whether a Hub token is there.
        endpoint: the Hub's address.
        endpoint_answers: whether it can be reached.
        browser: path of a Chromium, or None.
    """

    python: str
    torch: str
    torch_works: bool
    gpus: tuple[str, ...]
    bfloat16: bool
    packages: dict[str, list[Package]]
    optional: dict[str, str | None]
    cores: int
    memory: int
    memory_total: int
    disk: int
    token: bool
    endpoint: str
    endpoint_answers: bool
    browser: str | None


@dataclass(frozen=True)
class Ability:
    """One way of running, whether it would work here, and what it lacks."""

    name: str
    lacks: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is lacking."""
        return not self.lacks


def examine() -> Machine:
    """Look at this machine; takes as long as importing PyTorch and a second at most for the Hub."""
    try:
        import torch

        version, works = f"{torch.__version__}", True
        gpus, bfloat16 = tuple(cuda_devices()), has_bfloat16()
    # OSError: a shared library that does not load.
    except (ImportError, OSError) as error:
        version, works, gpus, bfloat16 = f"cannot be imported: {error}", False, (), False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return Machine(
        python=".".join(map(str, sys.version_info[:3])),
        torch=version,
        torch_works=works,
        gpus=gpus,
        bfloat16=bfloat16,
        packages=declared_packages(),
        optional={name: installed_version(name) for name in (*OPTIONAL.values(), "deepspeed")},
        # In a container fewer cores may be allowed than there are.
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=psutil.virtual_memory().available,
        memory_total=psutil.virtual_memory().total,
        disk=free_disk(Path()),
        token=_has_token(),
        endpoint=endpoint,
        endpoint_answers=_answers(endpoint),
        browser=next(filter(None, map(shutil.which, BROWSERS)), None),
    )


def abilities(machine: Machine) -> list[Ability]:
    """What this machine can run, the default pipeline first."""
    packages = {package.name: package for group in machine.packages.values() for package in group}
    needed = [_unfit(package) for package in machine.packages[""] if not package.fits]
    default = [*needed]
    if not PYTHONS[0] <= tuple(map(int, machine.python.split(".")[:2])) < PYTHONS[1]:
        default.append(f"Python from 3.{PYTHONS[0][1]} to 3.{PYTHONS[1][1] - 1}")
    if not machine.torch_works:
        default.append("a PyTorch that can be imported")
    if machine.memory < NEEDED_MEMORY:
        default.append(f"{NEEDED_MEMORY / 2**30:.0f} GiB of free memory")
    if machine.disk < NEEDED_DISK:
        default.append(f"{NEEDED_DISK / 2**30:.1f} GiB of free disk")

    def lacking(*names: str, gpu: bool = False) -> tuple[str, ...]:
        lacks = ["a CUDA device"] if gpu and not machine.gpus else []
        for name in names:
            package = packages.get(name)
            if package is None and machine.optional.get(name) is None:
                lacks.append(f"{name} (pip install {name})")
            elif package is not None and not package.fits:
                lacks.append(_unfit(package))
        return tuple(lacks)

    extras = {
        extra: tuple(_unfit(package) for package in group if not package.fits)
        for extra, group in machine.packages.items()
        if extra not in ("", "dev", "vllm", "unsloth")
    }
    online = () if machine.endpoint_answers else (f"a network to {machine.endpoint}",)
    return [
        Ability("default pipeline", tuple(default)),
        Ability("models from the Hub", online),
        Ability("push to the Hub", online + (() if machine.token else ("a token (hf auth login, or HF_TOKEN)",))),
        Ability("training on a GPU", lacking(gpu=True)),
        # vLLM's CPU build says so in its version, and needs no GPU.
        Ability("vLLM", lacking("vllm", gpu="cpu" not in (packages["vllm"].installed or ""))),
        Ability("Unsloth", lacking("unsloth", gpu=True)),
        Ability("4-bit weights (QLoRA)", lacking("bitsandbytes", gpu=True)),
        Ability("FlashAttention 2", lacking("flash-attn", gpu=True)),
        Ability("Liger kernels", lacking("liger-kernel", gpu=True)),
        Ability("DeepSpeed ZeRO", lacking("deepspeed")),
        *(Ability(f"extra {extra}", lacks) for extra, lacks in extras.items()),
        Ability("report in a browser (tests)", () if machine.browser else ("a Chromium on the PATH",)),
    ]


def to_text(machine: Machine, found: Sequence[Ability]) -> str:
    """What was found, then the table."""
    fits = [package for package in machine.packages[""] if package.fits]
    lines = [
        f"Python      {machine.python}",
        f"PyTorch     {machine.torch}",
        f"devices     {', '.join(machine.gpus) or 'CPU alone'}; bfloat16: {_yes(machine.bfloat16)}",
        f"CPU cores   {machine.cores}",
        f"memory      {machine.memory / 2**30:.1f} GiB free of {machine.memory_total / 2**30:.1f}",
        f"disk        {machine.disk / 2**30:.1f} GiB free",
        f"Hub         {machine.endpoint}: reachable {_yes(machine.endpoint_answers)}, token {_yes(machine.token)}",
        f"browser     {machine.browser or 'none'}",
        f"packages    {len(fits)} of {len(machine.packages[''])} needed ones in their tested range",
        "",
        *(_package_line(extra, package) for extra, group in machine.packages.items() for package in group if extra),
        *(f"  {'-':<10} {name:<18} {version or 'not installed'}" for name, version in machine.optional.items()),
        "",
        "can run",
    ]
    width = max(len(ability.name) for ability in found)
    for ability in found:
        why = "" if ability.works else f": needs {', '.join(ability.lacks)}"
        lines.append(f"  {ability.name:<{width}}  {_yes(ability.works)}{why}")
    return "\n".join(lines)


def to_json(machine: Machine, found: Sequence[Ability]) -> str:
    """The same as JSON."""
    values: JsonObject = asdict(machine)
    for extra, group in machine.packages.items():
        values["packages"][extra] = [asdict(package) | {"fits": package.fits} for package in group]
    values["can_run"] = {ability.name: {"works": ability.works, "lacks": list(ability.lacks)} for ability in found}
    return json.dumps(values, indent=2)


def _package_line(extra: str, package: Package) -> str:
    state = package.installed or "not installed"
    note = "" if package.installed is None or package.fits else "  outside of the tested range"
    return f"  {extra:<10} {package.name:<18} {state:<14} tested {package.tested}{note}"


def _unfit(package: Package) -> str:
    return f"{package.name}{package.tested}" + (f" (here: {package.installed})" if package.installed else "")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _has_token() -> bool:
    if not has_module("huggingface_hub"):
        return False
    from huggingface_hub import get_token

    return get_token() is not None


def _answers(endpoint: str) -> bool:
    """Whether something accepts connections at an address, within TIMEOUT_SECONDS."""
    parts = urlsplit(endpoint)
    if parts.hostname is None or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname, port), timeout=TIMEOUT_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; gives the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if arguments not in ([], ["--json"]):
        print(f"error: python -m grpo.doctor takes --json alone; got {' '.join(arguments)}", file=sys.stderr)
        return 2
    machine = examine()
    found = abilities(machine)
    print(to_json(machine, found) if arguments else to_text(machine, found))
    return 0 if found[0].works else 1
