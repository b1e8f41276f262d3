"""Inputs of a report without any model: samples around the last close, and the tables that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import describe_windows, leaderboard, optimum_note, verdict
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.report import ReportInputs
from preprocessing.windows import WindowSet

NAMES = ("random_walk", "sft", "optimum")


def build_windows(
    make_windows: Callable[..., WindowSet], *, dates: int = 12, stocks: int = 1, horizon: int = 3
) -> WindowSet:
    """Windows of every stock on each of the dates; the future falls back half way to 100, so it can be learnt."""
    rng = np.random.default_rng(0)
    count = dates * stocks
    last = 100 * np.exp(0.03 * rng.standard_normal(count))
    shocks = 0.01 * rng.standard_normal((count, horizon)).cumsum(axis=1)
    future = 100 * (last / 100)[:, None] ** (0.5 ** np.arange(1, horizon + 1)) * np.exp(shocks)
    items = [f"S{i % stocks:02d}" for i in range(count)]
    return make_windows(last, future, items=items, days=np.arange(count) // stocks)


def evaluate_law(name: str, windows: WindowSet, *, samples: int = 19, valid: float = 1.0) -> Evaluation:
    """The optimum samples the law of `build_windows`; all others a random walk of their own width."""
    rng = np.random.default_rng(sum(name.encode()))
    last = windows.context.last_price
    shape = (len(windows), samples, windows.horizon)
    centre = np.repeat(last[:, None], windows.horizon, axis=1)
    width = 0.03 if name == "random_walk" else 0.01 + 0.002 * (len(name) % 5)
    if name == "optimum":
        centre, width = 100 * (last / 100)[:, None] ** (0.5 ** np.arange(1, windows.horizon + 1)), 0.01
    paths = centre[:, None] * np.exp(width * rng.standard_normal(shape).cumsum(axis=2))
    paths[rng.random(shape[:2]) >= valid] = np.nan
    forecast = Forecast(samples=paths, valid=np.isfinite(paths).all(axis=-1))
    return Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=0.25)


def build_inputs(windows: WindowSet, evaluations: Sequence[Evaluation], **changes: Any) -> ReportInputs:
    """What a comparison of these forecasts would report."""
    table = leaderboard(evaluations, windows)
    fields: dict[str, Any] = {
        "title": "Test windows of S00",
        "verdict": verdict(table),
        "summary": describe_windows(windows, 19),
        "facts": {"stock": "S00", "command": "compare --stock S00"},
        "table": table,
        "evaluations": evaluations,
        "windows": windows,
        "histories": {},
        "completions": None,
        "warnings": (),
        "extra_tables": {},
        "optimum_note": optimum_note(table),
    }
    return ReportInputs(**fields | changes)
