"""The features of a context without price level or volatility, so that one regression serves all stocks.

Letters: B windows, L window length, F features.
"""

from __future__ import annotations

import numpy as np

from preprocessing.windows import Context

PRICES = ("sma", "ema", "bbands_upper", "bbands_middle", "bbands_lower", "min", "max", "mean", "median", "past_mean")
"""Become (price / last close - 1) / daily volatility."""
PRICE_DIFFERENCES = ("mom", "macd", "macd_signal", "macd_histogram", "trend")
"""Become difference / last close / daily volatility."""
TIME_STEPS = ("min_timestep", "max_timestep")
"""Become shares of the window."""
VOLATILITIES = ("volatility", "past_volatility", "ewma_volatility", "yang_zhang_volatility")
"""Become logarithms."""
PLAIN = (
    "rsi",
    "willr",
    "cci",
    "adx",
    "stoch_k",
    "stoch_d",
    "trend_r2",
    "trend_direction",
    "top_lag_1",
    "top_lag_1_correlation",
    "top_lag_2",
    "top_lag_2_correlation",
    "top_lag_3",
    "top_lag_3_correlation",
    "past_ar1",
    "past_std",
)
"""Stay as they are."""
SCALE_FREE = (*PRICES, *PRICE_DIFFERENCES, *TIME_STEPS, *VOLATILITIES, *PLAIN)
"""Names of the columns of `scale_free_features`. Left out are norm_mean and norm_std, which tell the stock, and
median_timestep: in a window of even length two bars are equally near to the median, and rounding decides."""


def scale_free_features(context: Context) -> np.ndarray:
    """[B, F] the features named by `SCALE_FREE`; multiplying all prices by a number changes none of them."""
    last, volatility = context.last_price, context.feature("volatility")
    # Over the last close and the volatility: one regression then serves cheap and dear, quiet and wild stocks.
    columns = [(context.feature(name) / last - 1) / volatility for name in PRICES]
    columns += [context.feature(name) / (last * volatility) for name in PRICE_DIFFERENCES]
    columns += [context.feature(name) / (context.past.shape[1] - 1) for name in TIME_STEPS]
    columns += [np.log(context.feature(name)) for name in VOLATILITIES]
    columns += [context.feature(name) for name in PLAIN]
    return np.stack(columns, axis=1)
