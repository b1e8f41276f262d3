"""Step 2: what the bars say at each close, from that bar and those before it in the same market.

Indicators are `preprocessing.indicators`' and the volatility is `preprocessing.statistics`' (Yang and Zhang 2000), both
on the bars of one market, so that nothing reaches over from another. Bars on which they have not settled make no row.

Fractional differentiation (Lopez de Prado, Advances in Financial Machine Learning, 2018, chapter 5) of the log price
keeps as much of the level as stationarity allows: (1 - B)^d with the weights w_0 = 1, w_k = -w_{k-1} (d - k + 1) / k,
cut where they fall below TAU, d the smallest of GRID at which the train markets pass the Dickey-Fuller test.

Letters: T bars, K weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from baselines.building_blocks.packages import import_optional
from baselines.trader.ingestion import Bars
from preprocessing.indicators import IndicatorPeriods, compute_indicators
from preprocessing.statistics import yang_zhang_volatility

PERIODS = IndicatorPeriods()
VOLATILITY_BARS = 20
"""Bars with a close before them in an estimate of the volatility, n."""
VOLUME_BARS = 20
"""Bars whose mean and deviation the volume is compared with."""
TAU = 1e-3
"""Size of a weight of the fractional difference from which on the rest is cut."""
GRID = tuple(round(0.05 * step, 2) for step in range(21))
"""Orders of differentiation that are tried: 0, .05, .. 1."""
SIGNIFICANCE = 0.05
ADF_MARKETS, ADF_BARS = 50, 50
"""Most train markets that are tested, and fewest bars of one that is."""
MOMENTS = ("time_of_day", "hour", "day_of_week")


def fracdiff_weights(order: float, tau: float = TAU) -> np.ndarray:
    """[K] weights w_0 .. w_{K-1} of (1 - B)^order, the last ones before the first below `tau` in size.

    Args:
        order: d, 0..1.
        tau: above 0.
    """
    weights = [1.0]
    while True:
        k = len(weights)
        following = -weights[-1] * (order - k + 1) / k
        if abs(following) < tau:
            return np.array(weights)
        weights.append(following)


LONGEST_WEIGHTS = max(len(fracdiff_weights(order)) for order in GRID)
# The longest weights of all orders, not those of the order that is fitted: which bars make rows must not depend on it.
WARM_UP = max(PERIODS.warm_up, VOLATILITY_BARS, VOLUME_BARS - 1, LONGEST_WEIGHTS - 1)
"""Bars at the start of a market on which not every feature has settled, whatever the order of differentiation."""


def market_features(bars: Bars) -> pd.DataFrame:
    """Features of every bar but the fractional difference, which needs an order fitted on train.

    Returns:
        [T] each: yang_zhang_volatility (per bar), volume_zscore (against the last VOLUME_BARS, this one included; 0
        where volume does not vary), rsi (0..100), macd_histogram (share of the close), bollinger_width (upper minus
        lower band over the middle), sma and ema (price), and sine and cosine of the close's place in the day (UTC),
        the hour and the week. NaN on the first WARM_UP bars where the feature needs them.
    """
    table = pd.DataFrame({name: getattr(bars, name) for name in ("open", "high", "low", "close")})
    indicators = compute_indicators(table, PERIODS)
    columns = {
        "yang_zhang_volatility": _volatility(bars),
        "volume_zscore": _zscore(bars.volume),
        "rsi": indicators["rsi"],
        "macd_histogram": indicators["macd_histogram"] / bars.close,
        "bollinger_width": (indicators["bbands_upper"] - indicators["bbands_lower"]) / indicators["bbands_middle"],
        "sma": indicators["sma"],
        "ema": indicators["ema"],
    }
    return pd.DataFrame(columns | cyclic_times(bars.close_time))


def cyclic_times(milliseconds: np.ndarray) -> dict[str, np.ndarray]:
    """Sine and cosine [T] of the place of times [T] (UTC) in the day, in the hour and in the week (from Monday)."""
    seconds = milliseconds / 1000
    # 1970 began on a Thursday; the turn of the week is to begin on Monday.
    monday = seconds + 3 * 86_400  # 1970 began on a Thursday
    turns = (seconds / 86_400, seconds / 3_600, monday / (7 * 86_400))
    columns = {}
    for name, turn in zip(MOMENTS, turns, strict=True):
        columns[f"{name}_sin"], columns[f"{name}_cos"] = np.sin(2 * np.pi * (turn % 1)), np.cos(2 * np.pi * (turn % 1))
    return columns


def _volatility(bars: Bars) -> np.ndarray:
    # VOLATILITY_BARS returns need one close more.
    windows = (
        sliding_window_view(getattr(bars, name), VOLATILITY_BARS + 1) for name in ("open", "high", "low", "close")
    )
    return np.concatenate([np.full(VOLATILITY_BARS, np.nan), yang_zhang_volatility(*windows)])


def _zscore(volume: np.ndarray) -> np.ndarray:
    windows = sliding_window_view(volume, VOLUME_BARS)
    mean, std = windows.mean(1), windows.std(1)
    # A volume that never changes has no deviation but what rounding leaves.
    flat = std <= 1e-12 * np.maximum(mean, 1.0)
    score = np.where(flat, 0.0, (windows[:, -1] - mean) / np.where(flat, 1.0, std))
    return np.concatenate([np.full(VOLUME_BARS - 1, np.nan), score])


def fractional_difference(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[T] sum of w_k x_{t-k}; NaN on the first K - 1, which have too short a past."""
    wait = len(weights) - 1
    if len(values) <= wait:
        return np.full(len(values), np.nan)
    # "valid" leaves out the bars whose past is too short for all weights; they are the NaN in front.
    return np.concatenate([np.full(wait, np.nan), np.convolve(values, weights, mode="valid")])


def fit_order(train_closes: Sequence[np.ndarray]) -> tuple[float, float | None]:
    """The smallest order of GRID that makes train's log closes stationary, and its p-value.

    The p-value of an order is the median over the markets of that of the augmented Dickey-Fuller test (constant, one
    lag, as in the source); ADF_MARKETS of them, spread evenly, if there are more.

    Args:
        train_closes: closes [T] of each train market.

    Returns:
        The order, and its p-value; (1, None) where no market moves on ADF_BARS bars after the longest weights, and
        (1, p) with p at or above SIGNIFICANCE where no order passes.

    Raises:
        MissingPackageError: statsmodels is not installed.
    """
    # Of a series that hardly moves the test's regression is singular.
    testable = [
        np.log(closes)
        for closes in train_closes
        if len(closes) >= LONGEST_WEIGHTS + ADF_BARS and len(np.unique(closes)) > 2
    ]
    if not testable:
        return GRID[-1], None
    chosen = [testable[i] for i in np.unique(np.linspace(0, len(testable) - 1, ADF_MARKETS).astype(int))]
    value = 1.0
    # The smallest order first: each one more takes away more of the level, which is what prices have to say.
    for order in GRID:
        weights = fracdiff_weights(order)
        value = float(np.median([_dickey_fuller(fractional_difference(series, weights)) for series in chosen]))
        if value < SIGNIFICANCE:
            return order, value
    return GRID[-1], value


def _dickey_fuller(series: np.ndarray) -> float:
    """The p-value of the hypothesis that the series has a unit root."""
    stattools = import_optional("statsmodels.tsa.stattools", needed_by="the pipeline", install="grpo-forecast[trader]")
    return float(
        stattools.adfuller(series[~np.isnan(series)], maxlag=1, regression="c", autolag=None, result_object=True).pvalue
    )
