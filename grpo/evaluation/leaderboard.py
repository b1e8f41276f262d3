"""The table that a comparison ends in: skill against the random walk first, an honest sentence last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from grpo.evaluation.bootstrap import bootstrap_interval, ratio, skill
from grpo.evaluation.dates import average_by_date, overlapping_dates, sum_by_date
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import summarise
from grpo.evaluation.significance import (
    DieboldMariano,
    clark_west,
    diebold_mariano,
    holm,
    model_confidence_set,
    pesaran_timmermann_by_date,
)
from preprocessing.windows import WindowSet

REFERENCE = "random_walk"
OPTIMUM = "optimum"
LEVEL = 0.05
"""Level of the verdict, kept for all forecasters of the table together."""


def leaderboard(evaluations: Sequence[Evaluation], windows: WindowSet) -> pd.DataFrame:
    """One row per forecaster, smallest CRPS first.

    To the columns of `score_table` it adds rel_crps_low, rel_crps_high, skill_low, skill_high (95 % block bootstrap
    over dates), mcs (whether the forecaster is in the 90 % model confidence set, by CRPS; None for the optimum), mcs_p,
    clark_west_p (the mean of the last day adds to "no change", one-sided) and direction_p (Pesaran-Timmermann on the
    median of the last day, one-sided).

    Raises:
        ValueError: the random walk is not among the forecasters.
    """
    table = score_table(evaluations, windows)
    dates, horizon = windows.context.origin, date_horizon(windows)
    crps = {evaluation.name: evaluation.scores.crps.mean(axis=1) for evaluation in evaluations}
    # the optimum knows the law: beside it the confidence set would hold no one else
    rivals = [name for name in crps if name != OPTIMUM]
    by_date = np.stack([average_by_date(crps[name], dates) for name in rivals], axis=1)  # [D, M]
    confidence = model_confidence_set(by_date, horizon=horizon)
    rows = {}
    for evaluation in evaluations:
        row = _intervals(crps, evaluation.name, dates, horizon)
        if evaluation.name in rivals:
            place = rivals.index(evaluation.name)
            row |= {"mcs": bool(confidence.included[place]), "mcs_p": confidence.p_values[place]}
        if evaluation.name not in (REFERENCE, OPTIMUM):
            row |= _point_tests(evaluation, windows, horizon)
        rows[evaluation.name] = row
    names = ("rel_crps_low", "rel_crps_high", "skill_low", "skill_high", "mcs", "mcs_p", "clark_west_p", "direction_p")
    added = {name: [rows[forecaster].get(name) for forecaster in table["forecaster"]] for name in names}
    numbers = {name: pd.Series(values, dtype=object if name == "mcs" else float) for name, values in added.items()}
    return table.assign(**numbers)


def score_table(evaluations: Sequence[Evaluation], windows: WindowSet) -> pd.DataFrame:
    """One row per forecaster, smallest CRPS first.

    Columns: forecaster, rel_crps and rel_mae (ratio to the random walk; NaN where that makes no error), skill (share of
    the gap between random walk and optimum that is closed; NaN without an optimum or a gap), dm_statistic and p_value
    (Diebold-Mariano on date-averaged CRPS against the random walk), p_holm (the same, adjusted for the number of
    forecasters), num_dates, num_windows (each counted once, whatever the number of seeds), the means of `summarise`,
    seconds.

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
                "rel_crps": _over(summary["crps"], reference["crps"]),
                "skill": (reference["crps"] - summary["crps"]) / gap if gap > 0 else np.nan,
                "dm_statistic": test.statistic,
                "p_value": test.p_value,
                "p_holm": p_holm,
                "num_dates": test.num_dates,
                "num_windows": count_windows(windows),
                "rel_mae": _over(summary["mae"], reference["mae"]),
                **summary,
                "seconds": evaluation.seconds,
            }
        )
    return pd.DataFrame(rows).sort_values("crps", kind="stable", na_position="last", ignore_index=True)


def _over(score: float, reference: float) -> float:
    """The quotient; NaN where the random walk makes no error, as on a price that never moves."""
    return score / reference if reference != 0 else np.nan


def date_horizon(windows: WindowSet) -> int:
    """Consecutive dates whose windows overlap: H where every day is an origin."""
    return max(1, overlapping_dates(windows.context.origin, windows.truth.dates[:, -1]))


def _test_against_reference(evaluation: Evaluation, reference: Evaluation, windows: WindowSet) -> DieboldMariano:
    with np.errstate(invalid="ignore"):  # infinite minus infinite: the test then answers NaN
        difference = evaluation.scores.crps.mean(axis=1) - reference.scores.crps.mean(axis=1)
    if evaluation.name in (REFERENCE, OPTIMUM):
        difference[:] = np.nan  # yardsticks, not rivals: an untested row does not count for Holm
    return diebold_mariano(average_by_date(difference, windows.context.origin), horizon=date_horizon(windows))


def _intervals(crps: dict[str, np.ndarray], name: str, dates: np.ndarray, horizon: int) -> dict[str, float]:
    """95 % intervals of rel_crps and skill where they are not fixed by definition."""
    found = {}
    if name != REFERENCE:
        columns = sum_by_date(np.stack([crps[name], crps[REFERENCE]], axis=1), dates)
        interval = bootstrap_interval(columns, ratio, horizon=horizon)
        found |= {"rel_crps_low": interval.low, "rel_crps_high": interval.high}
    if OPTIMUM in crps and name not in (REFERENCE, OPTIMUM):
        columns = sum_by_date(np.stack([crps[name], crps[REFERENCE], crps[OPTIMUM]], axis=1), dates)
        interval = bootstrap_interval(columns, skill, horizon=horizon)
        found |= {"skill_low": interval.low, "skill_high": interval.high}
    return found


def _point_tests(evaluation: Evaluation, windows: WindowSet, horizon: int) -> dict[str, float]:
    scores, dates = evaluation.scores, windows.context.origin
    realised = scores.realised_move[:, -1]
    # moves are against the last close, so the random walk's point forecast is 0
    adds = clark_west(realised, np.zeros(len(realised)), scores.mean_move[:, -1], dates, horizon=horizon)
    turns = pesaran_timmermann_by_date(scores.median_move[:, -1], realised, dates, horizon=horizon)
    return {"clark_west_p": adds.p_value, "direction_p": turns.p_value}


def verdict(table: pd.DataFrame) -> str:
    """Who beats the random walk, who loses to it, and who could not be tested, in a sentence or two."""
    rivals = [row for row in table.to_dict("records") if row["forecaster"] not in (REFERENCE, OPTIMUM)]
    if not rivals:
        return "Nothing was compared with the random walk."
    significant = [row for row in rivals if row["p_holm"] < LEVEL]
    # the test is two-sided: the sign tells on which side
    better = [row["forecaster"] for row in significant if row["dm_statistic"] < 0]
    worse = [row["forecaster"] for row in significant if row["dm_statistic"] > 0]
    untested = [row["forecaster"] for row in rivals if np.isnan(row["p_holm"])]
    tested = len(rivals) - len(untested)
    test = f"at {LEVEL:.0%} (Diebold-Mariano on date-averaged CRPS"
    test += f", Holm over {tested} rivals)" if tested > 1 else ")"
    sentences = [f"No forecaster beats the random walk {test}."]
    if better:
        sentences = [f"{join_names(better)} beat{'s' if len(better) == 1 else ''} the random walk {test}."]
    if worse:
        sentences.append(f"{join_names(worse)} lose{'s' if len(worse) == 1 else ''} to it.")
    if untested:
        sentences.append(f"{join_names(untested)} could not be tested: too few dates, or no difference at all.")
    return " ".join(sentences)


def join_names(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, tail = names
    return f"{', '.join(head)} and {tail}" if head else tail


def count_windows(windows: WindowSet) -> int:
    """Different windows; each stands in a comparison once per seed."""
    return len(set(zip(windows.context.item_id, windows.context.origin.tolist(), strict=True)))


def describe_windows(windows: WindowSet, num_samples: int | None, num_seeds: int = 1) -> str:
    """What was compared, each window counted once; `num_samples` None where it differs between windows."""
    stocks, origins = sorted(set(windows.context.item_id)), np.unique(windows.context.origin)
    stock = stocks[0] if len(stocks) == 1 else f"{len(stocks)} stocks"
    first, last = np.datetime_as_string([origins[0], origins[-1]], unit="D")
    samples = f"{num_samples} samples each" if num_samples else "equally many valid samples for all"
    seeds = f" Means over {num_seeds} seeds, ± their standard deviation." if num_seeds > 1 else ""
    return (
        f"{count_windows(windows)} windows of {stock}, {len(origins)} origins from {first} to {last}, "
        f"{windows.horizon} days ahead, {samples}.{seeds}"
    )


def optimum_note(table: pd.DataFrame) -> str | None:
    """How much there is to learn on these windows, and how much the best forecaster has learnt; None if unknown."""
    crps = table.set_index("forecaster")["crps"]
    if OPTIMUM not in crps.index:
        return None
    note = (
        "skill: share closed of the gap in CRPS between the random walk (0) and the exact law (1); "
        f"on these windows the gap is {1 - crps[OPTIMUM] / crps[REFERENCE]:.1%} of the random walk's CRPS."
    )
    rows = [row for row in table.to_dict("records") if row["forecaster"] not in (REFERENCE, OPTIMUM)]
    rows = [row for row in rows if np.isfinite(row["skill"])]
    if not rows:
        return note
    best = max(rows, key=lambda row: row["skill"])
    return f"{note} {best['forecaster']} has learnt {max(best['skill'], 0):.0%} of what can be learnt."
