"""The random walk with Student-t shocks of the volatility at the origin (`preprocessing.returns`).

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from scipy import optimize, stats

from baselines.building_blocks.paths import forecast_from_log_returns, student_t
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from preprocessing.returns import VolatilityConfig, daily_volatility, future_log_returns
from preprocessing.windows import Context, WindowSet

DOF_BOUNDS = (2.05, 200.0)
"""Degrees of freedom that are searched: below, the variance is infinite; above, the law is Gaussian to the eye."""


def fit_dof(shocks: np.ndarray) -> float:
    """Degrees of freedom of the unit-variance Student-t law under which the shocks are most likely."""

    def loss(log_dof: float) -> float:
        dof = np.exp(log_dof)
        # The law is to have unit variance, and a Student-t variate has dof/(dof - 2).
        scale = np.sqrt((dof - 2) / dof)
        return -stats.t.logpdf(shocks, dof, scale=scale).mean()

    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(DOF_BOUNDS)), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True, kw_only=True)
class EwmaTConfig(VolatilityConfig):
    """How the volatility is estimated, and how heavy the tails are."""

    dof: float | None = None
    """Degrees of freedom, above 2; .inf: Gaussian; null: the most likely on the training windows."""
    tails: Literal["path", "day"] = "path"
    """Whether a path is calm or wild as a whole (multivariate t), or each day by itself. By day, sums of days
    soon look Gaussian, which returns do not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dof is not None and not self.dof > 2:
            raise ValueError(f"dof must be above 2, for the variance to exist; got {self.dof}")
        if self.tails not in ("path", "day"):
            raise ValueError(f"tails must be path or day; got '{self.tails}'")


@dataclass(frozen=True, eq=False)
class EwmaT(SavedForecaster):
    """Uncorrelated Student-t daily log returns of mean 0 and of the EWMA volatility at the origin.

    Attributes:
        dof: [] degrees of freedom; fitted on the first future day of each training window, divided by the
            volatility at its origin, all stocks together.
    """

    name = "ewma_t"
    Config = EwmaTConfig

    dof: np.ndarray

    @classmethod
    def fit(
        cls, config: EwmaTConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Find the degrees of freedom, unless the config gives them."""
        if config.dof is not None:
            return cls(config, np.array(config.dof))
        # The first day alone: later days have moved away from the volatility that they are divided by.
        shocks = future_log_returns(train)[:, 0] / daily_volatility(train.context, config)
        return cls(config, np.array(fit_dof(shocks)))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        shocks = student_t(
            context,
            np.full(len(context), self.dof),
            num_samples=num_samples,
            horizon=horizon,
            seed=seed,
            one_scale_per_path=self.config.tails == "path",
        )  # [B, S, H]
        shocks *= daily_volatility(context, self.config)[:, None, None]
        return forecast_from_log_returns(context, np.cumsum(shocks, axis=-1))
