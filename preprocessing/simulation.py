"""Simulated stocks whose law is known, so that what can be learnt is known too.

A simulated stock is named like a ticker: `sim:ou?half_life=5&sigma=0.015&rows=5000&seed=1`. Parameters that are not
named take their defaults; `rows` (days) and `seed` belong to every process. README.md in this folder lists the
processes with their parameters; `preprocessing.laws` states the law of the days to come.

Letters: N series, T days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from preprocessing.errors import UserError
from preprocessing.seeds import generator

PREFIX = "sim:"
START_PRICE = 100.0
FIRST_DAY = "2000-01-03"
GAUSSIAN_TAIL = 1e3
"""From this many degrees of freedom on, Student-t shocks are taken as Gaussian."""
HESTON_STEPS = 4
"""Steps of a day in which the variance of `heston` moves."""


class SimulationError(UserError):
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

    `simulate(parameters, rows, rng)` takes each parameter as an array [N, 1] and returns Paths. `refuse` says what
    is wrong with parameters that are each in range, or None.
    """

    defaults: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    simulate: Callable[[Mapping[str, np.ndarray], int, np.random.Generator], Paths]
    refuse: Callable[[Mapping[str, float]], str | None] = lambda _: None


def as_columns(parameters: Mapping[str, float], series: int) -> dict[str, np.ndarray]:
    """The same parameters for each of N series, as [N, 1]."""
    return {name: np.full((series, 1), value) for name, value in parameters.items()}


def draw_shocks(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[N, T] standard normal shocks, and [N, T] scales that make them Student-t with unit variance."""
    normal = rng.standard_normal((len(p["sigma"]), rows))
    tail = p["tail"]
    chi_square = rng.chisquare(tail, (len(tail), rows))
    # normal / sqrt(chi2 / tail) is Student-t with variance tail / (tail - 2); this scale brings it to 1
    return normal, np.where(tail < GAUSSIAN_TAIL, np.sqrt((tail - 2) / chi_square), 1.0)


def autoregress(start: np.ndarray, decay: np.ndarray, shocks: np.ndarray) -> np.ndarray:
    """[N, T] z_t = decay z_{t-1} + shock_t with z_0 = start [N, 1]."""
    z = np.empty_like(shocks)
    z[:, :1] = start
    for t in range(1, shocks.shape[1]):
        z[:, t : t + 1] = decay * z[:, t - 1 : t] + shocks[:, t : t + 1]
    return z


def _paths(log_price: np.ndarray, step_sd: np.ndarray, normal: np.ndarray) -> Paths:
    return Paths(log_price, log_price - step_sd * normal, step_sd)


def _gbm(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    normal, scale = draw_shocks(p, rows, rng)
    sd = p["sigma"] * scale
    return _paths(np.cumsum(p["drift"] + sd * normal, axis=1), sd, normal)


def _ou(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    normal, scale = draw_shocks(p, rows, rng)
    decay = 0.5 ** (1 / p["half_life"])
    sd = p["sigma"] * scale
    # the stationary law on the first day: no stretch in which the process still finds its width
    start = p["sigma"] * normal[:, :1] / np.sqrt(1 - decay**2)
    return _paths(autoregress(start, decay, sd * normal), sd, normal)


def _ar(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    normal, scale = draw_shocks(p, rows, rng)
    sd = p["sigma"] * scale
    # returns start with one plain shock, so that the law of the first day is known too
    log_return = autoregress(sd[:, :1] * normal[:, :1], p["phi"], sd * normal)
    return _paths(np.cumsum(log_return, axis=1), sd, normal)


def _trend(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    paths = _ou(p, rows, rng)
    line = p["drift"] * np.arange(rows)
    return Paths(paths.log_price + line, paths.step_mean + line, paths.step_sd)


def _seasonal(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    paths = _ou(p, rows, rng)
    wave = seasonal_wave(p, np.arange(rows))
    return Paths(paths.log_price + wave, paths.step_mean + wave, paths.step_sd)


def seasonal_wave(p: Mapping[str, Any], days: np.ndarray) -> np.ndarray:
    """What the season adds to the log price on days counted from the first."""
    return p["amplitude"] * p["sigma"] * np.sin(2 * np.pi * (days / p["period"] + p["phase"]))


def _regime(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    """Two hidden states that switch with probability `switch` a day: up and calm, down and wild."""
    normal, scale = draw_shocks(p, rows, rng)
    flips = rng.random(normal.shape) < p["switch"]
    # an odd number of flips from a fair first state
    wild = (np.cumsum(flips, axis=1) + (rng.random((len(normal), 1)) < 0.5)) % 2 == 1
    return regime_paths(p, wild, normal, scale)


def regime_paths(p: Mapping[str, np.ndarray], wild: np.ndarray, normal: np.ndarray, scale: np.ndarray) -> Paths:
    """Paths of the regime process from 0, given on which days [N, T] it is wild."""
    sd = p["sigma"] * scale * np.where(wild, p["wildness"], 1.0)
    drift = p["sigma"] * p["tilt"] * np.where(wild, -1.0, 1.0)
    return _paths(np.cumsum(drift + sd * normal, axis=1), sd, normal)


def _stochvol(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    """Log volatility is an AR(1) with coefficient `persistence` and daily shocks of `vol_of_vol`."""
    normal, scale = draw_shocks(p, rows, rng)
    shocks = p["vol_of_vol"] * rng.standard_normal(normal.shape)
    log_vol = autoregress(shocks[:, :1] / np.sqrt(1 - p["persistence"] ** 2), p["persistence"], shocks)
    sd = p["sigma"] * scale * np.exp(log_vol)
    return _paths(np.cumsum(p["drift"] + sd * normal, axis=1), sd, normal)


def _garch(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    return garch_paths(p, p["sigma"] ** 2, *draw_shocks(p, rows, rng))


def garch_paths(p: Mapping[str, np.ndarray], variance: np.ndarray, normal: np.ndarray, scale: np.ndarray) -> Paths:
    """GARCH(1,1) paths from 0 (Bollerslev 1986), given the variance [N, 1] of the first day.

    v_{t+1} = sigma^2 (1 - alpha - beta) + alpha shock_t^2 + beta v_t, so that sigma^2 is the variance in the long run.
    """
    sd = np.empty_like(normal)
    for t in range(normal.shape[1]):
        sd[:, t : t + 1] = np.sqrt(variance) * scale[:, t : t + 1]
        shock = sd[:, t : t + 1] * normal[:, t : t + 1]
        # after the shock: today's return moves tomorrow's variance, not its own
        variance = next_variance(p, variance, shock)
    return _paths(np.cumsum(p["drift"] + sd * normal, axis=1), sd, normal)


def next_variance(p: Mapping[str, Any], variance: Any, shock: Any) -> Any:
    """Tomorrow's variance under GARCH(1,1), given today's and today's return less its drift."""
    return p["sigma"] ** 2 * (1 - p["alpha"] - p["beta"]) + p["alpha"] * shock**2 + p["beta"] * variance


def _heston(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    """Heston's (1993) square-root variance, by full-truncation Euler steps (Lord et al. 2010).

    In units of its long-run mean sigma^2 the variance is du = reversion (1 - u) dt + vol_of_vol sqrt(u) dW, and
    `leverage` is the correlation of dW with the returns. A step's stated law knows the variance within the day.
    """
    normal, scale = draw_shocks(p, rows, rng)
    shape = 2 * p["reversion"] / p["vol_of_vol"] ** 2
    u = rng.gamma(shape, 1 / shape)  # [N, 1] the stationary law
    shocks = np.sqrt(1 / HESTON_STEPS) * rng.standard_normal((rows, HESTON_STEPS, *u.shape))
    variance, leverage = np.zeros_like(normal), np.zeros_like(normal)
    for t in range(rows):
        for shock in shocks[t]:
            # Euler steps may take the variance below 0; it enters drift and noise as 0 but is itself kept, which biases
            # least
            truncated = np.maximum(u, 0.0)
            root = np.sqrt(truncated) * shock
            variance[:, t : t + 1] += truncated / HESTON_STEPS
            leverage[:, t : t + 1] += root
            u = u + p["reversion"] * (1 - truncated) / HESTON_STEPS + p["vol_of_vol"] * root
    # the part of the return that goes with the variance's own shock is known given its path; the rest is independent
    sd = p["sigma"] * scale * np.sqrt((1 - p["leverage"] ** 2) * variance)
    drift = p["drift"] + p["sigma"] * p["leverage"] * leverage
    return _paths(np.cumsum(drift + sd * normal, axis=1), sd, normal)


def _jump(p: Mapping[str, np.ndarray], rows: int, rng: np.random.Generator) -> Paths:
    """Merton's (1976) jump diffusion: each day a Poisson number of Gaussian jumps, sized in daily sigmas."""
    normal, scale = draw_shocks(p, rows, rng)
    jumps = rng.poisson(p["intensity"], normal.shape)
    # given the number of jumps their sizes add up to one more Gaussian
    sd = p["sigma"] * np.sqrt(scale**2 + jumps * p["jump_sd"] ** 2)
    drift = p["drift"] + p["sigma"] * p["jump_mean"] * jumps
    return _paths(np.cumsum(drift + sd * normal, axis=1), sd, normal)


def _refuse_garch(p: Mapping[str, float]) -> str | None:
    if p["alpha"] + p["beta"] > 0.999:
        return f"alpha + beta must be at most 0.999, else the variance has no mean; got {p['alpha'] + p['beta']:g}"
    return None


_COMMON_DEFAULTS = {"sigma": 0.015, "tail": 1e6}
_COMMON_RANGES = {"sigma": (1e-4, 1.0), "tail": (2.1, 1e9)}


def _process(
    simulate: Callable[..., Paths],
    refuse: Callable[[Mapping[str, float]], str | None] = lambda _: None,
    **parameters: tuple[float, tuple[float, float]],
) -> Process:
    return Process(
        defaults=_COMMON_DEFAULTS | {name: default for name, (default, _) in parameters.items()},
        ranges=_COMMON_RANGES | {name: allowed for name, (_, allowed) in parameters.items()},
        simulate=simulate,
        refuse=refuse,
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
    "garch": _process(_garch, _refuse_garch, drift=_DRIFT, alpha=(0.1, (0.0, 0.999)), beta=(0.85, (0.0, 0.999))),
    "heston": _process(
        _heston,
        drift=_DRIFT,
        reversion=(0.05, (0.001, 1.0)),
        vol_of_vol=(0.2, (0.01, 1.0)),
        leverage=(-0.5, (-0.99, 0.99)),
    ),
    "jump": _process(
        _jump, drift=_DRIFT, intensity=(0.05, (0.0, 1.0)), jump_mean=(0.0, (-20.0, 20.0)), jump_sd=(3.0, (0.0, 20.0))
    ),
}
"""Units: sigma, drift in log price per day; half_life, period in days; amplitude, jump_mean, jump_sd in daily sigmas;
intensity in jumps per day; tail = degrees of freedom of Student-t shocks (1000 and more: Gaussian)."""
_THETA_RANGE = tuple(np.log(2) / half_life for half_life in reversed(_HALF_LIFE[1]))
_SIZE_RANGES = {"rows": (2.0, 65_000.0), "seed": (0.0, 2.0**32)}  # later days overflow a timestamp in ns


@dataclass(frozen=True)
class SimulatedStock:
    """One simulated stock."""

    process: str
    parameters: Mapping[str, float]
    rows: int
    seed: int

    def paths(self) -> Paths:
        """The log prices, [1, T], starting near log 100, with the law of each step."""
        rng = generator(self.seed)
        paths = PROCESSES[self.process].simulate(as_columns(self.parameters, 1), self.rows, rng)
        level = np.log(START_PRICE)
        return Paths(paths.log_price + level, paths.step_mean + level, paths.step_sd)

    def bars(self) -> pd.DataFrame:
        """Daily bars: open, high, low, close, volume, indexed by business days from 2000-01-03."""
        # a stream of its own: how bars are dressed around the closes must not change the closes
        return make_bars(self.paths().log_price[0], generator(self.seed, 1))

    def rows_of(self, days: np.ndarray) -> np.ndarray:
        """[B] row numbers of days [B] datetime64; -1 where the stock has no such day."""
        return _calendar(self.rows).get_indexer(pd.DatetimeIndex(days))


def make_bars(log_close: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Bars around simulated closes [T]: opens near the former close, ranges of the size of a daily move."""
    move = np.std(np.diff(log_close))
    # around the former close, so that the open tells nothing of the close that follows
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
        index=_calendar(len(log_close)),
    )


def _calendar(rows: int) -> pd.DatetimeIndex:
    return pd.bdate_range(FIRST_DAY, periods=rows, name="date")


def is_simulated(name: str) -> bool:
    """Whether a stock's name asks for a simulation."""
    return name.startswith(PREFIX)


def parse_simulated_stock(name: str) -> SimulatedStock:
    """Read `sim:PROCESS?key=value&...`.

    A process with `half_life` also takes `theta`, its mean reversion per day: half_life = ln 2 / theta.

    Raises:
        SimulationError: unknown process or parameter, or a value out of range.
    """
    process, _, query = name.removeprefix(PREFIX).partition("?")
    if process not in PROCESSES:
        raise SimulationError(f"stock '{name}': unknown process '{process}'; there are {', '.join(PROCESSES)}.")
    known = PROCESSES[process]
    ranges = {**_SIZE_RANGES, **known.ranges, **({"theta": _THETA_RANGE} if "half_life" in known.ranges else {})}
    given: dict[str, float] = {}
    for part in filter(None, query.split("&")):
        key, _, text = part.partition("=")
        if key not in ranges:
            raise SimulationError(f"stock '{name}': unknown parameter '{key}'; there are {', '.join(ranges)}.")
        if key in given:
            raise SimulationError(f"stock '{name}': parameter '{key}' is given twice; give it once.")
        given[key] = _parse_value(name, key, text, *ranges[key])
    if "theta" in given:
        if "half_life" in given:
            raise SimulationError(f"stock '{name}': half_life and theta = ln 2 / half_life say the same; give one.")
        # the processes know half_life alone
        given["half_life"] = np.log(2) / given.pop("theta")
    rows, seed = int(given.pop("rows", 5000)), int(given.pop("seed", 0))
    parameters = {**known.defaults, **given}
    wrong = known.refuse(parameters)
    if wrong:
        raise SimulationError(f"stock '{name}': {wrong}.")
    return SimulatedStock(process, parameters, rows, seed)


def _parse_value(name: str, key: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise SimulationError(f"stock '{name}': parameter '{key}' must be a number; got '{text}'.") from error
    if not low <= value <= high:
        raise SimulationError(f"stock '{name}': parameter '{key}' must be in [{low:g}, {high:g}]; got {text}.")
    if key in _SIZE_RANGES and value != int(value):
        raise SimulationError(f"stock '{name}': parameter '{key}' must be a whole number; got '{text}'.")
    return value
