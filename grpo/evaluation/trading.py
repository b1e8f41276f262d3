"""What trading on the median would have earned: real fills, real costs, one equity curve, and how far luck goes.

A signal of the origin's close is filled at the next open and closed at the close of day H. Periods do not overlap: the
next origin is the first that does not lie before the exit. All stocks of an origin get equal money. Interest,
dividends beyond the adjusted prices, borrowing fees and market impact are left out.

Letters: B windows, H horizon, T periods, N trades.
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
    """A strategy and, beside it, its stocks bought at the first fill and sold at the last exit.

    Attributes:
        fill: where orders were filled: the next open, or where that is not known the first target close.
        origins: [T] datetime64, days of the signals.
        exits: [T] datetime64, last day of each period.
        returns: [T] net of costs.
        hold_returns: [T] of buy and hold, over the same periods.
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


def trade(median_move: np.ndarray, windows: WindowSet, rule: TradingRule) -> Backtest:
    """Trade the windows' stocks on the median of day H.

    A position of value v that ends at v x earns +-v (x - 1) and pays `cost` times v (1 + x). A period cannot lose more
    than everything.

    Args:
        median_move: [B] percent of the last close (`WindowScores.median_move[:, -1]`).
        windows: the same windows with their truth.
        rule: when to trade and what it costs.

    Raises:
        ValueError: one day ahead without opens: the first target close would be entry and exit at once.
    """
    truth = windows.truth
    if truth.next_open is None and windows.horizon == 1:
        raise ValueError("trading one day ahead needs next_open; make the windows anew from bars with opens.")
    entry = truth.future[:, 0] if truth.next_open is None else truth.next_open
    growth = truth.future[:, -1] / entry  # [B]
    position = (median_move > rule.threshold).astype(float)
    if rule.short:
        position -= median_move < -rule.threshold
    traded = np.abs(position) * (1 + growth)
    net = position * (growth - 1) - rule.cost * traded
    periods = _periods(windows)
    origins = np.array([windows.context.origin[rows[0]] for rows in periods])
    exits = np.array([truth.dates[rows, -1].max() for rows in periods])
    years = float((exits[-1] - origins[0]) / np.timedelta64(1, "D")) / _DAYS_PER_YEAR
    returns = np.array([max(-1.0, net[rows].mean()) for rows in periods])
    hold_returns, hold_traded = _buy_and_hold(entry, windows, periods, rule.cost)
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


def _periods(windows: WindowSet) -> list[np.ndarray]:
    """Rows of the windows of each origin that does not lie before the exit of the origin chosen last."""
    origin, last_target = windows.context.origin, windows.truth.dates[:, -1]
    periods, end = [], None
    for day in np.unique(origin):
        if end is None or day >= end:
            rows = np.flatnonzero(origin == day)
            periods.append(rows)
            end = last_target[rows].max()
    return periods


def _buy_and_hold(
    entry: np.ndarray, windows: WindowSet, periods: list[np.ndarray], cost: float
) -> tuple[np.ndarray, float]:
    """[T] returns of equal money in every stock from its first entry to the end, and the value traded.

    A stock keeps its last price over periods without it; its money waits until its first entry.
    """
    stocks = np.array(windows.context.item_id)
    columns = {stock: number for number, stock in enumerate(np.unique(stocks))}
    growth, first_entry = np.full((len(periods), len(columns)), np.nan), np.full(len(columns), np.nan)
    for period, rows in enumerate(periods):
        column = np.array([columns[stock] for stock in stocks[rows]])
        first_entry[column] = np.where(np.isnan(first_entry[column]), entry[rows], first_entry[column])
        growth[period, column] = windows.truth.future[rows, -1] / first_entry[column]
    growth = pd.DataFrame(growth).ffill().to_numpy()
    value = np.where(np.isnan(growth), 1.0, growth - cost)
    sold = np.nan_to_num(growth[-1])
    value[-1] -= cost * sold
    equity = np.concatenate([[1.0], value.mean(axis=1)])
    return equity[1:] / equity[:-1] - 1, float(np.mean((sold > 0) + sold))


def measure(returns: np.ndarray, years: float, *, traded: float) -> Performance:
    """Performance of period returns [T] over a number of years in which `traded` times the equity changed hands."""
    num_periods = len(returns)
    per_year = num_periods / years
    mean = float(returns.mean())
    deviation = float(returns.std(ddof=1)) if num_periods > 1 else np.nan
    varies = deviation > 1e-12 * max(1.0, abs(mean))
    ratio = mean / deviation if varies else np.nan
    equity = np.cumprod(np.concatenate([[1.0], 1 + returns]))
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
    scale = np.sqrt(performance.periods_per_year)
    sharpe = performance.sharpe / scale
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
