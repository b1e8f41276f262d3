"""Statistics of each window, and of the whole past of a stock up to each bar.

Letters: B windows, L window length, T bars of one stock.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MIN_VOLATILITY = 1e-4
"""Smallest daily volatility that is reported: a constant price has no scale to divide by."""
MAX_LAG = 10
"""Longest lag whose autocorrelation is looked at; a window of fewer than MAX_LAG + 2 bars has fewer lags."""
TOP_LAGS = 3
MIN_WINDOW = 3
"""Fewest bars of which every statistic is defined."""
EWMA_DECAY = 0.94
"""RiskMetrics' weight of yesterday's variance in today's (J.P. Morgan 1996), for daily returns."""


def window_statistics(closes: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics within each window.

    Args:
        closes: [B, L] prices, oldest first, L >= MIN_WINDOW.

    Returns:
        [B] each: min, max, mean, median (price units); min_timestep, max_timestep, median_timestep (0 =
        oldest bar; first occurrence; for the median the bar whose close is nearest); trend (least-squares
        slope, price per bar), trend_r2 (share of the closes' variance on that line; 0 for a constant window)
        and trend_direction (sign of the slope; 0 where it is no more than rounding); top_lag_k and
        top_lag_k_correlation, k = 1..TOP_LAGS: the lags in 1..min(MAX_LAG, L - 2) with the largest absolute
        autocorrelation of the closes, and that autocorrelation (0 for a constant window). Where there are
        fewer lags than k, both are 0.

    Raises:
        ValueError: the windows are shorter than MIN_WINDOW.
    """
    length = closes.shape[1]
    if length < MIN_WINDOW:
        raise ValueError(f"a window must have at least {MIN_WINDOW} bars; got {length}")
    median = np.median(closes, axis=1)
    statistics = {
        "min": closes.min(1),
        "min_timestep": closes.argmin(1).astype(float),
        "max": closes.max(1),
        "max_timestep": closes.argmax(1).astype(float),
        "mean": closes.mean(1),
        "median": median,
        "median_timestep": np.abs(closes - median[:, None]).argmin(1).astype(float),
        **_trend(closes),
    }
    correlation = lag_autocorrelations(closes)  # [B, lags]
    # stable: of equally strong lags the shortest comes first, on every machine
    order = np.argsort(-np.abs(correlation), axis=1, kind="stable")[:, :TOP_LAGS]
    top = np.take_along_axis(correlation, order, axis=1)
    for rank in range(TOP_LAGS):
        known = rank < order.shape[1]
        statistics[f"top_lag_{rank + 1}"] = order[:, rank] + 1.0 if known else np.zeros(len(closes))
        statistics[f"top_lag_{rank + 1}_correlation"] = top[:, rank] if known else np.zeros(len(closes))
    return statistics


def _trend(closes: np.ndarray) -> dict[str, np.ndarray]:
    """Least-squares line through each window [B, L]: slope, share of the variance it explains, direction."""
    length = closes.shape[1]
    # centred time makes the slope a single product, free of the level of the prices
    time = np.arange(length) - (length - 1) / 2
    slope = closes @ time / (time @ time)
    mean = closes.mean(1)
    centred = closes - mean[:, None]
    variance = (centred**2).sum(1)
    constant = _is_constant(closes, variance)
    explained = np.minimum(slope**2 * (time @ time) / np.where(constant, 1.0, variance), 1.0)
    # a rise over the whole window that is no more than rounding of the price has no direction
    level = np.abs(slope) * length <= 1e-12 * mean
    return {
        "trend": slope,
        "trend_r2": np.where(constant, 0.0, explained),
        "trend_direction": np.where(level, 0.0, np.sign(slope)),
    }


def lag_autocorrelations(closes: np.ndarray) -> np.ndarray:
    """[B, min(MAX_LAG, L - 2)] autocorrelation of each window at lags 1, 2, .. (divisor L); 0 if it is constant."""
    centred = closes - closes.mean(1, keepdims=True)
    variance = (centred**2).sum(1)
    lags = range(1, min(MAX_LAG, closes.shape[1] - 2) + 1)
    products = np.stack([(centred[:, lag:] * centred[:, :-lag]).sum(1) for lag in lags], axis=1)
    constant = _is_constant(closes, variance)
    return np.where(constant[:, None], 0.0, products / np.where(constant, 1.0, variance)[:, None])


def _is_constant(closes: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """[B] whether the squared deviations [B] of windows [B, L] are no more than rounding leaves of a constant."""
    # squares of rounding errors are some 1e-32 of the squares of prices; their sum stays far below 1e-20
    return variance <= 1e-20 * (closes**2).sum(1)


def trailing_volatility(windows: np.ndarray) -> np.ndarray:
    """[B] standard deviation (around zero mean) of the daily log returns in each window [B, L] of closes."""
    log_returns = np.diff(np.log(windows), axis=1)
    # around zero: the mean of a few daily returns is mostly noise, and subtracting it would only take from the spread
    return np.maximum(np.sqrt((log_returns**2).mean(1)), MIN_VOLATILITY)


def yang_zhang_volatility(opens: np.ndarray, highs: np.ndarray, lows: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """[B] daily volatility of windows [B, L] of adjusted bars, unbiased by opening jumps and by drift.

    var = V_o + k V_c + (1 - k) V_rs over the n = L - 1 days that have a close before them: V_o the sample
    variance of ln(O_t / C_{t-1}), V_c that of ln(C_t / O_t), V_rs the mean of ln(H/C) ln(H/O) + ln(L/C) ln(L/O),
    k = .34 / (1.34 + (n + 1) / (n - 1)) (Yang and Zhang 2000, equations 10 and 11). At least MIN_VOLATILITY.
    """
    # the first bar of a window only gives the close that the next one opens from
    before = np.log(closes[:, :-1])
    o, h, l, c = (np.log(prices[:, 1:]) for prices in (opens, highs, lows, closes))  # noqa: E741
    days = o.shape[1]
    k = 0.34 / (1.34 + (days + 1) / (days - 1))
    overnight, intraday = (o - before).var(1, ddof=1), (c - o).var(1, ddof=1)
    within_day = ((h - c) * (h - o) + (l - c) * (l - o)).mean(1)
    # k gives the smallest variance of the estimate; Rogers and Satchell's part alone cannot see the jump at the open
    variance = overnight + k * intraday + (1 - k) * within_day
    return np.maximum(np.sqrt(np.maximum(variance, 0.0)), MIN_VOLATILITY)


def ewma_volatility(closes: np.ndarray) -> np.ndarray:
    """[T] RiskMetrics volatility at each of the closes [T] of one stock, from all log returns up to it.

    The root of the mean squared log return with weights EWMA_DECAY^age that add up to 1, so that it needs no
    start value; at least MIN_VOLATILITY. The first bar has no return and holds NaN.
    """
    squared = pd.Series(np.diff(np.log(closes)) ** 2)
    # adjust: weights of the returns there are add up to 1; else the first return would count as a whole past
    variance = squared.ewm(alpha=1 - EWMA_DECAY, adjust=True).mean().to_numpy()
    return np.concatenate([[np.nan], np.maximum(np.sqrt(variance), MIN_VOLATILITY)])


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
    # running sums see each bar and those before it, never one after: the value at an origin holds no future
    mean = np.cumsum(x) / count
    # the difference of two large sums may come out a little below 0
    variance = np.maximum(np.cumsum(x**2) / count - mean**2, 0.0)
    log_return = np.diff(x)
    steps = count[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = np.cumsum(x[:-1]), np.cumsum(x[1:])
        covariance = np.cumsum(x[:-1] * x[1:]) - before * after / steps
        spread = np.cumsum(x[:-1] ** 2) - before**2 / steps
        # a price that has not moved predicts itself: the coefficient of a random walk
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
