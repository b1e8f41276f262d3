"""A forecaster whose quality is set by hand, for tests of what stands above single forecasts."""

from __future__ import annotations

import numpy as np

from grpo.evaluation.protocol import Forecast
from preprocessing.windows import WindowSet


class NoiseAround:
    """Knows the truth of its windows and answers with noise around it, moved by `shift` percent of the last close."""

    def __init__(self, name: str, windows: WindowSet, shift: float):
        self.name, self.windows, self.shift = name, windows, shift

    def predict(self, context, *, horizon, num_samples, seed):
        noise = np.random.default_rng(seed).standard_normal((len(context), num_samples, horizon))
        percent = context.last_price[:, None, None] / 100
        samples = self.windows.truth.future[:, None] + percent * (self.shift + 0.5 * noise)
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    def save(self, path): ...
