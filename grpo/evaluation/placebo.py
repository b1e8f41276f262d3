"""Data that hold nothing to learn: whoever shows skill on them knows something that it must not know.

Three placebos, and the statistic that must vanish on each for every honest forecaster.

shuffle     Within each stock and split, the log-return path that follows a window is exchanged for that of another
            window with which it shares no day. The unconditional law stays, so heavy tails may well beat a Gaussian
            random walk: CRPS relative to the walk proves nothing. But the exchange that is scored is one of many that
            were equally likely, and a forecaster that does not know which one does as well on the others: the CRPS over
            that of the random walk is ranked among R other exchanges.
sign_flip   The log return of each day to come changes its sign by the toss of a coin, one for all stocks of a date.
            Volatility can still be learnt, direction cannot: the same rank, among R other series of tosses.
gbm         Prices become random walks in log price with the stock's own volatility, and windows are made of them by
            the usual preprocessing. The exact law is known and nothing beats it in expectation: the CRPS minus that of
            the exact law is not negative (Diebold-Mariano, one-sided).

Contexts stay as they are under shuffle and sign_flip, so a feature that looks ahead no longer knows what is scored:
these two catch a leak behind the windows (in the harness, in what is kept, in a model that saw the test span). A
feature that looks ahead shows under gbm, where everything is made anew.

The two ranks are exact: given forecasts that do not depend on the draw, the scored draw and the R others are
independent and equally distributed, so p <= a holds with probability a or less.

Letters: B windows, S samples, H horizon, R draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from grpo.evaluation.comparison import Comparison
from grpo.evaluation.dates import average_by_date
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import LEVEL, OPTIMUM, REFERENCE, date_horizon, join_names
from grpo.evaluation.significance import diebold_mariano, holm
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.seeds import generator, text_word
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows
from preprocessing.windows import Truth, WindowSet

KINDS = ("shuffle", "sign_flip", "gbm")
NUM_DRAWS = 1999
"""R: the smallest p value is 1 / (R + 1)."""
_REPAIRS = 200
"""Rounds of mending an exchange of futures before it counts as impossible."""


class PlaceboError(UserError):
    """A placebo that these windows do not allow; the message names the stock and why."""


def draw_future(kind: str, windows: WindowSet, seed: Sequence[int]) -> np.ndarray:
    """[B, H] prices to come under `shuffle` or `sign_flip`; equal seeds give equal draws.

    Raises:
        PlaceboError: a stock's windows cannot exchange their futures.
    """
    rng = generator(*seed)
    last = windows.context.last_price[:, None]
    if kind == "shuffle":
        # relative to the last close, so that a path from another price level starts at this one
        return last * (windows.truth.future / last)[exchange(windows, rng)]
    steps = np.diff(np.log(windows.truth.future), axis=1, prepend=np.log(last))  # [B, H]
    # one coin per date, not per stock: stocks move together, and so they must afterwards
    _, day = np.unique(windows.truth.dates, return_inverse=True)
    signs = rng.choice([-1.0, 1.0], size=day.max() + 1)[day].reshape(steps.shape)
    return last * np.exp(np.cumsum(signs * steps, axis=1))


def with_future(windows: WindowSet, future: np.ndarray) -> WindowSet:
    """The same windows with other prices to come; their next open is not known."""
    # the old open would give the real first move away, and trading on it would mix two futures
    return WindowSet(context=windows.context, truth=Truth(future=future, dates=windows.truth.dates))


def exchange(windows: WindowSet, rng: np.random.Generator) -> np.ndarray:
    """[B] row whose future each window gets: a permutation within each stock, never one that shares a day.

    Raises:
        PlaceboError: a stock has too few windows, or they lie too close together.
    """
    items, partner = np.array(windows.context.item_id), np.empty(len(windows), dtype=int)
    for item in np.unique(items):
        rows = np.flatnonzero(items == item)
        first, last = windows.truth.dates[rows, 0], windows.truth.dates[rows, -1]
        chosen = _exchange_rows(first, last, rng)
        if chosen is None:
            raise PlaceboError(f"the {len(rows)} windows of {item} lie too close together to exchange their futures")
        partner[rows] = rows[chosen]
    return partner


def _exchange_rows(first: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A random permutation without shared days: one drawn at random, in which offenders swap with anyone."""
    chosen = rng.permutation(len(first))
    for _ in range(_REPAIRS):
        # two spans share a day unless one ends before the other begins; a window kept for itself shares all of them
        offenders = np.flatnonzero((first <= last[chosen]) & (first[chosen] <= last))
        if len(offenders) == 0:
            return chosen
        for row, other in zip(offenders, rng.integers(len(first), size=len(offenders)), strict=True):
            # a swap keeps it a permutation: every future is used exactly once
            chosen[[row, other]] = chosen[[other, row]]
    return None


def gbm_windows(windows: WindowSet, train: WindowSet, config: DataConfig, seed: int) -> dict[str, WindowSet]:
    """Train, val and test windows of random walks in place of the stocks: as many days, each stock's own volatility.

    Each becomes a simulated stock `sim:gbm?..`, so that the exact law is known; bars, indicators, windows and cut come
    from the usual preprocessing.

    Args:
        windows: all windows of the stocks, for their number of days.
        train: windows before the test span, for the volatility.
        config: of the windows; its ratios cut the simulated calendar.
        seed: of the simulation.
    """
    # volatility from training windows alone, as any forecaster might know it
    # [B] one-day log returns
    days, moves = _days_by_stock(windows), np.log(train.truth.future[:, 0] / train.context.last_price)
    items, bars = np.array(train.context.item_id), {}
    for number, (item, count) in enumerate(days.items()):
        own = moves[items == item]
        if len(own) == 0:
            continue
        # a stock that never moves would have no volatility, which the simulation refuses
        sigma = np.clip(np.sqrt(np.mean(own**2)), 1e-4, 1.0)
        # the stock's number in the seed: stocks of one length must not become one and the same walk
        key = text_word(f"{seed} {number}") % 2**31
        # some first days have no indicators yet: that many more rows leave as many windows as the real stock has
        name = f"sim:gbm?sigma={sigma:.6f}&rows={count + config.first_origin}&seed={key}"
        bars[name] = parse_simulated_stock(name).bars()
    splits, _ = split_windows(bars, config)
    return splits


def _days_by_stock(windows: WindowSet) -> dict[str, int]:
    days = np.concatenate([windows.context.origin[:, None], windows.truth.dates], axis=1)
    items = np.array(windows.context.item_id)
    return {str(item): len(np.unique(days[items == item])) for item in np.unique(items)}


def rank_table(
    kind: str, comparison: Comparison, real: WindowSet, seed: int, *, num_draws: int = NUM_DRAWS
) -> pd.DataFrame:
    """Who did better on the draw that was scored than on others: one row per forecaster.

    Columns: placebo, forecaster, rel_crps (on the scored draw), p_value (rank of the CRPS over the random walk's, among
    `num_draws` other draws, one-sided).

    Args:
        kind: `shuffle` or `sign_flip`.
        comparison: forecasts scored on `draw_future(kind, real, (seed, 0))`.
        real: the same windows with their real future.
        seed: as in the draw that was scored.
        num_draws: R.
    """
    last = real.context.last_price[:, None]
    relative = [_relative_samples(evaluation, last) for evaluation in comparison.evaluations]
    losses = np.empty((num_draws + 1, len(relative)))
    for draw in tqdm(range(num_draws + 1), desc=f"placebo {kind}", unit="draw", leave=False):
        truth = draw_future(kind, real, (seed, draw)) / last
        # all of the CRPS that sees the truth; the distance between samples is the same on every draw
        losses[draw] = [np.abs(samples - truth[:, None]).mean() for samples in relative]
    names = [evaluation.name for evaluation in comparison.evaluations]
    # against the walk on the same draw: what a draw adds to everybody's loss drops out
    excess = losses - losses[:, [names.index(REFERENCE)]]
    # the scored draw counts among its own rivals, so that p is never 0 and the level is exact
    p_values = (1 + (excess[1:] <= excess[0]).sum(axis=0)) / (num_draws + 1)
    return _table(kind, comparison.evaluations, REFERENCE, dict(zip(names, p_values.tolist(), strict=True)))


def _relative_samples(evaluation: Evaluation, last: np.ndarray) -> np.ndarray:
    """[B, S, H] samples over the last close; an invalid one is the last close."""
    forecast = evaluation.forecast
    return np.where(forecast.valid[:, :, None], forecast.samples / last[:, None], 1.0)


def exact_law_table(comparison: Comparison) -> pd.DataFrame:
    """Who did better than the exact law on the `gbm` placebo: the columns of `rank_table`, against the optimum."""
    crps = {evaluation.name: evaluation.scores.crps.mean(axis=1) for evaluation in comparison.evaluations}
    dates, horizon = comparison.windows.context.origin, date_horizon(comparison.windows)
    p_values = {}
    for name, losses in crps.items():
        test = diebold_mariano(average_by_date(losses - crps[OPTIMUM], dates), horizon=horizon)
        # two-sided to one-sided: only being better than the exact law is suspicious
        p_values[name] = test.p_value / 2 if test.statistic < 0 else 1 - test.p_value / 2
    return _table("gbm", comparison.evaluations, OPTIMUM, p_values)


def _table(kind: str, evaluations: Sequence[Evaluation], against: str, p_values: Mapping[str, float]) -> pd.DataFrame:
    crps = {evaluation.name: float(evaluation.scores.crps.mean()) for evaluation in evaluations}
    rows = [
        {
            "placebo": kind,
            "forecaster": name,
            "against": against,
            "rel_crps": crps[name] / crps[against],
            "p_value": p_values[name],
        }
        for name in crps
        if name not in (against, OPTIMUM)
    ]
    return pd.DataFrame(rows)


def placebo_table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The placebos one below the other, with p_holm: adjusted for all forecasters and placebos together."""
    table = pd.concat(parts, ignore_index=True)
    return table.assign(p_holm=holm(table["p_value"].tolist()))


def placebo_warnings(table: pd.DataFrame) -> list[str]:
    """One line per placebo of a `placebo_table` on which a forecaster shows skill."""
    lines = []
    for kind in dict.fromkeys(table["placebo"]):
        rows = [row for row in table.to_dict("records") if row["placebo"] == kind and row["p_holm"] < LEVEL]
        if rows:
            names = join_names([f"{row['forecaster']} (p = {row['p_holm']:.2g})" for row in rows])
            verb = "shows" if len(rows) == 1 else "show"
            lines.append(f"{names} {verb} skill on the placebo {kind}, which holds nothing to learn: look for a leak.")
    return lines
