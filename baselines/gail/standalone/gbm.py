"""Demonstrations whose law is known: geometric Brownian motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from baselines.gail.demonstrations import Demonstrations
from preprocessing.seeds import generator


@dataclass(frozen=True, kw_only=True)
class GbmConfig:
    """Geometric Brownian motion, dS = mu S dt + sigma S dW."""

    mu: float = 0.1
    """Drift per year."""
    sigma: float = 0.2
    """Volatility per square root of a year, positive."""
    start: float = 100.0
    """First price."""
    years: float = 1.0
    """Length of a path."""
    steps: int = 252
    """Steps of a path."""
    paths: int = 4000
    """Simulated paths: 70 % to learn from, 10 % to validate on, 20 % to judge by."""

    def __post_init__(self) -> None:
        for name in ("sigma", "start", "years"):
            if not getattr(self, name) > 0:
                raise ValueError(f"gbm.{name} must be positive; got {getattr(self, name)}")
        if self.steps < 2 or self.paths < 10:
            raise ValueError(
                f"gbm.steps must be at least 2 and gbm.paths at least 10; got {self.steps} and {self.paths}"
            )


def simulate_gbm(config: GbmConfig, seed: int) -> dict[str, Demonstrations]:
    """Independent paths as train, val and test; without context, all scaled by the training paths' volatility."""
    dt = config.years / config.steps
    shocks = generator(seed).standard_normal((config.paths, config.steps))
    # Ito's correction: mu is the drift of the price, and its log drifts by sigma^2/2 less.
    returns = (config.mu - config.sigma**2 / 2) * dt + config.sigma * np.sqrt(dt) * shocks
    cuts = [0, int(0.7 * config.paths), int(0.8 * config.paths), config.paths]
    # From the training paths alone: validation and test must not set the unit.
    scale = float(returns[: cuts[1]].std())
    return {
        name: Demonstrations(
            context=torch.zeros(end - begin, 0),
            returns=torch.from_numpy(returns[begin:end] / scale).float(),
            scale=np.full(end - begin, scale),
            start=np.full(end - begin, config.start),
        )
        for name, begin, end in zip(("train", "val", "test"), cuts[:-1], cuts[1:], strict=True)
    }
