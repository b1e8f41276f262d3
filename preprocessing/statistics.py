"""Statistics of each window, and of the whole past of a stock up to each bar.

Letters: B windows, L window length, T bars of one stock.
"""

from __future__ import annotations

import numpy as np

MIN_VOLATILITY = 1e-4
"""Smallest daily volatility that is reported: a constant price has no scale to divide by."""
MAX_LAG = 10
TOP_LAGS = 3


def window_statistics(closes: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics within each window.

    Args:
        closes: [B, L] prices, oldest first, L > MAX_LAG + 1.

    Returns:
        [B] each: min, max, mean, median (price units); min_timestep, max_timestep, median_timestep (0 =
        oldest bar; first occurrence; for the median the bar whose close is nearest); trend (least-squares
        slope, price per bar); top_lag_k and top_lag_k_correlation, k = 1..TOP_LAGS: the lags in 1..MAX_LAG
        with the largest absolute autocorrelation of the closes, and that autocorrelation (0 for a constant
        window).
    """
    length = closes.shape[1]
    if length <= MAX_LAG + 1:
        raise ValueError(f"a window must be longer than {MAX_LAG + 1} bars; got {length}")
    median = np.median(closes, axis=1)
    time = np.arange(length) - (length - 1) / 2
    statistics = {
        "min": closes.min(1),
        "min_timestep": closes.argmin(1).astype(float),
        "max": closes.max(1),
        "max_timestep": closes.argmax(1).astype(float),
        "mean": closes.mean(1),
        "median": median,
        "median_timestep": np.abs(closes - median[:, None]).argmin(1).astype(float),
        "trend": closes @ time / (time @ time),
    }
    correlation = lag_autocorrelations(closes)  # [B, MAX_LAG]
    order = np.argsort(-np.abs(correlation), axis=1, kind="stable")[:, :TOP_LAGS]
    for rank in range(TOP_LAGS):
        lag = order[:, rank]
        statistics[f"top_lag_{rank + 1}"] = lag + 1.0
        statistics[f"top_lag_{rank + 1}_correlation"] = np.take_along_axis(correlation, lag[:, None], 1)[:, 0]
    return statistics


def lag_autocorrelations(closes: np.ndarray) -> np.ndarray:
    """[B, MAX_LAG] autocorrelation of each window at lags 1..MAX_LAG (divisor L); 0 if it is constant."""
    centred = closes - closes.mean(1, keepdims=True)
    variance = (centred**2).sum(1)
    products = np.stack([(centred[:, lag:] * centred[:, :-lag]).sum(1) for lag in range(1, MAX_LAG + 1)], axis=1)
    constant = variance <= 1e-20 * (closes**2).sum(1)
    return np.where(constant[:, None], 0.0, products / np.where(constant, 1.0, variance)[:, None])


def trailing_volatility(windows: np.ndarray) -> np.ndarray:
    """[B] standard deviation (around zero mean) of the daily log returns in each window [B, L] of closes."""
    log_returns = np.diff(np.log(windows), axis=1)
    return np.maximum(np.sqrt((log_returns**2).mean(1)), MIN_VOLATILITY)


def past_statistics(closes: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of all bars up to and including each bar.

    Args:
        closes: [T] prices of one stock, oldest first.

    Returns:
        [T] each: past_mean (price: exponential of the mean log price), past_std (standard deviation of the
        log price), past_ar1 (least-squares coefficient of the log price on its predecessor, with intercept),
        past_volatility (root mean square daily log return), past_drift (mean daily log return). The first
        bars, where a statistic is undefined, hold NaN.
    """
    log_price = np.log(closes)
    count = np.arange(1, len(closes) + 1, dtype=float)
    x = log_price - log_price[0]  # the origin does not matter to any of these; this one keeps the sums exact
    mean = np.cumsum(x) / count
    variance = np.maximum(np.cumsum(x**2) / count - mean**2, 0.0)
    log_return = np.diff(x)
    steps = count[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = np.cumsum(x[:-1]), np.cumsum(x[1:])
        covariance = np.cumsum(x[:-1] * x[1:]) - before * after / steps
        spread = np.cumsum(x[:-1] ** 2) - before**2 / steps
        ar1 = np.where(spread > 1e-12, covariance / spread, 1.0)

    def after_first(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[np.nan], values])

    return {
        "past_mean": np.exp(mean + log_price[0]),
        "past_std": np.sqrt(variance),
        "past_ar1": after_first(ar1),
        "past_volatility": after_first(np.maximum(np.sqrt(np.cumsum(log_return**2) / steps), MIN_VOLATILITY)),
        "past_drift": after_first(np.cumsum(log_return) / steps),
    }
