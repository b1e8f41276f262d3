"""Rewards and prompt styles by name, from this package, another one, or a file beside the run. No torch.

A reference is a name of this package's own, a name in an entry-point group of an installed package,
`package.module:name`, or `file.py:name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from grpo.evaluation.plugins import PluginError, load_reference, source_of


@dataclass(frozen=True)
class Plugin:
    """What a reference stands for.

    Attributes:
        value: the object.
        source: hash of the code that it comes from; None for one of this package's own, whose version says it.
    """

    value: Any
    source: str | None


def find_plugin(reference: str, *, kind: str, group: str, own: Mapping[str, object]) -> Plugin:
    """The object that a reference stands for.

    Args:
        reference: see the module.
        kind: what it is, for messages: `reward` or `prompt style`.
        group: entry-point group.
        own: this package's own, by name.

    Raises:
        PluginError: there is none of that name, or its code cannot be loaded.
    """
    # Our own names first, so that no installed package can put something else behind `energy` or `direct`.
    if reference in own:
        return Plugin(own[reference], None)
    place = reference
    if ":" not in reference:
        [entry] = metadata.entry_points(group=group, name=reference) or [None]
        if entry is None:
            names = ", ".join(sorted({*own, *(entry.name for entry in metadata.entry_points(group=group))}))
            raise PluginError(
                f"there is no {kind} '{reference}'; there are {names}, and package.module:name and file.py:name"
            )
        place = f"{entry.module}:{entry.attr}"
    try:
        # A name does not say what was run, since the code behind it may be edited between two runs; its hash does.
        return Plugin(load_reference(place), source_of(place))
    except PluginError as error:
        raise PluginError(f"{kind} {error}") from error
