"""The comparison again on placebos: data on which no honest forecaster can show skill."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from grpo.comparison.contenders import Contender, ExactLaw
from grpo.comparison.folds import data_config_of
from grpo.comparison.forecasters import Forecasters, ask_all
from grpo.comparison.results import Section
from grpo.evaluation.comparison import Fold, limit_windows
from grpo.evaluation.placebo import (
    KINDS,
    PlaceboError,
    draw_future,
    exact_law_table,
    gbm_windows,
    placebo_table,
    placebo_warnings,
    rank_table,
    with_future,
)
from preprocessing.config import DataConfig
from preprocessing.market_data import MarketDataError
from preprocessing.windows import WindowSet, concatenate

_NOTE = (
    "Plugins are fitted again on placebo data. shuffle and sign_flip: rank of the CRPS over the random walk's on the "
    "draw that is scored among others; rel_crps itself may be below 1, since volatility and tails can still be learnt. "
    "gbm: CRPS relative to the exact law, which nothing beats. Small p: skill where there is none to have; p_holm is "
    "over the whole table."
)


@dataclass(frozen=True, kw_only=True)
class Placebos:
    """Asks again about placebo data.

    Attributes:
        forecasters: as in the comparison; what they say is kept in the same place.
        contenders: without the optimum.
        folds: as in the comparison.
        seed: of the placebos, and of the forecasts.
        data: settings of preprocessing, by which random walks are made into windows.
        max_windows: test windows used at most.
    """

    forecasters: Forecasters
    contenders: Sequence[Contender]
    folds: Sequence[Fold]
    seed: int
    data: DataConfig
    max_windows: int


def run_placebos(placebos: Placebos, asked: str) -> tuple[list[Section], list[str]]:
    """Ask and score on every placebo of `compare.placebo`; the table, and what it warns of."""
    kinds = KINDS if asked == "all" else (asked,)
    tables, warnings = [], []
    for kind in kinds:
        try:
            tables.append(_gbm(placebos) if kind == "gbm" else _drawn(kind, placebos))
        # one placebo may be impossible on these windows; the others still tell something
        except (PlaceboError, MarketDataError) as error:
            warnings.append(f"The placebo {kind} was left out: {error}.")
    if not tables:
        return [], warnings
    table = placebo_table(tables)
    return [Section("Placebo", table, _NOTE)], [*placebo_warnings(table), *warnings]


def _drawn(kind: str, placebos: Placebos) -> pd.DataFrame:
    """`shuffle` or `sign_flip`: other futures for the same contexts."""
    folds, seed = placebos.folds, placebos.seed
    real = concatenate([fold.test for fold in folds])
    # over all folds at once, so that the draw that is scored and the others that it is ranked among are made in the
    # same way
    scored = with_future(real, draw_future(kind, real, (seed, 0)))
    ends = np.cumsum([len(fold.test) for fold in folds])
    other = [
        Fold(
            fold.number,
            # training windows are redrawn too, by streams of their own: on real ones a plugin would learn what the
            # placebo has taken out
            _redrawn(kind, fold.train, (seed, fold.number, 1)),
            _redrawn(kind, fold.val, (seed, fold.number, 2)),
            scored.take(np.arange(end - len(fold.test), end)),
        )
        for fold, end in zip(folds, ends, strict=True)
    ]
    comparison = ask_all(placebos.forecasters, placebos.contenders, other, seeds=[seed], title=f"placebo {kind}")
    return rank_table(kind, comparison, real, seed)


def _redrawn(kind: str, windows: WindowSet, seed: tuple[int, int, int]) -> WindowSet:
    return with_future(windows, draw_future(kind, windows, seed))


def _gbm(placebos: Placebos) -> pd.DataFrame:
    """Random walks in place of the prices, made into windows by the usual preprocessing; one fold."""
    folds, first = placebos.folds, placebos.folds[0]
    everything = concatenate([first.train, first.val, *(fold.test for fold in folds)])
    # the simulated calendar has other days, so dates of a split would fall anywhere
    data = dataclasses.replace(data_config_of(placebos.data, everything), split_dates=None, folds=1)
    splits = gbm_windows(everything, first.train, data, placebos.seed)
    fold = Fold(1, splits["train"], splits["val"], splits["test"])
    walks = limit_windows([fold], placebos.max_windows)
    # the law of a random walk is known, and is what nobody may beat
    contenders = [*placebos.contenders, ExactLaw()]
    comparison = ask_all(placebos.forecasters, contenders, walks, seeds=[placebos.seed], title="placebo gbm")
    return exact_law_table(comparison)
