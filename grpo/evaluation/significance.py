"""Is one forecaster better than another, or only luckier? Diebold-Mariano on losses averaged per date.

Stocks of one date move together and windows of neighbouring dates overlap, so windows are not independent:
losses are averaged per date first, then the serial correlation of the date series is allowed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class DieboldMariano:
    """Outcome of the test of equal expected loss.

    Attributes:
        mean_difference: mean over dates of loss minus reference loss; negative where the forecaster is
        better. statistic: mean difference over its standard error, with the small-sample factor of HLN.
        p_value: two-sided; NaN where the dates are too few or the losses not finite. num_dates: dates that
        the test saw.
    """

    mean_difference: float
    statistic: float
    p_value: float
    num_dates: int


def average_by_date(values: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """[D] mean of values [B] over the windows of each date, dates ascending."""
    _, group, counts = np.unique(dates, return_inverse=True, return_counts=True)
    return np.bincount(group, weights=values) / counts


def long_run_variance(series: np.ndarray, lag: int) -> float:
    """Newey-West variance of sqrt(n) times the mean: autocovariances by Bartlett weights 1 - j/(lag + 1)."""
    centred = series - series.mean()
    autocovariance = [centred[j:] @ centred[: len(centred) - j] / len(centred) for j in range(lag + 1)]
    return autocovariance[0] + 2 * sum((1 - j / (lag + 1)) * autocovariance[j] for j in range(1, lag + 1))


def diebold_mariano(difference: np.ndarray, *, horizon: int) -> DieboldMariano:
    """Test that the mean of a loss difference per date, in time order, is zero.

    H-step losses of consecutive dates are correlated up to lag H-1. Bartlett weights shrink those
    correlations, so the lag is 2 (H-1); the statistic carries the factor of Harvey, Leybourne and Newbold
    (1997) and is referred to Student's t with 1.5 n/(lag+1) degrees of freedom, those of the Bartlett
    estimate (at most n-1). In the worst case, sums of H independent shocks, a nominal 5 % test so rejects in
    7 to 9 % of samples of 30 to 300 dates; with lag H-1 and the normal law it would in 12 to 18 %.

    Args:
        difference: [D] loss minus reference loss.
        horizon: steps ahead, H.
    """
    n, lag = len(difference), 2 * (horizon - 1)
    mean = float(difference.mean()) if n else np.nan
    if n < lag + 2 or not np.isfinite(mean):
        return DieboldMariano(mean_difference=mean, statistic=np.nan, p_value=np.nan, num_dates=n)
    variance = long_run_variance(difference, lag)
    if variance <= 0:  # losses equal on every date: no evidence either way
        return DieboldMariano(mean_difference=mean, statistic=np.nan, p_value=np.nan, num_dates=n)
    small_sample = np.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = float(small_sample * mean / np.sqrt(variance / n))
    freedom = min(n - 1, 1.5 * n / (lag + 1))
    p_value = float(2 * stats.t.sf(abs(statistic), freedom))
    return DieboldMariano(mean_difference=mean, statistic=statistic, p_value=p_value, num_dates=n)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values, to compare with the level that all tests together keep; NaN stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted
