"""One safetensors file per checkpoint: named tensors, and what else is needed as JSON in its header.

The file appears whole or not at all, and reading it runs no code. Optimizers and random number generators go in too,
so that a training that was killed goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from preprocessing.files import write_atomically

_HEADER = "json"
_CPU_GENERATOR, _CUDA_GENERATOR = "generator.cpu", "generator.cuda"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write named tensors, and `header` as JSON, into one safetensors file.

    Raises:
        OSError: the disk is full or the folder is not writable; a former file stays as it was.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, metadata={_HEADER: json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the header that `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or written by something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({_one_line(error)})") from error


def read_header(path: Path) -> dict[str, Any]:
    """The header alone that `write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or written by something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_HEADER])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({_one_line(error)})") from error


def fingerprint(*tensors: torch.Tensor) -> str:
    """Short hash of shapes and numbers, in their order: what tells the data of a training from other data."""
    digest = hashlib.sha256(repr(tuple(tensor.shape for tensor in tensors)).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_training(
    path: Path,
    *,
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    progress: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write all that a training needs to go on: weights, optimizers, torch's random numbers, and what else it keeps.

    Args:
        path: the file.
        modules: networks by name; all that lie on a CUDA device lie on the same one, whose random numbers are kept.
        optimizers: by name.
        progress: plain JSON values.
        tensors: others, by name: a replay buffer, the best weights so far.
    """
    kept = {f"other.{name}": tensor for name, tensor in (tensors or {}).items()}
    kept |= {f"module.{name}.{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    scalars: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        scalars[name] = {"param_groups": state["param_groups"], "state": {}}
        for row, entries in state["state"].items():
            scalars[name]["state"][row] = {k: v for k, v in entries.items() if not isinstance(v, torch.Tensor)}
            kept |= {f"optimizer.{name}.{row}.{k}": v for k, v in entries.items() if isinstance(v, torch.Tensor)}
    kept[_CPU_GENERATOR] = torch.get_rng_state()
    if (device := _cuda_device(modules)) is not None:
        kept[_CUDA_GENERATOR] = torch.cuda.get_rng_state(device)
    write_tensors(path, kept, {"progress": progress, "optimizers": scalars})


def read_progress(path: Path, name: str) -> Any:
    """One entry of the `progress` that `save_training` wrote, to be looked at before anything is loaded.

    Raises:
        CheckpointError: the file is damaged, or of a training that keeps no such entry.
    """
    progress = read_header(path).get("progress", {})
    if name not in progress:
        raise CheckpointError(f"{path} is of another training, without {name}; delete it or choose another folder")
    return progress[name]


def load_training(
    path: Path, *, modules: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Put back what `save_training` wrote, random numbers included, and return its `progress` and `tensors`.

    Raises:
        CheckpointError: the file is damaged, or of networks of another shape.
    """
    tensors, header = read_tensors(path)
    try:
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"module.{name}."))
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(
                _optimizer_state(header["optimizers"][name], _below(tensors, f"optimizer.{name}."))
            )
        torch.set_rng_state(tensors[_CPU_GENERATOR])
        if (device := _cuda_device(modules)) is not None and _CUDA_GENERATOR in tensors:
            torch.cuda.set_rng_state(tensors[_CUDA_GENERATOR], device)
        return header["progress"], _below(tensors, "other.")
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not of this training ({_one_line(error)}); delete it or restore its settings"
        ) from error


def load_weights(path: Path, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Fill a module with the tensors below `prefix`; `path` is what the message names.

    Raises:
        CheckpointError: they do not fit.
    """
    try:
        module.load_state_dict(_below(tensors, prefix))
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this network ({_one_line(error)})") from error


def _cuda_device(modules: Mapping[str, torch.nn.Module]) -> torch.device | None:
    """The CUDA device that the modules lie on, if they do; it need not be the current one."""
    devices = (parameter.device for module in modules.values() for parameter in module.parameters())
    return next((device for device in devices if device.type == "cuda"), None)


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_state(plain: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(row): dict(entries) for row, entries in plain["state"].items()}
    for name, tensor in tensors.items():
        row, _, key = name.partition(".")
        state[int(row)][key] = tensor
    return {"param_groups": plain["param_groups"], "state": state}


def _one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")  # torch lists every tensor that does not fit
