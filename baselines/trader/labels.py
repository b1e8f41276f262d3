"""Step 3: triple-barrier labels, with barriers where the trader himself got out.

A position is entered at the next open. Its profit barrier and its stop lie `profit` and `stop` volatilities away
(Yang-Zhang at the bar before), its last bar is `limit` bars on. The label says which was touched first (Lopez de Prado,
Advances in Financial Machine Learning, 2018, section 3.4); highs and lows touch. A label looks ahead: it is never part
of a state.

Letters: T bars, X exits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baselines.trader.ingestion import Bars
from baselines.trader.positions import Books

MIN_EXITS = 5
"""Fewest exits with profit, and with loss, from which a barrier is fitted."""


@dataclass(frozen=True, kw_only=True)
class Barriers:
    """Where a position ends.

    Attributes:
        profit: distance of the profit barrier from the entry, in volatilities of a bar.
        stop: distance of the stop, likewise.
        limit: bars after which a position that touched neither ends.
        fitted: which of the three come from the trader's exits; the others are the settings'.
    """

    profit: float
    stop: float
    limit: int
    fitted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Exits:
    """The exits of a trader.

    Attributes:
        moves: [X] profit over the entry price, in volatilities of the last bar closed before the entry.
        bars: [X] bars from the entry to the exit.
    """

    moves: np.ndarray
    bars: np.ndarray


def find_exits(bars: Bars, books: Books, volatility: np.ndarray) -> Exits:
    """The exits of one market whose entry has a volatility [T] before it."""
    before = np.searchsorted(bars.close_time, books.exit_opened, side="right") - 1  # last bar closed at the entry
    known = before >= 0
    known[known] = np.isfinite(volatility[before[known]])
    length = bars.close_time[1] - bars.close_time[0] if len(bars) > 1 else 1
    held = (books.exit_time - books.exit_opened) / length
    return Exits(moves=books.exit_return[known] / volatility[before[known]], bars=held[known])


def fit_barriers(exits: list[Exits], default: Barriers) -> Barriers:
    """Barriers at the median profit, the median loss and the median time of the exits of train markets.

    What has fewer than MIN_EXITS to be fitted from stays as in `default`; `fitted` names the rest.
    """
    moves = np.concatenate([np.zeros(0), *(one.moves for one in exits)])
    held = np.concatenate([np.zeros(0), *(one.bars for one in exits)])
    sources = {"profit": moves[moves > 0], "stop": -moves[moves < 0], "limit": held}
    medians = {name: float(np.median(values)) for name, values in sources.items() if len(values) >= MIN_EXITS}
    limit = max(int(np.ceil(medians["limit"])), 1) if "limit" in medians else default.limit
    return Barriers(
        profit=medians.get("profit", default.profit),
        stop=medians.get("stop", default.stop),
        limit=limit,
        fitted=tuple(medians),
    )


def label_bars(
    bars: Bars, volatility: np.ndarray, short: np.ndarray, barriers: Barriers
) -> tuple[np.ndarray, np.ndarray]:
    """Label and last bar of a position that is entered after each bar.

    Args:
        bars: T bars of one market.
        volatility: [T] of one bar, at its close.
        short: [T] bool, whether the position is short: its profit lies below.
        barriers: where it ends.

    Returns:
        [T] labels, 1 profit first, -1 stop first, 0 neither before the limit or the market's end; and [T] the number of
        the bar in which that was settled (t1). The last bar of the market has no next one: label 0, itself.
    """
    count = len(bars)
    # Entered at the next open, the first price at which the decision can be acted upon; the last bar has no next one.
    entry = np.append(bars.open[1:], np.nan)
    # A short position gains below and loses above, so its barriers change sides.
    up, down = (np.where(short, *pair) for pair in ((barriers.stop, barriers.profit), (barriers.profit, barriers.stop)))
    upper, lower = entry * (1 + up * volatility), entry * (1 - down * volatility)
    label = np.zeros(count, np.int64)
    settled = np.minimum(np.arange(count) + barriers.limit, count - 1)
    # All positions go on bar by bar together; those that are settled leave.
    open_rows = np.arange(count - 1)
    for step in range(1, barriers.limit + 1):
        open_rows = open_rows[open_rows + step < count]
        bar = open_rows + step
        above, below = bars.high[bar] >= upper[open_rows], bars.low[bar] <= lower[open_rows]
        # Of two barriers within one bar the stop counts: the bar does not tell which came first, and this is the
        # adverse one.
        stopped = np.where(short[open_rows], above, below)
        touched = above | below
        label[open_rows[touched]] = np.where(stopped, -1, 1)[touched]
        settled[open_rows[touched]] = bar[touched]
        open_rows = open_rows[~touched]
    return label, settled
