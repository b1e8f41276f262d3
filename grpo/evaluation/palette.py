"""How each forecaster looks, the same in every picture and on the page.

Six colours, told apart with any kind of colour vision and against either background (tests/evaluation/test_plots.py
computes it); from the seventh forecaster on they come again with another dash and marker. Random walk and optimum
are yardsticks: grey, wide or dotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE

LIGHT = ("#0072B2", "#D55E00", "#009E73", "#D0609F", "#4B2A7B", "#6E4400")
"""On white; the first three are those of Okabe and Ito (2008)."""
DARK = ("#4A9FDC", "#E8743B", "#3FC79A", "#F2A9D3", "#8E7BEF", "#F5DC7A")
"""The same hues on a dark page."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2))


@dataclass(frozen=True)
class Style:
    """Look of one forecaster.

    Attributes:
        slot: its number in the palette, or the name of a yardstick.
        colour: on a light background.
        marker: Matplotlib's letter; empty for a line alone.
        dash: lengths of dashes and gaps in units of the line's width; empty for a solid line.
        width: of the line, in points.
    """

    slot: str
    colour: str
    marker: str
    dash: tuple[float, ...]
    width: float


_YARDSTICKS = {
    REFERENCE: Style("walk", "#B3B3B3", "", (), 5.0),  # wide and pale: seen below a line that covers it
    OPTIMUM: Style("optimum", "#777777", "", (1.5, 1.5), 2.0),
}


def forecaster_styles(names: Sequence[str]) -> dict[str, Style]:
    """A look per forecaster, in the order in which they were evaluated."""
    styles: dict[str, Style] = {}
    rivals = [name for name in names if name not in _YARDSTICKS]
    for i, name in enumerate(rivals):
        slot = i % len(LIGHT)
        dash = DASHES[i // len(LIGHT) % len(DASHES)]
        styles[name] = Style(str(slot), LIGHT[slot], MARKERS[i % len(MARKERS)], dash, 1.4)
    return {name: _YARDSTICKS[name] if name in _YARDSTICKS else styles[name] for name in names}
