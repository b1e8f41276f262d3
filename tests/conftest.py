from __future__ import annotations

import os
from pathlib import Path

# Before anything imports a Hugging Face library: no test may reach for the network, and tokenizers must not fork.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # resumed runs are compared bit by bit, which holds with one thread
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

STOCKNET = Path(__file__).parents[1].parent / "shared" / "data" / "stocknet"


@pytest.fixture(scope="session")
def stocknet() -> Path:
    """Folder of real daily bars, where the checkout has it beside it."""
    if not STOCKNET.is_dir():
        pytest.skip(f"no real stocks at {STOCKNET}")
    return STOCKNET
