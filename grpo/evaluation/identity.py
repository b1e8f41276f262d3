"""Whose forecasts are these? Hashes that change whenever a forecast could.

A forecast is kept under the hash of all that it depends on: the forecaster (its code, settings, training windows and
seed, or a language model's weights and prompts) and the windows it was asked about. Equal hash, equal forecast.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grpo.evaluation.protocol import forecaster_config, forecaster_entry
from preprocessing.windows import Context, WindowSet


def key_of(identity: Mapping[str, Any]) -> str:
    """Short hash of plain JSON values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def context_hash(context: Context) -> str:
    """Hash of what a forecaster may see of some windows, to the last bit and in their order."""
    return _digest(context.item_id, context.origin.astype("datetime64[ns]"), context.past, context.features)


def windows_hash(windows: WindowSet) -> str:
    """Hash of windows with their future: what a forecaster is fitted on."""
    truth = windows.truth
    opens = [] if truth.next_open is None else [truth.next_open]
    return _digest((context_hash(windows.context),), truth.future, truth.dates.astype("datetime64[ns]"), *opens)


def plugin_identity(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a plugin's fits differ from another's, apart from windows and seed: package, code, settings.

    Raises:
        KeyError: no plugin of that name.
        SettingsError: settings that it refuses.
    """
    entry = forecaster_entry(name)
    package = {"package": entry.dist.name, "version": entry.dist.version} if entry.dist else {}
    config = dataclasses.asdict(forecaster_config(name, settings))
    plain = json.loads(json.dumps(config, default=str))
    return {"name": name, **package, "source": source_hash(entry.module), "config": plain}


def source_hash(module: str) -> str:
    """Hash of a module's source and of all that it imports from its own top-level package, however deep."""
    package, found, todo = module.partition(".")[0], {}, [module]
    while todo:
        name = todo.pop()
        if name in found or (file := _source_file(name)) is None:
            continue
        found[name] = file.read_bytes()
        todo += [other for other in _imports(found[name]) if other.partition(".")[0] == package]
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\0{hashlib.sha256(found[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


def _imports(source: bytes) -> set[str]:
    """Absolute names that a source imports; `from a import b` gives both a and a.b, which may be a module."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _source_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # `from module import name`: the name is no module
        return None
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _digest(names: tuple[str, ...], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(names).encode())
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
