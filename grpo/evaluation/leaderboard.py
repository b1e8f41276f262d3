"""The table that a comparison ends in: skill against the random walk first, an honest sentence last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import INTERVALS, summarise
from grpo.evaluation.significance import DieboldMariano, average_by_date, diebold_mariano, holm
from preprocessing.windows import WindowSet

REFERENCE = "random_walk"
OPTIMUM = "optimum"
LEVEL = 0.05
"""Level of the verdict, kept for all forecasters of the table together."""

_HEADERS = {
    "forecaster": "forecaster",
    "rel_crps": "rel. CRPS",
    "skill": "skill",
    "p_value": "p",
    "crps": "CRPS %",
    "mae": "MAE %",
    "rel_mae": "rel. MAE",
    "energy": "energy %",
    "coverage": "coverage 50/80/95",
    "direction": "direction (always up)",
    "straight_lines": "straight lines",
    "valid": "valid",
    "seconds": "seconds",
}


def leaderboard(evaluations: Sequence[Evaluation], windows: WindowSet) -> pd.DataFrame:
    """One row per forecaster, smallest CRPS first.

    Columns: forecaster, rel_crps and rel_mae (ratio to the random walk), skill (share of the gap between
    random walk and optimum that is closed; NaN without an optimum or a gap), dm_statistic and p_value
    (Diebold-Mariano on date-averaged CRPS against the random walk), p_holm (the same, adjusted for the number
    of forecasters), the means of `summarise`, seconds, num_dates.

    Raises:
        ValueError: the random walk is not among the forecasters.
    """
    summaries = {evaluation.name: summarise(evaluation.scores) for evaluation in evaluations}
    if REFERENCE not in summaries:
        raise ValueError(f"a leaderboard needs {REFERENCE}: skill is measured against it.")
    walk = next(evaluation for evaluation in evaluations if evaluation.name == REFERENCE)
    reference = summaries[REFERENCE]
    gap = reference["crps"] - summaries[OPTIMUM]["crps"] if OPTIMUM in summaries else np.nan
    tests = [_test_against_reference(evaluation, walk, windows) for evaluation in evaluations]
    adjusted = holm([test.p_value for test in tests])
    rows = []
    for evaluation, test, p_holm in zip(evaluations, tests, adjusted, strict=True):
        summary = summaries[evaluation.name]
        rows.append(
            {
                "forecaster": evaluation.name,
                "rel_crps": summary["crps"] / reference["crps"],
                "skill": (reference["crps"] - summary["crps"]) / gap if gap > 0 else np.nan,
                "dm_statistic": test.statistic,
                "p_value": test.p_value,
                "p_holm": p_holm,
                "num_dates": test.num_dates,
                "rel_mae": summary["mae"] / reference["mae"],
                **summary,
                "seconds": evaluation.seconds,
            }
        )
    return pd.DataFrame(rows).sort_values("crps", kind="stable", na_position="last", ignore_index=True)


def _test_against_reference(evaluation: Evaluation, reference: Evaluation, windows: WindowSet) -> DieboldMariano:
    with np.errstate(invalid="ignore"):  # infinite minus infinite: the test then answers NaN
        difference = evaluation.scores.crps.mean(axis=1) - reference.scores.crps.mean(axis=1)
    if evaluation.name in (REFERENCE, OPTIMUM):
        difference[:] = np.nan  # yardsticks, not rivals: an untested row does not count for Holm
    return diebold_mariano(average_by_date(difference, windows.context.origin), horizon=windows.horizon)


def verdict(table: pd.DataFrame) -> str:
    """Who beats the random walk, who loses to it, and who could not be tested, in a sentence or two."""
    rivals = [row for row in table.to_dict("records") if row["forecaster"] not in (REFERENCE, OPTIMUM)]
    if not rivals:
        return "Nothing was compared with the random walk."
    significant = [row for row in rivals if row["p_holm"] < LEVEL]
    better = [row["forecaster"] for row in significant if row["dm_statistic"] < 0]
    worse = [row["forecaster"] for row in significant if row["dm_statistic"] > 0]
    untested = [row["forecaster"] for row in rivals if np.isnan(row["p_holm"])]
    test = f"at {LEVEL:.0%} (Diebold-Mariano on date-averaged CRPS"
    test += f", Holm over {len(rivals)} forecasters)" if len(rivals) > 1 else ")"
    sentences = [f"No forecaster beats the random walk {test}."]
    if better:
        sentences = [f"{_join(better)} beat{'s' if len(better) == 1 else ''} the random walk {test}."]
    if worse:
        sentences.append(f"{_join(worse)} lose{'s' if len(worse) == 1 else ''} to it.")
    if untested:
        sentences.append(f"{_join(untested)} could not be tested: too few dates, or no difference at all.")
    return " ".join(sentences)


def _join(names: Sequence[str]) -> str:
    *head, tail = names
    return f"{', '.join(head)} and {tail}" if head else tail


def describe_windows(windows: WindowSet, num_samples: int | None) -> str:
    """What was compared; `num_samples` None where it differs between windows."""
    stocks, origins = sorted(set(windows.context.item_id)), np.unique(windows.context.origin)
    stock = stocks[0] if len(stocks) == 1 else f"{len(stocks)} stocks"
    first, last = np.datetime_as_string([origins[0], origins[-1]], unit="D")
    samples = f"{num_samples} samples each" if num_samples else "equally many valid samples for all"
    return (
        f"{len(windows)} windows of {stock}, {len(origins)} origins from {first} to {last}, "
        f"{windows.horizon} days ahead, {samples}."
    )


def explain_columns(table: pd.DataFrame) -> str:
    """What the numbers of the table mean."""
    lines = [
        "Errors in percent of the last close; MAE is that of the samples' median. rel.: ratio to the random walk, "
        "below 1 is better. p: Diebold-Mariano against the random walk on date-averaged CRPS, not adjusted. "
        "An invalid sample counts as the last close; valid is the share that was not."
    ]
    crps = table.set_index("forecaster")["crps"]
    if OPTIMUM in crps.index:
        learnable = 1 - crps[OPTIMUM] / crps[REFERENCE]
        lines.append(
            "skill: share closed of the gap in CRPS between the random walk (0) and the exact law (1); "
            f"on these windows the gap is {learnable:.1%} of the random walk's CRPS."
        )
    return " ".join(lines)


def to_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, padded so that it also reads well in a terminal."""
    rows = table.to_dict("records")
    decimals = {"rel_crps": 3, "skill": 3, "p_value": 3, "crps": 3, "mae": 3, "rel_mae": 3, "energy": 3}
    decimals |= {"straight_lines": 2, "valid": 3, "seconds": 2}
    cells = {name: [_number(row[name], digits) for row in rows] for name, digits in decimals.items()}
    cells["forecaster"] = [row["forecaster"] for row in rows]
    cells["coverage"] = [
        "/".join(_number(row[f"coverage_{round(100 * level)}"], 2) for level in INTERVALS) for row in rows
    ]
    cells["direction"] = [f"{row['direction_hit']:.2f} ({row['always_up_hit']:.2f})" for row in rows]
    shown = [name for name in _HEADERS if name != "skill" or any(cells["skill"])]
    columns = [[_HEADERS[name], *cells[name]] for name in shown]
    widths = [max(map(len, column)) for column in columns]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    header, *body = zip(*columns, strict=True)
    return "\n".join(_line(cells, widths) for cells in (header, rule, *body))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join([cells[0].ljust(widths[0]), *padded[1:]])} |"


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:z.{digits}f}"
