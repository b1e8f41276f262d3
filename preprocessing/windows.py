"""Windows of one or many stocks: what a forecaster may see, what it must predict.

`preprocessing.windows_reader` reads their files and `preprocessing.windows_writer` writes them.

Letters: B windows, L window length, C channels, H horizon, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocessing.errors import UserError

INDICATORS = (
    "sma",
    "ema",
    "mom",
    "rsi",
    "macd",
    "willr",
    "cci",
    "adx",
    "bbands_upper",
    "bbands_middle",
    "bbands_lower",
    "stoch_k",
    "stoch_d",
    "macd_signal",
    "macd_histogram",
)
WINDOW_STATISTICS = (
    "min",
    "min_timestep",
    "max",
    "max_timestep",
    "mean",
    "median",
    "median_timestep",
    "trend",
    "top_lag_1",
    "top_lag_1_correlation",
    "top_lag_2",
    "top_lag_2_correlation",
    "top_lag_3",
    "top_lag_3_correlation",
    "trend_r2",
    "trend_direction",
)
SCALES = (
    "norm_mean",
    "norm_std",
    "volatility",
    "past_mean",
    "past_std",
    "past_ar1",
    "past_volatility",
    "past_drift",
    "ewma_volatility",
    "yang_zhang_volatility",
)
FEATURES = INDICATORS + WINDOW_STATISTICS + SCALES
"""Names of the feature columns, in the order of `Context.features`."""
X_COLUMNS = ("date", "stock", "sequence", *FEATURES)
"""What X must have; all of `MEMORIES` may stand beside them."""
Y_COLUMNS = ("date", "stock", "sequence", "dates")
"""What Y must have; `next_open` may stand beside them."""
SPLITS = ("train", "val", "test", "full")


class WindowsError(UserError):
    """A windows file that cannot be used; the message names the file and the row or column."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a forecaster may see of B windows.

    Attributes:
        item_id: [B] stock of each window.
        origin: [B] datetime64[ns], last observed day.
        past: [B, L, C] float64; channel 0 is the adjusted close in price units, oldest first.
        features: [B, F] indicators, statistics and scales at the origin, named by `FEATURES`.
        memories: [B, M] logs of how much the price has moved, named by `MEMORIES`. None where the windows come
            without them.
    """

    item_id: tuple[str, ...]
    origin: np.ndarray
    past: np.ndarray
    features: np.ndarray
    memories: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def last_price(self) -> np.ndarray:
        """[B] the close at the origin, in price units."""
        return self.past[:, -1, 0]

    def feature(self, name: str) -> np.ndarray:
        """[B] one feature by its name in `FEATURES`."""
        return self.features[:, FEATURES.index(name)]

    def take(self, rows: np.ndarray) -> Context:
        """The windows at the given row numbers (or boolean mask), in that order."""
        rows = np.arange(len(self))[rows]
        return Context(
            item_id=tuple(self.item_id[i] for i in rows),
            origin=self.origin[rows],
            past=self.past[rows],
            features=self.features[rows],
            memories=None if self.memories is None else self.memories[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What came after B windows; only the harness and the rewards hold it.

    Attributes:
        future: [B, H] adjusted closes of the H days after the origin, price units.
        dates: [B, H] datetime64[ns] of those days.
        next_open: [B] adjusted open of the first of those days, price units: where an order given at the origin
            is filled. None where the windows come without it.
    """

    future: np.ndarray
    dates: np.ndarray
    next_open: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Truth:
        """What came after the windows at the given row numbers (or boolean mask), in that order."""
        next_open = None if self.next_open is None else self.next_open[rows]
        return Truth(future=self.future[rows], dates=self.dates[rows], next_open=next_open)


@dataclass(frozen=True, kw_only=True)
class WindowSet:
    """Windows with their future: one split of one or many stocks."""

    context: Context
    truth: Truth

    def __len__(self) -> int:
        return len(self.context)

    @property
    def horizon(self) -> int:
        """Number of days to predict."""
        return self.truth.future.shape[1]

    def take(self, rows: np.ndarray) -> WindowSet:
        """The windows at the given row numbers (or boolean mask), in that order."""
        return WindowSet(
            context=self.context.take(rows),
            truth=self.truth.take(rows),
        )


def concatenate(sets: Sequence[WindowSet]) -> WindowSet:
    """Join window sets of equal window length and horizon, in the order given.

    Raises:
        ValueError: some have `next_open` or `memories` and some have not.
    """
    opens = _of_all("next_open", [windows.truth.next_open for windows in sets])
    memories = _of_all("memories", [windows.context.memories for windows in sets])
    return WindowSet(
        context=Context(
            item_id=tuple(item for windows in sets for item in windows.context.item_id),
            origin=np.concatenate([windows.context.origin for windows in sets]),
            past=np.concatenate([windows.context.past for windows in sets]),
            features=np.concatenate([windows.context.features for windows in sets]),
            memories=memories,
        ),
        truth=Truth(
            future=np.concatenate([windows.truth.future for windows in sets]),
            dates=np.concatenate([windows.truth.dates for windows in sets]),
            next_open=opens,
        ),
    )


def _of_all(name: str, arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Joined, or None where none is there."""
    # part of them would have to be filled with NaN, and a forecaster would be asked on other terms in each half
    present = [array for array in arrays if array is not None]
    if present and len(present) < len(arrays):
        raise ValueError(f"some of these windows have {name} and some have not: make all with one command")
    return np.concatenate(present) if present else None
