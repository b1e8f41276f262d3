"""Windows as tensors without price level or volatility, so that one network serves all stocks.

The unit of every return is the daily volatility at the origin (`preprocessing.returns`). The features
hold what the stock's whole past says (`past_ar1`, `past_mean`, ...); a network that sees the returns of the window
alone cannot reach what those allow.

Letters: B windows, L window length, S samples, H horizon, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from baselines.building_blocks.features import SCALE_FREE, scale_free_features
from baselines.building_blocks.paths import forecast_from_log_returns
from grpo.evaluation.protocol import Forecast
from preprocessing.returns import VolatilityConfig, daily_volatility, window_log_returns
from preprocessing.windows import Context, WindowSet

MAX_DEVIATION = 5.0
"""Standardised features beyond this are cut: one wild indicator must not decide."""


@dataclass(frozen=True, eq=False)
class WindowInputs:
    """What a network sees of B windows.

    Attributes:
        returns: [B, L - 1] float32 daily log returns over the daily volatility at the origin, oldest first.
        features: [B, F] float32 standardised features, F = len(SCALE_FREE).
    """

    returns: torch.Tensor
    features: torch.Tensor

    def __len__(self) -> int:
        return len(self.returns)

    @property
    def joined(self) -> torch.Tensor:
        """[B, L - 1 + F] returns and features side by side."""
        return torch.cat([self.returns, self.features], dim=1)

    def take(self, rows: torch.Tensor | slice) -> Self:
        """Some windows, by row numbers."""
        return type(self)(self.returns[rows], self.features[rows])

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(self.returns.to(device), self.features.to(device))


@dataclass(frozen=True, eq=False)
class InputScaling:
    """Mean and standard deviation of the features over the training windows.

    Attributes:
        mean: [F] float64.
        std: [F] float64; 1 for a feature that does not vary.
        volatility: how the daily volatility is measured.
    """

    mean: np.ndarray
    std: np.ndarray
    volatility: VolatilityConfig

    @classmethod
    def fit(cls, train: Context, volatility: VolatilityConfig) -> Self:
        """Measure the features of the training windows."""
        features = scale_free_features(train)
        std = features.std(axis=0)
        # A feature that does not vary but for rounding would be blown up to unit size.
        return cls(features.mean(axis=0), np.where(std > 1e-12, std, 1.0), volatility)

    def inputs(self, context: Context) -> WindowInputs:
        """What the network sees of these windows, on the CPU."""
        # In units of the daily volatility and without price level, so that one network serves all stocks.
        returns = window_log_returns(context) / daily_volatility(context, self.volatility)[:, None]
        features = np.clip((scale_free_features(context) - self.mean) / self.std, -MAX_DEVIATION, MAX_DEVIATION)
        return WindowInputs(torch.from_numpy(returns).float(), torch.from_numpy(features).float())

    def targets(self, windows: WindowSet) -> torch.Tensor:
        """[B, H] float32 daily log returns that came, over the daily volatility at the origin."""
        closes = np.concatenate([windows.context.last_price[:, None], windows.truth.future], axis=1)
        daily = np.diff(np.log(closes), axis=1)
        # Computed in float64 and rounded at the end: returns are small differences of logs.
        return torch.from_numpy(daily / daily_volatility(windows.context, self.volatility)[:, None]).float()

    def forecast(self, context: Context, daily: np.ndarray) -> Forecast:
        """Sample paths in price units from sampled daily returns [B, S, H] over the daily volatility."""
        returns = daily_volatility(context, self.volatility)[:, None, None] * daily
        return forecast_from_log_returns(context, np.cumsum(returns, axis=-1))

    def state(self) -> dict[str, torch.Tensor]:
        """As tensors, to be kept beside the weights."""
        return {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor], volatility: VolatilityConfig) -> Self:
        """What `state` gave.

        Raises:
            ValueError: it is of another set of features.
        """
        if state["mean"].shape != (len(SCALE_FREE),) or state["std"].shape != (len(SCALE_FREE),):
            raise ValueError(f"scaling of {len(state['mean'])} features where there are {len(SCALE_FREE)}")
        return cls(state["mean"].numpy(), state["std"].numpy(), volatility)
