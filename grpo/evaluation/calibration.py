"""Does the truth fall where the samples say it should? Ranks of the truth, their histogram, and a test of uniformity.

Letters: B windows, S samples, H horizon, D dates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grpo.evaluation.bootstrap import date_bootstrap_indices
from grpo.evaluation.dates import long_run_variance, sum_by_date
from grpo.evaluation.metrics import filled_blocks
from grpo.evaluation.protocol import Forecast
from preprocessing.seeds import generator
from preprocessing.windows import WindowSet

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Nominal coverages of a reliability curve, 5 to 95 %, and the points at which ranks are tested."""
_ROUNDING = 1e-24
"""Largest square of a difference between shares of windows that rounding may leave."""


@dataclass(frozen=True, kw_only=True)
class Uniformity:
    """Outcome of the test that the ranks of the truth are uniform.

    Attributes:
        statistic: Cramer-von Mises distance, D times the mean square of F(u) - u over the points u of `LEVELS`.
        p_value: NaN where `reason` is not empty.
        num_dates: dates that the test saw.
        reason: why there is no p value, or "".
    """

    statistic: float
    p_value: float
    num_dates: int
    reason: str = ""


def pit_values(forecast: Forecast, windows: WindowSet, *, seed: int = 0) -> np.ndarray:
    """[B, H] randomised rank of the truth among the samples, (below + U (equal + 1)) / (S + 1), U uniform on [0, 1).

    Exactly uniform where truth and samples come from one law, whatever S and however many ties (Czado, Gneiting and
    Held 2009). An invalid sample counts as the last close.
    """
    future = windows.truth.future
    # prices are rounded, so truth and samples may tie, and S + 1 ranks are a grid: the random part spreads both evenly
    uniform = generator(seed).random(future.shape)
    values = np.empty(future.shape)
    for rows, prices in filled_blocks(forecast, windows.context.last_price):
        truth = future[rows, None]
        below, equal = (prices < truth).sum(axis=1), (prices == truth).sum(axis=1)
        values[rows] = (below + uniform[rows] * (equal + 1)) / (prices.shape[1] + 1)
    return values


def rank_histogram(pit: np.ndarray, bins: int = 10) -> np.ndarray:
    """[H, bins] counts of ranks [B, H] in bins of equal width; their sum over H is the pooled histogram.

    Flat where the forecast is calibrated; a valley where it is too narrow, a hill where it is too wide, a slope where
    it is biased.
    """
    number = np.minimum((pit * bins).astype(int), bins - 1)  # [B, H]; a rank of 1 belongs to the last bin
    return (number[:, :, None] == np.arange(bins)).sum(axis=0)


def reliability(pit: np.ndarray, levels: Sequence[float] = LEVELS) -> np.ndarray:
    """[levels, H] observed coverage of the central intervals with these nominal coverages, from ranks [B, H].

    Being randomised, it equals the nominal coverage on average also where S samples cannot split it evenly.
    """
    # a central interval of coverage c holds the ranks within c/2 of the middle
    distance = 2 * np.abs(pit - 0.5)
    return np.stack([(distance <= level).mean(axis=0) for level in levels])


def uniformity(
    pit: np.ndarray, dates: np.ndarray, *, horizon: int, num_resamples: int = 1000, seed: int = 0
) -> Uniformity:
    """Test that ranks are uniform, whatever the dependence between stocks and between overlapping windows.

    The distance of the ranks' distribution from the uniform one at the points u of `LEVELS`, over the sum of its
    long-run variances (Bartlett, lag 2 (horizon - 1)), is compared with the same in stationary resamples of the dates
    in blocks of `horizon` on average. For calibrated forecasts of 1 to 10 days over 60 to 250 dates a 5 % test rejects
    in 5 to 8 % of samples; the plain bootstrap of the distance would in up to 16 %.

    Args:
        pit: [B, H] ranks, pooled over steps; one step alone is `pit[:, [step - 1]]`.
        dates: [B] origins.
        horizon: dates whose windows overlap (`dates.overlapping_dates`).
        num_resamples: R.
        seed: of the resamples.
    """
    # overlapping windows correlate ranks up to lag H - 1 and Bartlett weights shrink that: twice the lag mends it
    lag = 2 * (horizon - 1)
    excess = (pit[:, :, None] <= np.array(LEVELS)).sum(axis=1) - pit.shape[1] * np.array(LEVELS)  # [B, points]
    count = np.full((len(pit), 1), float(pit.shape[1]))
    # [D, points + 1]: the excess at each point, and in the last column the number of ranks
    sums = sum_by_date(np.concatenate([excess, count], axis=1), dates)
    distance = sums[:, :-1].sum(axis=0) / sums[:, -1].sum()
    num_dates = len(sums)
    statistic = float(num_dates * np.mean(distance**2))
    # fewer dates than the variance reaches back: no estimate would mean anything
    if num_dates < lag + 2:
        reason = f"{num_dates} dates are too few for a horizon of {horizon}"
        return Uniformity(statistic=statistic, p_value=np.nan, num_dates=num_dates, reason=reason)
    # influence of each date on the distance, [D, points]: dates may have unequal numbers of windows
    influence = (sums[:, :-1] - sums[:, -1:] * distance) / sums[:, -1].mean()
    indices = date_bootstrap_indices(num_dates, block_length=horizon, num_resamples=num_resamples, seed=seed)
    parts = np.array_split(indices, -(-num_resamples // 100))  # all their rows at once would fill the memory
    # the resampled influence has mean 0 over all dates, so these distances follow the law under calibration
    law = np.concatenate([_over_variance(influence[rows].mean(axis=1), influence[rows], lag) for rows in parts])
    observed = _over_variance(distance, influence, lag)
    # what was observed counts as one of the draws, so that p is never 0
    p_value = (1 + np.sum(law >= observed)) / (num_resamples + 1)
    return Uniformity(statistic=statistic, p_value=float(p_value), num_dates=num_dates)


def _over_variance(distance: np.ndarray, influence: np.ndarray, lag: int) -> np.ndarray:
    """[...] sum of squares of distance [..., points] over that of the long-run variances of [..., D, points]."""
    squares = (distance**2).sum(axis=-1)
    variance = long_run_variance(np.swapaxes(influence, -1, -2), lag).sum(axis=-1)
    # no distance counts as 0; a distance without any variance is infinitely far out
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squares > _ROUNDING, squares / np.where(variance > _ROUNDING, variance, 0.0), 0.0)
