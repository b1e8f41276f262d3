"""Optional packages: imported where they are needed, and missed with one clear line."""

from __future__ import annotations

import importlib
from types import ModuleType

from preprocessing.errors import UserError


class MissingPackageError(UserError):
    """A package that a forecaster needs is not installed; the message says how to install it."""


def import_optional(module: str, *, needed_by: str, install: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: dotted name of the module.
        needed_by: the forecaster, for the message.
        install: what pip has to install, for example "grpo-forecast[stats]".

    Raises:
        MissingPackageError: the package is not there.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise MissingPackageError(
            f"{needed_by} needs {missing}, which is not installed: pip install '{install}'"
        ) from error
