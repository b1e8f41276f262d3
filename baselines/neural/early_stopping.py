"""When to stop, and which weights to keep: those that forecast the validation windows best.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from grpo.evaluation.harness import evaluate
from grpo.evaluation.protocol import Forecaster
from preprocessing.returns import VolatilityConfig, daily_volatility
from preprocessing.windows import WindowSet


def scaled_crps(forecaster: Forecaster, windows: WindowSet, *, num_samples: int = 32, seed: int = 0) -> float:
    """Mean CRPS over windows and days, each day over the standard deviation of a random walk.

    Quiet and wild windows then weigh alike. The same seed draws the same variates each time, so that two calls
    compare networks and not luck.
    """
    crps = evaluate(forecaster, windows, num_samples=num_samples, seed=seed).scores.crps  # [B, H] percent
    spread = 100 * daily_volatility(windows.context, VolatilityConfig())
    return float((crps / (spread[:, None] * np.sqrt(np.arange(1, windows.horizon + 1)))).mean())


class BestWeights:
    """The weights with the lowest loss so far.

    Attributes:
        patience: how often in a row the loss may fail to fall before `exhausted`; None: for ever.
        loss: the lowest loss; infinite before the first.
        step: when it was reached.
        failures: how often in a row it has not fallen since.
        weights: the state dict it was reached with; empty before the first.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.loss = float("inf")
        self.step = -1
        self.failures = 0
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, loss: float, step: int, module: torch.nn.Module) -> bool:
        """Keep a copy of these weights if their loss is lower than every one before; say whether it is."""
        # `not <` and no `>=`, so that a loss of nan counts as a failure.
        if not loss < self.loss:
            self.failures += 1
            return False
        self.loss, self.step, self.failures = loss, step, 0
        # A copy: the state dict holds the live weights, which go on being trained.
        self.weights = copy.deepcopy(module.state_dict())
        return True

    @property
    def exhausted(self) -> bool:
        """Whether the loss has failed to fall `patience` times in a row."""
        return self.patience is not None and self.failures >= self.patience

    def restore(self, module: torch.nn.Module) -> None:
        """Put the best weights back; nothing happens where none were offered."""
        if self.weights:
            module.load_state_dict(self.weights)
