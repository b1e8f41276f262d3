"""Scores of sample paths against what happened, in percent of the last close.

Everything is a pure function of NumPy arrays. An invalid sample is never dropped: it counts as the last close
repeated, so a model that answers nonsense is scored as if it had said "no change", and `valid` tells how
often.

Letters: B windows, S samples, H horizon, I central intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from grpo.evaluation.protocol import Forecast
from preprocessing.windows import WindowSet

INTERVALS = (0.50, 0.80, 0.95)
"""Central intervals whose coverage and width are reported."""
_STRAIGHT_TOLERANCE = 1e-9
"""Largest second difference of a straight line, share of the last close: float64 rounding, no more."""


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """Scores of B windows; errors and widths in percent of the last close.

    Attributes:
        crps: [B, H] fair continuous ranked probability score of each step.
        energy: [B] fair energy score of the whole path.
        absolute_error: [B, H] of the median.
        squared_error: [B, H] of the mean, percent squared.
        covered: [B, I, H] 1 where the central interval holds the realised price, else 0.
        width: [B, I, H] of the central intervals.
        direction_hit: [B] 1 if the median moves to the realised side of the last close by step H, 0 if to the
            other, 1/2 if either of the two does not move.
        always_up_hit: [B] the same for the forecast "up".
        straight: [B] share of paths that are exact straight lines.
        valid: [B] share of samples that were usable.
    """

    crps: np.ndarray
    energy: np.ndarray
    absolute_error: np.ndarray
    squared_error: np.ndarray
    covered: np.ndarray
    width: np.ndarray
    direction_hit: np.ndarray
    always_up_hit: np.ndarray
    straight: np.ndarray
    valid: np.ndarray

    def take(self, rows: np.ndarray) -> WindowScores:
        """The scores of some windows, by row number or boolean mask."""
        return WindowScores(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @staticmethod
    def concatenate(parts: list[WindowScores]) -> WindowScores:
        """Join the scores of several sets of windows, in the order given."""
        names = [field.name for field in fields(WindowScores)]
        return WindowScores(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def score_windows(forecast: Forecast, windows: WindowSet) -> WindowScores:
    """Score a forecast of B windows against their future.

    Raises:
        ValueError: the future or the last close is not finite and positive; no score would mean anything.
    """
    last, future = windows.context.last_price, windows.truth.future
    if not (np.isfinite(future).all() and (future > 0).all() and np.isfinite(last).all() and (last > 0).all()):
        raise ValueError("last closes and realised prices must be finite and positive.")
    prices = np.where(forecast.valid[:, :, None], forecast.samples, last[:, None, None])  # [B, S, H]
    # A path that overflows has no finite score; the score is then infinite, never NaN, so that it cannot win.
    with np.errstate(over="ignore", invalid="ignore"):
        samples = 100 * (prices / last[:, None, None] - 1)
        truth = 100 * (future / last[:, None] - 1)  # [B, H]
        lower, upper = central_intervals(samples)
        median = np.median(samples, axis=1)
        return WindowScores(
            crps=_worst_if_nan(fair_crps(samples, truth)),
            energy=_worst_if_nan(fair_energy_score(samples, truth)),
            absolute_error=_worst_if_nan(np.abs(median - truth)),
            squared_error=_worst_if_nan((samples.mean(axis=1) - truth) ** 2),
            covered=((lower <= truth[:, None]) & (truth[:, None] <= upper)).astype(np.float64),
            width=_worst_if_nan(upper - lower),
            direction_hit=(1 + np.sign(median[:, -1]) * np.sign(truth[:, -1])) / 2,
            always_up_hit=(1 + np.sign(truth[:, -1])) / 2,
            straight=straight_line_share(prices / last[:, None, None]),
            valid=forecast.valid.mean(axis=1),
        )


def summarise(scores: WindowScores) -> dict[str, float]:
    """Means over windows and steps; the root of the mean squared error."""
    summary = {
        "crps": scores.crps.mean(),
        "energy": scores.energy.mean(),
        "mae": scores.absolute_error.mean(),
        "rmse": np.sqrt(scores.squared_error.mean()),
        "direction_hit": scores.direction_hit.mean(),
        "always_up_hit": scores.always_up_hit.mean(),
        "straight_lines": scores.straight.mean(),
        "valid": scores.valid.mean(),
    }
    for i, level in enumerate(INTERVALS):
        summary[f"coverage_{round(100 * level)}"] = scores.covered[:, i].mean()
        summary[f"width_{round(100 * level)}"] = scores.width[:, i].mean()
    return {name: float(value) for name, value in summary.items()}


def fair_crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fair CRPS, mean |x_i - y| - 1/(2 S (S-1)) sum_ij |x_i - x_j|, in O(S log S).

    Its expectation does not depend on S (Ferro 2014), so forecasts of different sizes compare. The pair sum
    of
    sorted values is 2 sum_i (2i - S - 1) x_(i), i = 1..S.

    Args:
        samples: [B, S, H], S >= 2.
        truth: [B, H].

    Returns:
        [B, H]
    """
    num_samples = _require_pairs(samples)
    weights = (2 * np.arange(1, num_samples + 1) - num_samples - 1) / (num_samples * (num_samples - 1))
    spread = np.einsum("s,bsh->bh", weights, np.sort(samples, axis=1))
    return np.abs(samples - truth[:, None]).mean(axis=1) - spread


def fair_energy_score(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fair energy score, mean ||x_i - y|| - 1/(2 S (S-1)) sum_ij ||x_i - x_j||, Euclidean norm over H.

    Args:
        samples: [B, S, H], S >= 2.
        truth: [B, H].

    Returns:
        [B]
    """
    num_samples = _require_pairs(samples)
    # Each pair once, by its distance in sample number: memory stays [B, S, H] instead of [B, S, S, H].
    pairs = sum(
        np.linalg.norm(samples[:, shift:] - samples[:, :-shift], axis=-1).sum(axis=1) for shift in range(1, num_samples)
    )
    error = np.linalg.norm(samples - truth[:, None], axis=-1).mean(axis=1)
    return error - pairs / (num_samples * (num_samples - 1))


def central_intervals(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of `INTERVALS`, [B, I, H] each, from samples [B, S, H].

    The quantile p is the order statistic at p (S + 1) ("weibull"): if truth and samples come from one law,
    the interval then covers exactly its level on average, whatever S; NumPy's default covers 78 % at S = 100
    when it should cover 80 %. With fewer than 39 samples the 95 % interval ends at the smallest and largest
    sample.
    """
    tail = (1 - np.array(INTERVALS)) / 2
    ends = np.quantile(samples, np.concatenate([tail, 1 - tail]), axis=1, method="weibull")  # [2 I, B, H]
    ends = np.moveaxis(ends, 0, 1)
    return ends[:, : len(INTERVALS)], ends[:, len(INTERVALS) :]


def straight_line_share(paths: np.ndarray) -> np.ndarray:
    """[B] share of the paths [B, S, H] whose steps are all equal, in price or in log price.

    Args:
        paths: prices divided by the last close; with H < 3 every path is such a line.
    """

    def is_straight(values: np.ndarray) -> np.ndarray:
        return np.all(np.abs(np.diff(values, n=2, axis=-1)) <= _STRAIGHT_TOLERANCE, axis=-1)

    return (is_straight(paths) | is_straight(np.log(paths))).mean(axis=1)


def _require_pairs(samples: np.ndarray) -> int:
    if samples.shape[1] < 2:
        raise ValueError(f"a fair score compares samples with each other and needs 2 or more; got {samples.shape[1]}.")
    return samples.shape[1]


def _worst_if_nan(score: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(score), np.inf, score)
