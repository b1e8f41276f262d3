"""Objects that a user names by reference: `package.module:name` of an installed package, or `file.py:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from grpo.evaluation.source_code import source_hash
from preprocessing.errors import UserError


class PluginError(UserError):
    """A reference to something that is not there or cannot be loaded; the message names it."""


def load_reference(reference: str) -> Any:
    """The object that a reference names.

    Raises:
        PluginError: no such file, module or name, or code that cannot be loaded.
    """
    place, _, name = reference.rpartition(":")
    module = _load_file(_file(reference, place), source_of(reference)) if _is_file(place) else _load_module(reference)
    try:
        return attrgetter(name)(module)
    except AttributeError as error:
        what = place if _is_file(place) else f"module {place}"
        raise PluginError(f"'{reference}': {what} has no {name}") from error


def source_of(reference: str) -> str:
    """Hash of the code behind a reference: of the file or module, and of what it imports of this project.

    Raises:
        PluginError: no such file or module.
    """
    place = reference.rpartition(":")[0]
    try:
        return source_hash(file=_file(reference, place)) if _is_file(place) else source_hash(place)
    except SyntaxError as error:
        raise PluginError(f"{place}, line {error.lineno}: {error.msg}") from error
    except ModuleNotFoundError as error:
        raise PluginError(f"'{reference}': {error}") from error


def _is_file(place: str) -> bool:
    return place.endswith(".py")


def _file(reference: str, place: str) -> Path:
    if not Path(place).is_file():
        raise PluginError(f"'{reference}': there is no file {Path(place).absolute()}; put it back, or name another")
    return Path(place).absolute()


def _load_module(reference: str) -> ModuleType:
    try:
        return importlib.import_module(reference.rpartition(":")[0])
    except ModuleNotFoundError as error:
        raise PluginError(f"'{reference}': no module {error.name} is installed") from error


@lru_cache(maxsize=64)
def _load_file(file: Path, source: str) -> ModuleType:
    """The module of a file with this content; the content's hash in its name makes an edited file load anew."""
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
