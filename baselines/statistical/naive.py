"""The random walk, with and without drift, the seasonal naive and the straight line: what all others have to beat.

They are also the shortest example of a plugin: a class with `Config`, `fit`, `load`, `predict` and `save`,
named in pyproject.toml under `grpo.forecasters`.

Letters: B windows, S samples, H horizon, K stocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from baselines.building_blocks.paths import daily_drift, forecast_from_log_returns, rows_of_stocks
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import standard_normal
from preprocessing.errors import UserError
from preprocessing.returns import window_log_returns
from preprocessing.statistics import MIN_VOLATILITY
from preprocessing.windows import Context, WindowSet


@dataclass(frozen=True, kw_only=True)
class RandomWalkConfig:
    """Where the width of the forecast comes from."""

    recent_weight: float = 0.5
    """Weight of the trailing daily variance (0 to 1); the rest goes to the variance of the whole past."""

    def __post_init__(self) -> None:
        if not 0 <= self.recent_weight <= 1:
            raise ValueError(f"recent_weight must be in [0, 1]; got {self.recent_weight}")


@dataclass(frozen=True, eq=False)
class RandomWalk(SavedForecaster):
    """Independent Gaussian daily log returns of mean 0: the median of every day is the last close."""

    name = "random_walk"
    Config = RandomWalkConfig

    @classmethod
    def fit(
        cls, config: RandomWalkConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Nothing is learnt: the volatility comes with each window."""
        return cls(config)

    def drift_of(self, context: Context) -> np.ndarray:
        """[B] mean daily log return."""
        return np.zeros(len(context))

    def median_log_return(self, context: Context, horizon: int) -> np.ndarray:
        """[B, H] median of log(price of day h / last close)."""
        return self.drift_of(context)[:, None] * np.arange(1, horizon + 1)

    def point(self, context: Context, *, horizon: int) -> np.ndarray:
        """[B, H] the median of the law, in price units."""
        return context.last_price[:, None] * np.exp(self.median_log_return(context, horizon))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        weight = self.config.recent_weight
        recent, past = context.feature("volatility"), context.feature("past_volatility")
        # Variances are mixed and not deviations: the variance is what adds up over days.
        daily = np.sqrt(weight * recent**2 + (1 - weight) * past**2)  # [B]
        noise = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)  # [B, S, H]
        walk = np.cumsum(daily[:, None, None] * noise, axis=-1)
        return forecast_from_log_returns(context, self.median_log_return(context, horizon)[:, None] + walk)


@dataclass(frozen=True, eq=False)
class RandomWalkDrift(RandomWalk):
    """The random walk plus each stock's mean daily log return over the training windows.

    Attributes:
        stocks: [K] names, sorted.
        drift: [K] mean of log(last target / last close) / H.
    """

    name = "random_walk_drift"

    stocks: np.ndarray
    drift: np.ndarray

    @classmethod
    def fit(
        cls, config: RandomWalkConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Average the drift of each stock's training windows."""
        stocks, group, counts = np.unique(train.context.item_id, return_inverse=True, return_counts=True)
        return cls(config, stocks, np.bincount(group, weights=daily_drift(train)) / counts)

    def drift_of(self, context: Context) -> np.ndarray:
        """[B] the training drift of each window's stock.

        Raises:
            UserError: a stock without training windows.
        """
        return self.drift[rows_of_stocks(self.name, self.stocks, context)]


@dataclass(frozen=True, eq=False)
class RandomWalkPanelDrift(RandomWalk):
    """The random walk plus one drift: the mean daily log return over the training windows of all stocks.

    A single stock's drift is mostly noise: with 3.5 years of days of 1.5 % its standard error is 13 % a year.
    """

    name = "random_walk_panel_drift"

    drift: np.ndarray
    """[] mean of log(last target / last close) / H."""

    @classmethod
    def fit(
        cls, config: RandomWalkConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Average the drift of all training windows."""
        return cls(config, daily_drift(train).mean())

    def drift_of(self, context: Context) -> np.ndarray:
        """[B] the same for every window."""
        return np.full(len(context), self.drift)


@dataclass(frozen=True, eq=False)
class StraightLine(RandomWalk):
    """The line through the log prices of the window, drawn on: what the eye does, and many a language model.

    Ordinary least squares on the L closes; the walk's shocks lie about the line.
    """

    name = "straight_line"

    def median_log_return(self, context: Context, horizon: int) -> np.ndarray:
        """[B, H] of the line; its first day need not begin at the last close."""
        log_prices = np.log(context.past[:, :, 0] / context.last_price[:, None])  # [B, L]
        # Centred days: slope and level of least squares then do not depend on each other.
        day = np.arange(log_prices.shape[1]) - (log_prices.shape[1] - 1) / 2
        slope = log_prices @ day / (day @ day)
        ahead = day[-1] + np.arange(1, horizon + 1)
        return log_prices.mean(axis=1)[:, None] + slope[:, None] * ahead


@dataclass(frozen=True, kw_only=True)
class SeasonalNaiveConfig:
    """The season that is said to repeat."""

    period: int = 5
    """Days of a season: 5 is a trading week. At least two seasons of returns must fit into the window."""

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ValueError(f"period must be at least 1 day; got {self.period}")


@dataclass(frozen=True, eq=False)
class SeasonalNaive(SavedForecaster):
    """Each day's log return is that of the same day one season ago plus Gaussian noise.

    The model is the seasonal random walk r_t = r_(t-p) + e_t on daily log returns (Hyndman and Athanasopoulos,
    Forecasting, section 5.2, on returns instead of levels); e has the mean square that r_t - r_(t-p) has in the
    window. Paths are simulated from it, so the shocks of one weekday add up from season to season.
    """

    name = "seasonal_naive"
    Config = SeasonalNaiveConfig

    @classmethod
    def fit(
        cls, config: SeasonalNaiveConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Nothing is learnt: season and noise come with each window.

        Raises:
            ValueError: the windows are shorter than two seasons.
        """
        cls(config)._require_two_seasons(train.context)
        return cls(config)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        self._require_two_seasons(context)
        period = self.config.period
        past = window_log_returns(context)  # [B, L - 1]
        noise_sd = np.sqrt(((past[:, period:] - past[:, :-period]) ** 2).mean(axis=1))  # [B]
        noise = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)  # [B, S, H]
        # A window that repeats itself exactly leaves no noise; without a floor all paths would be the same one.
        noise *= np.maximum(noise_sd, MIN_VOLATILITY)[:, None, None]
        season = np.broadcast_to(past[:, None, -period:], (*noise.shape[:2], period))
        # The last season of the window stands in front, so that day t finds day t - p also in the first season ahead.
        returns = np.concatenate([season, noise], axis=-1)  # [B, S, p + H]
        # In order of days: what is added to a day holds the shocks of all seasons before it.
        for day in range(period, period + horizon):
            returns[:, :, day] += returns[:, :, day - period]
        return forecast_from_log_returns(context, np.cumsum(returns[:, :, period:], axis=-1))

    def _require_two_seasons(self, context: Context) -> None:
        returns = context.past.shape[1] - 1
        if returns < 2 * self.config.period:
            raise UserError(
                f"seasonal_naive: windows of {returns} daily returns hold no two seasons of "
                f"{self.config.period}; take a shorter period or longer windows."
            )
