"""Pictures of two samples of sequences: six of the values, four along the sequence. None needs a display.

Letters: N, M sequences, T length.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from grpo.evaluation.distributions.analysis import DistributionReport
from grpo.evaluation.distributions.distances import autocorrelation
from grpo.evaluation.palette import LIGHT
from preprocessing.files import AtomicFiles

COLOURS = {"real": LIGHT[0], "generated": LIGHT[1]}
SHOWN_SEQUENCES = 12
_KDE_VALUES = 5000
_DPI = 120
_TAIL = 0.1  # percent of the values that a picture of the middle leaves out on either side

Pair = dict[str, np.ndarray]
"""real [N, T] and generated [M, T], in that order."""


def draw_histogram(samples: Pair, unit: str) -> Figure:
    """Density of the values in bins, the outermost 0.1 % left out."""
    figure, axes = _panel(unit, "density")
    edges = np.linspace(*_middle(samples), 61)
    for name, sequences in samples.items():
        values = sequences.ravel()
        # every value is counted, so that the two areas may be compared
        heights = np.histogram(values, edges)[0] / (values.size * np.diff(edges))
        axes.stairs(heights, edges, color=COLOURS[name], fill=name == "real", alpha=0.35 if name == "real" else 1)
        axes.stairs(heights, edges, color=COLOURS[name], label=name)
    return _finished(figure, axes)


def draw_kde(samples: Pair, unit: str) -> Figure:
    """Gaussian kernel density estimates, above on a linear and below on a logarithmic scale, which shows the tails."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.subplots(2, sharex=True)
    low, high = _middle(samples)
    points = np.linspace(low - (high - low) / 20, high + (high - low) / 20, 300)
    for name, sequences in samples.items():
        values = sequences.ravel()
        density = gaussian_kde(values[:: max(1, values.size // _KDE_VALUES)])(points)
        for axis in axes:
            axis.plot(points, density, color=COLOURS[name], label=name)
    axes[1].set_yscale("log")
    axes[1].set_ylim(bottom=1e-5 * max(line.get_ydata().max() for line in axes[1].lines))
    axes[1].set_xlabel(unit)
    for axis, title in zip(axes, ("density", "density, logarithmic"), strict=True):
        axis.set_ylabel(title)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False)
    return figure


def draw_qq(samples: Pair, unit: str) -> Figure:
    """Quantiles of the generated against those of the real values; equal laws lie on the diagonal."""
    figure, axes = _panel(f"real quantile, {unit}", "generated quantile")
    real, generated = samples["real"], samples["generated"]
    size = min(real.size, generated.size)
    # closer in the tails, where laws differ most; not beyond 1 / size, where there is no value to show
    levels = np.unique(np.concatenate([np.linspace(0.01, 0.99, 99), [1 / size, 0.001, 0.999, 1 - 1 / size]]))
    x, y = np.quantile(real, levels), np.quantile(generated, levels)
    ends = min(x[0], y[0]), max(x[-1], y[-1])
    axes.plot(ends, ends, color="#888888", linewidth=1)
    axes.plot(x, y, "o", color=COLOURS["generated"], markersize=3)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    return figure


def draw_box(samples: Pair, unit: str) -> Figure:
    """Median, quartiles and the span from 1 % to 99 % of the values."""
    figure, axes = _panel("", unit)
    boxes = axes.boxplot(
        [sequences.ravel() for sequences in samples.values()],
        whis=(1, 99),
        showfliers=False,
        widths=0.5,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for box, colour in zip(boxes["boxes"], COLOURS.values(), strict=True):
        box.set(facecolor=colour, alpha=0.5)
    axes.set_xticks([1, 2], list(samples))
    axes.grid(axis="y", alpha=0.25)
    return figure


def draw_cdf(samples: Pair, unit: str) -> Figure:
    """Distribution functions, and below the gap between them; the widest is the Kolmogorov-Smirnov statistic."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    ordered = {name: np.sort(sequences, axis=None) for name, sequences in samples.items()}
    values = np.sort(np.concatenate(list(ordered.values())))
    shares = {name: np.searchsorted(part, values, side="right") / part.size for name, part in ordered.items()}
    gap = shares["generated"] - shares["real"]
    widest = np.abs(gap).argmax()
    # 2000 points are all that the eye can tell; the widest gap must be among them
    points = np.unique(np.append(np.linspace(0, len(values) - 1, 2000).astype(int), widest))
    for name, share in shares.items():
        above.plot(values[points], share[points], color=COLOURS[name], label=name)
    below.axhline(0, color="#888888", linewidth=1)
    below.plot(values[points], gap[points], color="black", linewidth=1)
    below.plot(values[widest], gap[widest], "o", color="black", label=f"widest: {abs(gap[widest]):.3f}")
    above.set_ylabel("share of values at or below")
    below.set_ylabel("generated less real")
    below.set_xlabel(unit)
    above.set_xlim(*_middle(samples))
    for axis in (above, below):
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    return figure


def draw_statistics(report: DistributionReport) -> Figure:
    """Every distance over the bound that chance keeps to 19 times in 20; beyond 1 the samples differ."""
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    names = [measure.name for measure in report.measures]
    # the AUC is .5 where nothing differs, all others are 0
    offsets = [0.5 if measure.name == "classifier AUC" else 0.0 for measure in report.measures]
    ratios = [
        (measure.distance - offset) / (measure.bound - offset)
        if measure.bound > offset
        else float(measure.differs) * 10
        for measure, offset in zip(report.measures, offsets, strict=True)
    ]
    places = np.arange(len(names))[::-1]
    colours = [LIGHT[1] if measure.differs else LIGHT[2] for measure in report.measures]
    axes.barh(places, np.clip(ratios, 0.02, None), left=0, color=colours, height=0.6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(0.02, max(3, 1.5 * max(ratios)))
    axes.set_yticks(places, names)
    axes.set_xlabel("distance / what chance exceeds one time in twenty")
    axes.grid(axis="x", alpha=0.25)
    return figure


def draw_sample_sequences(samples: Pair, unit: str) -> Figure:
    """The first dozen sequences of each sample, on one scale."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, sequences) in zip(axes, samples.items(), strict=True):
        steps = np.arange(1, sequences.shape[1] + 1)
        axis.plot(steps, sequences[:SHOWN_SEQUENCES].T, color=COLOURS[name], alpha=0.6, linewidth=0.9)
        axis.set_title(name, fontsize=10)
        _number_steps(axis, "step")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(unit)
    return figure


def draw_mean_trend(samples: Pair, unit: str) -> Figure:
    """Mean at each step, with two standard errors."""
    figure, axes = _panel("", f"mean {unit}")
    _number_steps(axes, "step")
    for name, sequences in samples.items():
        steps, mean = np.arange(1, sequences.shape[1] + 1), sequences.mean(axis=0)
        error = 2 * sequences.std(axis=0) / np.sqrt(len(sequences))
        axes.fill_between(steps, mean - error, mean + error, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.plot(steps, mean, color=COLOURS[name], marker="o", markersize=3, label=name)
    return _finished(figure, axes)


def draw_autocorrelation(samples: Pair, lags: int) -> Figure:
    """Autocorrelation of the values and of their absolute values, which shows whether calm and storm last."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {"values": lambda values: values, "absolute values": np.abs}
    for axis, (title, of) in zip(panels, kinds.items(), strict=True):
        axis.axhline(0, color="#888888", linewidth=1)
        for name, sequences in samples.items():
            steps = np.arange(1, lags + 1)
            axis.plot(steps, autocorrelation(of(sequences), lags), color=COLOURS[name], marker="o", label=name)
        axis.set_title(title, fontsize=10)
        _number_steps(axis, "lag, steps")
        axis.grid(alpha=0.25)
    panels[0].set_ylabel("autocorrelation")
    panels[0].legend(frameon=False)
    return figure


def draw_evolution(samples: Pair, unit: str) -> Figure:
    """The distribution at each step: bands of 90 % and 50 % of the sequences and the median."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, sequences) in zip(axes, samples.items(), strict=True):
        steps = np.arange(1, sequences.shape[1] + 1)
        bands = np.quantile(sequences, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        for low, high, alpha in ((0, 4, 0.2), (1, 3, 0.35)):
            axis.fill_between(steps, bands[low], bands[high], color=COLOURS[name], alpha=alpha, linewidth=0)
        axis.plot(steps, bands[2], color=COLOURS[name])
        axis.set_title(f"{name}: 90 %, 50 % and median", fontsize=10)
        _number_steps(axis, "step")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(unit)
    return figure


def write_pictures(samples: Pair, report: DistributionReport, unit: str, folder: Path) -> list[Path]:
    """Draw all ten into a folder; either all appear or none."""
    pictures = {
        "histogram": draw_histogram(samples, unit),
        "kde": draw_kde(samples, unit),
        "qq": draw_qq(samples, unit),
        "box": draw_box(samples, unit),
        "cdf": draw_cdf(samples, unit),
        "statistics": draw_statistics(report),
        "sample_sequences": draw_sample_sequences(samples, unit),
        "mean_trend": draw_mean_trend(samples, unit),
        "autocorrelation": draw_autocorrelation(samples, report.lags),
        "evolution": draw_evolution(samples, unit),
    }
    paths = [Path(folder) / f"{name}.png" for name in pictures]
    with AtomicFiles() as files:
        for path, figure in zip(paths, pictures.values(), strict=True):
            figure.savefig(files.open(path), format="png", dpi=_DPI)
    return paths


def _panel(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _number_steps(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _finished(figure: Figure, axes: Axes) -> Figure:
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def _middle(samples: Pair) -> tuple[float, float]:
    """From the lowest to the highest of both samples' 0.1 % and 99.9 % quantiles."""
    ends = [np.percentile(sequences, [_TAIL, 100 - _TAIL]) for sequences in samples.values()]
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))
