"""Forecasters that draw from what happened in training: historical and filtered historical simulation.

* `historical_bootstrap`: whole future paths of training windows, in units of the volatility at their origin,
  scaled to the volatility at the origin to forecast. Days that followed each other stay together.
* `fhs`, filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper 1999): shocks are the returns of
  training days over the volatility known the day before, less their mean; they are drawn with replacement, and the
  volatility follows each path as its returns come.
* `fhs_drift`: the same plus one drift, the mean daily log return over all training windows.

Deviations: the volatility is the EWMA mixture of `preprocessing.returns` in place of GARCH, and its
long-run part stays as it is at the origin; all stocks share one pool of shocks, as their scale is gone; the shocks of
consecutive days are drawn together (`block`), which on 68 US stocks scores better on the validation windows than
single days.
Shocks keep their variance, as in the paper. There a likelihood makes it 1; here it is what the EWMA misses on the
training windows (1.14 on those stocks), and dividing by it (`unit_variance`) narrows every forecast by what training
has shown.

Letters: N training windows, B windows, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from baselines.building_blocks.paths import daily_drift, draw_rows, forecast_from_log_returns, require_horizon
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from preprocessing.returns import VolatilityConfig, daily_volatility, ewma_variance, future_log_returns, mix
from preprocessing.windows import Context, WindowSet


@dataclass(frozen=True, eq=False)
class HistoricalBootstrap(SavedForecaster):
    """Future paths of training windows, scaled by the volatility at the origin.

    Attributes:
        paths: [N, H] log(price of day h / last close) over the daily volatility at the origin; the training
            drift is in them.
    """

    name = "historical_bootstrap"
    Config = VolatilityConfig

    paths: np.ndarray

    @classmethod
    def fit(
        cls, config: VolatilityConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Keep the scaled future of every training window."""
        return cls(config, future_log_returns(train) / daily_volatility(train.context, config)[:, None])

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than the training windows reach.
        """
        require_horizon(self.name, fitted=self.paths.shape[1], asked=horizon)
        # Whole futures and not single days: days that followed each other in training stay together.
        rows = draw_rows(context, len(self.paths), shape=(num_samples,), seed=seed)  # [B, S]
        scale = daily_volatility(context, self.config)[:, None, None]
        return forecast_from_log_returns(context, scale * self.paths[rows, :horizon])


@dataclass(frozen=True, kw_only=True)
class FhsConfig(VolatilityConfig):
    """Volatility, and how shocks are drawn."""

    block: int | None = None
    """Consecutive days whose shocks are drawn together, so that what the volatility leaves of their dependence
    is kept; 1: each day by itself; null: all days of a training window's future."""
    unit_variance: bool = False
    """Whether the shocks are divided by their standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block is not None and self.block < 1:
            raise ValueError(f"block must be at least 1 day; got {self.block}")


@dataclass(frozen=True, eq=False)
class FilteredHistoricalSimulation(SavedForecaster):
    """Shocks of training days, rescaled by a volatility that each path carries on.

    Attributes:
        shocks: [N, H] daily log returns after each training origin over the volatility known the day before,
            less their mean over all N H, and perhaps divided by their standard deviation.
        drift: [] mean daily log return that is added; 0 for `fhs`.
    """

    name = "fhs"
    Config = FhsConfig

    shocks: np.ndarray
    drift: np.ndarray

    @classmethod
    def fit(
        cls, config: FhsConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Filter the future of every training window.

        Raises:
            UserError: a block is longer than the training windows reach.
        """
        if config.block is not None:
            name = f"{cls.name} with a block of {config.block} days"
            require_horizon(name, fitted=train.horizon, asked=config.block)
        returns = np.diff(future_log_returns(train), axis=1, prepend=0.0)  # [N, H]
        shocks = np.empty_like(returns)
        recent, past = _variances(train.context, config)
        for day in range(train.horizon):
            # The volatility known the day before, as the day's own return must not scale itself; then it moves on.
            shocks[:, day] = returns[:, day] / np.sqrt(mix(config, recent, past))
            recent = config.decay * recent + (1 - config.decay) * returns[:, day] ** 2
        # The mean goes, or it would be a drift in units of the volatility, which wild stocks would have more of.
        shocks -= shocks.mean()
        scale = shocks.std() if config.unit_variance else 1.0
        return cls(config, shocks / scale, np.array(cls._drift(train)))

    @staticmethod
    def _drift(train: WindowSet) -> float:
        return 0.0

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        returns = self._draw(context, horizon=horizon, num_samples=num_samples, seed=seed)  # [B, S, H]
        recent, past = (variance[:, None] for variance in _variances(context, self.config))  # [B, 1]
        for day in range(horizon):
            # As in fitting, but by the path's own returns: each path carries its volatility on.
            returns[:, :, day] *= np.sqrt(mix(self.config, recent, past))
            recent = self.config.decay * recent + (1 - self.config.decay) * returns[:, :, day] ** 2
        # The drift comes last: it is a return per day and not a shock, and has no part in the volatility.
        return forecast_from_log_returns(context, np.cumsum(returns + self.drift, axis=-1))

    def _draw(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> np.ndarray:
        """[B, S, H] shocks: blocks of consecutive days, each from the begin of a random training future."""
        block = self.config.block or self.shocks.shape[1]
        # Blocks enough to cover the horizon; the last one is cut. [B, S, blocks, block] to [B, S, blocks block].
        num_blocks = -(-horizon // block)
        rows = draw_rows(context, len(self.shocks), shape=(num_samples, num_blocks), seed=seed)
        return self.shocks[rows, :block].reshape(*rows.shape[:2], num_blocks * block)[:, :, :horizon].copy()


@dataclass(frozen=True, eq=False)
class FilteredHistoricalSimulationDrift(FilteredHistoricalSimulation):
    """Filtered historical simulation plus one drift for all stocks."""

    name = "fhs_drift"

    @staticmethod
    def _drift(train: WindowSet) -> float:
        return float(daily_drift(train).mean())


def _variances(context: Context, config: VolatilityConfig) -> tuple[np.ndarray, np.ndarray]:
    """[B] recent and long-run daily variance at the origin."""
    return ewma_variance(context, config.decay), context.feature("past_volatility") ** 2
