"""Random numbers of torch that depend on a seed and keys alone (`preprocessing.seeds`), and the caller's kept apart."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from preprocessing.seeds import Key, integer

_BITS = 32
"""Of the seeds given to torch and NumPy."""


def number(seed: int, *keys: Key) -> int:
    """A seed in [0, 2^32) that differs for every combination."""
    return integer(seed, *keys, bits=_BITS)


def torch_generator(seed: int, *keys: Key) -> torch.Generator:
    """A generator of torch of one's own."""
    return torch.Generator().manual_seed(number(seed, *keys))


def seed_globals(seed: int, *keys: Key) -> None:
    """Seed the global generators, for a library that draws from them; call it within `global_generators_kept`."""
    torch.manual_seed(number(seed, *keys))
    np.random.seed(number(seed, *keys))  # noqa: NPY002


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
