"""All forecasts of a comparison side by side: every window once per seed, each in its walk-forward fold.

Seeds lie one after another along the windows, so that a mean over windows is a mean over seeds too, and a mean per
date is the seed-averaged loss that the tests of significance need. Tables of a stock, a fold or a span of time are
tables of the windows that `take` keeps.

Letters: B windows times seeds, S samples, H horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grpo.evaluation.harness import Evaluation, choose_windows
from grpo.evaluation.identity import windows_hash
from grpo.evaluation.leaderboard import OPTIMUM
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
    def names(self) -> list[str]:
        """The forecasters, in the order in which they were asked."""
        return [evaluation.name for evaluation in self.evaluations]

    @property
    def optimum_known(self) -> np.ndarray:
        """[B] whether the exact law of the window's future is known."""
        known = [e.forecast.valid.all(axis=1) for e in self.evaluations if e.name == OPTIMUM]
        return known[0] if known else np.zeros(len(self.windows), dtype=bool)

    @property
    def ranked(self) -> tuple[Evaluation, ...]:
        """The evaluations that a table of these windows may hold: the optimum only if it is known on all of them."""
        keep = bool(self.optimum_known.all()) and len(self.windows) > 0
        return tuple(evaluation for evaluation in self.evaluations if keep or evaluation.name != OPTIMUM)

    def parts(self, keys: np.ndarray) -> Iterator[tuple[str, Comparison]]:
        """The comparison on the windows of each key [B] (stock, fold, seed), keys ascending."""
        for key in np.unique(keys):
            yield str(key), self.take(keys == key)
