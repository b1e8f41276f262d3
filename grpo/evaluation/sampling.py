"""Random numbers that belong to a window, not to a batch.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import numpy as np

from preprocessing.seeds import generator
from preprocessing.windows import Context


def window_generators(context: Context, seed: int) -> list[np.random.Generator]:
    """One generator per window, seeded by (seed, stock, origin), the origin to the nanosecond.

    A window's samples then depend neither on the other windows nor on their order, and forecasters that draw
    the same variates are compared on common random numbers.
    """
    # the origin whole, not its day: bars within one day are windows of their own
    return [generator(seed, item, origin) for item, origin in zip(context.item_id, context.origin, strict=True)]


def standard_normal(context: Context, *, num_samples: int, horizon: int, seed: int) -> np.ndarray:
    """[B, S, H] independent standard normal variates, reproducible per window."""
    generators = window_generators(context, seed)
    return np.stack([rng.standard_normal((num_samples, horizon)) for rng in generators])
