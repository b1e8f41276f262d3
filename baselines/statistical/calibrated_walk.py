"""The random walk with its spread chosen on validation windows: the walk that a forecaster has to beat to say anything.

A walk whose spread is wrong for the years at hand flatters whatever is compared with it. One factor of the spread,
chosen without a look at the test windows, takes that away (`grpo.evaluation.spread`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from baselines.building_blocks.paths import forecast_from_log_returns, require_validation
from baselines.statistical.naive import RandomWalk, RandomWalkConfig
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.spread import choose_spread
from preprocessing.windows import Context, WindowSet


@dataclass(frozen=True, eq=False)
class RandomWalkCalibrated(RandomWalk):
    """`random_walk` with its volatility multiplied by a factor.

    Attributes:
        spread: [] the factor.
    """

    name = "random_walk_calibrated"

    spread: np.ndarray

    @classmethod
    def fit(
        cls, config: RandomWalkConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Choose the factor on the validation windows.

        Raises:
            UserError: there are none.
        """
        require_validation(cls.name, val)
        # Of the plain walk and on validation windows alone: one number, chosen without a look at the test windows.
        return cls(config, np.array(choose_spread(RandomWalk(config), val, seed=seed)))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        walk = super().predict(context, horizon=horizon, num_samples=num_samples, seed=seed)
        log_returns = np.log(walk.samples / context.last_price[:, None, None])  # of median 0
        return forecast_from_log_returns(context, self.spread * log_returns)
