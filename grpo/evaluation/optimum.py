"""The best forecast there can be, on simulated stocks whose conditional law is known exactly.

The law is conditional on the stock's parameters and its whole past, both of which follow from its name. A window shows
less than that, so a forecaster need not reach the optimum to have learnt all that its windows hold. See
`preprocessing.laws` for what is known of each process.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import window_generators
from preprocessing.laws import LAWS, conditional_law
from preprocessing.simulation import SimulatedStock, is_simulated, parse_simulated_stock
from preprocessing.windows import Context


class Optimum:
    """Samples from the exact law of each window's simulated stock; nothing can be better in expectation.

    Where that law is not known it has no answer: its samples are not valid there.
    """

    name = "optimum"

    @staticmethod
    def knows(context: Context) -> bool:
        """Whether every window is of a simulated stock with a known law, and holds that stock's prices."""
        return bool(Optimum.known(context).all())

    @staticmethod
    def known(context: Context) -> np.ndarray:
        """[B] whether the law of the window's stock is known, and all its windows hold that stock's prices."""
        items = np.array(context.item_id)
        known = np.zeros(len(context), dtype=bool)
        for item in np.unique(items):
            rows = items == item
            known[rows] = _known_origins(item, context.take(rows)) is not None
        return known

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths from the law of the future log prices given all prices up to the origin."""
        samples = np.full((len(context), num_samples, horizon), np.nan)
        items = np.array(context.item_id)
        for item in np.unique(items):
            rows = items == item
            windows = context.take(rows)
            origins = _known_origins(item, windows)
            law = conditional_law(parse_simulated_stock(item), origins, horizon) if origins is not None else None
            if law is not None:
                # the windows' own generators, which other forecasters use too: common random numbers make differences
                # less noisy
                samples[rows] = np.exp(law.sample(num_samples, window_generators(windows, seed)))
        return Forecast(samples=samples, valid=np.asarray(np.isfinite(samples).all(axis=-1)))

    def save(self, path: Path) -> None:
        """There is nothing to write: the stock's name holds the law."""


def _known_origins(item: str, context: Context) -> np.ndarray | None:
    """[B] rows of the origins of one stock's windows, or None where the law of its prices is not known."""
    if not is_simulated(item) or (stock := parse_simulated_stock(item)).process not in LAWS:
        return None
    return _find_origins(stock, context)


def _find_origins(stock: SimulatedStock, context: Context) -> np.ndarray | None:
    """[B] row of each window's origin, or None where the stock has no such days or closed at other prices."""
    rows = stock.rows_of(context.origin)
    closes = np.exp(stock.paths().log_price[0])
    # a user's file may bear a simulated stock's name: only equal closes prove that the law is the window's
    return rows if (rows >= 0).all() and np.allclose(closes[rows], context.last_price, rtol=1e-9, atol=0) else None
