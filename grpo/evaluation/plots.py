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

from grpo.evaluation import chart_data
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import REFERENCE
from grpo.evaluation.metrics import INTERVALS
from grpo.evaluation.palette import LIGHT, Style, forecaster_styles
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet

_BAND_SHADES = (0.55, 0.32, 0.16)
_INTERVAL_MARKERS = "osD"
_PANELS_IN_A_ROW = 4
_DPI = 130


def fan_chart(subject: Evaluation, reference: Evaluation, windows: WindowSet, path: Path) -> None:
    """Best, median and worst window of a forecaster by CRPS, beside the reference on the same windows."""
    chosen = chart_data.best_median_worst(subject)
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(3, 2, sharex=True, sharey="row")
    for row, (label, window) in zip(axes, chosen.items(), strict=True):
        for axis, evaluation in zip(row, (subject, reference), strict=True):
            _draw_fan(axis, chart_data.fan(evaluation, windows, window))
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


def _draw_fan(axis: Axes, fan: chart_data.Fan) -> None:
    for i in reversed(range(len(INTERVALS))):
        label = f"{INTERVALS[i]:.0%} interval"
        axis.fill_between(
            fan.days, fan.lower[i], fan.upper[i], color=LIGHT[0], alpha=_BAND_SHADES[i], linewidth=0, label=label
        )
    axis.plot(fan.past_days, fan.past, color="#444444", linewidth=1.2, label="past closes")
    axis.plot(fan.days, fan.median, color="#08306B", linewidth=1.8, label="median")  # the bands' hue, darker
    axis.plot(fan.days, fan.realised, color=LIGHT[1], linewidth=1.8, linestyle="--", label="realised")
    axis.grid(alpha=0.25)


def error_by_horizon(evaluations: Sequence[Evaluation], path: Path) -> None:
    """CRPS of each step, as it is and relative to the random walk."""
    reference = chart_data.reference_of(evaluations)
    styles = _styles(evaluations)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    absolute, relative = figure.subplots(1, 2)
    for evaluation in evaluations:
        crps, look = evaluation.scores.crps.mean(axis=0), _line(styles[evaluation.name])
        days = np.arange(1, len(crps) + 1)
        absolute.plot(days, crps, label=evaluation.name, **look)
        relative.plot(days, chart_data.crps_by_step(evaluation, reference), **look)
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
        colour, marker = LIGHT[i], _INTERVAL_MARKERS[i]
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


def pit(evaluations: Sequence[Evaluation], windows: WindowSet, path: Path) -> None:
    """PIT histogram per forecaster, its p value, and the band in which a calibrated one stays 19 times of 20."""
    columns = min(_PANELS_IN_A_ROW, len(evaluations))
    rows = math.ceil(len(evaluations) / columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.0 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    styles, bins = _styles(evaluations), chart_data.PIT_BINS
    for axis, evaluation in zip(axes.flat, evaluations, strict=False):
        histogram = chart_data.pit_histogram(evaluation, windows)
        middles, half = (np.arange(bins) + 0.5) / bins, histogram.band * bins
        axis.bar(middles, 2 * half, 1 / bins, bottom=1 - half, color="#DDDDDD", linewidth=0)
        axis.bar(middles, histogram.shares * bins, 0.92 / bins, color=styles[evaluation.name].colour)
        for edge in (1 - half, 1 + half):
            axis.hlines(edge, middles - 0.5 / bins, middles + 0.5 / bins, color="#333333", linewidth=0.8)
        p = "" if np.isnan(histogram.p_value) else f": p {histogram.p_value:.3f}"
        axis.set_title(f"{evaluation.name}{p}", fontsize=10)
    for axis in axes.flat[len(evaluations) :]:
        axis.set_visible(False)
    axes[0, 0].set_ylim(0)
    figure.supxlabel("rank of the realised price among the samples (PIT)", fontsize=10)
    figure.supylabel("density", fontsize=10)
    _save(figure, path)


def skill_by_stock(evaluations: Sequence[Evaluation], windows: WindowSet, path: Path) -> None:
    """CRPS relative to the random walk per stock with 95 % intervals, a panel per forecaster, best stock on top."""
    shown = [evaluation for evaluation in evaluations if evaluation.name != REFERENCE] or list(evaluations)
    reference, styles = chart_data.reference_of(evaluations), _styles(evaluations)
    rows = [chart_data.crps_by_stock(evaluation, reference, windows) for evaluation in shown]
    columns = min(_PANELS_IN_A_ROW, len(shown))
    lines = math.ceil(len(shown) / columns)
    height = 1.0 + 0.2 * len(rows[0])
    figure = Figure(figsize=(3.2 * columns + 0.4, lines * height + 0.4), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True).flat
    for axis, evaluation, ratios in zip(axes, shown, rows, strict=False):
        y, colour = np.arange(len(ratios))[::-1], styles[evaluation.name].colour
        axis.axvline(1, color="#888888", linewidth=1)
        axis.hlines(y, [r.low for r in ratios], [r.high for r in ratios], color=colour, alpha=0.5)
        axis.plot([r.ratio for r in ratios], y, "o", color=colour, markersize=4)
        axis.set_yticks(y, [r.stock for r in ratios], fontsize=7)
        axis.set_ylim(-0.7, len(ratios) - 0.3)
        axis.set_title(evaluation.name, fontsize=10)
        axis.grid(axis="x", alpha=0.25)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("CRPS relative to the random walk", fontsize=10)
    _save(figure, path)


def skill_by_date(evaluations: Sequence[Evaluation], windows: WindowSet, path: Path) -> None:
    """CRPS minus the random walk's, averaged per date and accumulated; the line ends at the mean over dates."""
    reference, styles = chart_data.reference_of(evaluations), _styles(evaluations)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axis = figure.subplots()
    for evaluation in evaluations:
        dates, accumulated = chart_data.accumulated_difference(evaluation, reference, windows)
        look = _line(styles[evaluation.name]) | {"marker": ""}
        axis.plot(dates.astype("datetime64[D]"), accumulated, label=evaluation.name, **look)  # pyright: ignore[reportArgumentType]
    axis.set_ylabel("accumulated CRPS difference, % of the last close\n(below 0: better than the random walk)")
    axis.set_xlabel("origin")
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=_legend_columns(len(evaluations)), frameon=False)
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
        objective = chart_data.objective(log)
        for axis, key, colour in ((above, objective, LIGHT[0]), (below, "eval_crps", LIGHT[1])):
            points = chart_data.logged(log, key)
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, linewidth=1.2)
            else:
                axis.set_yticks([])
                axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", va="center", color="#666666")
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


def _styles(evaluations: Sequence[Evaluation]) -> dict[str, Style]:
    return forecaster_styles([evaluation.name for evaluation in evaluations])


def _line(style: Style) -> dict[str, Any]:
    """Matplotlib's keywords for a line of this look."""
    dash = (0, style.dash) if style.dash else "-"
    return {
        "color": style.colour,
        "linewidth": style.width,
        "linestyle": dash,
        "marker": style.marker,
        "markersize": 4,
    }


def _save(figure: Figure, path: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DPI)
    write_atomically(path, image.getvalue())
