"""What a stage was run with and what it made: the record behind the resume rule."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.command_line import plain
from preprocessing.files import JsonObject, sha256

VERSIONED_PACKAGES = (
    "grpo-forecast",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "numpy",
    "pandas",
)


def request_record(stage: str, sections: Mapping[str, Any], inputs: Mapping[str, Path]) -> JsonObject:
    """What a stage is asked to do: its config sections and the content of its inputs."""
    settings = jsonable(plain(dict(sections)))
    # Sorted, so that the order of the fields in the code does not count as a change.
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {"stage": stage, "config": settings, "config_sha256": digest, "inputs": fingerprints(inputs)}


def fingerprints(paths: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Path and hash of each file or folder, by name."""
    return {name: {"path": str(path), "sha256": sha256(path)} for name, path in paths.items()}


def request_changes(former: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """What differs between a former attempt and this one, one phrase per config key and input."""
    changes = []
    if former["config_sha256"] != request["config_sha256"]:
        changes += config_changes(former["config"], request["config"])
    was, now = former["inputs"], request["inputs"]
    for name in sorted(was.keys() | now.keys()):
        if name not in now:
            changes.append(f"input {name} is no longer given")
        elif name not in was:
            changes.append(f"input {name} was not given")
        # Only the content counts: a run folder that was moved is still the same run.
        elif was[name]["sha256"] != now[name]["sha256"]:
            changes.append(f"input {name} ({now[name]['path']}) has another content")
    return changes


def output_changes(manifest: Mapping[str, Any], outputs: Mapping[str, Path]) -> list[str]:
    """Which outputs are gone or not as the stage left them, one phrase per output."""
    changes = []
    for name, path in outputs.items():
        if not Path(path).exists():
            changes.append(f"output {name} is missing at {path}")
        elif manifest["outputs"].get(name, {}).get("sha256") != sha256(path):
            changes.append(f"output {name} ({path}) is not what the stage wrote")
    return changes


def config_changes(was: Any, now: Any, path: str = "") -> list[str]:
    """One phrase per key that differs between two plain trees: `lora.rank was 16, is 32`."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        changes = []
        for key in [*now, *(key for key in was if key not in now)]:
            place = f"{path}.{key}" if path else str(key)
            if key not in was:
                changes.append(f"{place} was not set, is {now[key]!r}")
            elif key not in now:
                changes.append(f"{place} was {was[key]!r}, is not set")
            else:
                changes += config_changes(was[key], now[key], place)
        return changes
    return [] if was == now else [f"{path} was {was!r}, is {now!r}"]


def to_json(record: Mapping[str, Any]) -> str:
    """Strict, indented JSON with a final newline."""
    return json.dumps(jsonable(record), indent=2, allow_nan=False) + "\n"


def jsonable(value: Any) -> Any:
    """Plain JSON values; numbers that JSON lacks (NaN, infinity) become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def versions() -> dict[str, str | None]:
    """Installed versions of Python and the packages that numbers depend on, without importing them."""
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package in VERSIONED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_commit() -> str | None:
    """The commit of the source, with `-dirty` where tracked files differ; None outside of a checkout."""
    source = Path(__file__).resolve().parent
    # --exclude=* leaves tags out, so that the answer is the whole hash with or without a tag nearby.
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        # The time limit is for a network disk: a run must not wait on a note of its commit.
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
