"""Scales that a forecaster may know: of the training closes of a stock, or of a window's own past.

Each is an affine map with its exact inverse (to rounding: relative 1e-12 for prices within a factor of 1,000 of
the scale's centre). None of them sees a close after the origin of a window.

Letters: B windows, L window length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

ROUNDING = 1e-12
"""A standard deviation of at most this share of the mean is rounding: the price is constant."""
MIN_RELATIVE_SCALE = 1e-4
"""Smallest scale of a window, as a share of its mean: a price that stands still has none to divide by."""


@dataclass(frozen=True)
class StandardNorm:
    """z = (price - mean) / std.

    Attributes:
        mean: mean training close, price units.
        std: standard deviation of the training closes (divisor n), price units; 1 for a constant price.
    """

    mean: float
    std: float

    @classmethod
    def fit(cls, train_closes: np.ndarray) -> StandardNorm:
        """Fit on the closes of the training span.

        Raises:
            ValueError: no training close.
        """
        if len(train_closes) == 0:
            raise ValueError("no bar lies in the training span, so nothing can be scaled by it")
        # training closes alone: the level that prices reach in the test span would leak through the scale
        mean, std = float(np.mean(train_closes)), float(np.std(train_closes))
        return cls(mean, std if std > ROUNDING * abs(mean) else 1.0)

    def transform(self, prices: np.ndarray) -> np.ndarray:
        """Prices to z-scores, any shape."""
        return (prices - self.mean) / self.std

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """Z-scores back to prices, any shape."""
        return scores * self.std + self.mean


@dataclass(frozen=True)
class WindowNorm:
    """value = (price - shift) / scale, with one shift and one scale per window; made by `rebase`.

    Attributes:
        shift: [B] price units.
        scale: [B] price units, positive.
    """

    shift: np.ndarray
    scale: np.ndarray

    def transform(self, prices: np.ndarray) -> np.ndarray:
        """Prices [B, ...] of each window, past or future, to values."""
        return (prices - _per_window(self.shift, prices)) / _per_window(self.scale, prices)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Values [B, ...] back to prices."""
        return values * _per_window(self.scale, values) + _per_window(self.shift, values)


def rebase(past: np.ndarray, mode: Literal["last", "window"]) -> WindowNorm:
    """The scale of each window by its own past.

    Args:
        past: [B, L] closes, oldest first, price units.
        mode: `last` divides by the last close, so that it is 1; `window` gives the z-score within the window
            (divisor L), whose scale is at least MIN_RELATIVE_SCALE of the mean.

    Raises:
        ValueError: there is no such mode.
    """
    if mode == "last":
        # a copy: a view would keep the whole array of windows in memory, and change with it
        return WindowNorm(shift=np.zeros(len(past)), scale=past[:, -1].copy())
    if mode == "window":
        mean = past.mean(axis=1)
        return WindowNorm(shift=mean, scale=np.maximum(past.std(axis=1), MIN_RELATIVE_SCALE * mean))
    raise ValueError(f"there is no rebasing '{mode}'; there are last and window")


def _per_window(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    # [B] to [B, 1, ...], so that one scale per window broadcasts over its days and samples
    return values.reshape(-1, *(1,) * (like.ndim - 1))
