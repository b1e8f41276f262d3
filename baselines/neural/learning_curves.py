"""What a training measured step by step, as CSV and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from preprocessing.files import AtomicFiles, JsonObject, write_atomically

COLUMNS = 3
"""Panels side by side."""


class LearningCurve:
    """Rows of named numbers, one per step that was measured.

    Rows survive in a checkpoint as `rows` (plain JSON), so that a resumed training's curve has no gap.
    """

    def __init__(self, rows: Sequence[JsonObject] = ()) -> None:
        self.rows: list[JsonObject] = [dict(row) for row in rows]

    def add(self, phase: str, step: int, **values: float) -> None:
        """Note what was measured at a step of a phase."""
        self.rows.append({"phase": phase, "step": step, **values})

    def table(self) -> pd.DataFrame:
        """One row per measurement; columns phase, step, and the values, NaN where a row has none."""
        return pd.DataFrame(self.rows)

    def write(self, folder: Path, *, title: str, name: str = "learning_curves") -> None:
        """Write `name`.csv and `name`.png into a folder; nothing where nothing was measured."""
        if not self.rows:
            return
        table = self.table()
        write_atomically(Path(folder) / f"{name}.csv", table.to_csv(index=False))
        with AtomicFiles() as files:
            draw(table, title=title).savefig(files.open(Path(folder) / f"{name}.png"), format="png", dpi=120)


def draw(table: pd.DataFrame, *, title: str) -> Figure:
    """One panel per value and phase, in the order of their first appearance."""
    values = [column for column in table.columns if column not in ("phase", "step")]
    panels = [
        (phase, value, rows)
        for phase, group in table.groupby("phase", sort=False)
        for value in values
        if len(rows := group[["step", value]].dropna())
    ]
    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines + 0.4), layout="constrained")
    figure.suptitle(title)
    for number, (phase, value, rows) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, number)
        axes.plot(rows["step"], rows[value], color="#2a6f97", marker="." if len(rows) < 30 else "")
        axes.set_title(f"{phase}: {value.replace('_', ' ')}", fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return figure
