"""The random walk, with and without drift: the forecasters that all others have to beat.

They are also the shortest example of a plugin: a class with `Config`, `fit`, `load`, `predict` and `save`,
named in pyproject.toml under `grpo.forecasters`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import standard_normal
from preprocessing.files import write_atomically
from preprocessing.windows import Context, WindowSet


class UnknownStockError(ValueError):
    """A stock that the training windows did not hold."""


@dataclass(frozen=True, kw_only=True)
class RandomWalkConfig:
    """Where the width of the forecast comes from."""

    recent_weight: float = 0.5
    """Weight of the trailing daily variance (0 to 1); the rest goes to the variance of the whole past."""

    def __post_init__(self) -> None:
        if not 0 <= self.recent_weight <= 1:
            raise ValueError(f"recent_weight must be in [0, 1]; got {self.recent_weight}")


class RandomWalk:
    """Independent Gaussian daily log returns of mean 0: the median of every day is the last close."""

    name = "random_walk"
    Config = RandomWalkConfig

    def __init__(self, config: RandomWalkConfig) -> None:
        self.config = config

    @classmethod
    def fit(
        cls,
        config: RandomWalkConfig,
        train: WindowSet,
        val: WindowSet,
        *,
        horizon: int,
        seed: int,
        out_dir: Path,
    ) -> RandomWalk:
        """Nothing is learnt: the volatility comes with each window."""
        return cls(config)

    @classmethod
    def load(cls, path: Path) -> RandomWalk:
        """Read what `save` wrote."""
        return cls(RandomWalkConfig(**json.loads((path / "state.json").read_text())))

    def save(self, path: Path) -> None:
        """Write the config as JSON."""
        write_atomically(path / "state.json", json.dumps(dataclasses.asdict(self.config)))

    def daily_drift(self, context: Context) -> np.ndarray:
        """[B] mean daily log return."""
        return np.zeros(len(context))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        weight = self.config.recent_weight
        recent, past = context.feature("volatility"), context.feature("past_volatility")
        daily = np.sqrt(weight * recent**2 + (1 - weight) * past**2)  # [B]
        noise = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)  # [B, S, H]
        steps = self.daily_drift(context)[:, None, None] + daily[:, None, None] * noise
        samples = context.last_price[:, None, None] * np.exp(np.cumsum(steps, axis=-1))
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))


class RandomWalkDrift(RandomWalk):
    """The random walk plus each stock's mean daily log return over the training windows."""

    name = "random_walk_drift"

    def __init__(self, config: RandomWalkConfig, drift: dict[str, float]) -> None:
        super().__init__(config)
        self.drift = drift

    @classmethod
    def fit(
        cls,
        config: RandomWalkConfig,
        train: WindowSet,
        val: WindowSet,
        *,
        horizon: int,
        seed: int,
        out_dir: Path,
    ) -> RandomWalkDrift:
        """Average log(last target / last close) / H per stock."""
        per_day = np.log(train.truth.future[:, -1] / train.context.last_price) / train.horizon  # [B]
        items = np.array(train.context.item_id)
        return cls(config, {str(item): float(per_day[items == item].mean()) for item in np.unique(items)})

    @classmethod
    def load(cls, path: Path) -> RandomWalkDrift:
        """Read what `save` wrote."""
        state = json.loads((path / "state.json").read_text())
        return cls(RandomWalkConfig(**state["config"]), state["drift"])

    def save(self, path: Path) -> None:
        """Write the config and the drift of each stock as JSON."""
        state = {"config": dataclasses.asdict(self.config), "drift": self.drift}
        write_atomically(path / "state.json", json.dumps(state))

    def daily_drift(self, context: Context) -> np.ndarray:
        """[B] the training drift of each window's stock.

        Raises:
            UnknownStockError: a stock without training windows; the message names it.
        """
        unknown = sorted(set(context.item_id) - set(self.drift))
        if unknown:
            raise UnknownStockError(f"random_walk_drift: no training windows of {', '.join(unknown)}")
        return np.array([self.drift[item] for item in context.item_id])
