"""What a forecaster is: the protocol, its forecast, and the registry of names.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from preprocessing.windows import Context

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


def forecaster_plugin(name: str) -> Any:
    """Import and return the plugin registered under a name.

    A plugin offers `Config` (a dataclass), `fit(config, train, val, *, horizon, seed, out_dir) -> Forecaster`
    and `load(path) -> Forecaster`; a module and a class with static methods both serve.

    Raises:
        KeyError: no such name; the message lists the names there are.
    """
    found = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == name]
    if not found:
        raise KeyError(f"no forecaster named '{name}'; installed: {', '.join(forecaster_names())}")
    return found[0].load()
