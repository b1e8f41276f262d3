"""What preprocessing found in the bars, beside the numbers that rest on them; windows whose price stands still.

A stock that is suspended repeats its last close: who narrows the spread there beats the random walk by any margin,
which says nothing of a forecast. Letters: B windows, H horizon.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from grpo.comparison.results import Section
from grpo.evaluation.comparison import Comparison, pooled_table
from grpo.evaluation.leaderboard import LEVEL, count_windows, verdict
from preprocessing.checks.prices import STALE_BARS
from preprocessing.combined_preprocessor import REPORT_FILE
from preprocessing.notices import findings_of
from preprocessing.windows import WindowSet

_NAMED = 5
"""Stocks that a warning names."""


def stands_still(windows: WindowSet) -> np.ndarray:
    """[B] whether STALE_BARS closes in a row are equal, among those that were seen and those to predict."""
    closes = np.concatenate([windows.context.past[:, :, 0], windows.truth.future], axis=1)  # [B, L + H]
    equal = closes[:, 1:] == closes[:, :-1]
    # windows too short for such a run count only where no close differs
    if equal.shape[1] < STALE_BARS - 1:
        return equal.all(axis=1)
    # a run of STALE_BARS equal closes is one comparison fewer
    still = sliding_window_view(equal, STALE_BARS - 1, axis=1).all(axis=2)  # [B, number of such rows of closes]
    return np.asarray(still).any(axis=1).reshape(len(equal))


def still_windows(comparison: Comparison, table: pd.DataFrame) -> tuple[list[Section], list[str], str]:
    """The leaderboard without windows whose price stands still.

    Args:
        comparison: all windows.
        table: their leaderboard.

    Returns:
        The section, warnings, and the headline: the verdict, which says so where it rests on such windows.
    """
    said, still = verdict(table), stands_still(comparison.windows)
    if not still.any():
        return [], [], said
    count, stocks = count_windows(comparison.windows.take(still)), _most_common(comparison.stock[still])
    what = f"{count} of {comparison.num_windows} windows have a price that stands still ({stocks})"
    if still.all():
        return [], [f"All windows have a price that stands still ({stocks}): they tell nothing of a forecast."], said
    moving = pooled_table(comparison.take(~still))
    shown = moving.filter(items=["forecaster", "skill", "rel_crps", "p_holm", "rel_mae", "coverage_80"])
    section = Section(
        "Without windows whose price stands still",
        shown.dropna(axis="columns", how="all"),
        f"{what}: a suspended stock or stale quotes. Without them: {verdict(moving)}",
        moving,
    )
    # p values always move a little; what counts is whether anybody else wins or loses
    if _winners(moving) == _winners(table):
        return [section], [f"{what}; without them the verdict is the same."], said
    return (
        [section],
        [f"{what}."],
        f"{said} This rests on {count} windows whose price stands still. Without them: {verdict(moving)}",
    )


def _winners(table: pd.DataFrame) -> set[tuple[str, bool]]:
    """Who differs from the random walk, and whether for the better."""
    rows = table.to_dict("records")
    return {(row["forecaster"], row["dm_statistic"] < 0) for row in rows if row["p_holm"] < LEVEL}


def _most_common(names: Sequence[str] | np.ndarray) -> str:
    counts = Counter(map(str, names))
    shown = [f"{name} {count}" for name, count in counts.most_common(_NAMED)]
    return ", ".join(shown) + (f" and {len(counts) - _NAMED} more stocks" if len(counts) > _NAMED else "")


def data_findings(folder: Path, stocks: Sequence[str]) -> tuple[list[Section], list[str]]:
    """What preprocessing found in the stocks of a comparison, and which it left out.

    Args:
        folder: of the windows, where preprocessing left its report; without one there is nothing to say.
        stocks: of the comparison.
    """
    path = folder / REPORT_FILE
    if not path.exists():
        return [], []
    report: Mapping[str, Any] = json.loads(path.read_text())
    # stocks that were left out are named too: a table says nothing of those that are missing
    entries = {name: entry for name, entry in report["stocks"].items() if name in stocks or entry["skipped"]}
    rows = [
        {"stock": name, "found": "; ".join(found)} for name, entry in entries.items() if (found := findings_of(entry))
    ]
    warnings = []
    left_out = [name for name, entry in entries.items() if entry["skipped"]]
    if left_out:
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        warnings.append(
            f"{len(left_out)} of {len(report['stocks'])} stocks are left out: {', '.join(left_out[:_NAMED])}{more}."
        )
    for field, what in (
        ("impossible_moves", "moves that no market makes"),
        ("unapplied_splits", "splits that are named but not applied"),
        ("suspected_splits", "moves that look like splits"),
    ):
        odd = [f"{name} {_first(entry)}".strip() for name, entry in entries.items() if entry.get(field)]
        if odd:
            more = f" and {len(odd) - _NAMED} more stocks" if len(odd) > _NAMED else ""
            warnings.append(f"The prices hold {what}: {', '.join(odd[:_NAMED])}{more}.")
    if not rows:
        return [], warnings
    note = "Found by preprocessing and left as it is, unless it says repaired; counts are of rows of the whole history."
    return [Section("What was found in the data", pd.DataFrame(rows), note)], warnings


def _first(entry: Mapping[str, Any]) -> str:
    return f"({', '.join(entry['moves'][:2])})" if entry.get("moves") else ""
