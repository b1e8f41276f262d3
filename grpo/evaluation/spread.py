"""One factor of a forecast's spread, chosen on validation windows.

Samples become median + factor (sample - median) in log price, on each day: the median of every day stays, the path of
a sample stays the path of one sample, and all central intervals grow or shrink alike. The median is that of as many
other samples, drawn for it alone: about a median of their own, samples are no longer independent, and a fair score
counts that as an error. The factor is the one with the smallest fair CRPS on validation windows. Test windows take no
part in the choice.

`baselines.NAME.calibrate: spread` asks for it, for any plugin. A plugin whose Config has a field `calibrate` of its
own sees to it by itself.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from grpo.evaluation.harness import choose_windows
from grpo.evaluation.metrics import fair_crps
from grpo.evaluation.protocol import Forecast, Forecaster, SettingsError
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically
from preprocessing.windows import Context, WindowSet

SETTING = "calibrate"
KINDS = ("none", "spread")
GRID = 2.0 ** np.arange(-2, 2.25, 0.25)
"""Factors that are tried first, from a quarter to four; the best one's neighbours bracket the minimum."""
MAX_WINDOWS = 2000
"""Validation windows that are used at most, equally many of each stock and spread evenly over its dates."""
NUM_SAMPLES = 100
FACTOR_FILE = "spread.txt"


class SpreadError(UserError):
    """A spread that cannot be chosen or read; the message says why."""


def scale_spread(drawn: Forecast, factor: float) -> Forecast:
    """Multiply the distance of the first S of 2 S samples from each day's median of the others, in log price.

    A sample that over- or underflows is no longer valid; where the others hold no valid one, nothing is scaled.
    """
    centre, distance = _around_median(drawn)
    with np.errstate(over="ignore"):
        # in log price, so that no factor can make a price negative
        samples = np.exp(centre + factor * distance)
    valid = np.all(np.isfinite(samples) & (samples > 0), axis=-1)
    texts = None if drawn.texts is None else tuple(row[: samples.shape[1]] for row in drawn.texts)
    return Forecast(samples=np.where(valid[:, :, None], samples, np.nan), valid=valid, texts=texts)


def best_factor(drawn: Forecast, windows: WindowSet) -> float:
    """The factor with the smallest mean fair CRPS in percent of the last close.

    Args:
        drawn: 2 S samples of the windows; one that is not valid counts as the last close, whatever the factor.
        windows: B windows with their truth, at least one.
    """
    last = windows.context.last_price[:, None, None]
    centre, distance = _around_median(drawn)
    centre, valid = centre - np.log(last), drawn.valid[:, : distance.shape[1], None]
    truth = windows.truth.future / last[:, 0]

    def loss(log_factor: float) -> float:
        # by the log of the factor: halving and doubling are equally far
        relative = np.exp(centre + np.exp(log_factor) * distance)
        return float(fair_crps(np.where(valid, relative, 1.0), truth).mean())

    # a grid first: the loss need not have one valley, and the search below stays in the best one
    best = int(np.argmin([loss(log_factor) for log_factor in np.log(GRID)]))
    bracket = np.log(GRID[[max(best - 1, 0), min(best + 1, len(GRID) - 1)]])
    found = optimize.minimize_scalar(loss, bounds=tuple(bracket), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def choose_spread(forecaster: Forecaster, val: WindowSet, *, seed: int) -> float:
    """The best factor for a fitted forecaster on validation windows.

    Raises:
        SpreadError: there are none.
    """
    if len(val) == 0:
        raise SpreadError(
            f"{forecaster.name}: its spread is chosen on validation windows and there are none; give val a larger share"
        )
    chosen = val.take(choose_windows(val.context, MAX_WINDOWS))
    drawn = forecaster.predict(chosen.context, horizon=val.horizon, num_samples=2 * NUM_SAMPLES, seed=seed)
    return best_factor(drawn, chosen)


@dataclass(frozen=True, eq=False)
class SpreadCalibrated:
    """A fitted forecaster whose spread is multiplied by a factor.

    Attributes:
        forecaster: what is calibrated.
        factor: of its spread.
    """

    forecaster: Forecaster
    factor: float

    @property
    def name(self) -> str:
        """That of the forecaster."""
        return self.forecaster.name

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """The forecaster's samples with their spread scaled."""
        drawn = self.forecaster.predict(context, horizon=horizon, num_samples=2 * num_samples, seed=seed)
        return scale_spread(drawn, self.factor)

    def save(self, path: Path) -> None:
        """Write the forecaster, and the factor beside it."""
        self.forecaster.save(path)
        write_atomically(Path(path) / FACTOR_FILE, f"{self.factor!r}\n")


@dataclass(frozen=True)
class SpreadPlugin:
    """A plugin whose fits are calibrated.

    Attributes:
        plugin: a plugin as `grpo.evaluation.protocol.forecaster_plugin` gives it.
    """

    plugin: Any

    def fit(
        self, config: Any, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> SpreadCalibrated:
        """Fit the plugin, then choose the factor on the validation windows."""
        fitted = self.plugin.fit(config, train, val, horizon=horizon, seed=seed, out_dir=out_dir)
        return SpreadCalibrated(fitted, choose_spread(fitted, val, seed=seed))

    def load(self, path: Path) -> SpreadCalibrated:
        """Read what `SpreadCalibrated.save` wrote.

        Raises:
            SpreadError: the factor is missing or no number.
        """
        file = Path(path) / FACTOR_FILE
        try:
            factor = float(file.read_text())
        except (OSError, ValueError) as error:
            raise SpreadError(f"{file} does not hold the factor of a spread ({error}); fit it again") from error
        return SpreadCalibrated(self.plugin.load(path), factor)


def split_calibration(name: str, plugin: Any, settings: Mapping[str, object]) -> tuple[Any, JsonObject]:
    """Take `calibrate` out of a plugin's settings.

    Args:
        name: of the plugin, for the message.
        plugin: as `forecaster_plugin` gives it.
        settings: of the plugin, perhaps with `calibrate`.

    Returns:
        The plugin, as a `SpreadPlugin` where its spread is to be calibrated here; and its own settings.

    Raises:
        SettingsError: `calibrate` is neither none nor spread.
    """
    # the plugin's own field of that name wins: it may calibrate better than from outside
    if SETTING in {field.name for field in dataclasses.fields(plugin.Config)}:
        return plugin, dict(settings)
    own = {field: value for field, value in settings.items() if field != SETTING}
    kind = settings.get(SETTING, "none")
    if kind not in KINDS:
        raise SettingsError(f"baselines.{name}.{SETTING} must be {' or '.join(KINDS)}; got '{kind}'")
    return (SpreadPlugin(plugin) if kind == "spread" else plugin), own


def _around_median(drawn: Forecast) -> tuple[np.ndarray, np.ndarray]:
    """Of 2 S samples: each day's median of the last S, and the first S less that, in log price and [B, S, H] both."""
    first, others = np.split(np.log(drawn.samples), 2, axis=1)
    answered = drawn.valid[:, first.shape[1] :].any(axis=1)
    # without a valid sample among the others a sample is its own centre: its distance is 0, and nothing is scaled
    centre = first.copy()
    centre[answered] = np.nanmedian(others[answered], axis=1, keepdims=True)
    return centre, first - centre
