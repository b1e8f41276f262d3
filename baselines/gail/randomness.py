"""Random numbers that depend on the seed and the step alone, and leave the caller's generators as they were.

Every round draws from generators seeded anew by (seed, phase, step), so that a resumed training needs no state of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

PRETRAINING, ADVERSARIAL, CONTEXTS, DISCRIMINATOR, VALIDATION, JUDGING, TUNING = range(7)
"""Phases: each draws from generators of its own."""


def mixed(seed: int, *keys: int) -> int:
    """A seed in [0, 2^32) that differs for every combination."""
    return int(np.random.SeedSequence((seed, *keys)).generate_state(1)[0])


def generator(seed: int, *keys: int) -> torch.Generator:
    """A generator of torch of one's own."""
    return torch.Generator().manual_seed(mixed(seed, *keys))


def seed_globals(seed: int, *keys: int) -> None:
    """Seed the global generators, which stable-baselines3 draws from; call it within `global_generators_kept`."""
    torch.manual_seed(mixed(seed, *keys))
    np.random.seed(mixed(seed, *keys))  # noqa: NPY002


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Put the global generators of torch, NumPy and Python back afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
