"""Rewards and prompt styles by name, from this package, another one, or a file beside the run. No torch.

A reference is a name of this package's own, a name in an entry-point group of an installed package,
`package.module:name`, or `file.py:name`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from grpo.evaluation.source_code import source_hash
from preprocessing.errors import UserError
from preprocessing.files import sha256


class PluginError(UserError):
    """A reward or prompt style that is not there or not usable; the message names it and what there is."""


@dataclass(frozen=True)
class Plugin:
    """What a reference stands for.

    Attributes:
        value: the object.
        source: hash of the code that it comes from; None for one of this package's own, whose version says it.
    """

    value: Any
    source: str | None


def find_plugin(reference: str, *, kind: str, group: str, own: Mapping[str, Any]) -> Plugin:
    """The object that a reference stands for.

    Args:
        reference: see the module.
        kind: what it is, for messages: `reward` or `prompt style`.
        group: entry-point group.
        own: this package's own, by name.

    Raises:
        PluginError: there is none of that name, or its code cannot be loaded.
    """
    if reference in own:
        return Plugin(own[reference], None)
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        return _from_file(reference, Path(place), name, kind)
    if not place:
        [entry] = metadata.entry_points(group=group, name=reference) or [None]
        if entry is None:
            names = ", ".join(sorted({*own, *(entry.name for entry in metadata.entry_points(group=group))}))
            raise PluginError(
                f"there is no {kind} '{reference}'; there are {names}, and package.module:name and file.py:name"
            )
        place, name = entry.module, entry.attr
    return _from_module(reference, place, name, kind)


def _from_module(reference: str, place: str, name: str, kind: str) -> Plugin:
    try:
        return Plugin(_attribute(importlib.import_module(place), name), source_hash(place))
    except ModuleNotFoundError as error:
        raise PluginError(f"{kind} '{reference}': no module {error.name} is installed") from error
    except AttributeError as error:
        raise PluginError(f"{kind} '{reference}': module {place} has no {name}") from error


def _from_file(reference: str, file: Path, name: str, kind: str) -> Plugin:
    if not file.is_file():
        raise PluginError(f"{kind} '{reference}': there is no file {file.absolute()}; put it back, or name another")
    source = sha256(file)
    try:
        return Plugin(_attribute(_load_file(file.absolute(), source), name), source)
    except AttributeError as error:
        raise PluginError(f"{kind} '{reference}': {file} has no {name}") from error


@lru_cache(maxsize=64)
def _load_file(file: Path, source: str) -> Any:
    """The module of a file with this content; its name holds the content's hash, so that an edited one loads anew."""
    name = f"grpo_plugin_{file.stem}_{source[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module of their class
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise PluginError(f"{file}, line {error.lineno}: {error.msg}") from error
    except ImportError as error:
        raise PluginError(f"{file} cannot be loaded: {error}") from error
    return module


def _attribute(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part)
    return module
