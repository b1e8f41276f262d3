"""Stand-ins for the packages of pretrained models: the same calls, a law that is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from scipy.stats import norm

DECILES = np.arange(1, 10) / 10
SPREAD = 0.01


def lognormal_deciles(closes: np.ndarray, horizon: int) -> np.ndarray:
    """[B, H, 9] deciles of a random walk of 1 % a day from the last of closes [B, L]."""
    deviation = SPREAD * np.sqrt(np.arange(1, horizon + 1))
    return closes[:, -1, None, None] * np.exp(deviation[:, None] * norm.ppf(DECILES))


class FakeChronos:
    """chronos.BaseChronosPipeline as far as it is called."""

    loaded: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def from_pretrained(cls, name, device_map):
        cls.loaded.append((name, device_map))
        return cls()

    def predict_quantiles(self, inputs, prediction_length, quantile_levels):
        import torch

        assert quantile_levels == DECILES.tolist()
        deciles = torch.from_numpy(lognormal_deciles(inputs.numpy(), prediction_length))
        return deciles, deciles[:, :, 4]


class FakeTimesFm:
    """timesfm.TimesFM_2p5_200M_torch as far as it is called."""

    @classmethod
    def from_pretrained(cls, name, torch_compile):
        assert torch_compile is False
        return cls()

    def compile(self, settings):
        self.settings = settings

    def forecast(self, horizon, inputs):
        assert self.settings.max_horizon >= horizon
        assert self.settings.max_context >= len(inputs[0])
        deciles = lognormal_deciles(np.stack(inputs), horizon)
        inputs += [np.zeros(3)]  # the library pads the list that it is given
        mean = np.full((*deciles.shape[:2], 1), -1.0)  # not a quantile: must not be read as one
        return deciles[:, :, 4], np.concatenate([mean, deciles], axis=-1)


MODULES = {
    "chronos": SimpleNamespace(BaseChronosPipeline=FakeChronos),
    "timesfm": SimpleNamespace(
        TimesFM_2p5_200M_torch=FakeTimesFm, ForecastConfig=lambda **settings: SimpleNamespace(**settings)
    ),
}
