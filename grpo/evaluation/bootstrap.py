"""Block bootstrap over dates: how much a mean, a ratio of means or a skill varies from sample to sample.

All windows of a date stay together, and blocks of consecutive dates keep the dependence of overlapping windows.

Letters: D dates, K columns, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from grpo.evaluation.dates import long_run_variance
from preprocessing.seeds import generator

Statistic = Callable[[np.ndarray], np.ndarray]
"""A smooth function of column means: [..., K] -> [...], such as `ratio` or `skill`."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its confidence interval; the ends are NaN where the dates are too few or a value not finite."""

    estimate: float
    low: float
    high: float
    level: float
    block_length: float
    num_dates: int


def ratio(means: np.ndarray) -> np.ndarray:
    """Column 0 over column 1, such as a loss over the reference's loss, or a sum over a count."""
    return means[..., 0] / means[..., 1]


def skill(means: np.ndarray) -> np.ndarray:
    """(reference - forecaster) / (reference - optimum), from the columns forecaster, reference, optimum."""
    return (means[..., 1] - means[..., 0]) / (means[..., 1] - means[..., 2])


def bootstrap_interval(
    columns: np.ndarray,
    statistic: Statistic,
    *,
    horizon: int,
    level: float = 0.95,
    method: Literal["studentised", "percentile"] = "studentised",
    block_length: float | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a function of the means of columns [D, K] (`dates.sum_by_date`), dates in time order.

    The studentised interval is estimate -+ q e: e is the Bartlett standard error, lag 2 (horizon - 1), of the
    statistic linearised at the means (delta method), and q the quantile of |statistic* - statistic| / e* over
    stationary resamples, e* computed anew in each (Goetze and Kuensch 1996). Where the rows are sums of H independent
    shocks, the worst that overlapping windows can do, a 95 % interval of a mean or a ratio covers in 90 to 95 % of
    samples of 50 to 250 dates (H = 1, 5, 10); the percentile interval, whose blocks see too little of the long-run
    variance, in 73 to 94 %.

    Args:
        columns: [D, K] one row per date.
        statistic: the function of the K means.
        horizon: dates whose windows overlap (`dates.overlapping_dates`).
        level: nominal coverage.
        method: studentised, or the percentile interval for comparison.
        block_length: expected number of dates per block; by default the larger of the horizon and Politis and
            White's choice for the linearised statistic.
        num_resamples: R.
        seed: of the resamples.
    """
    num_dates, lag = len(columns), 2 * (horizon - 1)
    means = columns.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # a ratio with a zero denominator is NaN or infinite; the check on the influence below refuses it
        estimate = float(statistic(means))
        influence = _linearised(statistic, columns[None], means[None])[0]  # [D]
    unknown = Interval(
        estimate=estimate, low=np.nan, high=np.nan, level=level, block_length=np.nan, num_dates=num_dates
    )
    if num_dates < lag + 2 or not np.isfinite(influence).all():
        return unknown
    # a block shorter than the horizon would tear apart windows that share days
    length = block_length or max(horizon, politis_white_block_length(influence))
    indices = date_bootstrap_indices(num_dates, block_length=length, num_resamples=num_resamples, seed=seed)
    # all columns of a date are drawn together: a ratio varies less than its two parts would alone
    rows = columns[indices]  # [R, D, K]
    centres = rows.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic(centres)
        if method == "percentile":
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        else:
            errors = _standard_error(_linearised(statistic, rows, centres), lag)
            distance = np.abs(values - estimate)
            # a resample without any variation says nothing about the scale: count it as far out
            scaled = np.where(errors > 0, distance / errors, np.where(distance > 0, np.inf, 0.0))
            # "higher": an interval is rather too wide than too narrow
            half = np.quantile(scaled, level, method="higher") * _standard_error(influence, lag)
            low, high = estimate - half, estimate + half
    return Interval(
        estimate=estimate,
        low=float(low),
        high=float(high),
        level=level,
        block_length=float(length),
        num_dates=num_dates,
    )


def _standard_error(series: np.ndarray, lag: int) -> np.ndarray:
    """[...] Bartlett standard error of the mean of series [..., D]."""
    return np.sqrt(long_run_variance(series, lag) / series.shape[-1])


def _linearised(statistic: Statistic, rows: np.ndarray, means: np.ndarray) -> np.ndarray:
    """[R, D] influence of each row [R, D, K] on the statistic at the means [R, K], from central differences."""
    spread = np.abs(rows).max(axis=1)
    # the cube root balances the rounding of a central difference against its truncation
    steps = np.cbrt(np.finfo(float).eps) * np.where(spread > 0, spread, 1.0)  # [R, K]
    influence = np.zeros(rows.shape[:2])
    for k in range(rows.shape[-1]):
        moved = np.zeros_like(means)
        moved[:, k] = steps[:, k]
        slope = (statistic(means + moved) - statistic(means - moved)) / (2 * steps[:, k])
        influence += slope[:, None] * (rows[:, :, k] - means[:, None, k])
    return influence


def date_bootstrap_indices(
    num_dates: int,
    *,
    block_length: float,
    num_resamples: int,
    seed: int,
    kind: Literal["stationary", "circular"] = "stationary",
) -> np.ndarray:
    """[R, D] row numbers of block resamples of D dates, the calendar closed to a ring.

    Stationary (Politis and Romano 1994): blocks start anywhere and have geometric lengths of mean `block_length`.
    Circular (Politis and Romano 1992): all blocks have that length, rounded, and the last is cut off.

    Raises:
        ValueError: the block length is below 1.
    """
    if block_length < 1:
        raise ValueError(f"block_length must be at least 1 date; got {block_length}.")
    rng = generator(seed)
    position = np.arange(num_dates)
    if kind == "stationary":
        # a coin at each date makes the lengths geometric, and so the resamples stationary
        begins = rng.random((num_resamples, num_dates)) < 1 / block_length
        begins[:, 0] = True  # a resample begins with a block, whatever the coin says
    else:
        begins = np.broadcast_to(position % round(block_length) == 0, (num_resamples, num_dates))
    # where the block that holds each position began; from there the dates run on without a gap
    block_start = np.maximum.accumulate(np.where(begins, position, 0), axis=1)
    drawn = np.take_along_axis(rng.integers(num_dates, size=(num_resamples, num_dates)), block_start, axis=1)
    # modulo D closes the ring: without it the first and last dates would be drawn too rarely
    return (drawn + position - block_start) % num_dates


def resampled_means(columns: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """[R, K] means of columns [D, K] in each resample [R, D], without holding the resampled rows."""
    num_resamples, num_dates = indices.shape
    # how often a resample holds each date: sums follow from these counts by one matrix product
    flat = indices + np.arange(num_resamples)[:, None] * len(columns)
    counts = np.bincount(flat.ravel(), minlength=num_resamples * len(columns)).reshape(num_resamples, -1)
    return counts @ columns / num_dates


def politis_white_block_length(series: np.ndarray, *, kind: Literal["stationary", "circular"] = "stationary") -> float:
    """Block length that minimises the error of the bootstrap variance of the mean of a series [D].

    Politis and White (2004) with the correction of Patton, Politis and White (2009); their constants, and as bandwidth
    twice the lag that opens the first run of K_n autocorrelations below 2 sqrt(log10(D) / D). At least 1; 1 for a
    constant series.
    """
    length = len(series)
    # their K_n: 5 for every series of less than a million dates
    run = max(5, int(np.log10(length)))
    max_lag = min(int(np.ceil(np.sqrt(length))) + run, length - 1)
    centred = series - series.mean()
    covariance = np.array([centred[j:] @ centred[: length - j] / length for j in range(max_lag + 1)])
    if covariance[0] <= 0:
        return 1.0
    small = np.abs(covariance[1:] / covariance[0]) < 2 * np.sqrt(np.log10(length) / length)
    # the first lag from which K_n autocorrelations in a row are noise
    opens = (lag for lag in range(1, max_lag - run + 2) if small[lag - 1 : lag - 1 + run].all())
    bandwidth = min(2 * next(opens, max_lag), max_lag)
    lags = np.arange(1, bandwidth + 1)
    taper = np.minimum(1, 2 * (1 - lags / bandwidth))  # flat-top: full weight up to half the bandwidth
    slope = 2 * np.sum(taper * lags * covariance[1 : bandwidth + 1])
    variance = covariance[0] + 2 * np.sum(taper * covariance[1 : bandwidth + 1])
    # the variance of the variance's estimate: random block lengths cost half as much again (Patton, Politis and White
    # 2009)
    constant = 2 if kind == "stationary" else 4 / 3
    optimum = (2 * slope**2 / (constant * variance**2) * length) ** (1 / 3) if variance != 0 else np.inf
    # their upper bound: longer blocks would leave too few different resamples
    return float(np.clip(optimum, 1, np.ceil(min(3 * np.sqrt(length), length / 3))))
