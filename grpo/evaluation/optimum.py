"""The best forecast there can be, on simulated stocks whose conditional law is known exactly.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import standard_normal
from preprocessing.simulation import is_simulated, parse_simulated_stock
from preprocessing.windows import Context


class Optimum:
    """Samples from the exact law of each window's simulated stock; nothing can be better in expectation."""

    name = "optimum"

    @staticmethod
    def knows(context: Context) -> bool:
        """Whether every window is of a simulated stock with an exact law."""
        return all(
            is_simulated(item) and parse_simulated_stock(item).conditional_law(np.ones(1), 1) is not None
            for item in set(context.item_id)
        )

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths from the law of the future log prices given the last price.

        Raises:
            ValueError: a window's stock has no exact law; ask `knows` first.
        """
        noise = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)
        samples = np.empty_like(noise)  # [B, S, H]
        items = np.array(context.item_id)
        for item in np.unique(items):
            rows = items == item
            law = parse_simulated_stock(str(item)).conditional_law(context.last_price[rows], horizon)
            if law is None:
                raise ValueError(f"the exact law of {item} is not known")
            mean, covariance = law  # [b, H], [H, H]
            samples[rows] = np.exp(mean[:, None] + noise[rows] @ np.linalg.cholesky(covariance).T)
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    def save(self, path: Path) -> None:
        """There is nothing to write: the stock's name holds the law."""
