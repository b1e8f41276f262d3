"""The charts of the page. Wherever a chart shows an error, below (or left of) the random walk is better.

Letters: H horizon, I central intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from grpo.evaluation import chart_data
from grpo.evaluation.chart_data import Fan
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.metrics import INTERVALS
from grpo.evaluation.palette import Style
from grpo.evaluation.report.svg import Plot, Scale, coordinate, domain, hover, marker, tag

_LETTER = 6.1  # width of an average letter at the charts' font size, pixels
_MAX_LABEL = 24
_MAX_POINTS = 240  # of a line over dates; more cannot be told apart on a page


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
    """A vertical line of a dot plot that values are to be read against."""

    value: float
    label: str
    class_: str = "rule"


def series(style: Style, *marks: Markup) -> Markup:
    """Marks of one forecaster, in its colour and dash."""
    dash = " ".join(coordinate(style.width * part) for part in style.dash) or None
    return tag("g", *marks, class_=f"series s-{style.slot}", stroke_dasharray=dash)


def swatch(style: Style) -> Markup:
    """The small picture of a forecaster's line for a legend."""
    line = tag("path", d="M1 6H25", class_="line")
    mark = [marker(style.marker, 13, 6)] if style.marker else []
    return tag(
        "svg",
        series(style, line),
        series(_solid(style), *mark),
        class_="swatch",
        viewBox="0 0 26 12",
        aria_hidden="true",
    )


def _solid(style: Style) -> Style:
    return Style(style.slot, style.colour, style.marker, (), style.width)


def whisker(value: float, low: float, high: float, bounds: tuple[float, float], rules: Sequence[Rule]) -> Markup:
    """A value and its interval as a small bar from the first rule (the random walk), for a table cell."""
    x = Scale(*bounds, 3, 117)
    marks = [tag("path", d=f"M{coordinate(x(rule.value))} 1V15", class_=rule.class_) for rule in rules]
    if math.isfinite(value):
        origin, end = x(rules[0].value), x.clip(value)
        marks.append(tag("path", d=f"M{coordinate(origin)} 8H{coordinate(end)}", class_="bar"))
        marks.append(_clipped(x, value, 8))
    if math.isfinite(low) and math.isfinite(high):
        ends = [coordinate(x.clip(end)) for end in (low, high)]
        marks.append(tag("path", d=f"M{ends[0]} 5V11M{ends[0]} 8H{ends[1]}M{ends[1]} 5V11", class_="interval"))
    return tag("svg", *marks, class_="whisker", viewBox="0 0 120 16", aria_hidden="true")


def _clipped(x: Scale, value: float, y: float) -> Markup:
    """A dot at the value, or an arrow at the end of the scale that it lies beyond."""
    if x.low <= value <= x.high:
        return tag("circle", cx=x(value), cy=y, r=3, class_="dot")
    sign = 1 if value > x.high else -1
    end = x.clip(value)
    corners = [(end + sign * 3, y), (end - sign * 4, y - 4), (end - sign * 4, y + 4)]
    return tag("path", d="M" + "L".join(f"{coordinate(a)} {coordinate(b)}" for a, b in corners) + "Z", class_="dot")


def dot_plot(
    dots: Sequence[Dot],
    rules: Sequence[Rule],
    *,
    name: str,
    description: str,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Markup:
    """Values with intervals, one row each.

    Args:
        dots: rows from top to bottom.
        rules: vertical lines.
        name: of the axis.
        description: what a screen reader says.
        limits: the axis goes no further; what lies beyond is drawn as an arrow at its end.
    """
    row = 20 if len(dots) <= 30 else 13
    letters = min(_MAX_LABEL, max(len(dot.label) for dot in dots))
    ends = [end for dot in dots for end in (dot.value, dot.low, dot.high)]
    low, high = domain(ends, include=[rule.value for rule in rules])
    # The axis keeps to the limits, but never loses a rule.
    low = max(low, min(limits[0], *(rule.value for rule in rules)))
    high = min(high, max(limits[1], *(rule.value for rule in rules)))
    left = letters * _LETTER + 14
    plot = Plot.make(left + 400, 24 + row * len(dots) + 34, (low, high), (len(dots), 0), left=left, right=16, top=24)
    ticks = plot.x.ticks(6)
    marks = [plot.upright(tick, "grid") for tick in ticks]
    for rule in rules:
        marks.append(plot.upright(rule.value, rule.class_))
        marks.append(tag("text", rule.label, x=plot.x(rule.value), y=14, text_anchor="middle", class_="note"))
    marks.append(plot.x_axis(ticks, name))
    for i, dot in enumerate(dots):
        marks.append(_dot_row(plot, plot.y(i + 0.5), dot))
    return plot.picture(description, *marks)


def _dot_row(plot: Plot, y: float, dot: Dot) -> Markup:
    label = dot.label if len(dot.label) <= _MAX_LABEL else f"{dot.label[: _MAX_LABEL - 1]}…"
    parts = [tag("text", label, x=plot.x.start - 8, y=y + 3.5, text_anchor="end")]
    said = f"{dot.label}: {_said(dot.value)}"
    if math.isfinite(dot.low) and math.isfinite(dot.high):
        ends = [coordinate(plot.x.clip(end)) for end in (dot.low, dot.high)]
        parts.append(tag("path", d=f"M{ends[0]} {coordinate(y)}H{ends[1]}", class_="interval"))
        said += f" (95 %: {_said(dot.low)} to {_said(dot.high)})"
    if math.isfinite(dot.value):
        parts.append(_clipped(plot.x, dot.value, y))
    return tag("g", hover(said), series(_solid(dot.style), *parts))


def _said(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not finite"


def coverage(shares: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> Markup:
    """Observed coverage [I] of each central interval per forecaster, against what it should be."""
    left = min(_MAX_LABEL, max(map(len, shares))) * _LETTER + 14
    height = 24 + 20 * len(shares) + 34
    plot = Plot.make(left + 400, height, (0, 1), (len(shares), 0), left=left, right=16, top=24)
    marks = []
    for level in INTERVALS:
        marks.append(plot.upright(level, "rule"))
        marks.append(tag("text", f"{level:.0%}", x=plot.x(level), y=14, text_anchor="middle", class_="note"))
    ticks = [0, 0.25, 0.5, 0.75, 1]
    marks.append(plot.x_axis(ticks, "share of realised prices inside", [f"{tick:.0%}" for tick in ticks]))
    for i, (name, observed) in enumerate(shares.items()):
        y = plot.y(i + 0.5)
        said = ", ".join(
            f"{level:.0%} interval held {share:.1%}" for level, share in zip(INTERVALS, observed, strict=True)
        )
        label = name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…"
        parts = [tag("text", label, x=plot.x.start - 8, y=y + 3.5, text_anchor="end")]
        for level, share in zip(INTERVALS, observed, strict=True):
            start, end = coordinate(plot.x(level)), coordinate(plot.x(share))
            parts.append(tag("path", d=f"M{start} {coordinate(y)}H{end}", class_="interval"))
            parts.append(tag("circle", cx=plot.x(share), cy=y, r=3.4, class_="dot"))
        marks.append(tag("g", hover(f"{name}: {said}"), series(_solid(styles[name]), *parts)))
    return plot.picture("Observed coverage of the central intervals beside what it should be.", *marks)


def pit_histogram(name: str, shares: np.ndarray, band: float, style: Style, top: float) -> Markup:
    """Histogram of PIT values as densities, with the band in which a calibrated forecast stays.

    Args:
        name: the forecaster.
        shares: [K] of the bins.
        band: half width of the band, as a share.
        style: the forecaster's look.
        top: end of the density axis; a higher bar is cut there and says its height.
    """
    bins = len(shares)
    plot = Plot.make(210, 130, (0, 1), (0, top), left=26, right=6, bottom=22)
    bars = []
    for k, share in enumerate(shares):
        x0, x1, y = plot.x(k / bins) + 0.5, plot.x((k + 1) / bins) - 0.5, plot.y.clip(share * bins)
        said = f"{k / bins:g} to {(k + 1) / bins:g}: {share:.1%} (calibrated: {1 / bins:.0%} ± {band:.1%})"
        bars.append(tag("rect", hover(said), x=x0, y=y, width=x1 - x0, height=plot.y.start - y, class_="column"))
        if share * bins > top:
            note = tag(
                "text", f"{share * bins:.1f}", x=(x0 + x1) / 2, y=y + 9, text_anchor="middle", class_="on-column"
            )
            bars.append(note)
    low, high = (plot.y.clip(1 + sign * band * bins) for sign in (-1, 1))
    shade = tag("rect", x=plot.x.start, y=high, width=plot.x.end - plot.x.start, height=low - high, class_="calibrated")
    marks = [plot.y_axis(plot.y.ticks(2, whole=True)), series(_solid(style), *bars), shade, plot.level(1, "rule")]
    marks.append(plot.x_axis([0, 0.5, 1], texts=["0", "½", "1"]))
    outside = int((np.abs(shares - 1 / bins) > band).sum())
    return plot.picture(f"PIT histogram of {name}: {outside} of {bins} bins outside the calibrated band.", *marks)


def by_horizon(ratios: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> Markup:
    """CRPS relative to the random walk per step [H]."""
    steps = len(next(iter(ratios.values())))
    low, high = domain([value for ratio in ratios.values() for value in ratio], include=[1.0])
    plot = Plot.make(560, 260, _step_domain(steps), (low, min(high, 2.0)))
    marks = [
        plot.y_axis(plot.y.ticks(5)),
        plot.x_axis(Scale(1, steps, 0, 1).ticks(10, whole=True) if steps > 1 else [1], "days ahead"),
    ]
    for name, ratio in sorted(ratios.items(), key=lambda item: item[0] != REFERENCE):
        days = np.arange(1, steps + 1)
        shown = np.where(ratio <= plot.y.high, ratio, np.nan)
        points = [
            tag(
                "g",
                hover(f"{name}, day {day}: {value:.3f}"),
                marker(styles[name].marker or "o", plot.x(day), plot.y(value)),
            )
            for day, value in enumerate(shown, start=1)
            if math.isfinite(value)
        ]
        line = series(styles[name], plot.line(days, shown, class_="line"))
        marks.append(tag("g", line, series(_solid(styles[name]), *points), data_series=name))
    return plot.picture("CRPS relative to the random walk by days ahead.", *marks)


def _step_domain(steps: int) -> tuple[float, float]:
    return (0.7, steps + 0.3)


def by_date(dates: np.ndarray, lines: Mapping[str, np.ndarray], styles: Mapping[str, Style]) -> Markup:
    """Accumulated CRPS difference to the random walk over the dates [D]."""
    finite = {name: values for name, values in lines.items() if np.isfinite(values).all()}
    low, high = domain([value for values in finite.values() for value in (values.min(), values.max())], include=[0.0])
    days = dates.astype("datetime64[D]").astype(float)
    span = (days[0], days[-1]) if len(days) > 1 else (days[0] - 1, days[0] + 1)
    plot = Plot.make(720, 270, span, (low, high), left=52)
    kept = np.unique(np.linspace(0, len(days) - 1, min(len(days), _MAX_POINTS)).round().astype(int))
    ticks, texts = date_ticks(dates)
    marks = [plot.y_axis(plot.y.ticks(5)), plot.x_axis(ticks, "origin", texts), plot.level(0, "rule")]
    for name, values in finite.items():
        said = f"{name}: {values[-1]:+.4f} % of the last close"
        style = styles[name]
        line = plot.line(days[kept], values[kept], class_="line")
        end = marker(style.marker or "o", plot.x(days[-1]), plot.y(values[-1]))
        marks.append(tag("g", hover(said), series(style, line), series(_solid(style), end), data_series=name))
    return plot.picture("Accumulated CRPS difference to the random walk by date of origin.", *marks)


def date_ticks(dates: np.ndarray, count: int = 6) -> tuple[list[float], list[str]]:
    """Round days of an axis over dates: firsts of a year or month, else days; as day numbers and texts."""
    first, last = dates[0].astype("datetime64[D]"), dates[-1].astype("datetime64[D]")
    for unit, step in (("Y", 5), ("Y", 2), ("Y", 1), ("M", 6), ("M", 3), ("M", 1)):
        periods = np.arange(first.astype(f"M8[{unit}]"), last.astype(f"M8[{unit}]") + 1)
        ticks = periods[(periods.astype(int) + (1970 if unit == "Y" else 0)) % step == 0].astype("M8[D]")
        ticks = ticks[(ticks >= first) & (ticks <= last)]
        if len(ticks) >= count / 2:
            thin = ticks[:: math.ceil(len(ticks) / (1.5 * count))]
            length = 4 if unit == "Y" else 7
            return list(thin.astype(float)), [str(day)[:length] for day in thin]
    days = np.unique(dates.astype("datetime64[D]"))
    thin = days[np.unique(np.linspace(0, len(days) - 1, min(len(days), 4)).round().astype(int))]
    return list(thin.astype(float)), [str(day) for day in thin]


def fan_chart(shown: Fan, reference: Fan, style: Style, y: tuple[float, float], description: str) -> Markup:
    """Bands and median of a forecaster, the random walk's 80 % band as two thin lines, past and realised path."""
    plot = Plot.make(340, 220, (shown.past_days[0], shown.days[-1] + 0.3), y, left=48)
    marks = [plot.y_axis(plot.y.ticks(4)), plot.upright(0, "grid")]
    bands = [
        plot.band(shown.days, shown.lower[i], shown.upper[i], f"band band-{i}") for i in reversed(range(len(INTERVALS)))
    ]
    marks.append(series(_solid(style), *bands, plot.line(shown.days, shown.median, class_="line")))
    for edge in (reference.lower[1], reference.upper[1]):
        marks.append(plot.line(reference.days, edge, class_="walk-edge"))
    marks.append(plot.line(shown.past_days, shown.past, class_="past"))
    marks.append(plot.line(shown.days, shown.realised, class_="realised"))
    ticks = plot.x.ticks(5, whole=True)
    marks.append(plot.x_axis(ticks, "trading days from the origin"))
    return plot.picture(description, *marks)


def training_curve(points: Sequence[tuple[float, float]], name: str, description: str) -> Markup:
    """One logged quantity by optimizer step."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    steps, values = [step for step, _ in finite], [value for _, value in finite]
    plot = Plot.make(340, 150, domain(steps, margin=0.03), domain(values), left=52, top=20)
    marks = [plot.y_axis(plot.y.ticks(3)), plot.x_axis(plot.x.ticks(5, whole=True), "optimizer step")]
    marks.append(tag("text", name, x=plot.x.start, y=11, class_="note"))
    dots = [
        tag("circle", hover(f"step {step:g}: {value:.4g}"), cx=plot.x(step), cy=plot.y(value), r=2)
        for step, value in finite
    ]
    line = plot.line(steps, values, class_="line")
    marks.append(tag("g", line, *(dots if len(dots) <= 60 else []), class_="series s-0"))
    return plot.picture(description, *marks)


def learnt(dots: Sequence[Dot]) -> Markup:
    """Skill per forecaster between the random walk (0) and the exact law (1)."""
    rules = [Rule(0.0, "random walk"), Rule(1.0, "optimum", "rule optimum")]
    return dot_plot(
        dots,
        rules,
        name="share of what can be learnt",
        description="Skill of each forecaster between random walk and optimum.",
        limits=(-1.0, 1.5),
    )


def by_stock(name: str, rows: Sequence[chart_data.StockRatio], best: Sequence[float], style: Style) -> Markup:
    """CRPS relative to the random walk per stock, sorted; `best` are the optimum's values or empty."""
    dots = [Dot(label=row.stock, value=row.ratio, low=row.low, high=row.high, style=style) for row in rows]
    rules = [Rule(1.0, "random walk")]
    if best and name != OPTIMUM:
        rules.append(Rule(float(np.mean(best)), "optimum, mean", "rule optimum"))
    return dot_plot(
        dots,
        rules,
        name="CRPS relative to the random walk",
        description=f"CRPS of {name} relative to the random walk by stock.",
        limits=(0.0, 2.0),
    )
