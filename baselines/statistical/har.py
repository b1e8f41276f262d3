"""Bootstrap of future paths on a HAR volatility, with its spread chosen on validation windows.

The log of the mean daily variance over the horizon is linear in logs of variances of several memories, after the
heterogeneous autoregression of Corsi (2009), and in recent signed returns. The memories are those of
`preprocessing.variance_memories`, of squared returns and of the range within days; windows that come without them serve
with what their closes and features tell. The weights come from gamma quasi-likelihood on the realised variance of
training windows, all stocks together
(`baselines.building_blocks.gamma_regression`). Samples are whole futures of training windows, in units of the fitted
volatility at their origin, scaled by that of the window to forecast; then one factor of the spread is chosen on
validation windows (`grpo.evaluation.spread`).

Deviations from Corsi: exponential memories in place of means over a day, a week and a month; logarithms, which keep the
variance positive; daily bars in place of realised variances within the day.

Letters: N training windows, B windows, S samples, H horizon, F inputs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from baselines.building_blocks.gamma_regression import fit_gamma
from baselines.building_blocks.paths import draw_rows, forecast_from_log_returns, require_horizon, require_validation
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.spread import KINDS, choose_spread
from preprocessing.errors import UserError
from preprocessing.returns import ewma_variance, future_log_returns, window_log_returns
from preprocessing.statistics import MIN_VOLATILITY
from preprocessing.variance_memories import MEMORIES
from preprocessing.windows import Context, WindowSet

RETURN_HALF_LIVES = (1, 4, 20)
"""Days after which a signed return weighs half, over the window alone."""
VARIANCE_HALF_LIVES = (1, 4, 10, 30)
"""The same for squared returns where the window has no memories; they start at the variance of the whole past."""
VOLATILITIES = ("ewma_volatility", "yang_zhang_volatility")
"""Features that then tell of the days before the window, and of the range within days."""


@dataclass(frozen=True, kw_only=True)
class HarConfig:
    """Fit, drift and spread."""

    penalty: float = 0.001
    """Times half the squared weights of the standardised inputs is added to the loss."""
    drift: bool = True
    """Whether the paths keep the mean, in units of the volatility, that they have over all training windows."""
    calibrate: Literal["spread", "none"] = "spread"
    """Whether a factor of the spread is chosen on validation windows."""

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise ValueError(f"penalty must be 0 or more; got {self.penalty}")
        if self.calibrate not in KINDS:
            raise ValueError(f"calibrate must be {' or '.join(KINDS)}; got '{self.calibrate}'")


@dataclass(frozen=True, eq=False)
class Har(SavedForecaster):
    """Future paths of training windows on a volatility fitted to come true over the horizon.

    Attributes:
        centre: [F] mean of the inputs over the training windows.
        scale: [F] their standard deviation; 1 where it is 0.
        weights: [F + 1] intercept and weights of the log variance.
        bounds: [2] smallest and largest fitted log variance in training; no forecast goes beyond.
        paths: [N, H] log(price of day h / last close) over the fitted daily volatility, their spread scaled.
        spread: [] factor by which it is.
    """

    name = "har"
    Config = HarConfig

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bounds: np.ndarray
    paths: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(
        cls, config: HarConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Fit the variance and keep the scaled future of every training window; then choose the spread.

        Raises:
            UserError: the spread is to be chosen and there are no validation windows.
        """
        if config.calibrate == "spread":
            require_validation(cls.name, val)
        inputs = variance_inputs(train.context)  # [N, F]
        centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
        # A column that never varies is 0 when centred, whatever it is divided by.
        scale = np.where(scale > 0, scale, 1.0)
        futures = future_log_returns(train)
        realised = (np.diff(futures, axis=1, prepend=0.0) ** 2).mean(axis=1)
        # a price that stands still has no variance, but a volatility is divided by below
        weights = fit_gamma((inputs - centre) / scale, np.maximum(realised, MIN_VOLATILITY**2), config.penalty)
        fitted = weights[0] + (inputs - centre) / scale @ weights[1:]
        paths = futures / np.exp(fitted / 2)[:, None]
        # A drift in units of the volatility is in every path; taken off, the paths keep their shape and lose the mean.
        if not config.drift:
            paths = paths - paths.mean(axis=0)
        # Logarithms extrapolate without limit: no window gets a variance beyond what training has shown.
        bounds = np.array([fitted.min(), fitted.max()])
        har = cls(config, centre, scale, weights, bounds, paths, np.array(1.0))
        if config.calibrate == "none":
            return har
        # Last, on the finished paths: the factor corrects what all the rest leaves wrong. Put into the kept paths,
        # about their median day by day, it leaves the centre where it is.
        spread, median = choose_spread(har, val, seed=seed), np.median(paths, axis=0)
        return dataclasses.replace(har, paths=median + spread * (paths - median), spread=np.array(spread))

    def daily_volatility(self, context: Context) -> np.ndarray:
        """[B] root of the mean daily variance that is expected over the horizon, before the spread's factor.

        Raises:
            UserError: the windows have memories and those of training had none, or the other way round.
        """
        inputs = variance_inputs(context)
        if inputs.shape[1] != len(self.centre):
            had, has = ("with", "without") if context.memories is None else ("without", "with")
            raise UserError(f"har was fitted on windows {had} {MEMORIES[0]} and so on, and these are {has}; fit again")
        log_variance = self.weights[0] + (inputs - self.centre) / self.scale @ self.weights[1:]
        return np.exp(np.clip(log_variance, *self.bounds) / 2)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than the training windows reach.
        """
        require_horizon(self.name, fitted=self.paths.shape[1], asked=horizon)
        rows = draw_rows(context, len(self.paths), shape=(num_samples,), seed=seed)  # [B, S]
        log_returns = self.daily_volatility(context)[:, None, None] * self.paths[rows, :horizon]
        return forecast_from_log_returns(context, log_returns)


def variance_inputs(context: Context) -> np.ndarray:
    """[B, F] logs of variances, then means of signed returns in units of the volatility of the whole past."""
    past = context.feature("past_volatility")
    columns = [2 * np.log(past)]
    if context.memories is not None:
        columns += list(context.memories.T)
    else:
        # Windows that come without memories still know their closes and the features of the days before.
        recent = [np.sqrt(ewma_variance(context, 0.5 ** (1 / days))) for days in VARIANCE_HALF_LIVES]
        known = [context.feature(name) for name in VOLATILITIES]
        columns += [2 * np.log(np.maximum(volatility, MIN_VOLATILITY)) for volatility in (*recent, *known)]
    # Signed returns beside the variances, as a fall raises the volatility more than a rise (leverage).
    returns = window_log_returns(context) / past[:, None]  # [B, L - 1]
    # [L - 1] days since each return: the last one is 0 days old.
    age = np.arange(returns.shape[1])[::-1]
    for days in RETURN_HALF_LIVES:
        weight = 0.5 ** (age / days)
        columns.append(returns @ (weight / weight.sum()))
    return np.stack(columns, axis=1)
