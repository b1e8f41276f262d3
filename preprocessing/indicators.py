"""Technical indicators, each computed causally on the whole past of a stock.

`ta` does the work; `mom` (which it lacks) is a difference, and the simple and exponential averages are pandas. All
columns come out on the basis of the bars that go in: adjusted bars give indicators of the adjusted close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from ta.momentum import RSIIndicator, StochasticOscillator, WilliamsRIndicator
from ta.trend import ADXIndicator, CCIIndicator, MACD
from ta.volatility import BollingerBands


@dataclass(frozen=True, kw_only=True)
class IndicatorPeriods:
    """Look-back of each indicator, in bars; the defaults are the field's standard ones."""

    sma: int = 20
    """Simple moving average."""
    ema: int = 20
    """Exponential moving average (span)."""
    mom: int = 10
    """Momentum: close minus the close this many bars ago."""
    rsi: int = 14
    """Relative strength index."""
    macd_fast: int = 12
    """Fast average of the MACD line."""
    macd_slow: int = 26
    """Slow average of the MACD line."""
    willr: int = 14
    """Williams %R."""
    cci: int = 20
    """Commodity channel index."""
    adx: int = 14
    """Average directional index."""
    bbands: int = 20
    """Bollinger bands (two standard deviations)."""
    stoch: int = 14
    """Stochastic oscillator %K."""
    stoch_d: int = 3
    """Average of %K that makes %D."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 2:
                raise ValueError(f"indicators.{name} must be at least 2 bars; got {value}")

    @property
    def warm_up(self) -> int:
        """Bars after which every indicator has settled; windows begin after them.

        Wilder's and exponential averages never forget entirely: three times their period leaves less than
        5 % of the start.
        """
        recursive = 3 * max(self.ema, self.rsi, self.macd_slow, 2 * self.adx)
        return max(recursive, self.sma, self.mom + 1, self.willr, self.cci, self.bbands, self.stoch + self.stoch_d)


def compute_indicators(bars: pd.DataFrame, periods: IndicatorPeriods | None = None) -> pd.DataFrame:
    """Indicators of every bar, from that bar and those before it.

    Args:
        bars: columns open, high, low, close in one price basis, oldest first; at least `warm_up` rows.
        periods: look-backs.

    Returns:
        The columns of `preprocessing.windows.INDICATORS` on the index of `bars`; NaN while warming up. Averages,
        bands, mom and macd are in price units, rsi, adx, stoch_k and stoch_d in 0..100, willr in -100..0,
        cci has no unit.

    A market without any range (high = low for a whole period) has no defined oscillator: stoch_k, stoch_d and rsi
    are 50, willr -50, cci and adx 0 there.
    """
    p = periods or IndicatorPeriods()
    high, low, close = bars["high"], bars["low"], bars["close"]
    bands = BollingerBands(close, window=p.bbands, window_dev=2)
    stochastic = StochasticOscillator(high, low, close, window=p.stoch, smooth_window=p.stoch_d)
    table = pd.DataFrame(
        {
            "sma": close.rolling(p.sma).mean(),
            "ema": close.ewm(span=p.ema, adjust=False).mean(),
            "mom": close.diff(p.mom),
            "rsi": RSIIndicator(close, window=p.rsi).rsi().fillna(50.0),
            "macd": MACD(close, window_fast=p.macd_fast, window_slow=p.macd_slow).macd(),
            "willr": WilliamsRIndicator(high, low, close, lbp=p.willr).williams_r().fillna(-50.0),
            "cci": CCIIndicator(high, low, close, window=p.cci).cci().fillna(0.0),
            "adx": _adx(high, low, close, p.adx),
            "bbands_upper": bands.bollinger_hband(),
            "bbands_middle": bands.bollinger_mavg(),
            "bbands_lower": bands.bollinger_lband(),
            "stoch_k": stochastic.stoch().fillna(50.0),
            "stoch_d": stochastic.stoch_signal().fillna(50.0),
        },
        index=bars.index,
    )
    table.iloc[: p.warm_up] = np.nan
    return table


def _adx(high: pd.Series, low: pd.Series, close: pd.Series, period: int) -> pd.Series:
    with np.errstate(divide="ignore", invalid="ignore"):  # a market without range divides 0 by 0
        return ADXIndicator(high, low, close, window=period).adx().fillna(0.0)
