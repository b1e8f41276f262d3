"""The numbers behind the pictures: pure functions of evaluations and windows.

Letters: B windows, S samples, H horizon, D dates, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from grpo.evaluation.bootstrap import bootstrap_interval, ratio
from grpo.evaluation.calibration import pit_values, rank_histogram, uniformity
from grpo.evaluation.dates import average_by_date, long_run_variance, overlapping_dates, sum_by_date
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE, date_horizon
from grpo.evaluation.metrics import central_intervals
from preprocessing.windows import WindowSet

History = Sequence[Mapping[str, float]]
"""A trainer's log: entries hold `step` and some of `reward`, `loss`, `eval_crps`."""
PIT_BINS = 10
_RESAMPLES = 500  # for an interval that is only looked at


@dataclass(frozen=True, kw_only=True)
class Fan:
    """One window as a forecaster saw it; days count from the origin, prices in the stock's unit.

    Attributes:
        past_days: [L] 1-L..0.
        past: [L] closes.
        days: [1 + H] 0..H; bands, median and realised path all start at the last close.
        lower: [I, 1 + H] lower ends of `metrics.INTERVALS`.
        upper: [I, 1 + H]
        median: [1 + H]
        realised: [1 + H]
    """

    past_days: np.ndarray
    past: np.ndarray
    days: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    median: np.ndarray
    realised: np.ndarray


@dataclass(frozen=True)
class StockRatio:
    """CRPS of a forecaster relative to the random walk on the windows of one stock.

    Attributes:
        stock: its name.
        ratio: below 1 is better than the random walk.
        low: lower end of the 95 % interval; NaN where the dates are too few.
        high: upper end.
        num_dates: dates behind it.
    """

    stock: str
    ratio: float
    low: float
    high: float
    num_dates: int


@dataclass(frozen=True)
class PitHistogram:
    """Where realised prices fall among the samples.

    Attributes:
        shares: [K] of the randomised PIT values in bins of equal width; flat where the forecast is calibrated.
        band: [K] half widths around 1/K that a calibrated forecast keeps to (`uniform_band`); NaN for too few dates.
        p_value: of `calibration.uniformity`; NaN where the dates are too few.
    """

    shares: np.ndarray
    band: np.ndarray
    p_value: float


def reference_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The random walk's evaluation, which every comparison holds."""
    return next(evaluation for evaluation in evaluations if evaluation.name == REFERENCE)


def best_rival(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The forecaster of the smallest CRPS that is no yardstick; the random walk where there is no other."""
    rivals = [evaluation for evaluation in evaluations if evaluation.name not in (REFERENCE, OPTIMUM)]
    return min(rivals or [reference_of(evaluations)], key=lambda evaluation: evaluation.scores.crps.mean())


def best_median_worst(evaluation: Evaluation) -> dict[str, int]:
    """Row numbers of a forecaster's best, median and worst window by CRPS."""
    order = np.argsort(evaluation.scores.crps.mean(axis=1), kind="stable")
    return {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}


def fan(evaluation: Evaluation, windows: WindowSet, window: int) -> Fan:
    """Past, bands and realised path of one window; an invalid sample counts as the last close, as in the scores."""
    past, future = windows.context.past[window, :, 0], windows.truth.future[window]
    last = past[-1]
    samples = np.where(evaluation.forecast.valid[window][:, None], evaluation.forecast.samples[window], last)
    samples = np.concatenate([np.full((len(samples), 1), last), samples], axis=1)[None]  # [1, S, 1 + H]
    lower, upper = (ends[0] for ends in central_intervals(samples))
    return Fan(
        past_days=np.arange(1 - len(past), 1),
        past=past,
        days=np.arange(len(future) + 1),
        lower=lower,
        upper=upper,
        median=np.median(samples[0], axis=0),
        realised=np.append(last, future),
    )


def crps_by_step(evaluation: Evaluation, reference: Evaluation) -> np.ndarray:
    """[H] CRPS relative to the random walk; NaN where the walk's is zero or not finite."""
    return _ratio(evaluation.scores.crps.mean(axis=0), reference.scores.crps.mean(axis=0))


def crps_by_stock(evaluation: Evaluation, reference: Evaluation, windows: WindowSet) -> list[StockRatio]:
    """CRPS relative to the random walk per stock with its block-bootstrap interval over dates, best first."""
    items, origin, last_target = np.array(windows.context.item_id), windows.context.origin, windows.truth.dates[:, -1]
    columns = np.stack([evaluation.scores.crps.mean(axis=1), reference.scores.crps.mean(axis=1)], axis=1)  # [B, 2]
    rows = []
    for stock in np.unique(items):
        mask = items == stock
        interval = bootstrap_interval(
            sum_by_date(columns[mask], origin[mask]),
            ratio,
            horizon=overlapping_dates(origin[mask], last_target[mask]),
            num_resamples=_RESAMPLES,
        )
        rows.append(StockRatio(str(stock), interval.estimate, interval.low, interval.high, interval.num_dates))
    return sorted(rows, key=lambda row: (np.isnan(row.ratio), row.ratio, row.stock))


def accumulated_difference(
    evaluation: Evaluation, reference: Evaluation, windows: WindowSet
) -> tuple[np.ndarray, np.ndarray]:
    """CRPS minus the random walk's, averaged per date and accumulated over the dates, divided by their number.

    Returns:
        Dates [D] and values [D] in percent of the last close; the last value is the mean over dates, negative where
        the forecaster is better.
    """
    with np.errstate(invalid="ignore"):
        difference = (evaluation.scores.crps - reference.scores.crps).mean(axis=1)
        accumulated = average_by_date(difference, windows.context.origin).cumsum()
    return np.unique(windows.context.origin), accumulated / len(accumulated)


def pit_histogram(evaluation: Evaluation, windows: WindowSet) -> PitHistogram:
    """Ranks of the truth among a forecaster's samples, all windows and steps together, and how uniform they are."""
    pit, dates, horizon = pit_values(evaluation.forecast, windows), windows.context.origin, date_horizon(windows)
    shares = rank_histogram(pit, PIT_BINS).sum(axis=0) / pit.size
    band = uniform_band(pit, dates, horizon=horizon)
    return PitHistogram(shares=shares, band=band, p_value=uniformity(pit, dates, horizon=horizon).p_value)


def uniform_band(pit: np.ndarray, dates: np.ndarray, *, horizon: int) -> np.ndarray:
    """How far from 1/K the shares of a calibrated forecast stray, all K of them, at least 19 times of 20.

    Stocks of a date move together and windows overlap, so the binomial band would be far too narrow; this one takes the
    long-run variance of each share's date series (Bartlett, lag 2 (horizon - 1)). Calibrated forecasts of 1 to 10 days
    over 30 to 200 dates leave the band in 1 to 4 % of samples; the binomial band of 5 days they would leave in two of
    three.

    Args:
        pit: [B, H] ranks.
        dates: [B] origins.
        horizon: dates whose windows overlap.

    Returns:
        [K] half widths; NaN where the dates are too few.
    """
    number = np.minimum((pit * PIT_BINS).astype(int), PIT_BINS - 1)
    counts = (number[:, :, None] == np.arange(PIT_BINS)).sum(axis=1)  # [B, K]
    by_date = sum_by_date(counts.astype(float), dates)  # [D, K]
    totals, n, lag = by_date.sum(axis=1, keepdims=True), len(by_date), 2 * (horizon - 1)
    if n < lag + 2:
        return np.full(PIT_BINS, np.nan)
    # a share is a ratio of sums over dates: its linear part tells how far each date moves it
    influence = (by_date - totals * by_date.sum(axis=0) / totals.sum()) / totals.mean()  # of each date on the shares
    variance = long_run_variance(influence.T, lag)
    # bin k and its mirror share a law; the mean of all bins steadies those that hold few prices
    variance = (variance + variance[::-1]) / 4 + variance.mean() / 2
    # as in `significance.diebold_mariano`: the variance of few dates comes out too small
    small_sample = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    # two sides and K bins share the 5 %
    quantile = stats.t.isf(0.025 / PIT_BINS, min(n - 1, 1.5 * n / (lag + 1)))
    return quantile * np.sqrt(variance / n / small_sample)


def logged(history: History, key: str) -> list[tuple[float, float]]:
    """(step, value) of the entries of a training log that hold `key`."""
    return [(entry["step"], entry[key]) for entry in history if key in entry]


def objective(history: History) -> str:
    """What a stage optimised: `reward` where it was logged, else `loss`."""
    return "reward" if any("reward" in entry for entry in history) else "loss"


def _ratio(value: np.ndarray | float, reference: np.ndarray | float) -> np.ndarray:
    """The quotient; NaN where the reference is zero or not finite."""
    reference = np.asarray(reference)
    usable = np.isfinite(reference) & (reference > 0)
    return np.where(usable, value / np.where(usable, reference, 1.0), np.nan)
