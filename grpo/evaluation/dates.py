"""Windows put together by date, and how much their sums over time vary.

Stocks of one date move together and windows of neighbouring dates overlap, so windows are not independent: every
test and every interval starts from one row per date and allows for the correlation between rows.

Letters: B windows, D dates, K columns, H horizon.
"""

from __future__ import annotations

import numpy as np


def sum_by_date(values: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """[D, K] sums of values [B, K] over the windows of each date, dates ascending.

    A ratio of two such columns' sums is the ratio of the means over all windows, however many each date has.
    """
    distinct, group = np.unique(dates, return_inverse=True)
    sums = np.zeros((len(distinct), values.shape[1]))
    # not `sums[group] += values`, which would keep only one window of each date
    np.add.at(sums, group, values)
    return sums


def average_by_date(values: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """[D] mean of values [B] over the windows of each date, dates ascending."""
    _, group, counts = np.unique(dates, return_inverse=True, return_counts=True)
    return np.bincount(group, weights=values) / counts


def overlapping_dates(origins: np.ndarray, last_targets: np.ndarray) -> int:
    """How many consecutive dates of a sample have overlapping windows: its horizon in dates.

    H where every day is an origin, 1 where no window begins before an earlier one has ended.

    Args:
        origins: [B] datetime64, last observed day.
        last_targets: [B] datetime64, last predicted day.
    """
    distinct = np.unique(origins)
    first_free = np.searchsorted(distinct, last_targets)  # origins on the last target day or later overlap no more
    return int((first_free - np.searchsorted(distinct, origins)).max())


def long_run_variance(series: np.ndarray, lag: int) -> np.ndarray:
    """Newey-West variance of sqrt(n) times the mean, Bartlett weights 1 - j/(lag + 1); of series [..., n], [...]."""
    sums = _moving_sums(series, lag)
    return np.einsum("...t,...t->...", sums, sums) / (series.shape[-1] * (lag + 1))


def long_run_covariance(series: np.ndarray, lag: int) -> np.ndarray:
    """[..., K, K] the same between K series [..., K, n]."""
    sums = _moving_sums(series, lag)
    return sums @ np.swapaxes(sums, -1, -2) / (series.shape[-1] * (lag + 1))


def _moving_sums(series: np.ndarray, lag: int) -> np.ndarray:
    """[..., n + lag] sums over lag + 1 neighbours of the centred series, zeros beyond its ends.

    Their squares add up to the autocovariances by Bartlett weights, without a loop over lags.
    """
    # a window's sum is the difference of two running totals, however wide the window
    totals = np.cumsum(series - series.mean(axis=-1, keepdims=True), axis=-1)
    start = np.zeros((*series.shape[:-1], lag + 1))
    end = np.repeat(totals[..., -1:], lag, axis=-1)
    return np.concatenate([totals, end], axis=-1) - np.concatenate([start, totals[..., :-1]], axis=-1)
