"""How much a price has moved of late, by several memories and two measures: what a volatility can be forecast from.

Each is a mean of daily logs, weighted by half after so many days, over a stock's whole past up to a day. The measures
of a day's variance are the squared log return, and one from the range of the bar: the squared overnight return plus
that of Rogers and Satchell (1991), which the drift does not disturb and which is several times as precise.

Letters: T bars of one stock, M memories.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

HALF_LIVES = (1, 4, 10, 30, 120)
"""Days after which a day weighs half."""
MEASURES = ("log_squared_return", "log_range_variance")
MEMORIES = tuple(f"{measure}_{days}" for measure in MEASURES for days in HALF_LIVES)
"""Names of the columns of `variance_memories`."""
FLOOR = 1e-6
"""Added to a day's variance: a day without a move counts as one of a tenth of a percent, and not as minus infinity."""


def variance_memories(opens: np.ndarray, highs: np.ndarray, lows: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """[T, M] the columns named by `MEMORIES` on each day; prices [T] on one adjusted basis, oldest first.

    The first day has no close before it and holds NaN.
    """
    o, h, l, c = (np.log(prices) for prices in (opens, highs, lows, closes))  # noqa: E741
    # Rogers and Satchell (1991): its mean does not depend on the drift
    within_day = (h - c) * (h - o) + (l - c) * (l - o)
    # a bar whose high is no more than rounding above its open and close may come out below 0
    ranges = (o[1:] - c[:-1]) ** 2 + np.maximum(within_day[1:], 0.0)
    columns = [
        # the mean of logs, not the log of a mean: one crash must not drown months of quiet days
        pd.Series(np.log(variance + FLOOR)).ewm(halflife=days).mean().to_numpy()
        for variance in (np.diff(c) ** 2, ranges)
        for days in HALF_LIVES
    ]
    return np.concatenate([np.full((1, len(columns)), np.nan), np.stack(columns, axis=1)])
