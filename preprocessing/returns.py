"""Log returns of windows, and the daily volatility at the origin.

The variance of the next day is w EWMA + (1 - w) V: V is the mean squared log return of the stock's whole past
(the feature `past_volatility`) and the EWMA is the exponentially weighted one of RiskMetrics (1996),
v_t = decay v_(t-1) + (1 - decay) r_t^2, started at V on the first close of the window.

Letters: B windows, L window length, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preprocessing.windows import Context, WindowSet


def window_log_returns(context: Context) -> np.ndarray:
    """[B, L - 1] daily log returns within each window, oldest first."""
    return np.diff(np.log(context.past[:, :, 0]), axis=1)


def future_log_returns(windows: WindowSet) -> np.ndarray:
    """[B, H] realised log(price of day h / last close)."""
    return np.log(windows.truth.future / windows.context.last_price[:, None])


@dataclass(frozen=True, kw_only=True)
class VolatilityConfig:
    """How the daily variance at the origin is put together."""

    decay: float = 0.97
    """Decay of the exponentially weighted variance per day, between 0 and 1."""
    recent_weight: float = 0.5
    """Weight of that variance (0 to 1); the rest goes to the variance of the whole past."""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1; got {self.decay}")
        if not 0 <= self.recent_weight <= 1:
            raise ValueError(f"recent_weight must be in [0, 1]; got {self.recent_weight}")


def ewma_variance(context: Context, decay: float) -> np.ndarray:
    """[B] exponentially weighted mean squared log return, started at the variance of the whole past."""
    squared = window_log_returns(context) ** 2  # [B, L - 1]
    # newest return last, so its weight is the largest: age 0
    weights = (1 - decay) * decay ** np.arange(squared.shape[1])[::-1]
    # the window is all that a context holds, so the average starts at the variance of the whole past, which keeps the
    # weight that the returns leave over: 41 % after 29 returns at decay .97, 17 % at .94
    return decay ** squared.shape[1] * context.feature("past_volatility") ** 2 + squared @ weights


def mix(config: VolatilityConfig, recent: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Daily variance from its recent and its long-run part."""
    return config.recent_weight * recent + (1 - config.recent_weight) * past


def daily_volatility(context: Context, config: VolatilityConfig) -> np.ndarray:
    """[B] standard deviation of the next day's log return."""
    return np.sqrt(mix(config, ewma_variance(context, config.decay), context.feature("past_volatility") ** 2))
