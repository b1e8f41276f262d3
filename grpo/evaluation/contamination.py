"""Could a forecaster have seen the prices that it is asked to forecast?

Three signs: it was trained on days of the test span; its skill exists only on days that its base model may have read
about; it recites prices, or names a stock, from raw numbers (the probes, whose model side is `grpo.sampling.probes`).

Letters: B windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from grpo.evaluation.comparison import Comparison, Fold, table_by
from grpo.evaluation.harness import choose_windows
from grpo.evaluation.leaderboard import LEVEL, join_names
from preprocessing.windows import Context, WindowSet

SIMULATED = "simulated data"
"""Stands for a date where a model has seen no real price at all."""
UNKNOWN = "unknown"


def training_end(fold: Fold) -> np.datetime64:
    """Last day whose price a forecaster that is fitted before this fold has seen as a target."""
    # validation windows count: early stopping and calibration have seen them
    return max(windows.truth.dates.max() for windows in (fold.train, fold.val) if len(windows))


def reaches_test(until: str, folds: Sequence[Fold]) -> bool:
    """Whether training up to a day (YYYY-MM-DD, or no date) reaches the first day that is to be forecast."""
    # no date, no accusation: what is not known is said elsewhere, not guessed here
    if until in (SIMULATED, UNKNOWN):
        return False
    return bool(np.datetime64(until) >= min(fold.test.truth.dates.min() for fold in folds).astype("datetime64[D]"))


def training_warnings(until: Mapping[str, str], folds: Sequence[Fold]) -> list[str]:
    """One line if forecasters were trained on days of the test span.

    Args:
        until: last training day of each forecaster that is trained once; plugins are fitted before each fold.
        folds: the test span.
    """
    late = [f"{name} ({day})" for name, day in until.items() if reaches_test(day, folds)]
    late += [
        f"every plugin of fold {fold.number} ({np.datetime_as_string(training_end(fold), unit='D')})"
        for fold in folds
        if training_end(fold) >= fold.test.truth.dates.min()
    ]
    if not late:
        return []
    first = np.datetime_as_string(min(fold.test.truth.dates.min() for fold in folds), unit="D")
    return [
        f"Trained on days of the test span, which starts on {first}: {join_names(late)}. Their scores mean nothing."
    ]


def after_cutoff(windows: WindowSet, cutoff: str) -> np.ndarray:
    """[B] whether every target day lies after the day up to which a base model may have read prices."""
    # the first target decides: a window that straddles the day may be half remembered
    return windows.truth.dates[:, 0] > np.datetime64(cutoff)


def cutoff_table(comparison: Comparison, cutoff: str) -> pd.DataFrame:
    """`table_by` of the windows that the base model may have read about, and of those that it cannot have."""
    after = after_cutoff(comparison.windows, cutoff)
    return table_by(comparison, "targets", np.where(after, f"after {cutoff}", f"up to {cutoff}"))


def cutoff_warnings(table: pd.DataFrame, names: Sequence[str], cutoff: str) -> list[str]:
    """What a `cutoff_table` says against language models: skill only where they may remember, or no proof either way.

    Skill counts as in the verdict, by the adjusted p value; the adjustment is over the two spans.
    """
    sides = {side: table[table["targets"] == f"{side} {cutoff}"].set_index("forecaster") for side in ("up to", "after")}
    if sides["after"].empty:
        return [f"Every test window lies before {cutoff}: the base model may have read all that it is asked about."]
    if sides["up to"].empty:
        return []
    suspects = [
        name for name in names if _beats(sides["up to"], name) and not _beats(sides["after"], name)
    ]  # fmt: skip
    if not suspects:
        return []
    verb = "beats" if len(suspects) == 1 else "beat"
    return [
        f"{join_names(suspects)} {verb} the random walk only on days up to {cutoff}, which the base model may have "
        "read about; after it there is no proof of skill."
    ]


def _beats(table: pd.DataFrame, name: str) -> bool:
    row = table.loc[name].to_dict()
    return row["p_holm"] < LEVEL and row["dm_statistic"] < 0


def choose_apart(context: Context, count: int) -> np.ndarray:
    """Row numbers of at most `count` windows, spread over stocks and dates, of which no two share a day of one stock.

    A stock whose windows all overlap keeps one.
    """
    # L trading days span at most 7/5 L calendar days and a few holidays
    gap = np.timedelta64(context.past.shape[1] * 3 // 2 + 5, "D")
    chosen = choose_windows(context, count)
    kept, last = [], {}
    for row in chosen[np.argsort(context.origin[chosen], kind="stable")]:
        item = context.item_id[row]
        # measured from the last window kept, not from the last one seen
        if item not in last or context.origin[row] - last[item] > gap:
            kept.append(row)
            last[item] = context.origin[row]
    return np.sort(np.array(kept))


@dataclass(frozen=True, kw_only=True)
class Recital:
    """Answers to "go on with these exact prices", one per window.

    Attributes:
        exact: [B] whether the most likely continuation is the next close to the cent.
        preference: [B] log probability of the true next close minus the mean of those one tick above and below.
    """

    exact: np.ndarray
    preference: np.ndarray


def recital_row(name: str, span: str, recital: Recital, dates: np.ndarray) -> dict[str, object]:
    """How well a language model recites the windows of a span, against what an honest one would.

    A model that does not know the price has no reason to prefer it to its neighbours a tick away: the preference is
    tested against 0, one-sided, on means per date (Student's t). `exact` has no such null and is only shown.

    Args:
        name: the language model.
        span: which windows, as "train" or "test".
        recital: its answers.
        dates: [B] origins.
    """
    _, group = np.unique(dates, return_inverse=True)
    by_date = np.bincount(group, weights=recital.preference) / np.bincount(group)
    p_value = np.nan
    if len(by_date) > 1 and np.ptp(by_date) > 0:
        # stocks of one date share their news, so dates are the independent unit, not windows
        statistic = by_date.mean() / by_date.std(ddof=1) * np.sqrt(len(by_date))
        p_value = float(stats.t.sf(statistic, len(by_date) - 1))
    return {
        "forecaster": name,
        "probe": f"exact next close, {span}",
        "windows": len(recital.exact),
        "found": float(np.mean(recital.exact)),
        "by chance": np.nan,
        "preference": float(np.mean(recital.preference)),
        "p_value": p_value,
    }


def ticker_row(name: str, log_probs: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """How often a language model names the stock of a window, against chance (binomial, one-sided).

    Each stock's mean log probability over all windows is taken off first: a well-known name is likely after
    anything. Windows of one stock overlap unless they are chosen far apart, so the caller passes windows that do not.

    Args:
        name: the language model.
        log_probs: [B, K] log probability of each stock's name after the window's raw prices.
        truth: [B] number of the right one.
    """
    guess = (log_probs - log_probs.mean(axis=0)).argmax(axis=1)  # what the prices add to the name's own frequency
    hits, chance = int((guess == truth).sum()), _chance(truth, log_probs.shape[1])
    return {
        "forecaster": name,
        "probe": "name of the stock",
        "windows": len(truth),
        "found": hits / len(truth),
        "by chance": chance,
        "preference": np.nan,
        "p_value": float(stats.binomtest(hits, len(truth), chance, alternative="greater").pvalue),
    }


def _chance(truth: np.ndarray, num_stocks: int) -> float:
    """Best hit rate without looking at the windows: always naming the most frequent stock."""
    return float(max(np.bincount(truth, minlength=num_stocks).max() / len(truth), 1 / num_stocks))


def probe_warnings(table: pd.DataFrame) -> list[str]:
    """One line per probe that a language model answers better than one that does not know could."""
    return [
        f"{row['forecaster']} knows more than it is shown ({row['probe']}: p = {row['p_value']:.2g}): "
        "it may remember prices of this stock."
        for row in table.to_dict("records")
        # Bonferroni over all probes: with many of them one would look clever by chance
        if row["p_value"] < LEVEL / len(table)
    ]
