"""Every score with a 95 % interval: pooled, for each day ahead, and for each stock.

All come from the block bootstrap over dates (`bootstrap_interval`), which keeps the windows of a date together and the
dependence of neighbouring dates.

Letters: B windows, H horizon, D dates, K columns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from tqdm import tqdm

from grpo.evaluation.bootstrap import Statistic, bootstrap_interval, ratio, skill
from grpo.evaluation.comparison import Comparison
from grpo.evaluation.dates import sum_by_date
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE, date_horizon
from grpo.evaluation.metrics import INTERVALS, WindowScores
from preprocessing.windows import WindowSet

NUM_RESAMPLES = 200
"""Resamples behind each interval: the table has thousands of them."""

Values = Callable[[WindowScores], np.ndarray]


def _covered(place: int) -> Values:
    return lambda scores: scores.covered[:, place].mean(axis=1)


def _width(place: int) -> Values:
    return lambda scores: scores.width[:, place].mean(axis=1)


_MEANS: dict[str, Values] = {
    "crps": lambda scores: scores.crps.mean(axis=1),
    "energy": lambda scores: scores.energy,
    "mae": lambda scores: scores.absolute_error.mean(axis=1),
    "mape": lambda scores: scores.percentage_error.mean(axis=1),
    "smape": lambda scores: scores.symmetric_percentage_error.mean(axis=1),
    "mase": lambda scores: scores.scaled_error.mean(axis=1),
    "pinball": lambda scores: scores.pinball.reshape(len(scores.pinball), -1).mean(axis=1),
    "direction_hit": lambda scores: scores.direction_hit,
    "straight_lines": lambda scores: scores.straight,
    "valid": lambda scores: scores.valid,
    **{f"coverage_{round(100 * level)}": _covered(place) for place, level in enumerate(INTERVALS)},
    **{f"width_{round(100 * level)}": _width(place) for place, level in enumerate(INTERVALS)},
}
"""[B] values whose mean over windows is the score."""


def interval_table(comparison: Comparison) -> pd.DataFrame:
    """Columns scope (`pooled`, `day 1`, ..., the name of a stock), forecaster, score, estimate, low, high, num_dates.

    The scores are those of `summarise` and, against the random walk, rel_crps, rel_mae and skill. An interval is NaN
    where the dates are too few for blocks as long as the horizon, where a score is not finite, and where every date has
    the same value.
    """
    parts = {"pooled": comparison}
    parts |= {f"day {step}": comparison.at_step(step) for step in range(1, comparison.windows.horizon + 1)}
    stocks = np.unique(comparison.stock)
    if len(stocks) > 1:
        parts |= {str(stock): comparison.take(comparison.stock == stock) for stock in stocks}
    rows = []
    for scope, part in tqdm(parts.items(), "intervals", leave=False):
        rows += [{"scope": scope, **row} for row in _rows(part)]
    return pd.DataFrame(rows)


def _rows(comparison: Comparison) -> list[dict[str, object]]:
    evaluations = {evaluation.name: evaluation for evaluation in comparison.ranked}
    dates, horizon = comparison.windows.context.origin, date_horizon(comparison.windows)
    rows = []
    for name, evaluation in evaluations.items():
        for score, (columns, statistic) in _scores(evaluation, evaluations, comparison.windows).items():
            interval = bootstrap_interval(
                sum_by_date(columns, dates), statistic, horizon=horizon, num_resamples=NUM_RESAMPLES
            )
            found = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
            rows.append({"forecaster": name, "score": score, **found, "num_dates": interval.num_dates})
    return rows


def _scores(
    evaluation: Evaluation, evaluations: dict[str, Evaluation], windows: WindowSet
) -> dict[str, tuple[np.ndarray, Statistic]]:
    """Columns [B, K] and the function of their sums over dates that is the score."""
    scores = evaluation.scores
    # the second column counts windows, so that the ratio is the mean over windows however many a date has
    ones = np.ones(len(windows))
    found: dict[str, tuple[np.ndarray, Statistic]] = {
        name: (np.stack([values(scores), ones], axis=1), ratio) for name, values in _MEANS.items()
    }
    squared, moved = scores.squared_error.mean(axis=1), np.square(scores.realised_move).mean(axis=1)
    # the root and the quotient are taken of the sums over dates, not of each date: the score of the pooled table is
    # theirs
    found["rmse"] = np.stack([squared, ones], axis=1), _root
    found["r2"] = np.stack([squared, moved], axis=1), _explained
    if evaluation.name != REFERENCE:
        walk = evaluations[REFERENCE].scores
        for name in ("crps", "mae"):
            columns = np.stack([_MEANS[name](scores), _MEANS[name](walk)], axis=1)
            found[f"rel_{name}"] = columns, ratio
        # all three in one bootstrap: they rise and fall together, and the skill varies far less than each
        if OPTIMUM in evaluations and evaluation.name != OPTIMUM:
            three = (scores, walk, evaluations[OPTIMUM].scores)
            found["skill"] = np.stack([_MEANS["crps"](each) for each in three], axis=1), skill
    return found


def _root(means: np.ndarray) -> np.ndarray:
    return np.sqrt(ratio(means))


def _explained(means: np.ndarray) -> np.ndarray:
    return 1 - ratio(means)
