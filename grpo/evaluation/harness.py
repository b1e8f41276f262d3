"""Ask forecasters about test windows, keep the truth away from them, and score what they say.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from grpo.evaluation.metrics import INTERVALS, WindowScores, score_windows
from grpo.evaluation.protocol import Forecast, Forecaster
from preprocessing.errors import UserError
from preprocessing.windows import Context, WindowSet


class ForecastError(UserError):
    """A forecaster broke the protocol; the message names it and what it did."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one forecaster said about the windows, and how good it was.

    Attributes:
        name: the forecaster.
        forecast: its sample paths.
        scores: its scores per window.
        seconds: time it took to predict, or NaN where that is not known.
    """

    name: str
    forecast: Forecast
    scores: WindowScores
    seconds: float

    def take(self, rows: np.ndarray) -> Evaluation:
        """Forecast and scores of some windows, by row number or boolean mask; `seconds` stays that of all."""
        return Evaluation(
            name=self.name, forecast=self.forecast.take(rows), scores=self.scores.take(rows), seconds=self.seconds
        )


def predict(
    forecaster: Forecaster, context: Context, *, horizon: int, num_samples: int, seed: int
) -> tuple[Forecast, float]:
    """A forecaster's answer and the seconds it took. It gets a copy of the context.

    Raises:
        ForecastError: the answer has another shape than was asked for.
    """
    began = time.perf_counter()
    # a copy: a forecaster that writes into its input must not change what the next one sees
    forecast = forecaster.predict(_copy(context), horizon=horizon, num_samples=num_samples, seed=seed)
    seconds = time.perf_counter() - began
    expected = (len(context), num_samples, horizon)
    if forecast.samples.shape != expected:
        raise ForecastError(f"{forecaster.name} returned samples {forecast.samples.shape}; asked for {expected}.")
    return forecast, seconds


def evaluate(forecaster: Forecaster, windows: WindowSet, *, num_samples: int, seed: int) -> Evaluation:
    """Predict, then score; the forecaster sees nothing of the truth."""
    forecast, seconds = predict(
        forecaster, windows.context, horizon=windows.horizon, num_samples=num_samples, seed=seed
    )
    scores = score_windows(forecast, windows)
    return Evaluation(name=forecaster.name, forecast=forecast, scores=scores, seconds=seconds)


def choose_windows(context: Context, max_windows: int) -> np.ndarray:
    """Row numbers of at most `max_windows` windows: equally many per stock, spread evenly over its dates.

    The stocks' grids are shifted against each other, so that together they touch as many dates as they can.
    Zero chooses all; every stock keeps at least one window.
    """
    if max_windows == 0 or len(context) <= max_windows:
        return np.arange(len(context))
    items, chosen = np.array(context.item_id), []
    names = np.unique(items)
    quota = max(1, max_windows // len(names))
    for number, name in enumerate(names):
        rows = np.flatnonzero(items == name)
        # by time: files may hold a stock's windows in any order
        rows = rows[np.argsort(context.origin[rows], kind="stable")]
        # each stock's grid is shifted by its share of a step, so that together they touch many dates
        grid = (np.arange(min(quota, len(rows))) + (number + 0.5) / len(names)) / min(quota, len(rows))
        chosen.append(rows[(grid * len(rows)).astype(int)])
    return np.sort(np.concatenate(chosen))


def on_common_valid(evaluations: Sequence[Evaluation], windows: WindowSet) -> tuple[list[Evaluation], WindowSet]:
    """Score again on what all forecasters answered: no filled-in samples, equal sizes.

    Of each window every forecaster keeps its first m valid samples, m being the fewest that any of them has;
    windows with m < 2 are left out, and where that leaves none the list is empty.
    """
    # equally many samples for all: the median of few samples is noisier, and would cost a forecaster that answered less
    fewest = np.min([evaluation.forecast.valid.sum(axis=1) for evaluation in evaluations], axis=0)  # [B]
    kept = np.flatnonzero(fewest >= 2)
    subset = windows.take(kept)
    if len(kept) == 0:
        return [], subset
    return [
        Evaluation(
            name=evaluation.name,
            forecast=evaluation.forecast,
            scores=_score_valid(evaluation.forecast, windows, fewest, kept),
            seconds=evaluation.seconds,
        )
        for evaluation in evaluations
    ], subset


def _score_valid(forecast: Forecast, windows: WindowSet, counts: np.ndarray, kept: np.ndarray) -> WindowScores:
    """Scores of the kept windows from their first counts[b] valid samples, in the order of `kept`."""
    first_valid = np.argsort(~forecast.valid, axis=1, kind="stable")  # [B, S] valid samples first, in their order
    order, parts = [], []
    # windows with equally many samples go together, because an array has one S
    for count in np.unique(counts[kept]):
        rows = kept[counts[kept] == count]
        samples = np.take_along_axis(forecast.samples[rows], first_valid[rows, :count, None], axis=1)
        part = Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))
        parts.append(score_windows(part, windows.take(rows)))
        order.append(rows)
    # argsort of the order undoes it: back to the order of `kept`
    return WindowScores.concatenate(parts).take(np.argsort(np.concatenate(order)))


def rows_table(evaluations: Sequence[Evaluation], windows: WindowSet) -> pd.DataFrame:
    """One row per forecaster and window: date, stock, prices and scores (percent of the last close)."""
    identity = {
        "date": np.datetime_as_string(windows.context.origin, unit="D"),
        "stock": windows.context.item_id,
        "last_close": windows.context.last_price,
        "realised_close": windows.truth.future[:, -1],
    }
    tables = []
    for evaluation in evaluations:
        scores = evaluation.scores
        columns = {
            "crps": scores.crps.mean(axis=1),
            "energy": scores.energy,
            "mae": scores.absolute_error.mean(axis=1),
            "mse": scores.squared_error.mean(axis=1),
            "direction_hit": scores.direction_hit,
            "straight_lines": scores.straight,
            "valid": scores.valid,
        }
        for i, level in enumerate(INTERVALS):
            columns[f"coverage_{round(100 * level)}"] = scores.covered[:, i].mean(axis=1)
            columns[f"width_{round(100 * level)}"] = scores.width[:, i].mean(axis=1)
        tables.append(pd.DataFrame({"forecaster": evaluation.name, **identity, **columns}))
    return pd.concat(tables, ignore_index=True)


def _copy(context: Context) -> Context:
    return Context(
        item_id=context.item_id,
        origin=context.origin.copy(),
        past=context.past.copy(),
        features=context.features.copy(),
        memories=None if context.memories is None else context.memories.copy(),
    )
