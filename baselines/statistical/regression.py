"""Ridge regression of the whole future path on the window, pooled over stocks, with bootstrapped residuals.

Everything is in units of the volatility at the origin, so that all stocks share one regression: the targets are the
H cumulative log returns, the inputs the L-1 daily log returns of the window (and, if asked for, the scale-free
features of `baselines.building_blocks.features`). The penalty is the one with the smallest mean squared error on the
validation windows. Paths are the predicted mean plus whole residual vectors of training windows.

The solution is that of the normal equations (Hoerl and Kennard 1970), W = (X'X/N + a I)^-1 X'Y/N on centred and
standardised inputs.

Letters: N training windows, B windows, L window length, F inputs, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from baselines.building_blocks.features import scale_free_features
from baselines.building_blocks.paths import draw_rows, forecast_from_log_returns, require_horizon, require_validation
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from preprocessing.returns import VolatilityConfig, daily_volatility, future_log_returns, window_log_returns
from preprocessing.windows import Context, WindowSet

PENALTIES = 10.0 ** np.arange(-4, 4)
"""Penalties that are tried, in units of the inputs' variance; the last leaves hardly more than the mean."""


@dataclass(frozen=True, kw_only=True)
class RidgeConfig(VolatilityConfig):
    """What the regression reads, and how it is penalised."""

    features: bool = False
    """Whether the indicators and statistics are inputs beside the returns of the window."""
    penalty: float | None = None
    """Ridge penalty in units of the inputs' variance; null: the best of 1e-4 ... 1e3 on the validation windows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty is not None and not self.penalty >= 0:
            raise ValueError(f"penalty must be 0 or more; got {self.penalty}")


@dataclass(frozen=True, eq=False)
class Ridge(SavedForecaster):
    """Linear in the scaled returns of the window.

    Attributes:
        centre: [F] mean of the inputs over the training windows.
        spread: [F] their standard deviation; 1 where it is 0.
        weights: [F, H] of the standardised inputs.
        intercept: [H] mean of the targets.
        residuals: [N, H] of the training windows.
    """

    name = "ridge"
    Config = RidgeConfig

    centre: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    residuals: np.ndarray

    @classmethod
    def fit(
        cls, config: RidgeConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Solve for every penalty and keep the one that validates best.

        Raises:
            UserError: a penalty is to be chosen and there are no validation windows.
        """
        inputs, targets = _inputs(train.context, config), _targets(train, config)  # [N, F], [N, H]
        centre, intercept, spread = inputs.mean(axis=0), targets.mean(axis=0), inputs.std(axis=0)
        # A column that never varies is 0 when centred, whatever it is divided by.
        spread = np.where(spread > 0, spread, 1.0)
        x, y = (inputs - centre) / spread, targets - intercept
        penalties = PENALTIES if config.penalty is None else np.array([config.penalty])
        solutions = solve_ridge(x, y, penalties)  # [penalties, F, H]
        best = 0
        if len(penalties) > 1:
            require_validation(cls.name, val)
            val_x, val_y = (_inputs(val.context, config) - centre) / spread, _targets(val, config) - intercept
            # The variance of a cumulative return grows with h; divided by h, all days count alike in the choice.
            days = np.arange(1, y.shape[1] + 1)
            best = int(np.argmin([(((val_y - val_x @ w) ** 2) / days).mean() for w in solutions]))
        weights = solutions[best]
        return cls(config, centre, spread, weights, intercept, y - x @ weights)

    def scaled_mean(self, context: Context) -> np.ndarray:
        """[B, H] predicted cumulative log returns in units of the daily volatility."""
        return self.intercept + (_inputs(context, self.config) - self.centre) / self.spread @ self.weights

    def point(self, context: Context, *, horizon: int) -> np.ndarray:
        """[B, H] exponential of the predicted mean log price, in price units."""
        log_return = daily_volatility(context, self.config)[:, None] * self.scaled_mean(context)
        return context.last_price[:, None] * np.exp(log_return[:, :horizon])

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than the training windows reach.
        """
        require_horizon(self.name, fitted=len(self.intercept), asked=horizon)
        # Whole residual vectors: the dependence across the horizon is the one that the residuals have.
        rows = draw_rows(context, len(self.residuals), shape=(num_samples,), seed=seed)  # [B, S]
        scaled = self.scaled_mean(context)[:, None, :horizon] + self.residuals[rows, :horizon]
        return forecast_from_log_returns(context, daily_volatility(context, self.config)[:, None, None] * scaled)


def solve_ridge(x: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """[P, F, H] solutions (x'x/N + a I)^-1 x'y/N of centred x [N, F] and y [N, H] for each penalty a [P].

    Directions in which the inputs do not vary at all get no weight, whatever the penalty.
    """
    # One decomposition serves all penalties: in the eigenvectors' coordinates each only adds to the eigenvalues.
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    target = vectors.T @ (x.T @ y) / len(x)  # [F, H]
    # Inputs that repeat each other leave eigenvalues of 0 but for rounding; dividing by those would blow rounding up.
    varies = values > 1e-12 * values.max(initial=0.0)
    shrunk = [np.where(varies, 1 / np.where(varies, values + penalty, 1.0), 0.0) for penalty in penalties]
    return np.stack([vectors @ (factor[:, None] * target) for factor in shrunk])


def _inputs(context: Context, config: RidgeConfig) -> np.ndarray:
    """[B, F] scaled returns, oldest first, and perhaps features."""
    returns = window_log_returns(context) / daily_volatility(context, config)[:, None]
    return np.concatenate([returns, scale_free_features(context)], axis=1) if config.features else returns


def _targets(windows: WindowSet, config: RidgeConfig) -> np.ndarray:
    """[B, H] cumulative log returns in units of the daily volatility."""
    return future_log_returns(windows) / daily_volatility(windows.context, config)[:, None]
