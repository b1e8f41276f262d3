"""The one scale of prompts, answers and rewards: levels, and paths in the window's own scale. No torch.

Levels are what a prompt and an answer write: the last close is 500 and 10 points are one daily standard deviation of
the log price over the window. So no ticker, date or price level reaches the model, calm and wild windows look alike,
and every number is short. A level stands for the price last_close * exp((level - 500) / 10 * volatility), which is
positive whatever the level.

Paths are what rewards compare: z_h = log(price_h / last close) / (volatility * sqrt(h)), so that near and far days
weigh alike.

Letters: H horizon.
"""

from __future__ import annotations

import numpy as np

from preprocessing.windows import WindowSet

LAST_CLOSE_LEVEL = 500
POINTS_PER_DAILY_SD = 10


def to_levels(prices: np.ndarray, last_price: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """Prices to real-valued levels; the last two arguments broadcast against the first."""
    return LAST_CLOSE_LEVEL + POINTS_PER_DAILY_SD * np.log(prices / last_price) / volatility


def to_prices(levels: np.ndarray, last_price: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """Levels back to prices: the exact inverse of `to_levels`."""
    return last_price * np.exp((levels - LAST_CLOSE_LEVEL) / POINTS_PER_DAILY_SD * volatility)


def scale_paths(levels: np.ndarray) -> np.ndarray:
    """Levels [..., H] to paths in the window's scale."""
    # No volatility here: levels already count daily standard deviations, ten points each.
    return (levels - LAST_CLOSE_LEVEL) / POINTS_PER_DAILY_SD / _root_days(levels)


def true_paths(windows: WindowSet) -> np.ndarray:
    """[B, H] realised paths of windows, in each one's scale."""
    context = windows.context
    return scale_paths(
        # [B, 1] against [B, H]
        to_levels(windows.truth.future, context.last_price[:, None], context.feature("volatility")[:, None])
    )


def log_returns(paths: np.ndarray, volatility: float) -> np.ndarray:
    """Paths [..., H] in the window's scale to log(price_h / last close)."""
    return paths * volatility * _root_days(paths)


def _root_days(values: np.ndarray) -> np.ndarray:
    # The h-day change of a random walk spreads sqrt(h) times as wide as the daily one; undivided, the far days would
    # decide every reward.
    return np.sqrt(np.arange(1, values.shape[-1] + 1))
