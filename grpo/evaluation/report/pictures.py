"""The charts of the page as SVG files of their own, for papers and slides: on white, with legend and captions."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from grpo.evaluation.leaderboard import REFERENCE
from grpo.evaluation.palette import Style
from grpo.evaluation.report import charts
from grpo.evaluation.report.drawings import Drawings, Panel
from grpo.evaluation.report.svg import Picture, coordinate, tag, text_width
from preprocessing.files import write_atomically

_FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_GAP = 16.0
_LINE = 15.0
_COLUMNS = 3
_LETTER = 6.6
"""Pixels of a letter, on the generous side."""


def write_pictures(drawings: Drawings, folder: Path) -> None:
    """Write every chart there is into a folder, and remove those of former settings."""
    pictures = _pictures(drawings)
    # after drawing: where a chart fails, the former ones are still there
    for former in Path(folder).glob("*.svg"):
        former.unlink()
    for name, picture in pictures.items():
        write_atomically(
            Path(folder) / f"{name}.svg", standalone(picture, [*drawings.styles.values(), charts.TRAINING])
        )


def standalone(picture: Picture, styles: Iterable[Style]) -> str:
    """A chart as a file that any viewer of SVG shows: colours of the light page, no variables."""
    page = resources.files("grpo.evaluation.report") / "page"
    variables = (page / "style.css").read_text()
    style = (page / "chart.css").read_text() + colour_rules(styles)
    light = dict(re.findall(r"--([\w-]+): light-dark\(([^,]+),", variables))
    # viewers other than browsers know neither variables nor light-dark()
    style = re.sub(r"var\(--([\w-]+)\)", lambda found: light[found[1]], style)
    style = re.sub(r"light-dark\(([^,]+),[^)]+\)", r"\1", style)
    width, height = coordinate(picture.width), coordinate(picture.height)
    whole = tag(
        "svg",
        tag("title", picture.description),
        tag("style", Markup(style)),  # our own style sheets
        tag("rect", width=width, height=height, fill=light["page"]),
        picture.marks,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        font_family=_FONT,
        width=width,
        height=height,
        viewBox=f"0 0 {width} {height}",
    )
    return f"{whole}\n"


def colour_rules(styles: Iterable[Style]) -> Markup:
    """CSS that gives the marks of each forecaster its colour, on a light and on a dark page."""
    rules = [f".s-{style.slot} {{ color: light-dark({style.colour}, {style.dark}); }}" for style in styles]
    return Markup("\n").join(map(Markup, dict.fromkeys(rules)))  # numbers and hexadecimal colours


def _pictures(drawings: Drawings) -> dict[str, Picture]:
    names = list(drawings.styles)
    rivals = [name for name in names if name != REFERENCE]
    found = {"coverage": drawings.coverage, "pit": _grid(drawings.histograms, columns=5)}
    if drawings.learnt:
        found["learnt"] = drawings.learnt
    if drawings.by_horizon:
        found["error_by_horizon"] = _with_legend(drawings.by_horizon, names, drawings)
    if drawings.by_date:
        found["skill_by_date"] = _with_legend(drawings.by_date, rivals, drawings)
    if drawings.by_stock:
        found["skill_by_stock"] = _grid(drawings.by_stock)
    fans = drawings.fans[0]
    found["fan_chart"] = _with_legend(_grid(fans.panels), fans.names, drawings)
    logged = {stage: _grid([Panel("", one) for one in own], columns=1) for stage, own in drawings.training.items()}
    if logged:
        found["training_curves"] = _grid([Panel(stage, picture) for stage, picture in logged.items()])
    return found


def _grid(panels: Sequence[Panel], *, columns: int = _COLUMNS) -> Picture:
    """Charts side by side, row by row, each below its caption."""
    columns = min(columns, len(panels))
    width = max(panel.picture.width for panel in panels)
    captions = [textwrap.wrap(panel.caption, int(width / _LETTER)) for panel in panels]
    marks, top = [], 0.0
    for first in range(0, len(panels), columns):
        row = range(first, min(first + columns, len(panels)))
        above = max(len(captions[i]) for i in row) * _LINE + (4 if any(captions[i] for i in row) else 0)
        for column, i in enumerate(row):
            left = column * (width + _GAP)
            lines = [tag("text", line, x=left + 4, y=top + 11 + _LINE * n) for n, line in enumerate(captions[i])]
            marks += [*lines, panels[i].picture.within(left, top + above)]
        top += above + max(panels[i].picture.height for i in row) + _GAP
    return Picture(
        width=columns * (width + _GAP) - _GAP,
        height=top - _GAP,
        description=" ".join(panel.picture.description for panel in panels),
        marks=Markup("").join(marks),
    )


def _with_legend(picture: Picture, names: Sequence[str], drawings: Drawings) -> Picture:
    """A chart with the lines of some forecasters named below it."""
    marks, left, top = [], 4.0, picture.height + 4
    for name in names:
        taken = 34 + text_width(name) + _GAP
        if left > 4 and left + taken > picture.width:
            left, top = 4.0, top + _LINE
        swatch = Markup(charts.swatch(drawings.styles[name]))
        marks += [tag("svg", swatch, x=left, y=top, width=26, height=12, overflow="visible")]
        marks += [tag("text", name, x=left + 32, y=top + 10)]
        left += taken
    height = math.ceil(top + _LINE) if names else picture.height
    return Picture(
        width=picture.width,
        height=height,
        description=picture.description,
        marks=picture.marks + Markup("").join(marks),
    )
