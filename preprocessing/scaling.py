"""StandardNorm: a z-score with its inverse, whose mean and deviation come from training prices alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StandardNorm:
    """z = (price - mean) / std.

    Attributes:
        mean: mean training close, price units.
        std: standard deviation of the training closes, price units; 1 for a constant price.
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
        std = float(np.std(train_closes))
        return cls(float(np.mean(train_closes)), std if std > 0 else 1.0)

    def transform(self, prices: np.ndarray) -> np.ndarray:
        """Prices to z-scores, any shape."""
        return (prices - self.mean) / self.std

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """Z-scores back to prices, any shape."""
        return scores * self.std + self.mean
