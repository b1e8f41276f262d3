"""Random numbers that belong to a window, not to a batch.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import zlib

import numpy as np

from preprocessing.windows import Context


def window_generators(context: Context, seed: int) -> list[np.random.Generator]:
    """One generator per window, seeded by (seed, stock, origin).

    A window's samples then depend neither on the other windows nor on their order, and forecasters that draw
    the same variates are compared on common random numbers.
    """
    days = context.origin.astype("datetime64[D]").astype(np.int64)
    # SeedSequence takes no negative number; days before 1970 wrap around.
    keys = (
        (seed, zlib.crc32(item.encode()), int(day) % 2**32) for item, day in zip(context.item_id, days, strict=True)
    )
    return [np.random.default_rng(key) for key in keys]


def standard_normal(context: Context, *, num_samples: int, horizon: int, seed: int) -> np.ndarray:
    """[B, S, H] independent standard normal variates, reproducible per window."""
    generators = window_generators(context, seed)
    return np.stack([generator.standard_normal((num_samples, horizon)) for generator in generators])
