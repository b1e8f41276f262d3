"""The charts of the page. Wherever a chart shows an error, below or left of the random walk is better.

A chart is drawn for a phone's width and grows with the page. Letters: D dates, H horizon, I central intervals, K bins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from grpo.evaluation.chart_data import Fan, PitHistogram
from grpo.evaluation.leaderboard import REFERENCE
from grpo.evaluation.metrics import INTERVALS
from grpo.evaluation.palette import Style, forecaster_styles
from grpo.evaluation.report.svg import (
    Picture,
    Plot,
    Scale,
    coordinate,
    domain,
    hover,
    marker,
    polygon,
    polyline,
    tag,
    text_width,
)

TRAINING = forecaster_styles(["training"])["training"]
"""Look of a training curve."""
_WIDTH = 420
_LONGEST_LABEL = 22
_LONGEST_LINE = 240  # points of a line over dates; more cannot be told apart


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One row of a dot plot: a value with its interval, NaN where there is none."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    style: Style


@dataclass(frozen=True)
class Rule:
    """A vertical line that values are read against; `class_` is its CSS class."""

    value: float
    label: str
    class_: str = "rule"


def swatch(style: Style) -> Markup:
    """The small picture of a forecaster's line for a legend."""
    parts = [_series(style, tag("path", d="M1 6H25", class_="line"))]
    if style.marker:
        parts.append(_solid(style, marker(style.marker, 13, 6)))
    return tag("svg", *parts, class_="swatch", viewBox="0 0 26 12", aria_hidden="true")


def whisker(value: float, low: float, high: float, bounds: tuple[float, float], rules: Sequence[Rule]) -> Markup:
    """A value and its interval as a small bar from the first rule (the random walk), for a table cell."""
    x = Scale(*bounds, 4, 92)
    marks = [tag("path", d=f"M{coordinate(x(rule.value))} 1V15", class_=rule.class_) for rule in rules]
    if not math.isnan(value):
        start, end = coordinate(x(rules[0].value)), coordinate(x.clip(value))
        marks += [tag("path", d=f"M{start} 8H{end}", class_="bar"), _point(x, value, 8)]
    if math.isfinite(low) and math.isfinite(high):
        a, b = coordinate(x.clip(low)), coordinate(x.clip(high))
        marks.append(tag("path", d=f"M{a} 5V11M{a} 8H{b}M{b} 5V11", class_="interval"))
    return tag("svg", *marks, class_="whisker", viewBox="0 0 96 16", aria_hidden="true")


def dot_plot(
    dots: Sequence[Dot],
    rules: Sequence[Rule],
    *,
    name: str,
    description: str,
    limits: tuple[float, float],
) -> Picture:
    """Values with intervals, one row each.

    Args:
        dots: rows from top to bottom.
        rules: vertical lines.
        name: of the axis.
        description: what a screen reader says.
        limits: the axis goes no further; what lies beyond is drawn as an arrow at its end.
    """
    ends = [end for dot in dots for end in (dot.value, dot.low, dot.high)]
    low, high = domain(ends, include=[rule.value for rule in rules])
    plot = _rows([dot.label for dot in dots], (max(low, limits[0]), min(high, limits[1])))
    ticks = plot.x.ticks(5)
    marks = [plot.upright(tick, "grid") for tick in ticks]
    for rule in rules:
        marks.append(plot.upright(rule.value, rule.class_))
        marks.append(plot.text(rule.label, plot.x(rule.value), 14))
    marks.append(plot.x_axis(ticks, name))
    for i, dot in enumerate(dots):
        y, parts = plot.y(i + 0.5), []
        said = f"{dot.label}: {_said(dot.value)}"
        if math.isfinite(dot.low) and math.isfinite(dot.high):
            a, b = coordinate(plot.x.clip(dot.low)), coordinate(plot.x.clip(dot.high))
            parts.append(tag("path", d=f"M{a} {coordinate(y)}H{b}", class_="interval"))
            said += f" (95 %: {_said(dot.low)} to {_said(dot.high)})"
        if not math.isnan(dot.value):
            parts.append(_point(plot.x, dot.value, y))
        marks.append(_solid(dot.style, hover(said), _row_label(plot, dot.label, y), *parts))
    return plot.picture(description, *marks)


def coverage(shares: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> Picture:
    """Observed coverage [I] of each central interval per forecaster, against what it should be."""
    lowest = min(min(observed) for observed in shares.values())
    plot = _rows(list(shares), (max(0.0, min(0.4, lowest - 0.05)), 1.0))
    ticks = plot.x.ticks(6)
    marks = [plot.x_axis(ticks, "share of realised prices inside", [f"{tick:.0%}" for tick in ticks])]
    for level in INTERVALS:
        marks.append(plot.upright(level, "rule"))
        marks.append(plot.text(f"{level:.0%}", plot.x(level), 14))
    for i, (name, observed) in enumerate(shares.items()):
        y, parts, said = plot.y(i + 0.5), [], []
        for level, share in zip(INTERVALS, observed, strict=True):
            a, b = coordinate(plot.x(level)), coordinate(plot.x(share))
            parts.append(tag("path", d=f"M{a} {coordinate(y)}H{b}", class_="interval"))
            parts.append(_point(plot.x, share, y))
            said.append(f"{level:.0%} interval held {share:.1%}")
        marks.append(_solid(styles[name], hover(f"{name}: {', '.join(said)}"), _row_label(plot, name, y), *parts))
    return plot.picture("Observed coverage of the central intervals beside what it should be.", *marks)


def pit_histogram(name: str, histogram: PitHistogram, style: Style, top: float) -> Picture:
    """PIT values as densities, with the band in which a calibrated forecast stays.

    Args:
        name: the forecaster.
        histogram: shares of the bins, and the band.
        style: the forecaster's look.
        top: end of the density axis; a higher bar is cut there and says its height.
    """
    shares, bins = histogram.shares, len(histogram.shares)
    plot = Plot.make(200, 120, (0, 1), (0, top), left=22, right=4, top=6, bottom=20)
    shades, bars, edges = [], [], []
    for k, (share, half) in enumerate(zip(shares, histogram.band, strict=True)):
        x0, x1, y = plot.x(k / bins), plot.x((k + 1) / bins), plot.y.clip(share * bins)
        calibrated = f"{1 / bins:.0%}" + (f" ± {half:.1%}" if math.isfinite(half) else "")
        said = hover(f"{k / bins:g} to {(k + 1) / bins:g}: {share:.1%} (calibrated: {calibrated})")
        bars.append(tag("rect", said, x=x0 + 0.5, y=y, width=x1 - x0 - 1, height=plot.y.start - y, class_="column"))
        if share * bins > top:
            height = tag("text", f"{share * bins:.2g}", x=(x0 + x1) / 2, y=y + 11, text_anchor="middle")
            bars.append(tag("g", height, class_="on-column"))
        if math.isfinite(half):
            low, high = (plot.y.clip(max(0, 1 + sign * half * bins)) for sign in (-1, 1))
            shades.append(tag("rect", x=x0, y=high, width=x1 - x0, height=low - high, class_="calibrated"))
            edges += [polyline([(x0, y), (x1, y)], class_="calibrated-edge") for y in (low, high)]
    axes = [plot.y_axis(plot.y.ticks(2, whole=True)), plot.x_axis([0, 0.5, 1], texts=["0", "½", "1"])]
    outside = int((np.abs(shares - 1 / bins) > histogram.band).sum())
    description = f"PIT histogram of {name}: {outside} of {bins} columns outside the band of a calibrated forecast."
    return plot.picture(description, *axes, *shades, _solid(style, *bars, *edges))


def by_horizon(ratios: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> Picture:
    """CRPS relative to the random walk per step [H]; the axis ends at 2 and says what lies beyond."""
    steps = len(next(iter(ratios.values())))
    low, high = domain([value for ratio in ratios.values() for value in ratio], include=[1.0])
    plot = Plot.make(_WIDTH, 250, (0.7, steps + 0.3), (low, min(high, 2.0)), top=22)
    ticks = Scale(1, steps, 0, 1).ticks(9, whole=True) if steps > 1 else [1.0]
    marks = [plot.note("CRPS / random walk’s"), plot.y_axis(plot.y.ticks(5)), plot.x_axis(ticks, "days ahead")]
    marks.append(plot.level(1.0, "rule"))
    label = tag("text", "random walk", x=plot.x.end, y=plot.y(1.0) - 5, text_anchor="end")
    for name in sorted(ratios, key=lambda name: name != REFERENCE):  # the wide line of the walk lies below all
        style = styles[name]
        points = [
            tag("g", hover(f"{name}, day {day}: {value:.3f}"), marker(style.marker or "o", plot.x(day), plot.y(value)))
            for day, value in enumerate(ratios[name].tolist(), start=1)
            if plot.y.holds(value) and (style.marker or steps == 1)
        ]
        line = _series(style, plot.line(range(1, steps + 1), ratios[name], class_="line"))
        marks.append(tag("g", hover(name), line, _solid(style, *points), data_series=name))
    beyond = [name for name, ratio in ratios.items() if not all(map(plot.y.holds, ratio))]
    return plot.picture("CRPS relative to the random walk by days ahead.", *marks, label, *_missing_lines(plot, beyond))


def by_date(dates: np.ndarray, lines: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> Picture:
    """Accumulated CRPS difference to the random walk over the dates [D]; says which lines are not finite."""
    finite = {name: values for name, values in lines.items() if np.isfinite(values).all()}
    low, high = domain([end for values in finite.values() for end in (values.min(), values.max())], include=[0.0])
    days = dates.astype("datetime64[D]").astype(float)
    plot = Plot.make(_WIDTH, 250, (days[0], days[-1]), (low, high), left=50, right=14, top=22)
    # every date of ten years would make the page heavy without a difference to the eye
    kept = np.unique(np.linspace(0, len(days) - 1, min(len(days), _LONGEST_LINE)).round().astype(int))
    ticks, texts = date_ticks(dates)
    marks = [plot.note("% of the last close"), plot.y_axis(plot.y.ticks(5)), plot.x_axis(ticks, "origin", texts)]
    marks.append(plot.level(0, "rule"))
    for name, values in finite.items():
        style = styles[name]
        line = plot.line(days[kept], values[kept], class_="line")
        end = marker(style.marker or "o", plot.x(days[-1]), plot.y(values[-1]))
        said = hover(f"{name}: {values[-1]:+.4f} % of the last close")
        marks.append(tag("g", said, _series(style, line), _solid(style, end), data_series=name))
    marks += _missing_lines(plot, [name for name in lines if name not in finite])
    return plot.picture("Accumulated CRPS difference to the random walk by date of origin.", *marks)


def date_ticks(dates: np.ndarray) -> tuple[list[float], list[str]]:
    """Round days of an axis over dates, as day numbers and texts: firsts of years or months, else a few of the days."""
    first, last = dates[0].astype("datetime64[D]"), dates[-1].astype("datetime64[D]")
    for unit, step in (("Y", 5), ("Y", 2), ("Y", 1), ("M", 6), ("M", 3), ("M", 1)):
        periods = np.arange(first.astype(f"M8[{unit}]"), last.astype(f"M8[{unit}]") + 1)
        # NumPy counts years from 1970, and ticks should stand on 2000, 2005, not on 1970 + 5 k
        ticks = periods[(periods.astype(int) + (1970 if unit == "Y" else 0)) % step == 0].astype("M8[D]")
        ticks = ticks[(ticks >= first) & (ticks <= last)]
        if len(ticks) >= 3:
            thin = ticks[:: math.ceil(len(ticks) / 6)]
            return list(thin.astype(float)), [str(day)[: 4 if unit == "Y" else 7] for day in thin]
    days = np.unique(dates.astype("datetime64[D]"))
    thin = days[np.unique(np.linspace(0, len(days) - 1, min(len(days), 3)).round().astype(int))]
    return list(thin.astype(float)), [str(day) for day in thin]


def fan_chart(shown: Fan, walk: Fan, style: Style, prices: tuple[float, float], description: str) -> Picture:
    """Bands and median of a forecaster, the random walk's 80 % band as two thin lines, past and realised path."""
    plot = Plot.make(340, 220, (float(shown.past_days[0]), shown.days[-1] + 0.3), prices, left=44)
    bands = [
        plot.band(shown.days, shown.lower[i], shown.upper[i], f"band-{i}") for i in reversed(range(len(INTERVALS)))
    ]
    marks = [
        plot.y_axis(plot.y.ticks(5)),
        plot.upright(0, "grid"),
        _solid(style, *bands, plot.line(shown.days, shown.median, class_="line")),
        *(plot.line(walk.days, edge, class_="walk-edge") for edge in (walk.lower[1], walk.upper[1])),
        plot.line(shown.past_days, shown.past, class_="past"),
        plot.line(shown.days, shown.realised, class_="realised"),
        plot.x_axis(plot.x.ticks(5, whole=True), "trading days from the origin"),
    ]
    return plot.picture(description, *marks)


def fans_together(
    shown: Mapping[str, Fan], styles: Mapping[str, Style], prices: tuple[float, float], description: str
) -> Picture:
    """Median and central 80 % of several forecasters for one window, that of the first one filled.

    Of the past only as many days are shown as lie ahead, so that forecasts that are nearly alike stand apart.
    """
    first = next(iter(shown.values()))
    days = len(first.days)
    plot = Plot.make(340, 220, (float(first.past_days[-days:][0]), first.days[-1] + 0.3), prices, left=44)
    marks = [plot.y_axis(plot.y.ticks(5)), plot.upright(0, "grid")]
    for name, fan in shown.items():
        edges = [plot.line(fan.days, edge, class_="edge") for edge in (fan.lower[1], fan.upper[1])]
        band = [plot.band(fan.days, fan.lower[1], fan.upper[1], "band-2")] if fan is first else []
        marks.append(tag("g", hover(name), _solid(styles[name], *band, *edges), data_series=name))
    for name, fan in shown.items():  # above all bands
        line = plot.line(fan.days, fan.median, class_="line")
        marks.append(tag("g", hover(f"median of {name}"), _series(styles[name], line), data_series=name))
    marks += [
        plot.line(first.past_days[-days:], first.past[-days:], class_="past"),
        plot.line(first.days, first.realised, class_="realised"),
        plot.x_axis(plot.x.ticks(5, whole=True), "trading days from the origin"),
    ]
    return plot.picture(description, *marks)


def training_curve(points: Sequence[tuple[float, float]], name: str, description: str) -> Picture:
    """One logged quantity by optimizer step."""
    steps, values = zip(*((step, value) for step, value in points if math.isfinite(value)), strict=True)
    plot = Plot.make(340, 150, domain(steps, margin=0.03), domain(values), left=50, top=22)
    dots = [
        tag("circle", hover(f"step {step:g}: {value:.4g}"), cx=plot.x(step), cy=plot.y(value), r=2)
        for step, value in zip(steps, values, strict=True)
    ]
    marks = [plot.note(name), plot.y_axis(plot.y.ticks(4)), plot.x_axis(plot.x.ticks(5, whole=True), "optimizer step")]
    marks.append(_solid(TRAINING, plot.line(steps, values, class_="line"), *(dots if len(dots) <= 60 else [])))
    return plot.picture(description, *marks)


def _missing_lines(plot: Plot, names: Sequence[str]) -> list[Markup]:
    """A note on the lines that leave the chart, in its upper right corner; none where all are inside."""
    if not names:
        return []
    text = f"beyond the axis: {names[0] if len(names) == 1 else len(names)}"
    return [tag("text", hover(", ".join(names)), text, x=plot.width - 4, y=11, text_anchor="end")]


def _rows(labels: Sequence[str], x: tuple[float, float]) -> Plot:
    """A plot with one row per label, and room for the labels on the left."""
    # many stocks: closer rows, or the chart would be longer than a page
    height = 20 if len(labels) <= 30 else 13
    left = 18 + max(text_width(_shortened(label)) for label in labels)
    return Plot.make(
        max(_WIDTH, left + 250), 24 + height * len(labels) + 34, x, (len(labels), 0), left=left, right=18, top=24
    )


def _row_label(plot: Plot, label: str, y: float) -> Markup:
    return tag("text", _shortened(label), x=plot.x.start - 10, y=y + 3.5, text_anchor="end")


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _series(style: Style, *marks: Markup) -> Markup:
    """Marks of one forecaster, in its colour and dash."""
    dash = " ".join(map(coordinate, style.dash)) or None
    return tag("g", *marks, class_=f"series s-{style.slot}", stroke_dasharray=dash)


def _solid(style: Style, *marks: Markup) -> Markup:
    """Marks of one forecaster, in its colour alone."""
    return _series(dataclasses.replace(style, dash=()), *marks)


def _point(x: Scale, value: float, y: float) -> Markup:
    """A dot at the value, or an arrow at the end of the scale that it lies beyond."""
    if x.holds(value):
        return tag("circle", cx=x(value), cy=y, r=3.2, class_="dot")
    end, sign = x.clip(value), 1 if value > x.high else -1
    return polygon([(end + sign * 3, y), (end - sign * 4, y - 4), (end - sign * 4, y + 4)], class_="dot")


def _said(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not finite"
