"""What this machine has: packages and whether they are in their tested range, devices, memory, disk.

Packages are looked up, not imported, except PyTorch, which alone knows the devices.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from grpo.models.config import LoadingConfig

DISTRIBUTION = "grpo-forecast"
# Packages that no extra declares, since most machines cannot use them; the way to get each
OPTIONAL = {"bitsandbytes": "bitsandbytes", "flash_attn": "flash-attn", "liger_kernel": "liger-kernel"}


@dataclass(frozen=True, kw_only=True)
class Package:
    """A declared package: its tested range, and the installed version (None: not installed)."""

    name: str
    tested: str
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is installed in a tested version."""
        return self.installed is not None and Requirement(self.name + self.tested).specifier.contains(
            self.installed, prereleases=True
        )


def declared_packages() -> dict[str, list[Package]]:
    """What pyproject.toml declares, by extra ("" for what is always needed)."""
    groups: dict[str, list[Package]] = {"": []}
    for extra in metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        groups[extra] = []
    for line in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        extra = next((name for name in groups if name and f'extra == "{name}"' in line.replace("'", '"')), "")
        if requirement.name != DISTRIBUTION and (
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        ):
            package = Package(
                name=requirement.name,
                tested=str(requirement.specifier),
                installed=installed_version(requirement.name),
            )
            groups[extra].append(package)
    return groups


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def has_module(name: str) -> bool:
    """Whether a top-level module could be imported."""
    return importlib.util.find_spec(name) is not None


def cuda_devices() -> list[str]:
    """Names of the GPUs that PyTorch sees."""
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def has_bfloat16() -> bool:
    """Whether the device that trains computes in bfloat16 (a CPU does, slowly)."""
    import torch

    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported()


def free_memory(processes: int = 1) -> int:
    """Bytes that one process can take: of its GPU, or its share of the main memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))[0]
    # Processes share the main memory, while each has a GPU of its own.
    return psutil.virtual_memory().available // processes


def splits_weights() -> bool:
    """Whether the launcher shares weights and optimizer out among the processes (FSDP, DeepSpeed)."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "") == "true" for name in ("FSDP", "DEEPSPEED"))


def free_disk(folder: Path) -> int:
    """Bytes free on the disk of a folder, which need not be there yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def is_port_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port that a finished run has just left waits a minute, but can be bound.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def loading_problems(loading: LoadingConfig) -> list[str]:
    """What the loading options ask for and this machine lacks, one line each with the way out."""
    gpu = bool(cuda_devices())
    problems = []
    for chosen, option, module, instead in (
        (loading.quantization == "4bit", "quantization 4bit", "bitsandbytes", "quantization none"),
        (loading.attention == "flash_attention_2", "attention flash_attention_2", "flash_attn", "attention sdpa"),
        (loading.liger, "liger true", "liger_kernel", "liger false"),
    ):
        if chosen and not gpu:
            problems.append(f"loading.{option}: PyTorch sees no GPU; take loading.{instead}")
        if chosen and not has_module(module):
            problems.append(
                f"loading.{option}: {OPTIONAL[module]} is not installed; run `pip install {OPTIONAL[module]}`, or take "
                f"loading.{instead}"
            )
    if loading.dtype == "float16" and not gpu:
        problems.append(
            "loading.dtype float16: PyTorch sees no GPU, and a CPU trains in float32; take loading.dtype auto"
        )
    if loading.dtype == "bfloat16" and not has_bfloat16():
        problems.append("loading.dtype bfloat16: this GPU cannot compute in it; take loading.dtype float16 or float32")
    return problems
