"""What trading on the median would have earned: real fills, real costs, and Sharpe ratios that allow for many trials.

A signal of the origin's close is filled at the next open and closed at the close of day H. Periods do not overlap: the
next origin is the first that does not lie before the exit. All stocks of an origin get equal money, and between an
exit and the next origin the money waits. Buy and hold puts the same money into all stocks at the first fill and keeps
them to the last exit. Interest, dividends beyond the adjusted prices, borrowing fees and market impact are left out.

Letters: B windows, H horizon, T periods, N trades, K stocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from preprocessing.windows import WindowSet

_EULER = 0.5772156649015329
_DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, kw_only=True)
class TradingRule:
    """When to trade and what it costs."""

    short: bool = False
    """Sell short where the median falls; otherwise stay out."""
    threshold: float = 0.0
    """Smallest move of the median, percent of the last close, that is traded; it must be exceeded."""
    cost: float = 5e-4
    """Share of the traded value that each buy and each sale costs."""

    def __post_init__(self) -> None:
        if self.threshold < 0 or not 0 <= self.cost < 1:
            raise ValueError(f"threshold must not be negative and cost in [0, 1); got {self.threshold}, {self.cost}.")


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What a series of T period returns amounts to; rates per year unless they are said to be per period.

    Attributes:
        num_periods: T.
        periods_per_year: T over the years from the first origin to the last exit.
        mean_return: per period.
        annual_return: compounded.
        annual_volatility: standard deviation; NaN with fewer than two periods.
        sharpe: mean over standard deviation, annualised, no interest; NaN where returns do not vary.
        sharpe_error: its standard error for independent returns (Lo 2002, eq. 9).
        skewness: of the period returns.
        kurtosis: of the period returns, 3 for a Gaussian.
        max_drawdown: largest loss from a peak, seen at the ends of periods; share of the peak.
        turnover: value bought and sold per year, as a multiple of the equity.
    """

    num_periods: int
    periods_per_year: float
    mean_return: float
    annual_return: float
    annual_volatility: float
    sharpe: float
    sharpe_error: float
    skewness: float
    kurtosis: float
    max_drawdown: float
    turnover: float


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """A strategy and, beside it, the same money held in all stocks over the same days.

    Attributes:
        fill: where orders were filled: the next open, or where that is not known the first target close.
        origins: [T] datetime64, days of the signals.
        exits: [T] datetime64, last day of each period.
        returns: [T] net of costs.
        hold_returns: [T] of buy and hold, from exit to exit.
        trade_returns: [N] net return of each trade on its own money.
        strategy: performance of `returns`.
        hold: performance of `hold_returns`.
    """

    fill: Literal["next open", "first close"]
    origins: np.ndarray
    exits: np.ndarray
    returns: np.ndarray
    hold_returns: np.ndarray
    trade_returns: np.ndarray
    strategy: Performance
    hold: Performance

    @property
    def num_trades(self) -> int:
        """Round trips."""
        return len(self.trade_returns)

    @property
    def hit_rate(self) -> float:
        """Share of the trades that earned more than their costs; NaN without trades."""
        return float(np.mean(self.trade_returns > 0)) if self.num_trades else np.nan


def trade(median_move: np.ndarray, windows: WindowSet, rule: TradingRule, market: WindowSet | None = None) -> Backtest:
    """Trade the windows' stocks on the median of day H.

    A position of value v that ends at v x earns +-v (x - 1) and pays `cost` times v (1 + x). A period cannot lose more
    than everything.

    Args:
        median_move: [B] percent of the last close (`WindowScores.median_move[:, -1]`).
        windows: the same windows with their truth.
        rule: when to trade and what it costs.
        market: windows whose prices buy and hold is valued at, where `windows` were drawn from more; they hold the
            stocks' prices between the drawn windows.

    Raises:
        ValueError: one day ahead without opens: the first target close would be entry and exit at once.
    """
    truth = windows.truth
    entry = entry_prices(windows)
    # the close of the origin is known only after it can no longer be traded: the entry is a later price
    growth = truth.future[:, -1] / entry  # [B]
    position = (median_move > rule.threshold).astype(float)  # 1 long, 0 out, -1 short
    if rule.short:
        position -= median_move < -rule.threshold
    traded = np.abs(position) * (1 + growth)  # bought at 1 and sold at what it grew to, or the other way round
    net = position * (growth - 1) - rule.cost * traded
    periods = _periods(windows)
    origins = np.array([windows.context.origin[rows[0]] for rows in periods])
    exits = np.array([truth.dates[rows, -1].max() for rows in periods])
    # calendar days, not trading days: the money also waits over weekends and holidays
    years = float((exits[-1] - origins[0]) / np.timedelta64(1, "D")) / _DAYS_PER_YEAR
    # a short may lose more than its money; the account is closed at nothing
    returns = np.array([max(-1.0, net[rows].mean()) for rows in periods])
    hold_returns, hold_traded = buy_and_hold(market or windows, origins[0], exits, rule.cost)
    chosen = np.concatenate(periods)
    return Backtest(
        fill="first close" if truth.next_open is None else "next open",
        origins=origins,
        exits=exits,
        returns=returns,
        hold_returns=hold_returns,
        trade_returns=net[chosen][position[chosen] != 0],
        strategy=measure(returns, years, traded=sum(traded[rows].mean() for rows in periods)),
        hold=measure(hold_returns, years, traded=hold_traded),
    )


def entry_prices(windows: WindowSet) -> np.ndarray:
    """[B] where orders of the origin are filled: the next open, or where that is not known the first target close.

    Raises:
        ValueError: one day ahead without opens: the first target close would be entry and exit at once.
    """
    if windows.truth.next_open is not None:
        return windows.truth.next_open
    if windows.horizon == 1:
        raise ValueError("trading one day ahead needs next_open; make the windows anew from bars with opens.")
    return windows.truth.future[:, 0]


def _periods(windows: WindowSet) -> list[np.ndarray]:
    """Rows of the windows of each origin that does not lie before the exit of the origin chosen last."""
    origin, last_target = windows.context.origin, windows.truth.dates[:, -1]
    periods, end = [], None
    for day in np.unique(origin):
        # an exit at the close and a fill at the next open do not collide, so a new signal may come on the exit's own
        # day
        if end is None or day >= end:
            rows = np.flatnonzero(origin == day)
            periods.append(rows)
            # stocks of other exchanges may end later; the whole account waits for the last of them
            end = last_target[rows].max()
    return periods


def buy_and_hold(market: WindowSet, start: np.datetime64, exits: np.ndarray, cost: float) -> tuple[np.ndarray, float]:
    """Equal money in every stock, bought once and sold at the last exit.

    A stock is bought at its first fill from `start` on; until then its share of the money waits. A stock without a
    price on the day of an exit is valued at its last one.

    Args:
        market: windows of the stocks, whose truth holds the closes.
        start: origin of the first order.
        exits: [T] days on which the equity is measured.
        cost: share of the traded value that each buy and each sale costs.

    Returns:
        [T] returns from exit to exit, the first from `start`, and the value traded as a multiple of the money.
    """
    closes = closes_by_day(market)
    entries = pd.DataFrame(
        {"stock": market.context.item_id, "origin": market.context.origin, "entry": entry_prices(market)}
    )
    # sorted by time before duplicates go: the first row that stays is the stock's first fill
    first = entries.loc[entries["origin"] >= start].sort_values("origin").drop_duplicates("stock").set_index("stock")
    first = first.reindex(closes.columns)
    # a stock that has no price on an exit, as on a holiday of its exchange, keeps its last one
    value = closes.ffill().reindex(exits, method="ffill") / first["entry"]  # [T, K] per unit of money
    bought = exits[:, None] > first["origin"].to_numpy()  # [T, K]; never true for NaT
    value = np.where(bought, value, np.nan)
    # 1 unit of money per stock; the purchase costs its share at once, and until then the unit waits
    equity = np.where(bought, value - cost, 1.0)
    sold = np.nan_to_num(value[-1])
    equity[-1] -= cost * sold  # only the last exit sells
    # never rebalanced: the mean over stocks is the account, winners grow in it
    total = np.concatenate([[1.0], equity.mean(axis=1)])
    return total[1:] / total[:-1] - 1, float(np.mean((sold > 0) + sold))


def closes_by_day(windows: WindowSet) -> pd.DataFrame:
    """Closes that the windows predict, one row per day and one column per stock; NaN where no window does."""
    stocks, column = np.unique(np.array(windows.context.item_id), return_inverse=True)
    calendar, row = np.unique(windows.truth.dates, return_inverse=True)
    closes = np.full((len(calendar), len(stocks)), np.nan)
    closes[row.reshape(windows.truth.dates.shape), column[:, None]] = windows.truth.future
    return pd.DataFrame(closes, index=calendar, columns=stocks)


def measure(returns: np.ndarray, years: float, *, traded: float) -> Performance:
    """Performance of period returns [T] over a number of years in which `traded` times the equity changed hands."""
    num_periods = len(returns)
    per_year = num_periods / years
    mean = float(returns.mean())
    deviation = float(returns.std(ddof=1)) if num_periods > 1 else np.nan
    # equal returns differ by rounding; a ratio to that is no Sharpe ratio
    varies = deviation > 1e-12 * max(1.0, abs(mean))
    ratio = mean / deviation if varies else np.nan
    # the 1 in front lets a loss in the first period count as a drawdown
    equity = np.cumprod(np.concatenate([[1.0], 1 + returns]))
    # moments with N in the denominator, as in the formula of the Sharpe ratio's law
    centred = (returns - mean) / returns.std() if varies else np.full(num_periods, np.nan)
    return Performance(
        num_periods=num_periods,
        periods_per_year=per_year,
        mean_return=mean,
        annual_return=float(equity[-1] ** (1 / years) - 1),
        annual_volatility=deviation * np.sqrt(per_year),
        sharpe=ratio * np.sqrt(per_year),
        sharpe_error=float(np.sqrt((1 + ratio**2 / 2) / num_periods * per_year)),
        skewness=float(np.mean(centred**3)),
        kurtosis=float(np.mean(centred**4)),
        max_drawdown=float(np.max(1 - equity / np.maximum.accumulate(equity))),
        turnover=traded / years,
    )


def probabilistic_sharpe(performance: Performance, *, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio exceeds a benchmark, both per year (Bailey and Lopez de Prado 2012).

    Phi((s - b) sqrt(T - 1) / sqrt(1 - skewness s + (kurtosis - 1) s^2 / 4)), s and b per period.
    """
    # the formula is for ratios per period; skewness and kurtosis belong to periods too
    scale = np.sqrt(performance.periods_per_year)
    sharpe = performance.sharpe / scale
    # a negative skew or fat tails make a ratio less certain than a Gaussian one
    spread = 1 - performance.skewness * sharpe + (performance.kurtosis - 1) / 4 * sharpe**2
    distance = (sharpe - benchmark / scale) * np.sqrt(performance.num_periods - 1)
    return float(stats.norm.cdf(distance / np.sqrt(spread)))


def expected_best_sharpe(num_trials: int, sharpe_variance: float) -> float:
    """Sharpe ratio to expect of the best of N worthless strategies (Bailey and Lopez de Prado 2014, eq. 1).

    sqrt(V) ((1 - g) z(1 - 1/N) + g z(1 - 1/(N e))), V the variance of the trials' ratios, g Euler's constant and z the
    quantile of the standard normal law; 0 for a single trial.

    Raises:
        ValueError: fewer than one trial.
    """
    if num_trials < 1:
        raise ValueError(f"num_trials must be at least 1; got {num_trials}.")
    if num_trials == 1:
        return 0.0
    first, second = stats.norm.ppf([1 - 1 / num_trials, 1 - 1 / (num_trials * np.e)])
    return float(np.sqrt(sharpe_variance) * ((1 - _EULER) * first + _EULER * second))


def deflated_sharpe(performance: Performance, *, num_trials: int, sharpe_variance: float) -> float:
    """Probability that the true Sharpe ratio exceeds 0, given that it is the best of many trials.

    Args:
        performance: of the strategy chosen.
        num_trials: strategies tried, this one included.
        sharpe_variance: variance of their Sharpe ratios per year.
    """
    return probabilistic_sharpe(performance, benchmark=expected_best_sharpe(num_trials, sharpe_variance))
