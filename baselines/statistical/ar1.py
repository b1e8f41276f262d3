"""First-order autoregression of the log price, in closed form from three columns of each window.

x_(t+1) = m + phi (x_t - m) + q z_t with z_t standard normal. Over the stock's whole past up to the origin the window
says m (`past_mean`), phi (`past_ar1`) and the daily move v (`past_volatility`): as E (x_(t+1) - x_t)^2 is
2 q^2 / (1 + phi), the shocks have q^2 = v^2 (1 + phi) / 2. The other way to q, from `past_std`, needs the log price to
be stationary in earnest; this one goes over into the random walk as phi goes to 1.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from baselines.building_blocks.paths import forecast_from_log_returns
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import standard_normal
from preprocessing.windows import Context, WindowSet


@dataclass(frozen=True, kw_only=True)
class Ar1Config:
    """There is nothing to set."""


@dataclass(frozen=True, eq=False)
class Ar1(SavedForecaster):
    """Gaussian paths that revert to the mean of the past at the speed of the past."""

    name = "ar1"
    Config = Ar1Config

    @classmethod
    def fit(
        cls, config: Ar1Config, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Nothing is learnt: the coefficients come with each window."""
        return cls(config)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        # an estimate outside of [-1, 1] comes from a short or a growing past, and its path would explode
        phi = np.clip(context.feature("past_ar1"), -1.0, 1.0)[:, None]
        # This way to q goes over into the random walk as phi goes to 1; the one from `past_std` needs a stationary log
        # price.
        shock = context.feature("past_volatility")[:, None] * np.sqrt((1 + phi) / 2)
        paths = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)  # [B, S, H]
        distance = np.log(context.last_price / context.feature("past_mean"))[:, None]
        state = np.broadcast_to(distance, paths.shape[:2])
        for day in range(horizon):
            state = phi * state + shock * paths[:, :, day]
            paths[:, :, day] = state
        return forecast_from_log_returns(context, paths - distance[:, :, None])
