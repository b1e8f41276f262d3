"""Whose forecasts are these? Hashes that change whenever a forecast could.

A forecast is kept under the hash of all that it depends on: the forecaster (its code, settings, training windows and
seed, or a language model's code, weights and prompts) and the windows it was asked about. Equal hash, equal forecast.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import numpy as np

from grpo.evaluation.plugins import source_of
from grpo.evaluation.protocol import forecaster_config, forecaster_entry, forecaster_plugin
from grpo.evaluation.source_code import source_hash
from grpo.evaluation.spread import SpreadPlugin, split_calibration
from preprocessing.windows import Context, WindowSet


def key_of(identity: Mapping[str, object]) -> str:
    """Short hash of plain JSON values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def context_hash(context: Context) -> str:
    """Hash of what a forecaster may see of some windows, to the last bit and in their order."""
    memories = [] if context.memories is None else [context.memories]
    return _digest(context.item_id, context.origin.astype("datetime64[ns]"), context.past, context.features, *memories)


def windows_hash(windows: WindowSet) -> str:
    """Hash of windows with their future: what a forecaster is fitted on."""
    truth = windows.truth
    opens = [] if truth.next_open is None else [truth.next_open]
    return _digest((context_hash(windows.context),), truth.future, truth.dates.astype("datetime64[ns]"), *opens)


def plugin_identity(name: str, settings: Mapping[str, object], reference: str | None = None) -> dict[str, object]:
    """What makes a plugin's fits differ from another's, apart from windows and seed: package, code, settings.

    Args:
        name: how tables call it.
        settings: of its Config.
        reference: as in `forecaster_plugin`, where that is not the name.

    Raises:
        KeyError: no plugin of that name.
        PluginError: a reference to something that is not there.
        SettingsError: settings that it refuses.
    """
    plugin, own = split_calibration(name, forecaster_plugin(reference or name), settings)
    config = dataclasses.asdict(forecaster_config(name, own, reference))
    # through JSON once: tuples and paths become what a stored identity reads back as
    identity = {"name": name, "config": json.loads(json.dumps(config, default=str))}
    if reference is not None and ":" in reference:
        identity |= {"reference": reference, "source": source_of(reference)}
    else:
        entry = forecaster_entry(reference or name)
        identity |= {"package": entry.dist.name, "version": entry.dist.version} if entry.dist else {}
        identity["source"] = source_hash(entry.module)
    if isinstance(plugin, SpreadPlugin):
        # the plugin does not import what calibrates it, so its own hash would not notice a change there
        identity["spread"] = source_hash(SpreadPlugin.__module__)
    return identity


def _digest(names: tuple[str, ...], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(names).encode())
    for array in arrays:
        # shape and type first: equal bytes in another shape are other data
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
