"""All forecasts of a comparison side by side: every window once per seed, each in its walk-forward fold.

Seeds lie one after another along the windows, so that a mean over windows is a mean over seeds too, and a mean per
date is the seed-averaged loss that the tests of significance need. Tables of a stock, a fold or a span of time are
tables of the windows that `take` keeps.

Letters: B windows times seeds, S samples, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from grpo.evaluation.harness import Evaluation, choose_windows
from grpo.evaluation.identity import windows_hash
from grpo.evaluation.leaderboard import LEVEL, OPTIMUM, REFERENCE, count_windows, leaderboard, score_table
from grpo.evaluation.significance import holm
from preprocessing.windows import WindowSet, concatenate


@dataclass(frozen=True)
class Fold:
    """One block of the test span with what came before it.

    Attributes:
        number: 1, 2, ... in time order.
        train: windows that plugins are fitted on.
        val: windows between these and the block.
        test: windows of the block.
    """

    number: int
    train: WindowSet
    val: WindowSet
    test: WindowSet

    @cached_property
    def training_hash(self) -> str:
        """Hash of the windows that a forecaster is fitted on."""
        return f"{windows_hash(self.train)}-{windows_hash(self.val)}"


def limit_windows(folds: Sequence[Fold], max_windows: int) -> list[Fold]:
    """The folds with at most `max_windows` test windows together, chosen by `choose_windows`; 0 keeps all."""
    # over all folds at once: choosing within each would favour short folds
    chosen = choose_windows(concatenate([fold.test for fold in folds]).context, max_windows)
    starts = np.cumsum([0, *(len(fold.test) for fold in folds)])
    return [
        Fold(fold.number, fold.train, fold.val, fold.test.take(chosen[(chosen >= start) & (chosen < end)] - start))
        for fold, start, end in zip(folds, starts, starts[1:], strict=False)
    ]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What every forecaster said about the same windows.

    Attributes:
        windows: [B] each test window once per seed.
        evaluations: one per forecaster; the optimum is not valid on windows whose law is unknown.
        seed: [B] seed of the forecasts.
        fold: [B] number of the fold.
    """

    windows: WindowSet
    evaluations: tuple[Evaluation, ...]
    seed: np.ndarray
    fold: np.ndarray

    def take(self, rows: np.ndarray) -> Comparison:
        """The comparison on some windows, by row number or boolean mask."""
        return Comparison(
            windows=self.windows.take(rows),
            evaluations=tuple(evaluation.take(rows) for evaluation in self.evaluations),
            seed=self.seed[rows],
            fold=self.fold[rows],
        )

    @property
    def stock(self) -> np.ndarray:
        """[B] stock of each window."""
        return np.array(self.windows.context.item_id)

    @property
    def optimum_known(self) -> np.ndarray:
        """[B] whether the exact law of the window's future is known."""
        optimum = next((evaluation for evaluation in self.evaluations if evaluation.name == OPTIMUM), None)
        if optimum is None:
            return np.zeros(len(self.windows), dtype=bool)
        return np.asarray(optimum.forecast.valid.all(axis=1))

    @property
    def ranked(self) -> tuple[Evaluation, ...]:
        """The evaluations that a table of these windows may hold: the optimum only if it is known on all of them."""
        # a mean over a part of the windows must not stand beside means over all of them
        keep = bool(self.optimum_known.all()) and len(self.windows) > 0
        return tuple(evaluation for evaluation in self.evaluations if keep or evaluation.name != OPTIMUM)

    @property
    def num_windows(self) -> int:
        """Windows, each counted once whatever the number of seeds."""
        return count_windows(self.windows)

    def at_step(self, step: int) -> Comparison:
        """The scores of one day ahead alone, 1 to H; the forecasts stay whole."""
        cut = (replace(evaluation, scores=evaluation.scores.at_step(step)) for evaluation in self.evaluations)
        return replace(self, evaluations=tuple(cut))


def pooled_table(comparison: Comparison) -> pd.DataFrame:
    """The leaderboard of all windows; with several seeds also rel_crps_sd and skill_sd, their spread over seeds."""
    table = leaderboard(comparison.ranked, comparison.windows)
    if len(np.unique(comparison.seed)) == 1:
        return table
    # the same windows each time, so their spread is that of fitting and sampling alone
    by_seed = table_by(comparison, "seed", comparison.seed)
    spread = by_seed.groupby("forecaster")[["rel_crps", "skill"]].std(ddof=1)
    spread.loc[REFERENCE] = np.nan  # 1 and 0 with every seed
    return table.merge(spread.add_suffix("_sd"), left_on="forecaster", right_index=True, how="left")


def table_by(comparison: Comparison, label: str, keys: np.ndarray) -> pd.DataFrame:
    """`score_table` of the windows of each key [B], one below the other, with the key in column `label`.

    The optimum and `skill` are there wherever the law of all windows of a key is known. `p_holm` is adjusted over the
    keys for each forecaster: on how many stocks (or folds) one can say that it beats the random walk. Columns first
    and last are the days of the first and last origin.
    """
    parts = []
    for key in np.unique(keys):
        part = comparison.take(keys == key)
        days = np.datetime_as_string([part.windows.context.origin.min(), part.windows.context.origin.max()], unit="D")
        span = {label: str(key), "first": days[0], "last": days[1]}
        parts.append(score_table(part.ranked, part.windows).assign(**span))
    table = pd.concat(parts, ignore_index=True)
    # per forecaster: the question is on which keys this one wins, not who wins somewhere
    for rows in table.groupby("forecaster").groups.values():
        table.loc[rows, "p_holm"] = holm(table.loc[rows, "p_value"].tolist())
    front = [label, "forecaster", "first", "last", "num_windows", "num_dates"]
    return table.filter(items=[*front, *(name for name in table if name not in front)])


def table_by_step(comparison: Comparison) -> pd.DataFrame:
    """`score_table` of each day ahead alone, one below the other, with the day in column `step`."""
    steps = range(1, comparison.windows.horizon + 1)
    parts = [score_table(comparison.at_step(step).ranked, comparison.windows).assign(step=step) for step in steps]
    table = pd.concat(parts, ignore_index=True)
    return table.filter(items=["step", *(name for name in table if name != "step")])


def tally_table(by_key: pd.DataFrame) -> pd.DataFrame:
    """One row per forecaster of a `table_by`: on how many keys it is better and worse, and its median."""
    rows = []
    # yardsticks and keys with too few dates have no p value and are not counted as tested
    for name, part in by_key[by_key["p_value"].notna()].groupby("forecaster", sort=False):
        ratio = np.asarray(part["rel_crps"])
        significant = np.asarray(part["p_holm"]) < LEVEL
        rows.append(
            {
                "forecaster": name,
                "tested": len(part),
                "better": int((ratio < 1).sum()),
                "significantly better": int((significant & (ratio < 1)).sum()),
                "significantly worse": int((significant & (ratio > 1)).sum()),
                "median rel. CRPS": np.median(ratio),
                "smallest": ratio.min(),
                "largest": ratio.max(),
            }
        )
    return pd.DataFrame(rows)
