"""What a forecaster is: the protocol, its forecast, and the registry of names.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jsonargparse import ArgumentError, ArgumentParser

from grpo.evaluation.plugins import load_reference
from preprocessing.errors import UserError
from preprocessing.windows import Context, WindowSet

ENTRY_POINT_GROUP = "grpo.forecasters"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Sample paths of the future, the only probabilistic output; quantiles and moments are derived in metrics.

    Attributes:
        samples: [B, S, H] price units; NaN exactly where `valid` is False.
        valid: [B, S] whether the sample is a usable path (right length, finite, positive).
        texts: the raw answers of a language model, per window and sample, or None.
    """

    samples: np.ndarray
    valid: np.ndarray
    texts: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 3 or self.valid.shape != self.samples.shape[:2]:
            raise ValueError(
                f"samples must be [B, S, H] and valid [B, S]; got {self.samples.shape} and {self.valid.shape}."
            )
        usable = np.isfinite(self.samples).all(-1) & (np.nan_to_num(self.samples, nan=-1.0) > 0).all(-1)
        if not np.array_equal(usable, self.valid) or not np.isnan(self.samples[~self.valid]).all():
            raise ValueError("samples must be finite and positive where valid, and NaN exactly where not.")

    def take(self, rows: np.ndarray) -> Forecast:
        """The forecasts of some windows, by row number or boolean mask, in that order."""
        texts = None if self.texts is None else tuple(self.texts[i] for i in np.arange(len(self.valid))[rows])
        return Forecast(samples=self.samples[rows], valid=self.valid[rows], texts=texts)


def concatenate_forecasts(parts: Sequence[Forecast]) -> Forecast:
    """Join forecasts of equal size and horizon, in the order given; texts where all of them have some."""
    texts = [part.texts for part in parts if part.texts is not None]
    return Forecast(
        samples=np.concatenate([part.samples for part in parts]),
        valid=np.concatenate([part.valid for part in parts]),
        texts=tuple(row for rows in texts for row in rows) if len(texts) == len(parts) else None,
    )


@runtime_checkable
class Forecaster(Protocol):
    """A fitted forecaster: it sees a context, never the truth, and answers with sample paths."""

    name: str

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample `num_samples` paths of `horizon` days for each window; the same seed gives the same paths."""
        ...

    def save(self, path: Path) -> None:
        """Write all that `load` needs into the folder `path`."""
        ...


def forecaster_names() -> tuple[str, ...]:
    """Names registered under the entry-point group, sorted."""
    return tuple(sorted(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)))


class SettingsError(UserError):
    """Settings that a plugin's Config refuses; the message names the path `baselines.NAME.FIELD`."""


def forecaster_entry(name: str) -> EntryPoint:
    """The entry point registered under a name.

    Raises:
        KeyError: no such name; the message lists the names there are.
    """
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name]
    if not found:
        raise KeyError(f"no forecaster named '{name}'; installed: {', '.join(forecaster_names())}")
    return found[0]


class ForecasterPlugin(Protocol):
    """What makes fitted forecasters; a module and a class with static methods both serve.

    One that needs packages beyond this one's dependencies may name their modules in `requires`, a tuple of strings.

    Attributes:
        Config: a dataclass with its settings.
    """

    Config: type[Any]

    def fit(
        self, config: Any, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Forecaster:
        """Fit on training windows; `out_dir` is a folder of its own, for what may be used again after a kill."""
        ...

    def load(self, path: Path) -> Forecaster:
        """The forecaster that `Forecaster.save` wrote into a folder."""
        ...


def forecaster_plugin(reference: str) -> ForecasterPlugin:
    """Import and return the plugin of a registered name, or of `package.module:name` or `file.py:name`.

    Raises:
        KeyError: no such name; the message lists the names there are.
        PluginError: a reference whose file, module or name is not there.
    """
    return load_reference(reference) if ":" in reference else forecaster_entry(reference).load()


def missing_packages(plugin: object) -> tuple[str, ...]:
    """Modules that a plugin says it `requires` and that are not installed."""
    return tuple(module for module in getattr(plugin, "requires", ()) if importlib.util.find_spec(module) is None)


def forecaster_config(name: str, settings: Mapping[str, object], reference: str | None = None) -> Any:
    """The plugin's `Config` with some fields set; the rest keep their defaults.

    Args:
        name: how messages call it.
        settings: of some fields.
        reference: as in `forecaster_plugin`, where that is not the name.

    Raises:
        KeyError: no such plugin.
        SettingsError: an unknown field, a value of another type, or one that the Config refuses.
    """
    config_class = forecaster_plugin(reference or name).Config
    fields = [field.name for field in dataclasses.fields(config_class)]
    for field in settings:
        if field not in fields:
            allowed = f"there are {', '.join(fields)}" if fields else "it has no settings"
            raise SettingsError(f"baselines.{name}.{field}: {name} has no such setting; {allowed}")
    # not exit_on_error: the caller names the setting's place, which the parser does not know
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, as_group=False)
    try:
        # the parser checks types as the command line does, so a setting means the same in a file and in code
        values = parser.instantiate(parser.parse_object(dict(settings)))
        return config_class(**{field: values[field] for field in fields})
    except (ArgumentError, ValueError) as error:
        raise SettingsError(f"baselines.{name}: {' '.join(str(error).split())}") from error
