"""Pretrained time-series models without any training here: Chronos-Bolt and TimesFM 2.5.

Both read the closes of the window and answer with the nine deciles of each day ahead. They say nothing of how days
hang together, so paths come from a Gaussian copula with the correlation of a random walk, sqrt(s / t); beyond the
outer deciles the tails are Gaussian (`baselines.building_blocks.quantiles`). The log of the price's deciles are the
deciles of the log price, so that is where the interpolation works.

* `chronos` (Ansari et al. 2024, arXiv 2403.07815): any Chronos-Bolt checkpoint, such as amazon/chronos-bolt-small;
  pip install chronos-forecasting.
* `timesfm` (Das et al. 2024, arXiv 2310.10688): any TimesFM 2.5 checkpoint, such as google/timesfm-2.5-200m-pytorch;
  pip install 'timesfm[torch]'.

What these models were trained on is not known day by day: they may have seen a test span before their release.

Letters: B windows, L window length, S samples, H horizon.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from tqdm import tqdm

from baselines.building_blocks.packages import import_optional
from baselines.building_blocks.paths import forecast_from_log_returns
from baselines.building_blocks.quantiles import random_walk_scores, values_at
from baselines.building_blocks.saving import SavedForecaster
from grpo.evaluation.protocol import Forecast
from preprocessing.errors import UserError
from preprocessing.windows import Context, WindowSet

DECILES = np.arange(1, 10) / 10


class MissingWeightsError(UserError):
    """A checkpoint that is neither a local folder nor to be had from the Hub; the message names it."""


@dataclass(frozen=True, kw_only=True)
class ChronosConfig:
    """Which checkpoint, and where it runs."""

    model: str = "amazon/chronos-bolt-small"
    """Hub id or local folder of a Chronos-Bolt checkpoint."""
    device: str = "cpu"
    """Device of torch: cpu, cuda, cuda:1."""
    batch_size: int = 256
    """Windows that go through the network at once; it bounds the memory."""

    def __post_init__(self) -> None:
        _require_batch(self.batch_size)


@dataclass(frozen=True, kw_only=True)
class TimesFmConfig:
    """Which TimesFM checkpoint is used."""

    model: str = "google/timesfm-2.5-200m-pytorch"
    """Hub id or local folder of a TimesFM 2.5 checkpoint for torch; it runs on a GPU where there is one."""
    batch_size: int = 32
    """Windows that go through the network at once; it bounds the memory."""

    def __post_init__(self) -> None:
        _require_batch(self.batch_size)


def _require_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")


@dataclass(frozen=True, eq=False)
class FoundationForecaster(SavedForecaster):
    """What both have in common; saving keeps the name of the checkpoint, not its weights."""

    package: ClassVar[str]
    """What pip installs."""

    @classmethod
    def fit(cls, config: Any, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path) -> Self:
        """Nothing is learnt; the checkpoint is loaded, so that a missing one is missed now.

        Raises:
            MissingPackageError: the model's package is not installed.
            MissingWeightsError: the checkpoint cannot be loaded.
        """
        fitted = cls(config)
        # Loaded here and not at the first forecast: a missing package or checkpoint is missed before anything else is
        # fitted.
        _ = fitted.pipeline
        return fitted

    @cached_property
    def pipeline(self) -> Any:
        """The loaded checkpoint."""
        try:
            return self._load_pipeline()
        except (OSError, ValueError) as error:
            # The package's own errors are clear already; only those of the model's library are put into words here.
            if type(error).__module__.startswith("baselines"):
                raise
            reason = " ".join(str(error).split())
            raise MissingWeightsError(
                f"{self.name}: the checkpoint '{self.config.model}' cannot be loaded ({reason[:200]}); give a Hub id "
                "that this machine can reach or has cached, or a local folder."
            ) from error

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch."""
        closes, size = context.past[:, :, 0], self.config.batch_size
        begins = tqdm(range(0, len(context), size), self.name, unit="batch", leave=False)
        prices = np.concatenate([self._deciles(closes[begin : begin + size], horizon) for begin in begins])
        with np.errstate(divide="ignore", invalid="ignore"):  # a price of 0 or less makes the path invalid
            # The log of a decile is the decile of the log, and in logs the interpolation works.
            quantiles = np.log(prices / context.last_price[:, None, None])  # [B, H, 9]
        # Deciles say nothing of how days hang together, so the days of a path get the correlation of a random walk.
        scores = random_walk_scores(context, num_samples=num_samples, horizon=horizon, seed=seed)
        return forecast_from_log_returns(context, values_at(scores, DECILES, quantiles))

    @abstractmethod
    def _load_pipeline(self) -> Any:
        """Load the checkpoint by the model's own package."""

    @abstractmethod
    def _deciles(self, closes: np.ndarray, horizon: int) -> np.ndarray:
        """[B, H, 9] deciles of the price for closes [B, L]."""


class Chronos(FoundationForecaster):
    """A Chronos-Bolt checkpoint."""

    name = "chronos"
    Config = ChronosConfig
    requires = ("chronos",)
    package = "chronos-forecasting"

    def _load_pipeline(self) -> Any:
        library = import_optional("chronos", needed_by=self.name, install=self.package)
        return library.BaseChronosPipeline.from_pretrained(self.config.model, device_map=self.config.device)

    def _deciles(self, closes: np.ndarray, horizon: int) -> np.ndarray:
        import torch

        answer, _ = self.pipeline.predict_quantiles(
            torch.from_numpy(np.ascontiguousarray(closes)),
            prediction_length=horizon,
            quantile_levels=DECILES.tolist(),
        )
        return np.asarray(answer, dtype=np.float64)


class TimesFm(FoundationForecaster):
    """A TimesFM 2.5 checkpoint."""

    name = "timesfm"
    Config = TimesFmConfig
    requires = ("timesfm",)
    package = "timesfm[torch]"

    def _load_pipeline(self) -> Any:
        library = import_optional("timesfm", needed_by=self.name, install=self.package)
        # compiling takes longer than thousands of windows
        return library.TimesFM_2p5_200M_torch.from_pretrained(self.config.model, torch_compile=False)

    def _deciles(self, closes: np.ndarray, horizon: int) -> np.ndarray:
        library = import_optional("timesfm", needed_by=self.name, install=self.package)
        settings = library.ForecastConfig(
            max_context=closes.shape[1],
            max_horizon=horizon,
            normalize_inputs=True,
            per_core_batch_size=self.config.batch_size,
            use_continuous_quantile_head=True,
            fix_quantile_crossing=True,
        )
        self.pipeline.compile(settings)
        _, answer = self.pipeline.forecast(horizon=horizon, inputs=[*closes])
        return np.asarray(answer, dtype=np.float64)[:, :, 1:]  # the first of the ten is the mean
