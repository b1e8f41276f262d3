"""Step 1, continued: the trader's books, from his fills: position, entry price, realised and unrealised profit.

What is assumed: the file is of one token, of which the trader may hold a negative number (he then owes it); books are
kept at average cost, without fees; a position that is open when the market ends is valued at its last price, since
the files do not say how a market was settled.

Letters: K trades, T bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baselines.trader.ingestion import Bars, MarketEvents, TraderDataError

DUST = 1e-9
"""Share of a trade below which what is left of a position is rounding."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """What the trader holds in one market after some trades.

    Attributes:
        inventory: tokens, negative if short.
        entry_price: average price of what is held; 0 if nothing is.
        realised_pnl: profit of what was closed, in USDC.
        opened: time at which the position left 0 or changed its sign, milliseconds; 0 if nothing is held.
    """

    inventory: float = 0.0
    entry_price: float = 0.0
    realised_pnl: float = 0.0
    opened: int = 0

    def trade(self, traded: float, price: float, time: int) -> Position:
        """The position after buying `traded` tokens (negative: selling) at a price.

        Adding averages the entry price; reducing realises profit and leaves the entry price; going through 0 realises
        all of the old position and opens the rest at this price.
        """
        inventory = self.inventory + traded
        # What rounding leaves of a closed position would else count as held, with an entry price of its own.
        if abs(inventory) <= DUST * abs(traded):
            inventory = 0.0
        if self.inventory * traded >= 0:  # opened or added to
            cost = self.entry_price * self.inventory + price * traded
            opened = self.opened if self.inventory else time
            return Position(
                inventory=inventory, entry_price=cost / inventory, realised_pnl=self.realised_pnl, opened=opened
            )
        closed = self.inventory if self.inventory * inventory <= 0 else -traded  # with the sign of the position
        realised = self.realised_pnl + closed * (price - self.entry_price)
        if self.inventory * inventory > 0:
            return Position(
                inventory=inventory, entry_price=self.entry_price, realised_pnl=realised, opened=self.opened
            )
        if inventory == 0:
            return Position(realised_pnl=realised)
        # Through 0: all of the old position is realised, and the rest begins anew at this price.
        return Position(inventory=inventory, entry_price=price, realised_pnl=realised, opened=time)

    def unrealised_pnl(self, price: float) -> float:
        """Profit in USDC if all were closed at a price."""
        return self.inventory * (price - self.entry_price)


@dataclass(frozen=True, kw_only=True)
class Books:
    """The trader's books at the close of each bar, and his exits.

    Attributes:
        inventory: [T] tokens.
        entry_price: [T] average price of what is held; 0 if nothing is.
        realised_pnl: [T] USDC since the market began.
        unrealised_pnl: [T] USDC at the bar's close.
        opened: [T] milliseconds; 0 if nothing is held.
        exit_return: [X] of each trade that reduced a position: its profit over its entry price.
        exit_opened: [X] when that position was opened, milliseconds.
        exit_time: [X] when the trade was made, milliseconds.
    """

    inventory: np.ndarray
    entry_price: np.ndarray
    realised_pnl: np.ndarray
    unrealised_pnl: np.ndarray
    opened: np.ndarray
    exit_return: np.ndarray
    exit_opened: np.ndarray
    exit_time: np.ndarray

    @property
    def equity(self) -> np.ndarray:
        """[T] realised and unrealised profit, USDC."""
        return self.realised_pnl + self.unrealised_pnl


def keep_books(events: MarketEvents, bars: Bars) -> Books:
    """The books of one market: what a bar's close sees is the trades before it, never one at it."""
    trades = np.flatnonzero(events.traded)
    positions, exits = [Position()], []
    for traded, price, time in zip(
        *(a[trades].tolist() for a in (events.traded, events.price, events.time)), strict=True
    ):
        before = positions[-1]
        if before.inventory * traded < 0:
            # A falling price gains where the position is short.
            gained = (price / before.entry_price - 1) * (1 if before.inventory > 0 else -1)
            exits.append((gained, before.opened, time))
        positions.append(before.trade(traded, price, time))
    # "left": a trade at the very close belongs to the next bar, or the state would hold the action that answers it.
    seen = np.searchsorted(events.time[trades], bars.close_time, side="left")  # [T] trades before the close
    inventory, entry_price, realised, opened = (
        np.array([getattr(position, name) for position in positions])[seen]
        for name in ("inventory", "entry_price", "realised_pnl", "opened")
    )
    exit_return, exit_opened, exit_time = np.array(exits, float).reshape(-1, 3).T
    return Books(
        inventory=inventory,
        entry_price=entry_price,
        realised_pnl=realised,
        unrealised_pnl=inventory * (bars.close - entry_price),
        opened=opened,
        exit_return=exit_return,
        exit_opened=exit_opened.astype(np.int64),
        exit_time=exit_time.astype(np.int64),
    )


def fit_capital(books: list[Books]) -> float:
    """The trader's capital in USDC: the median, over the markets in which he held something, of his highest stake.

    A stake is the size of the position times its entry price. Rewards are profits over this one number, so
    that they add up over time and know nothing of a market's future.

    Raises:
        TraderDataError: he never held anything.
    """
    # One capital for all, so that rewards add up over time and know nothing of a market's future.
    stakes = [float(np.max(np.abs(one.inventory) * one.entry_price)) for one in books]
    if not any(stakes):
        raise TraderDataError("the trader holds nothing at the close of any train bar; give more markets.")
    return float(np.median([stake for stake in stakes if stake > 0]))


def bar_rewards(books: Books, capital: float) -> np.ndarray:
    """[T - 1] profit of the bar after each, realised and not, over the capital: what the action there earned."""
    return np.diff(books.equity) / capital


def returns_to_go(rewards: np.ndarray) -> np.ndarray:
    """[T] sum of rewards [T] from each to the last."""
    return np.cumsum(rewards[::-1])[::-1]
