"""Daily volatility at the origin, and the random walk with Student-t shocks.

The variance of the next day is w EWMA + (1 - w) V: V is the mean squared log return of the stock's whole past
(the feature `past_volatility`) and the EWMA is the exponentially weighted one of RiskMetrics (1996),
v_t = decay v_(t-1) + (1 - decay) r_t^2. A context holds the window alone, so the average starts at V on the first
close of the window; after 29 returns the start keeps a weight of decay^29, 41 % at decay .97 and 17 % at .94.

Letters: B windows, L window length, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from scipy import optimize, stats

from baselines.paths import forecast_from_log_returns, future_log_returns, student_t, window_log_returns
from baselines.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from preprocessing.windows import Context, WindowSet

DOF_BOUNDS = (2.05, 200.0)
"""Degrees of freedom that are searched: below, the variance is infinite; above, the law is Gaussian to the eye."""


@dataclass(frozen=True, kw_only=True)
class VolatilityConfig:
    """How the daily variance at the origin is put together."""

    decay: float = 0.97
    """Decay of the exponentially weighted variance per day, between 0 and 1."""
    recent_weight: float = 0.5
    """Weight of that variance (0 to 1); the rest goes to the variance of the whole past."""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie between 0 and 1; got {self.decay}")
        if not 0 <= self.recent_weight <= 1:
            raise ValueError(f"recent_weight must be in [0, 1]; got {self.recent_weight}")


def ewma_variance(context: Context, decay: float) -> np.ndarray:
    """[B] exponentially weighted mean squared log return, started at the variance of the whole past."""
    squared = window_log_returns(context) ** 2  # [B, L - 1]
    weights = (1 - decay) * decay ** np.arange(squared.shape[1])[::-1]
    return decay ** squared.shape[1] * context.feature("past_volatility") ** 2 + squared @ weights


def mix(config: VolatilityConfig, recent: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Daily variance from its recent and its long-run part."""
    return config.recent_weight * recent + (1 - config.recent_weight) * past


def daily_volatility(context: Context, config: VolatilityConfig) -> np.ndarray:
    """[B] standard deviation of the next day's log return."""
    return np.sqrt(mix(config, ewma_variance(context, config.decay), context.feature("past_volatility") ** 2))


def fit_dof(shocks: np.ndarray) -> float:
    """Degrees of freedom of the unit-variance Student-t law under which the shocks are most likely."""

    def loss(log_dof: float) -> float:
        dof = np.exp(log_dof)
        scale = np.sqrt((dof - 2) / dof)
        return -stats.t.logpdf(shocks, dof, scale=scale).mean()

    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(DOF_BOUNDS)), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True, kw_only=True)
class EwmaTConfig(VolatilityConfig):
    """Volatility and tails."""

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
