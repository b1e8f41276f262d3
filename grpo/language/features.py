"""How a prompt shows each feature of a window: the one place that says it. No torch.

A prompt's text names a feature in braces, {rsi}, and gets an integer. A new feature of `preprocessing.windows` is one
line here, and may then be named in any prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from grpo.language.scale import LAST_CLOSE_LEVEL, POINTS_PER_DAILY_SD
from preprocessing.windows import FEATURES, Context

LOWEST, HIGHEST = -199, 999
"""Numbers in a prompt are clipped to this range, so that each can be one token of a small vocabulary."""

Shown = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From a feature's values, the last close and the window's daily volatility, all [B], to real numbers [B]."""


def _level(values: np.ndarray, last: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """A price as a level."""
    # A moment of prices may be 0, which has no logarithm; from 1e-12 the level ends far below LOWEST and is clipped.
    return LAST_CLOSE_LEVEL + POINTS_PER_DAILY_SD * np.log(values.clip(min=1e-12) / last) / volatility


def _points(values: np.ndarray, last: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """A change of price in points of the level's scale."""
    return POINTS_PER_DAILY_SD * values / last / volatility


def _as_it_is(values: np.ndarray, last: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    return values


def _times(factor: float) -> Shown:
    return lambda values, last, volatility: factor * values


def _per_volatility(factor: float) -> Shown:
    """A daily log return, or a spread of such, as a share of the window's volatility."""
    return lambda values, last, volatility: factor * values / volatility


HUNDREDTHS_OF_A_PERCENT, PERCENT, THOUSANDTHS = _times(1e4), _times(100), _times(1000)
PERCENT_OF_VOLATILITY, POINTS_OF_LOG_PRICE = _per_volatility(100), _per_volatility(POINTS_PER_DAILY_SD)

SHOWN: dict[str, Shown] = {
    **dict.fromkeys(("sma", "ema", "bbands_upper", "bbands_middle", "bbands_lower"), _level),
    **dict.fromkeys(("min", "max", "mean", "median", "past_mean", "norm_mean"), _level),
    **dict.fromkeys(("mom", "macd", "macd_signal", "macd_histogram", "trend", "norm_std"), _points),
    **dict.fromkeys(("rsi", "willr", "cci", "adx", "stoch_k", "stoch_d", "trend_direction"), _as_it_is),
    **dict.fromkeys(("min_timestep", "max_timestep", "median_timestep"), _as_it_is),
    **dict.fromkeys(("top_lag_1", "top_lag_2", "top_lag_3"), _as_it_is),
    **dict.fromkeys(("top_lag_1_correlation", "top_lag_2_correlation", "top_lag_3_correlation", "trend_r2"), PERCENT),
    "volatility": HUNDREDTHS_OF_A_PERCENT,
    "past_std": POINTS_OF_LOG_PRICE,
    "past_ar1": THOUSANDTHS,
    **dict.fromkeys(("past_volatility", "ewma_volatility", "yang_zhang_volatility"), PERCENT_OF_VOLATILITY),
    "past_drift": PERCENT_OF_VOLATILITY,
}
# A feature that nothing says how to show would otherwise fail only in the first run whose prompt names it.
assert set(SHOWN) == set(FEATURES), set(SHOWN) ^ set(FEATURES)


def prompt_numbers(context: Context, names: Iterable[str] = tuple(SHOWN)) -> dict[str, np.ndarray]:
    """[B] integers of features as a prompt shows them."""
    volatility, last = context.feature("volatility"), context.last_price
    return {name: whole(SHOWN[name](context.feature(name), last, volatility)) for name in names}


def whole(values: np.ndarray) -> np.ndarray:
    """Real numbers to integers within LOWEST and HIGHEST."""
    return np.clip(np.rint(values), LOWEST, HIGHEST).astype(int)
