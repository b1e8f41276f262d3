"""Small window sets for tests."""

from __future__ import annotations

import pandas as pd

from preprocessing.combined_preprocessor import DataConfig, split_windows
from preprocessing.simulation import parse_simulated_stock
from preprocessing.windows import WindowSet


def simulated_windows(name: str = "sim:ou?rows=300&seed=4", **config) -> dict[str, WindowSet]:
    """The splits of one simulated stock."""
    splits, _ = split_windows({name: parse_simulated_stock(name).bars()}, DataConfig(**config))
    return splits


def simulated_bars(rows: int = 300, seed: int = 4) -> pd.DataFrame:
    """Bars of one simulated stock."""
    return parse_simulated_stock(f"sim:ou?rows={rows}&seed={seed}").bars()
