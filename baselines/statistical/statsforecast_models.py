"""AutoARIMA, AutoETS and AutoTheta of statsforecast, fitted anew on each window, as sample paths.

* `auto_arima` (Hyndman and Khandakar 2008), `auto_ets` (Hyndman, Koehler, Snyder and Grose 2002), `auto_theta`
  (Fiorucci et al. 2016, "Models for optimising the theta method").

Each works on 100 log(close / last close) of the window, so a forecast does not depend on the price level, and ETS
chooses among its additive models alone. The library gives means and intervals of single days; the law of a path
follows from the fitted state-space model: all of these are linear with Gaussian shocks, so the path is
mean + root z with z standard normal. The variance of a day is then the one behind the library's own interval, and
days depend on each other as the model says. Parameters count as known, as in the library's intervals.

They need long windows: of 30 closes they make a trend of every swing, with 500 or more they come close to the random
walk (benchmarks/README.md).

Deviations: no seasons. The theta models that keep their trend line as it is (STM, OTM) keep it in the simulation
too; the library's intervals refit it along the path. A window that a model fits exactly (a constant price) gets
shocks of the smallest volatility that is reported, MIN_VOLATILITY.

Letters: B windows, L window length, S samples, H horizon.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scipy.linalg import toeplitz
from tqdm import tqdm

from baselines.building_blocks.packages import import_optional
from baselines.building_blocks.paths import forecast_from_log_returns
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import standard_normal
from preprocessing.errors import UserError
from preprocessing.files import JsonObject
from preprocessing.statistics import MIN_VOLATILITY
from preprocessing.windows import Context, WindowSet

PERCENT = 100.0
"""The models see log returns in percent: their optimisers stop at absolute tolerances."""
MIN_SHOCK = PERCENT * MIN_VOLATILITY

Law = tuple[np.ndarray, np.ndarray]
"""[H] mean and [H, H] lower-triangular root of the covariance of a path, in percent of log price."""


@dataclass(frozen=True, kw_only=True)
class StatsforecastConfig:
    """How the windows are worked through."""

    num_workers: int = 1
    """Processes that fit windows side by side; the forecasts do not depend on it."""

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1; got {self.num_workers}")


@dataclass(frozen=True, eq=False)
class StatsforecastForecaster(SavedForecaster):
    """What the three have in common; a subclass says which model and how its shocks pass on."""

    Config = StatsforecastConfig
    requires = ("statsforecast",)
    model: ClassVar[str]
    """Class in `statsforecast.models`."""

    @classmethod
    def fit(
        cls, config: StatsforecastConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Nothing is learnt before a window is seen.

        Raises:
            MissingPackageError: statsforecast is not installed.
        """
        cls._library()
        return cls(config)

    @classmethod
    def law(cls, window: np.ndarray, *, horizon: int) -> Law:
        """Fit the closes of one window [L] and derive the law of its future, [H] and [H, H]."""
        model = getattr(cls._library(), cls.model)(season_length=1)
        # Over the last close, so that the price level is gone; in percent, as the optimisers stop at absolute
        # tolerances.
        model.fit(PERCENT * np.log(window / window[-1]))
        mean = np.asarray(model.predict(h=horizon)["mean"], dtype=np.float64)
        return mean, cls._root(model.model_, horizon)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: a window that cannot be fitted.
        """
        paths = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)  # [B, S, H]
        progress = tqdm(self._laws(context, horizon), self.name, total=len(context), unit="window", leave=False)
        for row, (mean, root) in enumerate(progress):
            # The models are linear with Gaussian shocks, so mean + root z is exactly their law: [S, H] @ [H, H].
            paths[row] = mean + paths[row] @ root.T
        return forecast_from_log_returns(context, paths / PERCENT)

    def _laws(self, context: Context, horizon: int) -> Iterator[Law]:
        law = partial(_law_or_place, type(self), horizon=horizon)
        places = [f"{item} {str(day)[:10]}" for item, day in zip(context.item_id, context.origin, strict=True)]
        windows = context.past[:, :, 0]
        if self.config.num_workers == 1:
            yield from map(law, windows, places)
            return
        with ProcessPoolExecutor(self.config.num_workers) as pool:
            # Eight windows at a time, so that less is sent between the processes; map keeps their order.
            yield from pool.map(law, windows, places, chunksize=8)

    @classmethod
    def _library(cls) -> Any:
        return import_optional("statsforecast.models", needed_by=cls.name, install="grpo-forecast[stats]")

    @staticmethod
    @abstractmethod
    def _root(fitted: JsonObject, horizon: int) -> np.ndarray:
        """[H, H] root of the covariance of the path, from the library's fitted model."""


def _law_or_place(cls: type[StatsforecastForecaster], window: np.ndarray, place: str, *, horizon: int) -> Law:
    try:
        return cls.law(window, horizon=horizon)
    except Exception as error:  # statsforecast raises bare Exception
        raise UserError(f"{cls.name}: the window of {place} cannot be fitted: {error}") from error


class AutoArima(StatsforecastForecaster):
    """ARIMA of the order that AICc chooses, on log prices."""

    name = "auto_arima"
    model = "AutoARIMA"

    @staticmethod
    def _root(fitted: JsonObject, horizon: int) -> np.ndarray:
        """State space a' = T a + shocks of covariance V, price = Z a; P is the covariance of a at the origin.

        Cov(y_s, y_t) for s <= t is Z P_s (T^(t-s))' Z' with P_s = T P_(s-1) T' + V, all times sigma squared.
        """
        space = fitted["model"]
        transition, observe, state = space["T"], space["Z"], space["P"]
        covariance = np.empty((horizon, horizon))
        for day in range(horizon):
            state = transition @ state @ transition.T + space["V"]
            column = state @ observe  # Cov(a_s, y_s), carried on to the days after
            for later in range(day, horizon):
                covariance[day, later] = covariance[later, day] = observe @ column
                column = transition @ column
        return max(np.sqrt(fitted["sigma2"]), MIN_SHOCK) * np.linalg.cholesky(covariance)


class AutoEts(StatsforecastForecaster):
    """Exponential smoothing of the additive form that AICc chooses, on log prices."""

    name = "auto_ets"
    model = "AutoETS"

    @staticmethod
    def _root(fitted: JsonObject, horizon: int) -> np.ndarray:
        """A shock adds 1 to its own day and alpha + beta (phi + ... + phi^j) to the day j later."""
        _, trend, _, damped = fitted["components"]
        alpha, beta, _, phi = fitted["par"][:4]
        # The components say which parameters are in use; the list has a place for each in any case.
        beta, phi = (beta if trend == "A" else 0.0), (phi if damped == "D" else 1.0)
        later = alpha + beta * np.cumsum(phi ** np.arange(1, horizon))
        return _lower_toeplitz(np.concatenate([[1.0], later])) * max(np.sqrt(fitted["sigma2"]), MIN_SHOCK)


class AutoTheta(StatsforecastForecaster):
    """The theta model (standard or optimised, static or dynamic) with the smallest error, on log prices."""

    name = "auto_theta"
    model = "AutoTheta"

    @staticmethod
    def _root(fitted: JsonObject, horizon: int) -> np.ndarray:
        """What each shock adds to each day: the recursions of Fiorucci et al. (2016), run on unit shocks.

        In the dynamic models (DSTM, DOTM) the trend line A + B t is refitted to each path as it goes on.
        """
        alpha, theta, days = fitted["par"]["alpha"], fitted["par"]["theta"], fitted["n"]
        # Unit shocks, all at once: entry j of a row is what the shock of day j adds to that day.
        level = mean = intercept = slope = np.zeros(horizon)  # [H] one entry per shock
        response = np.empty((horizon, horizon))
        for step in range(horizon):
            t = days + step
            decay = (1 - alpha) ** t
            line = intercept * decay + slope * (1 - decay * (1 - alpha)) / alpha
            response[step] = level + (1 - 1 / theta) * line
            response[step, step] += 1
            level = alpha * response[step] + (1 - alpha) * level
            if fitted["modeltype"] in ("DSTM", "DOTM"):
                mean = (t * mean + response[step]) / (t + 1)
                slope = ((t - 1) * slope + 6 * (response[step] - mean) / (t + 1)) / (t + 2)
                intercept = mean - slope * (t + 2) / 2
        # The first residuals are those of the start-up of the recursions and no shocks.
        return max(np.std(fitted["residuals"][3:], ddof=1), MIN_SHOCK) * response


def _lower_toeplitz(column: np.ndarray) -> np.ndarray:
    return toeplitz(column, np.zeros(len(column)))
