"""The comparison again on placebos: data on which no honest forecaster can show skill."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from grpo.comparison.folds import data_config_of
from grpo.comparison.forecasters import Forecasters, ask_all
from grpo.comparison.results import Section
from grpo.evaluation.comparison import Fold, limit_windows
from grpo.evaluation.leaderboard import OPTIMUM
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
from preprocessing.market_data import MarketDataError
from preprocessing.windows import WindowSet, concatenate

_NOTE = (
    "Plugins are fitted again on placebo data. shuffle and sign_flip: rank of the CRPS over the random walk's on the "
    "draw that is scored among others; rel_crps itself may be below 1, since volatility and tails can still be learnt. "
    "gbm: CRPS relative to the exact law, which nothing beats. Small p: skill where there is none to have; p_holm is "
    "over the whole table."
)


def run_placebos(
    forecasters: Forecasters, names: Sequence[str], folds: Sequence[Fold]
) -> tuple[list[Section], list[str]]:
    """Ask and score on every placebo that `compare.placebo` names; the table, and what it warns of.

    Args:
        forecasters: as in the comparison; what they say is kept in the same place.
        names: the forecasters, without the optimum.
        folds: as in the comparison.
    """
    config = forecasters.config
    kinds = KINDS if config.compare.placebo == "all" else (config.compare.placebo,)
    tables, warnings = [], []
    for kind in kinds:
        try:
            tables.append(_gbm(forecasters, names, folds) if kind == "gbm" else _drawn(kind, forecasters, names, folds))
        except (PlaceboError, MarketDataError) as error:
            warnings.append(f"The placebo {kind} was left out: {error}.")
    if not tables:
        return [], warnings
    table = placebo_table(tables)
    return [Section("Placebo", table, _NOTE)], [*placebo_warnings(table), *warnings]


def _drawn(kind: str, forecasters: Forecasters, names: Sequence[str], folds: Sequence[Fold]) -> pd.DataFrame:
    """`shuffle` or `sign_flip`: other futures for the same contexts."""
    seed = forecasters.config.seed
    real = concatenate([fold.test for fold in folds])
    scored = with_future(real, draw_future(kind, real, (seed, 0)))
    ends = np.cumsum([len(fold.test) for fold in folds])
    placebo = [
        Fold(
            fold.number,
            _redrawn(kind, fold.train, (seed, fold.number, 1)),
            _redrawn(kind, fold.val, (seed, fold.number, 2)),
            scored.take(np.arange(end - len(fold.test), end)),
        )
        for fold, end in zip(folds, ends, strict=True)
    ]
    comparison = ask_all(forecasters, names, placebo, seeds=[seed], title=f"placebo {kind}")
    return rank_table(kind, comparison, real, seed)


def _redrawn(kind: str, windows: WindowSet, seed: tuple[int, int, int]) -> WindowSet:
    return with_future(windows, draw_future(kind, windows, seed))


def _gbm(forecasters: Forecasters, names: Sequence[str], folds: Sequence[Fold]) -> pd.DataFrame:
    """Random walks in place of the prices, made into windows by the usual preprocessing; one fold."""
    config, first = forecasters.config, folds[0]
    everything = concatenate([first.train, first.val, *(fold.test for fold in folds)])
    data = dataclasses.replace(data_config_of(config, everything), split_dates=None, folds=1)
    splits = gbm_windows(everything, first.train, data, config.seed)
    fold = Fold(1, splits["train"], splits["val"], splits["test"])
    placebo = limit_windows([fold], config.compare.max_windows)
    comparison = ask_all(forecasters, [*names, OPTIMUM], placebo, seeds=[config.seed], title="placebo gbm")
    return exact_law_table(comparison)
