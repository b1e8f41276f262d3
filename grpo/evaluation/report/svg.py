"""Charts as SVG text: scales, axes and marks, each a small pure function.

Colours come from CSS classes, so that a chart follows the theme of the page. Coordinates are rounded to a tenth of a
pixel; what is not finite is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; text and attribute values are escaped, `class_` means class, `stroke_width` stroke-width."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{pairs}>{content}</{name}>")  # every part of it is escaped


def _value(value: object) -> str:
    return coordinate(value) if isinstance(value, (float, np.floating)) else str(value)


def coordinate(value: float | np.floating) -> str:
    """A pixel coordinate with at most one decimal."""
    return f"{value:z.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Scale:
    """Data values to pixels, linear."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clip(self, value: float) -> float:
        """The pixel of a value, or of the nearer end of the scale; NaN counts as beyond the high end."""
        return self(self.high if math.isnan(value) else min(max(value, self.low), self.high))

    def holds(self, value: float) -> bool:
        """Whether a value is finite and within the scale."""
        return self.low <= value <= self.high

    def ticks(self, count: int, *, whole: bool = False) -> list[float]:
        """About `count` round values within the scale; whole numbers alone where asked for."""
        # rounded up to 1, 2, 2.5 or 5 times a power of ten
        raw = (self.high - self.low) / max(count, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * step for step in _STEPS if power * step >= raw * 0.999)
        step = max(1.0, round(step)) if whole else step
        # a hair of slack: a tick at the very end would otherwise be lost to rounding
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def domain(values: Iterable[float], *, include: Sequence[float] = (), margin: float = 0.05) -> tuple[float, float]:
    """Lowest and highest finite value with a margin on both sides; never empty."""
    finite = [float(value) for value in (*values, *include) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    # equal values have no range, and a scale must not divide by 0
    pad = margin * (high - low) or abs(high) * 0.01 or 1.0
    return low - pad, high + pad


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished chart of `width` x `height` pixels; the description is what a screen reader says."""

    width: float
    height: float
    description: str
    marks: Markup

    def __html__(self) -> str:
        """The chart on a page, where it grows with its column."""
        return tag(
            "svg",
            self.marks,
            class_="chart",
            role="img",
            aria_label=self.description,
            viewBox=self._box,
            style=f"--w:{coordinate(self.width)}px",
        )

    def within(self, x: float, y: float) -> Markup:
        """The chart as a part of another one, its upper left corner at a pixel."""
        return tag("svg", self.marks, x=x, y=y, width=self.width, height=self.height, viewBox=self._box)

    @property
    def _box(self) -> str:
        return f"0 0 {coordinate(self.width)} {coordinate(self.height)}"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A rectangle with two scales inside a picture of `width` x `height` pixels."""

    width: float
    height: float
    x: Scale
    y: Scale

    @staticmethod
    def make(
        width: float,
        height: float,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        left: float = 44,
        right: float = 10,
        top: float = 8,
        bottom: float = 34,
    ) -> Plot:
        """A plot with room for labels left and below."""
        return Plot(
            width=width,
            height=height,
            x=Scale(*x, left, width - right),
            y=Scale(*y, height - bottom, top),
        )

    def x_axis(self, ticks: Sequence[float], label: str = "", texts: Sequence[str] | None = None) -> Markup:
        """Tick labels below, the axis' name in the middle."""
        texts = texts or tick_texts(ticks)
        parts = [self.text(text, self.x(tick), self.y.start + 14) for tick, text in zip(ticks, texts, strict=True)]
        name = self.text(label, (self.x.start + self.x.end) / 2, self.y.start + 29)
        return tag("g", *parts, *([name] if label else []), class_="axis")

    def y_axis(self, ticks: Sequence[float], texts: Sequence[str] | None = None) -> Markup:
        """Tick labels on the left with a hairline across the plot each."""
        texts = texts or tick_texts(ticks)
        lines = [self.level(tick, "grid") for tick in ticks]
        labels = [
            tag("text", text, x=self.x.start - 6, y=self.y(tick) + 3.5, text_anchor="end")
            for tick, text in zip(ticks, texts, strict=True)
        ]
        return tag("g", *lines, *labels, class_="axis")

    def level(self, value: float, class_: str) -> Markup:
        """A horizontal line across the plot."""
        y = coordinate(self.y(value))
        return tag("path", d=f"M{coordinate(self.x.start)} {y}H{coordinate(self.x.end)}", class_=class_)

    def upright(self, value: float, class_: str) -> Markup:
        """A vertical line through the plot."""
        x = coordinate(self.x(value))
        return tag("path", d=f"M{x} {coordinate(self.y.end)}V{coordinate(self.y.start)}", class_=class_)

    def line(self, xs: Iterable[float], ys: Iterable[float], **attributes: object) -> Markup:
        """A line through the points, broken where one is not finite or lies beyond the scale."""
        pieces, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if self.y.holds(y):
                pieces.append(f"{pen}{coordinate(self.x(x))} {coordinate(self.y(y))}")
                pen = "L"
            else:
                pen = "M"
        return tag("path", d="".join(pieces), **attributes)

    def band(self, xs: np.ndarray, lower: np.ndarray, upper: np.ndarray, class_: str) -> Markup:
        """The area between two lines."""
        forth, back = zip(xs, upper, strict=True), zip(xs[::-1], lower[::-1], strict=True)
        return polygon([(self.x(x), self.y.clip(y)) for x, y in (*forth, *back)], class_=class_)

    def text(self, text: str, x: float, y: float) -> Markup:
        """A text around a pixel, moved sideways as far as it takes to stay inside the picture."""
        half = text_width(text) / 2
        return tag("text", text, x=min(max(x, half), self.width - half), y=y, text_anchor="middle")

    def note(self, text: str) -> Markup:
        """What the y axis measures, above it."""
        return tag("text", text, x=4, y=11)

    def picture(self, description: str, *marks: Markup) -> Picture:
        """The whole chart."""
        return Picture(width=self.width, height=self.height, description=description, marks=Markup("").join(marks))


def text_width(text: str) -> float:
    """Pixels that a text takes at the charts' font size, rather too many than too few."""
    return sum(8.0 if letter.isupper() else 6.3 for letter in text)


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Ticks with as many decimals as tell them apart."""
    steps = [abs(b - a) for a, b in itertools.pairwise(ticks)]
    step = min(steps, default=abs(ticks[0]) if ticks else 1.0) or 1.0
    digits = next((d for d in range(7) if abs(round(step, d) - step) < 1e-6 * step), 6)
    return [f"{tick:z,.{digits}f}" for tick in ticks]


def marker(shape: str, x: float, y: float, size: float = 3.2) -> Markup:
    """A filled mark of Matplotlib's letter `shape` around a pixel."""
    a, b = size, size * 1.25
    if shape == "o":
        return tag("circle", cx=x, cy=y, r=size)
    corners = {
        "s": [(-a, -a), (a, -a), (a, a), (-a, a)],
        "D": [(0, -b), (b, 0), (0, b), (-b, 0)],
        "^": [(0, -b), (b, a), (-b, a)],
        "v": [(0, b), (b, -a), (-b, -a)],
        "P": [(-b / 3, -b), (b / 3, -b), (b / 3, -b / 3), (b, -b / 3), (b, b / 3), (b / 3, b / 3), (b / 3, b),
              (-b / 3, b), (-b / 3, b / 3), (-b, b / 3), (-b, -b / 3), (-b / 3, -b / 3)],
        "X": [(-b, -a), (-a, -b), (0, -a / 3), (a, -b), (b, -a), (a / 3, 0), (b, a), (a, b), (0, a / 3), (-a, b),
              (-b, a), (-a / 3, 0)],
    }[shape]  # fmt: skip
    return polygon([(x + dx, y + dy) for dx, dy in corners])


def polyline(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """A line through pixels."""
    return tag("path", d="M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points), **attributes)


def polygon(corners: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """A closed shape through pixels."""
    points = "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in corners)
    return tag("path", d=f"M{points}Z", **attributes)


def hover(text: str) -> Markup:
    """What a mark says when pointed at."""
    return tag("title", text)
