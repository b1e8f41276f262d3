"""Quantile regression by gradient boosting on the indicators and statistics, all stocks together.

One LightGBM model (Ke et al. 2017) per day ahead and level minimises the pinball loss of the log return since the
last close, in units of the volatility at the origin times sqrt(h). Boosting stops where the loss of the validation
windows does. Quantiles that cross are sorted (monotone rearrangement).

Paths by an empirical copula, as in the Schaake shuffle (Clark et al. 2004): the realised futures of the training
windows, each day replaced by its rank within what the models said of that day, keep the dependence across days; a
random training window's ranks are put through the forecast quantiles.

Letters: N training windows, B windows, S samples, H horizon, Q levels, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from baselines.building_blocks.features import SCALE_FREE, scale_free_features
from baselines.building_blocks.packages import import_optional
from baselines.building_blocks.paths import draw_rows, forecast_from_log_returns, require_horizon, require_validation
from baselines.building_blocks.quantiles import rank_scores, scores_of, values_at
from baselines.building_blocks.saving import SavedForecaster
from baselines.building_blocks.settings import require_at_least
from grpo.evaluation.protocol import Forecast
from preprocessing.files import JsonObject
from preprocessing.returns import VolatilityConfig, daily_volatility, future_log_returns
from preprocessing.windows import Context, WindowSet

LEVELS = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])


@dataclass(frozen=True, kw_only=True)
class LightgbmQuantileConfig(VolatilityConfig):
    """Size of the models and of a step; small, as little can be learnt."""

    num_leaves: int = 8
    """Leaves per tree."""
    learning_rate: float = 0.05
    """Share of each tree that is added."""
    max_trees: int = 200
    """Trees per model at most."""
    patience: int = 20
    """Trees without a better validation loss after which boosting stops."""
    min_leaf_windows: int = 100
    """Training windows per leaf at least; at most a tenth of the training windows."""
    num_workers: int = 1
    """Threads of LightGBM; the models do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "max_trees", "patience", "min_leaf_windows", "num_workers")
        if self.num_leaves < 2 or not 0 < self.learning_rate <= 1:
            raise ValueError(
                "num_leaves must be at least 2 and learning_rate in (0, 1]; "
                f"got {self.num_leaves} and {self.learning_rate}"
            )


@dataclass(frozen=True, eq=False)
class LightgbmQuantile(SavedForecaster):
    """Boosted quantiles per day, joined by an empirical copula.

    Attributes:
        models: [H, Q] LightGBM's text form of each model.
        scores: [N, H] normal scores of the training futures' ranks, the copula.
    """

    name = "lightgbm_quantile"
    Config = LightgbmQuantileConfig
    requires = ("lightgbm",)

    models: np.ndarray
    scores: np.ndarray

    @classmethod
    def fit(
        cls,
        config: LightgbmQuantileConfig,
        train: WindowSet,
        val: WindowSet,
        *,
        horizon: int,
        seed: int,
        out_dir: Path,
    ) -> Self:
        """Train H Q models, then rank the training futures.

        Raises:
            MissingPackageError: lightgbm is not installed.
            UserError: there are no validation windows.
        """
        require_validation(cls.name, val)
        lightgbm = _library()
        targets, val_targets = _targets(train, config), _targets(val, config)  # [N, H], [V, H]
        # One data set for all models: binning the features is the expensive part, and only the labels change by day.
        data = lightgbm.Dataset(
            scale_free_features(train.context), targets[:, 0], feature_name=[*SCALE_FREE], free_raw_data=False
        ).construct()
        val_data = data.create_valid(scale_free_features(val.context), val_targets[:, 0]).construct()
        texts = []
        progress = tqdm(total=targets.shape[1] * len(LEVELS), desc=f"fit {cls.name}", unit="model", leave=False)
        for day in range(targets.shape[1]):
            data.set_label(targets[:, day])
            val_data.set_label(val_targets[:, day])
            for level in LEVELS:
                booster = lightgbm.train(
                    _parameters(config, level, len(train), seed),
                    data,
                    num_boost_round=config.max_trees,
                    valid_sets=[val_data],
                    callbacks=[lightgbm.early_stopping(config.patience, verbose=False)],
                )
                # A model's text and not the model, so that the file is exact and needs no pickle.
                texts.append(booster.model_to_string(num_iteration=booster.best_iteration))
                progress.update()
        progress.close()
        fitted = cls(config, np.array(texts).reshape(-1, len(LEVELS)), np.empty((0, 0)))
        # First where each future lay within what the models said of it, then ranks: the scores become standard normal
        # per day even where the models are off, and keep how days hang together.
        scores = scores_of(targets[:, None], LEVELS, fitted.scaled_quantiles(train.context))[:, 0]
        return cls(config, fitted.models, rank_scores(scores))

    @cached_property
    def _boosters(self) -> list[list[Any]]:
        library = _library()
        return [[library.Booster(model_str=str(text)) for text in row] for row in self.models]

    def scaled_quantiles(self, context: Context) -> np.ndarray:
        """[B, H, Q] quantiles of the log return since the last close over daily volatility times sqrt(h)."""
        features = scale_free_features(context)
        threads = self.config.num_workers
        rows = [[booster.predict(features, num_threads=threads) for booster in row] for row in self._boosters]
        # [H, Q] lists of [B] to [H, Q, B] to [B, H, Q].
        return np.moveaxis(np.array(rows), -1, 0)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than the training windows reach.
        """
        require_horizon(self.name, fitted=len(self.models), asked=horizon)
        # All days of a sample from one training window: independent draws per day would make paths that jump about.
        rows = draw_rows(context, len(self.scores), shape=(num_samples,), seed=seed)  # [B, S]
        quantiles = self.scaled_quantiles(context)[:, :horizon]
        scaled = values_at(self.scores[rows, :horizon], LEVELS, quantiles)  # [B, S, H]
        return forecast_from_log_returns(context, scaled * _scale(context, self.config, horizon)[:, None])


def _library() -> Any:
    return import_optional("lightgbm", needed_by=LightgbmQuantile.name, install="grpo-forecast[lightgbm]")


def _parameters(config: LightgbmQuantileConfig, level: float, num_windows: int, seed: int) -> JsonObject:
    return {
        "objective": "quantile",
        "alpha": float(level),
        "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate,
        # Few windows get small leaves, or no tree could split at all.
        "min_data_in_leaf": max(1, min(config.min_leaf_windows, num_windows // 10)),
        "num_threads": config.num_workers,
        # Without these two the sums of gradients, and so the trees, depend on the number of threads.
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }


def _scale(context: Context, config: VolatilityConfig, horizon: int) -> np.ndarray:
    """[B, H] standard deviation of a random walk after h days."""
    return daily_volatility(context, config)[:, None] * np.sqrt(np.arange(1, horizon + 1))


def _targets(windows: WindowSet, config: VolatilityConfig) -> np.ndarray:
    """[B, H] log returns since the last close over daily volatility times sqrt(h)."""
    return future_log_returns(windows) / _scale(windows.context, config, windows.horizon)
