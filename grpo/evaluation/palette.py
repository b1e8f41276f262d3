"""How each forecaster looks, the same in every picture and on the page: no two alike, however many there are.

The first six colours are told apart with any kind of colour vision and against either background
(tests/evaluation/test_palette.py computes it). More colours follow, spread evenly over hue and lightness; dashes and
markers then help to tell neighbours apart. Random walk and optimum are yardsticks: grey, wide or dotted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE

LIGHT = ("#0072B2", "#D55E00", "#009E73", "#D0609F", "#4B2A7B", "#6E4400")
"""On white; the first three are those of Okabe and Ito (2008)."""
DARK = ("#4A9FDC", "#E8743B", "#3FC79A", "#F2A9D3", "#8E7BEF", "#F5DC7A")
"""The same hues on a dark page."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES: tuple[tuple[float, ...], ...] = ((), (8, 3), (3, 3), (11, 3, 3, 3))
_HUE, _LIGHTNESS = (0.5126, 0.7548776662), (0.7584, 0.5698402910)
"""Start and step, in turns, of a sequence that fills a square evenly (R2, Roberts 2018); the starts were chosen so that
it keeps away from the first six colours."""
_CHROMA = 0.11
_LIGHTNESS_RANGE = 0.28
_LOWEST_LIGHT, _LOWEST_DARK = 0.37, 0.60


@dataclass(frozen=True)
class Style:
    """Look of one forecaster.

    Attributes:
        slot: its number in the palette, or the name of a yardstick.
        colour: on a light background.
        dark: on a dark background.
        marker: one of `MARKERS`, named by Matplotlib's letters; empty for a line alone.
        dash: lengths of dashes and gaps in pixels; empty for a solid line.
    """

    slot: str
    colour: str
    dark: str
    marker: str
    dash: tuple[float, ...]


_YARDSTICKS = {
    REFERENCE: Style("walk", "#B3B3B3", "#767D85", "", ()),  # wide and pale: seen below a line that covers it
    OPTIMUM: Style("optimum", "#777777", "#A9B0B7", "", (2, 3)),
}


def forecaster_styles(names: Sequence[str]) -> dict[str, Style]:
    """A look per forecaster, in the order in which they were evaluated."""
    rivals = [name for name in names if name not in _YARDSTICKS]
    return {name: _YARDSTICKS.get(name) or _style(rivals.index(name)) for name in names}


def _style(number: int) -> Style:
    light, dark = _colours(number)
    dash = DASHES[number // len(LIGHT) % len(DASHES)]
    return Style(str(number), light, dark, MARKERS[number % len(MARKERS)], dash)


def _colours(number: int) -> tuple[str, str]:
    """The colour of a slot on a light and on a dark page."""
    if number < len(LIGHT):
        return LIGHT[number], DARK[number]
    hue, lightness = (start + (number - len(LIGHT)) * step for start, step in (_HUE, _LIGHTNESS))
    above = _LIGHTNESS_RANGE * (lightness % 1)
    return _hex(_LOWEST_LIGHT + above, 2 * math.pi * hue), _hex(_LOWEST_DARK + above, 2 * math.pi * hue)


def _hex(lightness: float, hue: float) -> str:
    """The sRGB colour of an Oklch colour (Ottosson 2020, "A perceptual color space for image processing")."""
    a, b = _CHROMA * math.cos(hue), _CHROMA * math.sin(hue)
    # Oklab to cone responses to linear sRGB; the figures are Ottosson's
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    # clipped: the screen does not show every Oklch colour
    return "#" + "".join(f"{round(255 * _gamma(min(max(part, 0.0), 1.0))):02X}" for part in linear)


def _gamma(part: float) -> float:
    # the transfer curve of sRGB (IEC 61966-2-1)
    return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055
