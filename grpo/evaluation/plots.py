"""Pictures of a comparison. Each function writes one PNG; none needs a display or touches global state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.metrics import INTERVALS, central_intervals
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet

# Okabe and Ito (2008), told apart with any kind of colour vision; black and grey are for the two yardsticks.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MEDIAN_COLOUR = "#08306B"  # the bands' hue, dark enough to stand out from the innermost
_MARKERS = "osD^vPX"
_BAND_SHADES = (0.55, 0.32, 0.16)
_DPI = 130


def fan_chart(subject: Evaluation, reference: Evaluation, windows: WindowSet, path: Path) -> None:
    """Best, median and worst window of a forecaster by CRPS, beside the reference on the same windows."""
    order = np.argsort(subject.scores.crps.mean(axis=1), kind="stable")
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(3, 2, sharex=True, sharey="row")
    for row, (label, window) in zip(axes, chosen.items(), strict=True):
        for axis, evaluation in zip(row, (subject, reference), strict=True):
            _draw_fan(axis, evaluation, windows, int(window))
            crps = evaluation.scores.crps[window].mean()
            axis.set_title(f"{evaluation.name}: CRPS {crps:.2f} %", fontsize=10)
        date = np.datetime_as_string(windows.context.origin[window], unit="D")
        row[0].set_ylabel(
            f"{label} window of {subject.name}\n{windows.context.item_id[window]}, {date}\nprice", fontsize=9
        )
    for axis in axes[-1]:
        axis.set_xlabel("trading days from the origin")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    _save(figure, path)


def _draw_fan(axis: Axes, evaluation: Evaluation, windows: WindowSet, window: int) -> None:
    past, future = windows.context.past[window, :, 0], windows.truth.future[window]
    last = past[-1]
    samples = np.where(evaluation.forecast.valid[window][:, None], evaluation.forecast.samples[window], last)
    # The origin belongs to past, median, bands and realised path, so that all of them connect.
    samples = np.concatenate([np.full((len(samples), 1), last), samples], axis=1)[None]  # [1, S, 1 + H]
    days = np.arange(len(future) + 1)
    lower, upper = (ends[0] for ends in central_intervals(samples))
    for i in reversed(range(len(INTERVALS))):
        label = f"{INTERVALS[i]:.0%} interval"
        axis.fill_between(days, lower[i], upper[i], color=_COLOURS[0], alpha=_BAND_SHADES[i], linewidth=0, label=label)
    axis.plot(np.arange(1 - len(past), 1), past, color="#444444", linewidth=1.2, label="past closes")
    axis.plot(days, np.median(samples[0], axis=0), color=_MEDIAN_COLOUR, linewidth=1.8, label="median")
    axis.plot(days, np.append(last, future), color=_COLOURS[1], linewidth=1.8, linestyle="--", label="realised")
    axis.grid(alpha=0.25)


def error_by_horizon(evaluations: Sequence[Evaluation], path: Path) -> None:
    """CRPS of each step, as it is and relative to the random walk."""
    reference = next(evaluation for evaluation in evaluations if evaluation.name == REFERENCE)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    absolute, relative = figure.subplots(1, 2)
    for evaluation, style in zip(evaluations, _styles(evaluations), strict=True):
        crps = evaluation.scores.crps.mean(axis=0)
        days = np.arange(1, len(crps) + 1)
        absolute.plot(days, crps, label=evaluation.name, **style)
        relative.plot(days, crps / reference.scores.crps.mean(axis=0), **style)
    absolute.set_ylabel("CRPS, % of the last close")
    relative.set_ylabel("CRPS relative to the random walk")
    for axis in (absolute, relative):
        axis.set_xlabel("days ahead")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=_legend_columns(len(evaluations)), frameon=False)
    _save(figure, path)


def coverage(evaluations: Sequence[Evaluation], path: Path) -> None:
    """How often each central interval held the realised price, beside how often it should."""
    figure = Figure(figsize=(8, 1.6 + 0.45 * len(evaluations)), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(evaluations))[::-1]
    for i, level in enumerate(INTERVALS):
        colour, marker = _COLOURS[i], _MARKERS[i]
        shares = [evaluation.scores.covered[:, i].mean() for evaluation in evaluations]
        axis.axvline(level, color=colour, linewidth=1.2, linestyle="--", alpha=0.7)
        axis.plot(shares, rows, marker, color=colour, markersize=8, label=f"{level:.0%} interval")
    axis.set_yticks(rows, [evaluation.name for evaluation in evaluations])
    axis.set_ylim(-0.6, len(evaluations) - 0.4)
    axis.set_xlim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xlabel("share of realised prices inside (dashed: what it should be)")
    axis.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside upper center", ncols=len(INTERVALS), frameon=False)
    _save(figure, path)


def training_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """What each stage optimised (reward, or loss where there is none) above its validation CRPS, by step.

    Args:
        histories: the trainer's log per stage; entries hold `step` and some of `reward`, `loss`, `eval_crps`.
        path: the PNG to write.
    """
    figure = Figure(figsize=(4.2 * len(histories), 6), layout="constrained")
    axes = figure.subplots(2, len(histories), squeeze=False, sharex="col")
    for (stage, log), (above, below) in zip(histories.items(), axes.T, strict=True):
        objective = "reward" if any("reward" in entry for entry in log) else "loss"
        for axis, key, colour in ((above, objective, _COLOURS[0]), (below, "eval_crps", _COLOURS[1])):
            points = [(entry["step"], entry[key]) for entry in log if key in entry]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, linewidth=1.2)
            else:
                axis.set_yticks([])
                axis.text(
                    0.5,
                    0.5,
                    "not logged",
                    transform=axis.transAxes,
                    ha="center",
                    va="center",
                    color="#666666",
                )
            axis.grid(alpha=0.25)
        above.set_title(stage, fontsize=10)
        above.set_ylabel(f"training {objective}")
        below.set_ylabel("validation CRPS, % of the last close")
        below.set_xlabel("optimizer step")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, path)


def _legend_columns(entries: int) -> int:
    """Columns of the fewest rows of at most six entries."""
    return math.ceil(entries / math.ceil(entries / 6))


def _styles(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """A colour and marker per forecaster; random walk and optimum are black and grey in every picture."""
    yardsticks = {
        REFERENCE: {
            "color": "black",
            "linewidth": 5.0,
            "alpha": 0.3,
        },  # wide: seen below a line that covers it
        OPTIMUM: {"color": "#888888", "linewidth": 2.0, "linestyle": ":"},
    }
    styles, used = [], 0
    for evaluation in evaluations:
        if evaluation.name in yardsticks:
            styles.append(yardsticks[evaluation.name])
            continue
        colour, marker = _COLOURS[used % len(_COLOURS)], _MARKERS[used % len(_MARKERS)]
        styles.append({"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4})
        used += 1
    return styles


def _save(figure: Figure, path: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DPI)
    write_atomically(path, image.getvalue())
