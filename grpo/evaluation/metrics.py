"""Scores of sample paths against what happened, in percent of the last close.

Everything is a pure function of NumPy arrays. An invalid sample is never dropped: it counts as the last close
repeated, so a model that answers nonsense is scored as if it had said "no change", and `valid` tells how
often.

Letters: B windows, S samples, H horizon, I central intervals, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from grpo.evaluation.protocol import Forecast
from preprocessing.windows import WindowSet

INTERVALS = (0.50, 0.80, 0.95)
"""Central intervals whose coverage and width are reported."""
PINBALL_LEVELS = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
"""Quantiles whose pinball loss is reported."""
_STRAIGHT_TOLERANCE = 1e-9
"""Largest second difference of a straight line, share of the last close: float64 rounding, no more."""
_BLOCK_VALUES = 2**15
"""Sample values scored at a time, 256 KiB: the temporaries of a block stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """Scores of B windows, and what tables, tests and trading rules need of their forecasts.

    Moves, errors and widths are in percent of the last close.

    The median of S samples is a noisy median: for Gaussian samples its mean absolute error lies about pi/(4 S) above
    that of the exact median, 0.8 % at S = 100. Forecasters are comparable at equal S only.

    Attributes:
        crps: [B, H] fair continuous ranked probability score of each step.
        energy: [B] fair energy score of the whole path.
        mean_move: [B, H] of the samples' mean.
        median_move: [B, H] of the samples' median.
        realised_move: [B, H] of the realised price.
        covered: [B, I, H] 1 where the central interval holds the realised price, else 0.
        width: [B, I, H] of the central intervals.
        pinball: [B, Q, H] loss of the quantiles at `PINBALL_LEVELS`.
        straight: [B] share of paths that are exact straight lines.
        valid: [B] share of samples that were usable.
        mase_scale: [B] what MASE divides by (`training_scale`), or NaN.
    """

    crps: np.ndarray
    energy: np.ndarray
    mean_move: np.ndarray
    median_move: np.ndarray
    realised_move: np.ndarray
    covered: np.ndarray
    width: np.ndarray
    pinball: np.ndarray
    straight: np.ndarray
    valid: np.ndarray
    mase_scale: np.ndarray

    @property
    def absolute_error(self) -> np.ndarray:
        """[B, H] of the median."""
        return np.abs(self.median_move - self.realised_move)

    @property
    def squared_error(self) -> np.ndarray:
        """[B, H] of the mean, percent squared."""
        # a path that overflowed has an infinite error, not NaN: the mean over windows must show it
        return _quietly(np.square, self.mean_move - self.realised_move)

    @property
    def percentage_error(self) -> np.ndarray:
        """[B, H] absolute error of the median in percent of the realised price."""
        return 100 * self.absolute_error / (100 + self.realised_move)

    @property
    def symmetric_percentage_error(self) -> np.ndarray:
        """[B, H] absolute error of the median in percent of the mean of median and realised price, at most 200."""
        return _quietly(np.divide, 200 * self.absolute_error, 200 + self.median_move + self.realised_move)

    @property
    def scaled_error(self) -> np.ndarray:
        """[B, H] absolute error of the median over the scale of MASE; NaN where that is not known."""
        return self.absolute_error / self.mase_scale[:, None]

    @property
    def direction_hit(self) -> np.ndarray:
        """[B] 1 if the median moves to the realised side of the last close by the last step.

        0 if to the other side, 1/2 if either of the two does not move.
        """
        # the signs' product is 1, 0 or -1: same side, no move, other side
        return (1 + np.sign(self.median_move[:, -1]) * np.sign(self.realised_move[:, -1])) / 2

    @property
    def always_up_hit(self) -> np.ndarray:
        """[B] the same for the forecast "up"."""
        return (1 + np.sign(self.realised_move[:, -1])) / 2

    def take(self, rows: np.ndarray) -> WindowScores:
        """The scores of some windows, by row number or boolean mask."""
        return WindowScores(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def at_step(self, step: int) -> WindowScores:
        """The scores of one step alone, 1 to H, as if it were the whole horizon.

        `energy` is then the CRPS, which it equals on one step; `straight` and `valid` stay those of the path.
        """
        steps = slice(step - 1, step)
        names = ("crps", "mean_move", "median_move", "realised_move", "covered", "width", "pinball")
        cut = {name: getattr(self, name)[..., steps] for name in names}
        return replace(self, energy=self.crps[:, step - 1], **cut)

    @staticmethod
    def concatenate(parts: list[WindowScores]) -> WindowScores:
        """Join the scores of several sets of windows, in the order given."""
        names = [field.name for field in fields(WindowScores)]
        return WindowScores(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def score_windows(forecast: Forecast, windows: WindowSet, mase_scale: np.ndarray | None = None) -> WindowScores:
    """Score a forecast of B windows against their future.

    Args:
        forecast: sample paths of the windows, S >= 2.
        windows: the windows with their truth.
        mase_scale: [B] from `training_scale`; without it the scaled error is NaN.

    Raises:
        ValueError: the future or the last close is not finite and positive; no score would mean anything.
    """
    last, future = windows.context.last_price, windows.truth.future
    if not (np.isfinite(future).all() and (future > 0).all() and np.isfinite(last).all() and (last > 0).all()):
        raise ValueError("last closes and realised prices must be finite and positive.")
    scale = np.full(len(last), np.nan) if mase_scale is None else mase_scale
    # A path that overflows has no finite score; the score is then infinite, never NaN, so that it cannot win.
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [
            _score_block(prices / last[rows, None, None], future[rows] / last[rows, None])
            | {"valid": forecast.valid[rows].mean(axis=1), "mase_scale": scale[rows]}
            for rows, prices in filled_blocks(forecast, last)
        ]
    return WindowScores(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def filled_blocks(forecast: Forecast, last_price: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of windows with their prices [b, S, H], invalid samples replaced by the last close [B]."""
    num_windows, num_samples, horizon = forecast.samples.shape
    # blocks that fit the processor's cache; a window is never split over two, so its scores do not depend, to the last
    # bit, on which windows lie beside it
    size = max(1, _BLOCK_VALUES // (num_samples * horizon))
    for start in range(0, max(1, num_windows), size):
        rows = slice(start, start + size)
        yield rows, np.where(forecast.valid[rows, :, None], forecast.samples[rows], last_price[rows, None, None])


def _score_block(relative: np.ndarray, relative_truth: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of prices [b, S, H] and their truth [b, H], both divided by the last close."""
    samples, truth = 100 * (relative - 1), 100 * (relative_truth - 1)
    ordered = _sort_steps(samples)  # the only sort: CRPS, median and every quantile read from it
    tail = _tails()
    # the ends of all intervals in one look-up: first I lower ones, then I upper ones
    ends = _quantiles(ordered, np.concatenate([tail, 1 - tail]))  # [b, 2 I, H]
    lower, upper = ends[:, : len(tail)], ends[:, len(tail) :]
    return {
        "crps": _worst_if_nan(_crps_of_ordered(ordered, truth)),
        # whole paths: the order of the days within a sample counts, so these are not sorted
        "energy": _worst_if_nan(fair_energy_score(samples, truth)),
        "mean_move": ordered.mean(axis=-1),
        "median_move": _median_of_ordered(ordered),
        "realised_move": truth,
        "covered": ((lower <= truth[:, None]) & (truth[:, None] <= upper)).astype(np.float64),
        "width": _worst_if_nan(upper - lower),
        "pinball": _worst_if_nan(pinball_loss(_quantiles(ordered, np.array(PINBALL_LEVELS)), truth)),
        "straight": straight_line_share(relative),
    }


def training_scale(train: WindowSet, windows: WindowSet) -> np.ndarray:
    """[B] scale of MASE (Hyndman and Koehler 2006): the stock's mean absolute one-day change in training.

    The mean runs over the days after the training origins, in price units, and is given in percent of the last close
    of the window that is scored.

    Raises:
        ValueError: a stock has no training window.
    """
    # training windows only: a scale that saw the test span would leak how far prices move there
    # [B] one-day changes in price units
    changes = np.abs(train.truth.future[:, 0] - train.context.last_price)
    stocks = np.array(train.context.item_id)
    scale = {stock: changes[stocks == stock].mean() for stock in np.unique(stocks)}
    for stock in windows.context.item_id:
        if stock not in scale:
            raise ValueError(f"{stock} has no training window, so that its errors have no scale for MASE.")
    return 100 * np.array([scale[stock] for stock in windows.context.item_id]) / windows.context.last_price


def summarise(scores: WindowScores) -> dict[str, float]:
    """Means over windows and steps; the root of the mean squared error; R2 against "no change".

    `r2` is 1 - sum (y - mean)^2 / sum (y - last close)^2, positive where the mean beats the last close (Campbell and
    Thompson 2008); NaN where no price moved.
    """
    squared_move = np.square(scores.realised_move).sum()
    with np.errstate(over="ignore"):  # large finite scores may have an infinite sum
        summary = {
            "crps": scores.crps.mean(),
            "energy": scores.energy.mean(),
            "mae": scores.absolute_error.mean(),
            "rmse": np.sqrt(scores.squared_error.mean()),
            "mape": scores.percentage_error.mean(),
            "smape": scores.symmetric_percentage_error.mean(),
            "mase": scores.scaled_error.mean(),
            "r2": 1 - scores.squared_error.sum() / squared_move if squared_move > 0 else np.nan,
            "pinball": scores.pinball.mean(),
            "direction_hit": scores.direction_hit.mean(),
            "always_up_hit": scores.always_up_hit.mean(),
            "straight_lines": scores.straight.mean(),
            "valid": scores.valid.mean(),
        }
        for i, level in enumerate(INTERVALS):
            summary[f"coverage_{round(100 * level)}"] = scores.covered[:, i].mean()
            summary[f"width_{round(100 * level)}"] = scores.width[:, i].mean()
    return {name: float(value) for name, value in summary.items()}


def summarise_by(scores: WindowScores, keys: np.ndarray) -> pd.DataFrame:
    """`summarise` of the windows of each key (stock, date, fold, ...), keys [B] ascending in the index."""
    return _summary_table({key: scores.take(keys == key) for key in np.unique(keys)})


def summarise_steps(scores: WindowScores) -> pd.DataFrame:
    """`summarise` of each step alone, 1 to H in the index."""
    return _summary_table({step: scores.at_step(step) for step in range(1, scores.crps.shape[1] + 1)})


def _summary_table(parts: Mapping[Any, WindowScores]) -> pd.DataFrame:
    return pd.DataFrame([summarise(part) for part in parts.values()], index=pd.Index(parts.keys()))


def fair_crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fair CRPS, mean |x_i - y| - 1/(2 S (S-1)) sum_ij |x_i - x_j|, in O(S log S).

    Its expectation does not depend on S (Ferro 2014), so forecasts of different sizes compare. The pair sum of sorted
    values is 2 sum_i (2i - S - 1) x_(i), i = 1..S.

    Args:
        samples: [B, S, H], S >= 2.
        truth: [B, H].

    Returns:
        [B, H]
    """
    return _crps_of_ordered(_sort_steps(samples), truth)


def _crps_of_ordered(ordered: np.ndarray, truth: np.ndarray) -> np.ndarray:
    num_samples = _require_pairs(ordered.shape[-1])
    # mean |x_i - x_j| / 2 over pairs is a weighted sum of the sorted values: x_(i) is the larger of i - 1 pairs and the
    # smaller of S - i, which makes 2 i - S - 1
    weights = (2 * np.arange(1, num_samples + 1) - num_samples - 1) / (num_samples * (num_samples - 1))
    # a sum, not a matrix product: its order, and so its last bit, does not depend on the number of windows
    return np.abs(ordered - truth[..., None]).mean(axis=-1) - (ordered * weights).sum(axis=-1)


def fair_energy_score(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fair energy score, mean ||x_i - y|| - 1/(2 S (S-1)) sum_ij ||x_i - x_j||, Euclidean norm over H.

    Args:
        samples: [B, S, H], S >= 2.
        truth: [B, H].

    Returns:
        [B]
    """
    num_samples = _require_pairs(samples.shape[1])
    steps = np.moveaxis(samples, 2, 0)  # [H, B, S]
    # distances from differences, not from a Gram matrix, whose rounding near-equal samples would not survive
    error = _distances(steps - truth.T[:, :, None]).mean(axis=-1)
    # Sample i beside sample i + shift, counted round: shifts up to S/2 meet each pair once, S/2 itself twice.
    # all samples twice, [H, B, 2 S], so that a shifted slice runs round without an index array
    ring = np.concatenate([steps, steps], axis=-1)
    pairs = np.zeros(samples.shape[0])
    for shift in range(1, num_samples // 2 + 1):
        distances = _distances(ring[:, :, shift : shift + num_samples] - ring[:, :, :num_samples]).sum(axis=-1)
        pairs += distances / 2 if 2 * shift == num_samples else distances
    return error - pairs / (num_samples * (num_samples - 1))


def _distances(differences: np.ndarray) -> np.ndarray:
    """Euclidean norms over the first axis; overwrites its argument."""
    # in place: a second array of this size would push the block out of the cache
    np.multiply(differences, differences, out=differences)
    return np.sqrt(differences.sum(axis=0))


def central_intervals(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of `INTERVALS`, [B, I, H] each, from samples [B, S, H].

    If truth and samples come from one law, they cover exactly their level on average, whatever S. With fewer than 39
    samples the 95 % interval ends at the smallest and largest sample.
    """
    tail, ordered = _tails(), _sort_steps(samples)
    return _quantiles(ordered, tail), _quantiles(ordered, 1 - tail)


def pinball_loss(quantiles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[B, Q, H] loss of quantiles [B, Q, H] at `PINBALL_LEVELS`: p (y - q) where y >= q, else (1 - p) (q - y)."""
    levels = np.array(PINBALL_LEVELS)[:, None]
    # [B, Q, H]: positive where the price came out above the quantile
    # the larger of two lines: above the quantile the first is positive, below it the second
    above = truth[:, None] - quantiles
    return np.maximum(levels * above, (levels - 1) * above)


def straight_line_share(paths: np.ndarray) -> np.ndarray:
    """[B] share of the paths [B, S, H] whose steps are all equal, in price or in log price.

    Args:
        paths: prices divided by the last close; with H < 3 every path is such a line.
    """

    def is_straight(values: np.ndarray) -> np.ndarray:
        return np.all(np.abs(np.diff(values, n=2, axis=-1)) <= _STRAIGHT_TOLERANCE, axis=-1)

    # a model that extrapolates does so in prices or in percent; either way no path has a shape
    return (is_straight(paths) | is_straight(np.log(paths))).mean(axis=1)


def _tails() -> np.ndarray:
    return (1 - np.array(INTERVALS)) / 2


def _sort_steps(samples: np.ndarray) -> np.ndarray:
    """Samples [B, S, H] as [B, H, S], ascending."""
    # [B, H, S] laid out anew, so that what is sorted together also lies together in memory
    return np.sort(np.ascontiguousarray(np.swapaxes(samples, 1, 2)), axis=-1)


def _median_of_ordered(ordered: np.ndarray) -> np.ndarray:
    num_samples = ordered.shape[-1]
    return (ordered[..., (num_samples - 1) // 2] + ordered[..., num_samples // 2]) / 2


def _quantiles(ordered: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """[B, Q, H] as np.quantile(..., method="weibull") gives them, from samples [B, H, S] in ascending order."""
    num_samples = ordered.shape[-1]
    # The order statistic at p (S + 1), not NumPy's default at p (S - 1) + 1: of an 80 % interval of 100 samples that
    # would cover 78 %. Levels further out than the samples reach stop at the smallest and the largest.
    position = np.clip(num_samples * levels + levels - 1, 0, num_samples - 1)  # p (S + 1), counted from 0
    below = np.floor(position).astype(int)
    # [B, H, Q] to [B, Q, H]
    left = np.swapaxes(ordered[..., below], 1, 2)
    step = np.swapaxes(ordered[..., np.minimum(below + 1, num_samples - 1)], 1, 2) - left
    share = (position - below)[:, None]
    # from the nearer end, as NumPy does, so that rounding agrees too
    return np.where(share < 0.5, left + step * share, (left + step) - step * (1 - share))


def _require_pairs(num_samples: int) -> int:
    if num_samples < 2:
        raise ValueError(f"a fair score compares samples with each other and needs 2 or more; got {num_samples}.")
    return num_samples


def _worst_if_nan(score: np.ndarray) -> np.ndarray:
    # infinite minus infinite: the path overflowed, and a forecast must not gain by that
    return np.where(np.isnan(score), np.inf, score)


def _quietly(function: np.ufunc, *arguments: np.ndarray) -> np.ndarray:
    """The function's value, infinite where a path that overflowed leaves none."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _worst_if_nan(function(*arguments))
