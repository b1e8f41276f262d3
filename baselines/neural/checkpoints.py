"""The checkpoints of a training: weights, optimizers and random numbers as named tensors in one file.

A training that was killed then goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.building_blocks.tensor_files import SavedFileError, in_short, read_arrays, read_header, write_arrays
from preprocessing.files import JsonObject

_CPU_GENERATOR, _CUDA_GENERATOR = "generator.cpu", "generator.cuda"


def as_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same numbers, in the memory of the CPU."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The same numbers, on the CPU."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write named tensors, and `header` as JSON, into one file.

    Raises:
        OSError: the disk is full or the folder is not writable; a former file stays as it was.
    """
    write_arrays(path, as_arrays(tensors), header)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], JsonObject]:
    """The tensors (on the CPU) and the header that `write_tensors` wrote.

    Raises:
        SavedFileError: the file is missing, damaged, or written by something else.
    """
    arrays, header = read_arrays(path)
    return as_tensors(arrays), header


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose name begins with the prefix, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def fingerprint(*tensors: torch.Tensor) -> str:
    """Short hash of shapes and numbers, in their order: what tells the data of a training from other data."""
    # Shapes too: the same bytes in another shape are other data.
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
    # Tensors go into the file as tensors, step counts and rates as JSON; together they are the optimizer's state.
    scalars: JsonObject = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        scalars[name] = {"param_groups": state["param_groups"], "state": {}}
        for row, entries in state["state"].items():
            scalars[name]["state"][row] = {k: v for k, v in entries.items() if not isinstance(v, torch.Tensor)}
            kept |= {f"optimizer.{name}.{row}.{k}": v for k, v in entries.items() if isinstance(v, torch.Tensor)}
    # Dropout and sampling draw from torch's global numbers; without these a resumed training would take another course.
    kept[_CPU_GENERATOR] = torch.get_rng_state()
    if (device := _cuda_device(modules)) is not None:
        kept[_CUDA_GENERATOR] = torch.cuda.get_rng_state(device)
    write_tensors(path, kept, {"progress": progress, "optimizers": scalars})


def read_progress(path: Path, name: str) -> Any:
    """One entry of the `progress` that `save_training` wrote, to be looked at before anything is loaded.

    Raises:
        SavedFileError: the file is damaged, or of a training that keeps no such entry.
    """
    progress = read_header(path).get("progress", {})
    if name not in progress:
        raise SavedFileError(f"{path} is of another training, without {name}; delete it or choose another folder")
    return progress[name]


def load_training(
    path: Path, *, modules: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[JsonObject, dict[str, torch.Tensor]]:
    """Put back what `save_training` wrote, random numbers included, and return its `progress` and `tensors`.

    Raises:
        SavedFileError: the file is damaged, or of networks of another shape.
    """
    tensors, header = read_tensors(path)
    try:
        for name, module in modules.items():
            module.load_state_dict(below(tensors, f"module.{name}."))
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(
                _optimizer_state(header["optimizers"][name], below(tensors, f"optimizer.{name}."))
            )
        # After the weights: filling modules draws nothing, but what is drawn next must be what the killed training
        # would draw.
        torch.set_rng_state(tensors[_CPU_GENERATOR])
        if (device := _cuda_device(modules)) is not None and _CUDA_GENERATOR in tensors:
            torch.cuda.set_rng_state(tensors[_CUDA_GENERATOR], device)
        return header["progress"], below(tensors, "other.")
    except (KeyError, RuntimeError, ValueError) as error:
        raise SavedFileError(
            f"{path} is not of this training ({in_short(error)}); delete it or restore its settings"
        ) from error


def load_weights(path: Path, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Fill a module with the tensors below `prefix`; `path` is what the message names.

    Raises:
        SavedFileError: they do not fit.
    """
    try:
        module.load_state_dict(below(tensors, prefix))
    except RuntimeError as error:
        raise SavedFileError(f"{path} does not fit this network ({in_short(error)})") from error


def _cuda_device(modules: Mapping[str, torch.nn.Module]) -> torch.device | None:
    """The CUDA device that the modules lie on, if they do; it need not be the current one."""
    devices = (parameter.device for module in modules.values() for parameter in module.parameters())
    return next((device for device in devices if device.type == "cuda"), None)


def _optimizer_state(plain: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> JsonObject:
    # JSON has text keys only, and torch numbers its parameters.
    state: dict[int, JsonObject] = {int(row): dict(entries) for row, entries in plain["state"].items()}
    for name, tensor in tensors.items():
        row, _, key = name.partition(".")
        state[int(row)][key] = tensor
    return {"param_groups": plain["param_groups"], "state": state}
