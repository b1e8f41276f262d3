"""GARCH(1,1) with Student-t shocks (Bollerslev 1987), fitted per stock.

r_t = s_t e_t,  s_t^2 = omega + alpha r_(t-1)^2 + beta s_(t-1)^2,  e_t Student-t with unit variance.

`arch` finds the parameters by maximum likelihood on the training returns, which are put together again from the
overlapping training windows. Forecasts are simulated day by day, so they have the fat tails that sums of such
returns have.

Deviations: a context holds only its window, so the variance recursion starts on the first close of the window at
the mean squared return of the whole past. The mean return is zero unless the config asks for a constant.

Letters: B windows, L window length, S samples, H horizon, K stocks, T days.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from tqdm import tqdm

from baselines.building_blocks.packages import import_optional
from baselines.building_blocks.paths import forecast_from_log_returns, rows_of_stocks, student_t
from baselines.building_blocks.saving import SavedForecaster
from baselines.building_blocks.training_closes import longest_stretches
from grpo.evaluation.protocol import Forecast
from preprocessing.errors import UserError
from preprocessing.returns import window_log_returns
from preprocessing.windows import Context, WindowSet

PERCENT = 100.0
"""arch's optimiser wants returns of the order of 1."""
PARAMETERS = ("mu", "omega", "alpha[1]", "beta[1]", "nu")
"""What arch calls the mean, omega, alpha, beta and the degrees of freedom, in the order of `GarchT.parameters`."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GarchTConfig:
    """What is estimated, and from how much."""

    mean: Literal["zero", "constant"] = "zero"
    """Mean daily log return: zero, or a constant per stock."""
    min_returns: int = 250
    """Fewest consecutive training returns from which a stock's parameters are estimated."""

    def __post_init__(self) -> None:
        if self.mean not in ("zero", "constant"):
            raise ValueError(f"mean must be zero or constant; got '{self.mean}'")
        if self.min_returns < 20:
            raise ValueError(f"min_returns must be at least 20; got {self.min_returns}")


@dataclass(frozen=True, eq=False)
class GarchT(SavedForecaster):
    """GARCH(1,1)-t per stock, filtered through the window and simulated ahead.

    Attributes:
        stocks: [K] names, sorted.
        parameters: [K, 5] mean, omega, alpha, beta of daily log returns, and degrees of freedom.
    """

    name = "garch_t"
    Config = GarchTConfig
    requires = ("arch",)

    stocks: np.ndarray
    parameters: np.ndarray

    @classmethod
    def fit(
        cls, config: GarchTConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Estimate each stock on its longest stretch of consecutive training closes.

        Raises:
            MissingPackageError: `arch` is not installed.
            UserError: a stock has fewer than `config.min_returns` consecutive returns.
        """
        closes = longest_stretches(train)
        for stock, series in closes.items():
            if len(series) - 1 < config.min_returns:
                raise UserError(
                    f"garch_t: {stock} has {len(series) - 1} consecutive training returns, {config.min_returns} are "
                    "needed; give a longer history, a stride of at most the horizon, or a smaller min_returns."
                )
        progress = tqdm(closes.items(), "fit garch_t", unit="stock", leave=False)
        parameters = [_estimate(stock, np.diff(np.log(series)), config) for stock, series in progress]
        return cls(config, np.array(list(closes)), np.array(parameters))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: a stock without training windows.
        """
        rows = rows_of_stocks(self.name, self.stocks, context)
        mean, omega, alpha, beta, dof = self.parameters[rows].T[:, :, None]  # [B, 1] each
        variance = self.next_variance(context)[:, None]  # [B, 1], then [B, S]
        returns = student_t(context, dof[:, 0], num_samples=num_samples, horizon=horizon, seed=seed)  # [B, S, H]
        # Day by day, as the return that is drawn decides the variance of the next day; that gives sums their fat tails.
        for day in range(horizon):
            returns[:, :, day] *= np.sqrt(variance)
            variance = omega + alpha * returns[:, :, day] ** 2 + beta * variance
        # After the recursion: the mean has no part in the variance, whose shocks are returns less their mean.
        return forecast_from_log_returns(context, np.cumsum(returns + mean[:, :, None], axis=-1))

    def next_variance(self, context: Context) -> np.ndarray:
        """[B] variance of the first day to forecast: the recursion run through the window."""
        rows = rows_of_stocks(self.name, self.stocks, context)
        mean, omega, alpha, beta, _ = self.parameters[rows].T
        # A start that matters little: by the origin its weight is beta^(L - 1).
        variance = context.feature("past_volatility") ** 2
        for returns in window_log_returns(context).T:
            variance = omega + alpha * (returns - mean) ** 2 + beta * variance
        return variance


def _estimate(stock: str, returns: np.ndarray, config: GarchTConfig) -> tuple[float, ...]:
    """Mean, omega, alpha, beta, degrees of freedom of daily log returns [T]."""
    arch = import_optional("arch", needed_by=GarchT.name, install="grpo-forecast[stats]")
    # The unit is percent and is taken back below; left to itself, arch may rescale and answer in a unit of its own.
    model = arch.arch_model(returns * PERCENT, mean=config.mean, vol="GARCH", p=1, q=1, dist="t", rescale=False)
    result = model.fit(disp="off", show_warning=False, options={"maxiter": 1000})
    if result.convergence_flag:
        _log.warning("garch_t: the likelihood of %s did not converge (%s)", stock, result.optimization_result.message)
    # A zero mean is not among arch's parameters, hence the 0 of `get`. omega is a variance and has the square of the
    # unit.
    mean, omega, alpha, beta, dof = (float(result.params.get(name, 0.0)) for name in PARAMETERS)
    return mean / PERCENT, omega / PERCENT**2, alpha, beta, dof
