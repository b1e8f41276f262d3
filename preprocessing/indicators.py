"""Technical indicators, each computed causally on the whole past of a stock.

Every value equals TA-Lib's: SMA, EMA, MOM, RSI, MACD, WILLR, CCI, ADX, BBANDS (population deviation) and
STOCHF (%K is raw, %D its simple average; the smoothed %K of the slow STOCH is %D here). Recursive averages
begin as TA-Lib's do, with a simple average of their first period. One thing differs: where a market has no
range, TA-Lib says 0 and we say what is neutral, see `compute_indicators`.

`ta` and pandas do the work where they agree with that. All columns come out on the basis of the bars that go in:
adjusted bars give indicators of the adjusted close.

Letters: T bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from ta.momentum import StochasticOscillator, WilliamsRIndicator
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
    macd_signal: int = 9
    """Average of the MACD line that makes its signal."""
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
        if self.macd_fast >= self.macd_slow:
            raise ValueError(
                f"indicators.macd_fast must be shorter than macd_slow; got {self.macd_fast} and {self.macd_slow}"
            )

    @property
    def warm_up(self) -> int:
        """Bars after which every indicator has settled; windows begin after them.

        Every indicator is defined long before, and equals TA-Lib's from there on; but Wilder's and exponential
        averages never forget their start entirely: three times their period leaves less than 5 % of it.
        """
        recursive = 3 * max(self.ema, self.rsi, self.macd_slow, self.macd_signal, 2 * self.adx)
        simple = max(self.sma, self.mom + 1, self.willr, self.cci, self.bbands, self.stoch + self.stoch_d)
        return max(recursive, simple, self.macd_slow + self.macd_signal)


def compute_indicators(bars: pd.DataFrame, periods: IndicatorPeriods | None = None) -> pd.DataFrame:
    """Indicators of every bar, from that bar and those before it.

    Args:
        bars: columns open, high, low, close in one price basis, oldest first; at least `warm_up` rows.
        periods: look-backs.

    Returns:
        The columns of `preprocessing.windows.INDICATORS` on the index of `bars`; NaN while warming up.
        Averages, bands, mom and the three of macd are in price units, rsi, adx, stoch_k and stoch_d in 0..100, willr in
        -100..0, cci has no unit.

    Where a market has no range (high = low for a whole period) or has never moved, oscillators are undefined;
    they take their neutral value: stoch_k, stoch_d and rsi 50, willr -50, cci and adx 0.
    """
    p = periods or IndicatorPeriods()
    high, low, close = (pd.Series(bars[name]) for name in ("high", "low", "close"))
    bands = BollingerBands(close, window=p.bbands, window_dev=2)
    # no range means 0 / 0, which `ta` leaves as NaN; neutral here, or one quiet fortnight would cost the stock its
    # windows
    stoch_k = StochasticOscillator(high, low, close, window=p.stoch).stoch().fillna(50.0)
    macd, signal = _macd(close.to_numpy(float), p)
    table = pd.DataFrame(
        {
            "sma": close.rolling(p.sma).mean(),
            "ema": _ema(close.to_numpy(float), p.ema),
            "mom": close.diff(p.mom),
            "rsi": _rsi(close.to_numpy(float), p.rsi),
            "macd": macd,
            "willr": WilliamsRIndicator(high, low, close, lbp=p.willr).williams_r().fillna(-50.0),
            "cci": _cci(((high + low + close) / 3).to_numpy(float), p.cci),
            "adx": _adx(high.to_numpy(float), low.to_numpy(float), close.to_numpy(float), p.adx),
            "bbands_upper": bands.bollinger_hband(),
            "bbands_middle": bands.bollinger_mavg(),
            "bbands_lower": bands.bollinger_lband(),
            "stoch_k": stoch_k,
            "stoch_d": stoch_k.rolling(p.stoch_d).mean(),
            "macd_signal": signal,
            "macd_histogram": macd - signal,
        },
        index=bars.index,
    )
    # earlier values exist but still remember where the series began; windows of other histories would not agree on them
    table.iloc[: p.warm_up] = np.nan
    return table


# Not those of `ta` from here on: its exponential averages and RSI begin at the first bar, its RSI is 100 in a market
# that has never moved, and its CCI and ADX loop in Python, a hundred times slower than these.
def _macd(close: np.ndarray, periods: IndicatorPeriods) -> tuple[np.ndarray, np.ndarray]:
    """[T] fast minus slow exponential average, and [T] the exponential average of that, the signal (Appel).

    Both averages have their first value on the same bar, so that the line begins with equally settled ones.
    """
    wait = periods.macd_slow - periods.macd_fast
    # TA-Lib too begins the fast average only where the slow one can begin
    fast = np.concatenate([np.full(wait, np.nan), _ema(close[wait:], periods.macd_fast)])
    line = fast - _ema(close, periods.macd_slow)
    return line, _ema(line, periods.macd_signal)


def _rsi(close: np.ndarray, period: int) -> np.ndarray:
    """[T] relative strength index: share of the rises in Wilder's averages of rises and falls (1978)."""
    change = np.diff(close, prepend=np.nan)
    rise, fall = _wilder(np.maximum(change, 0), period), _wilder(np.maximum(-change, 0), period)
    # no rise and no fall: neither strong nor weak, which is 50
    moved = rise + fall > 0
    return np.where(moved, 100 * (rise / np.where(moved, rise + fall, 1.0)), 50.0)


def _cci(typical_price: np.ndarray, period: int) -> np.ndarray:
    """[T] commodity channel index: distance from the mean in .015 mean absolute deviations (Lambert 1980)."""
    windows = sliding_window_view(typical_price, period)  # [T - period + 1, period]
    mean = windows.mean(1)
    deviation = np.abs(windows - mean[:, None]).mean(1)
    flat = deviation <= 1e-12 * mean  # what rounding leaves of a constant price
    cci = np.where(flat, 0.0, (windows[:, -1] - mean) / np.where(flat, 1.0, 0.015 * deviation))
    return np.concatenate([np.full(period - 1, np.nan), cci])


def _adx(high: np.ndarray, low: np.ndarray, close: np.ndarray, period: int) -> np.ndarray:
    """[T] average directional index (Wilder 1978); his sums are `period` times the averages used here.

    The first bar has no change and counts as 0 in the first averages, as in TA-Lib.
    """
    # only the larger of the two moves counts as directional, and only if it goes outwards
    up, down = np.diff(high, prepend=high[0]), -np.diff(low, prepend=low[0])
    true_range = np.maximum(high[1:], close[:-1]) - np.minimum(low[1:], close[:-1])
    rise = _wilder(np.where((up > down) & (up > 0), up, 0.0), period)
    fall = _wilder(np.where((down > up) & (down > 0), down, 0.0), period)
    moved = (rise + fall > 0) & (_wilder(np.append(0.0, true_range), period) > 0)
    directional_index = np.where(moved, 100 * np.abs(rise - fall) / np.where(moved, rise + fall, 1.0), 0.0)
    # Wilder's averages have no value before: a 0 there would pull the first averages down
    directional_index[:period] = np.nan
    return _wilder(directional_index, period)


def _ema(values: np.ndarray, span: int) -> np.ndarray:
    """[T] exponential moving average: a step of 2 / (span + 1) to each value."""
    return _recursive_average(values, span, 2 / (span + 1))


def _wilder(values: np.ndarray, period: int) -> np.ndarray:
    """[T] Wilder's moving average: a step of 1 / period to each value."""
    return _recursive_average(values, period, 1 / period)


def _recursive_average(values: np.ndarray, period: int, step: float) -> np.ndarray:
    """[T] the mean of the first `period` values, then `step` of the way to each value.

    Values may begin with NaN; the first average stands at the last of the first `period` others.
    """
    first = int(np.argmin(np.isnan(values)))
    seed = first + period - 1
    # pandas starts its recursion at the first number it meets, so the simple average is put there as if it were a value
    seeded = values.copy()
    seeded[:seed] = np.nan
    seeded[seed : seed + 1] = values[first : seed + 1].mean()
    return pd.Series(seeded).ewm(alpha=step, adjust=False).mean().to_numpy()
