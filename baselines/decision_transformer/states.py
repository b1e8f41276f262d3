"""Step 4: the 17 features of a state, and their scaling, which is fitted on train alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STATE_NAMES = (
    "fracdiff_price",
    "yang_zhang_volatility",
    "volume_zscore",
    "rsi",
    "macd_histogram",
    "bollinger_width",
    "time_of_day_sin",
    "time_of_day_cos",
    "hour_sin",
    "hour_cos",
    "day_of_week_sin",
    "day_of_week_cos",
    "unrealised_pnl",
    "pnl_percent",
    "inventory",
    "position_size_ratio",
    "time_since_entry",
)
"""The features in the order in which every array holds them."""
CYCLIC = tuple(name.endswith(("_sin", "_cos")) for name in STATE_NAMES)
"""Which are sines and cosines: these have a scale of their own and are left as they are."""


@dataclass(frozen=True, kw_only=True)
class StateScaling:
    """What turns a feature into its score: (feature - mean) / std.

    Attributes:
        mean: [17] means on train; 0 for sines and cosines.
        std: [17] standard deviations on train; 1 for sines, cosines and what never changes on train.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, states: np.ndarray) -> StateScaling:
        """The scaling of train states [T, 17]."""
        cyclic = np.array(CYCLIC)
        mean, std = states.mean(0), states.std(0)
        flat = std <= 1e-12 * np.maximum(np.abs(mean), 1.0)  # what rounding leaves of a constant
        return cls(mean=np.where(cyclic, 0.0, mean), std=np.where(cyclic | flat, 1.0, std))

    def apply(self, states: np.ndarray) -> np.ndarray:
        """[..., 17] float32 scores of states [..., 17]."""
        return ((states - self.mean) / self.std).astype(np.float32)
