"""Simulated stocks whose law is known, so that what can be learnt is known too.

A simulated stock is named like a ticker: `sim:ou?half_life=5&sigma=0.015&rows=5000&seed=1`. Parameters that are not
named take their defaults; `rows` (days) and `seed` belong to every process.

Letters: N series, T days, B windows, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

PREFIX = "sim:"
START_PRICE = 100.0


class SimulationError(ValueError):
    """A simulated stock's name that cannot be read; the message says which part and what is allowed."""


@dataclass(frozen=True)
class Paths:
    """Simulated log prices with the law of each single step.

    Attributes:
        log_price: [N, T].
        step_mean: [N, T] mean of log_price[:, t] given all up to t - 1, latent states and the size of heavy-tailed
            shocks included.
        step_sd: [N, T] its Gaussian standard deviation under the same condition.
    """

    log_price: np.ndarray
    step_mean: np.ndarray
    step_sd: np.ndarray


@dataclass(frozen=True)
class Process:
    """A stochastic process: its parameters with defaults, their allowed ranges, and the sampler.

    `simulate(parameters, rows, rng)` takes each parameter as an array [N, 1] and returns Paths.
    """

    defaults: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    simulate: Callable[[Mapping[str, np.ndarray], int, np.random.Generator], Paths]


def _shocks(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[N, T] standard normal shocks, and [N, T] scales that make them Student-t with unit variance."""
    normal = rng.standard_normal((len(p["sigma"]), rows))
    tail = p["tail"]
    chi_square = rng.chisquare(tail, (len(tail), rows))
    return normal, np.where(tail < 1e3, np.sqrt((tail - 2) / chi_square), 1.0)


def _filter(start: np.ndarray, decay: np.ndarray, shocks: np.ndarray) -> np.ndarray:
    """[N, T] z_t = decay z_{t-1} + shock_t with z_0 = start [N, 1]."""
    z = np.empty_like(shocks)
    z[:, :1] = start
    for t in range(1, shocks.shape[1]):
        z[:, t : t + 1] = decay * z[:, t - 1 : t] + shocks[:, t : t + 1]
    return z


def _paths(log_price: np.ndarray, step_sd: np.ndarray, normal: np.ndarray) -> Paths:
    return Paths(log_price, log_price - step_sd * normal, step_sd)


def _gbm(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    normal, scale = _shocks(p, rows, rng)
    sd = p["sigma"] * scale
    return _paths(np.cumsum(p["drift"] + sd * normal, axis=1), sd, normal)


def _ou(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    normal, scale = _shocks(p, rows, rng)
    decay = 0.5 ** (1 / p["half_life"])
    sd = p["sigma"] * scale
    start = p["sigma"] * normal[:, :1] / np.sqrt(1 - decay**2)
    return _paths(_filter(start, decay, sd * normal), sd, normal)


def _ar(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    normal, scale = _shocks(p, rows, rng)
    sd = p["sigma"] * scale
    log_return = _filter(sd[:, :1] * normal[:, :1], p["phi"], sd * normal)
    return _paths(np.cumsum(log_return, axis=1), sd, normal)


def _trend(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    paths = _ou(p, rows, rng)
    line = p["drift"] * np.arange(rows)
    return Paths(paths.log_price + line, paths.step_mean + line, paths.step_sd)


def _seasonal(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    paths = _ou(p, rows, rng)
    wave = p["amplitude"] * p["sigma"] * np.sin(2 * np.pi * (np.arange(rows) / p["period"] + p["phase"]))
    return Paths(paths.log_price + wave, paths.step_mean + wave, paths.step_sd)


def _regime(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    """Two hidden states that switch with probability `switch` a day: up and calm, down and wild."""
    normal, scale = _shocks(p, rows, rng)
    flips = rng.random(normal.shape) < p["switch"]
    wild = (np.cumsum(flips, axis=1) + (rng.random((len(normal), 1)) < 0.5)) % 2 == 1
    sd = p["sigma"] * scale * np.where(wild, p["wildness"], 1.0)
    drift = p["sigma"] * p["tilt"] * np.where(wild, -1.0, 1.0)
    return _paths(np.cumsum(drift + sd * normal, axis=1), sd, normal)


def _stochvol(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    """Log volatility is an AR(1) with coefficient `persistence` and daily shocks of `vol_of_vol`."""
    normal, scale = _shocks(p, rows, rng)
    shocks = p["vol_of_vol"] * rng.standard_normal(normal.shape)
    log_vol = _filter(shocks[:, :1] / np.sqrt(1 - p["persistence"] ** 2), p["persistence"], shocks)
    sd = p["sigma"] * scale * np.exp(log_vol)
    return _paths(np.cumsum(p["drift"] + sd * normal, axis=1), sd, normal)


_COMMON_DEFAULTS = {"sigma": 0.015, "tail": 1e6}
_COMMON_RANGES = {"sigma": (1e-4, 1.0), "tail": (2.1, 1e9)}


def _process(simulate: Callable[..., Paths], **parameters: tuple[float, tuple[float, float]]) -> Process:
    return Process(
        defaults=_COMMON_DEFAULTS | {name: default for name, (default, _) in parameters.items()},
        ranges=_COMMON_RANGES | {name: allowed for name, (_, allowed) in parameters.items()},
        simulate=simulate,
    )


_DRIFT = (0.0, (-0.05, 0.05))
_HALF_LIFE = (3.0, (0.1, 1e4))
PROCESSES: dict[str, Process] = {
    "gbm": _process(_gbm, drift=_DRIFT),
    "ou": _process(_ou, half_life=_HALF_LIFE),
    "ar": _process(_ar, phi=(0.3, (-0.95, 0.95))),
    "trend": _process(_trend, half_life=_HALF_LIFE, drift=(0.0005, (-0.05, 0.05))),
    "seasonal": _process(
        _seasonal,
        half_life=_HALF_LIFE,
        period=(20.0, (2.0, 1e4)),
        amplitude=(2.0, (0.0, 100.0)),
        phase=(0.0, (0.0, 1.0)),
    ),
    "regime": _process(_regime, switch=(0.03, (0.0, 1.0)), wildness=(2.0, (0.1, 10.0)), tilt=(0.1, (0.0, 2.0))),
    "stochvol": _process(_stochvol, drift=_DRIFT, persistence=(0.95, (0.0, 0.999)), vol_of_vol=(0.15, (0.0, 1.0))),
}
"""Units: sigma, drift in log price per day; half_life, period in days; amplitude in daily sigmas; tail = degrees of
freedom of Student-t shocks (1000 and more: Gaussian)."""


@dataclass(frozen=True)
class SimulatedStock:
    """One simulated stock."""

    process: str
    parameters: Mapping[str, float]
    rows: int
    seed: int

    def paths(self) -> Paths:
        """The log prices, [1, T], starting near log 100, with the law of each step."""
        parameters = {name: np.full((1, 1), value) for name, value in self.parameters.items()}
        paths = PROCESSES[self.process].simulate(parameters, self.rows, np.random.default_rng(self.seed))
        level = np.log(START_PRICE)
        return Paths(paths.log_price + level, paths.step_mean + level, paths.step_sd)

    def bars(self) -> pd.DataFrame:
        """Daily bars: open, high, low, close, volume, indexed by business days from 2000-01-03."""
        return make_bars(self.paths().log_price[0], np.random.default_rng([self.seed, 1]))

    def conditional_law(self, last_price: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Exact Gaussian law of the next log prices given the last price.

        Args:
            last_price: [B] close at the origin.
            horizon: H.

        Returns:
            Mean [B, H] and covariance [H, H] of the log prices; None where the last price alone does not fix the
            law (latent states, memory of more than a day, heavy tails).
        """
        if self.process not in ("gbm", "ou") or self.parameters["tail"] < 1e3:
            return None
        steps = np.arange(1, horizon + 1)
        first = np.minimum(steps[:, None], steps[None, :])
        variance = self.parameters["sigma"] ** 2
        x = np.log(last_price)[:, None]
        if self.process == "gbm":
            return x + self.parameters["drift"] * steps, variance * first.astype(float)
        level = np.log(START_PRICE)
        decay = 0.5 ** (1 / self.parameters["half_life"])
        distance = np.abs(steps[:, None] - steps[None, :])
        covariance = variance * decay**distance * (1 - decay ** (2 * first)) / (1 - decay**2)
        return level + (x - level) * decay**steps, covariance


def make_bars(log_close: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Bars around simulated closes [T]: opens near the former close, ranges of the size of a daily move."""
    move = np.std(np.diff(log_close))
    opening = np.concatenate([log_close[:1], log_close[:-1]]) + 0.2 * move * rng.standard_normal(len(log_close))
    high = np.maximum(opening, log_close) + 0.4 * move * np.abs(rng.standard_normal(len(log_close)))
    low = np.minimum(opening, log_close) - 0.4 * move * np.abs(rng.standard_normal(len(log_close)))
    return pd.DataFrame(
        {
            "open": np.exp(opening),
            "high": np.exp(high),
            "low": np.exp(low),
            "close": np.exp(log_close),
            "volume": np.round(1e6 * np.exp(0.3 * rng.standard_normal(len(log_close)))),
        },
        index=pd.bdate_range("2000-01-03", periods=len(log_close), name="date"),
    )


def is_simulated(name: str) -> bool:
    """Whether a stock's name asks for a simulation."""
    return name.startswith(PREFIX)


def parse_simulated_stock(name: str) -> SimulatedStock:
    """Read `sim:PROCESS?key=value&...`.

    Raises:
        SimulationError: unknown process or parameter, or a value out of range.
    """
    process, _, query = name.removeprefix(PREFIX).partition("?")
    if process not in PROCESSES:
        raise SimulationError(f"stock '{name}': unknown process '{process}'; there are {', '.join(PROCESSES)}.")
    known = PROCESSES[process]
    values = {"rows": 5000.0, "seed": 0.0, **known.defaults}
    for part in filter(None, query.split("&")):
        key, _, text = part.partition("=")
        if key not in values:
            raise SimulationError(f"stock '{name}': unknown parameter '{key}'; there are {', '.join(values)}.")
        try:
            values[key] = float(text)
        except ValueError as error:
            raise SimulationError(f"stock '{name}': parameter '{key}' must be a number; got '{text}'.") from error
        low, high = known.ranges.get(key, (0, 1e9))
        if not low <= values[key] <= high:
            raise SimulationError(f"stock '{name}': parameter '{key}' must be in [{low:g}, {high:g}].")
    rows, seed = int(values.pop("rows")), int(values.pop("seed"))
    return SimulatedStock(process, values, rows, seed)
