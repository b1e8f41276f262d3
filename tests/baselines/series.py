"""Windows of given closes, with the features that the statistical forecasters read, for exact tests."""

from __future__ import annotations

import numpy as np

from preprocessing.statistics import past_statistics, trailing_volatility
from preprocessing.windows import FEATURES, Context, Truth, WindowSet, concatenate


def windows_of(closes: dict[str, np.ndarray], *, length: int, horizon: int, stride: int = 1) -> WindowSet:
    """All windows of each stock; every feature but volatility and past_volatility is 1."""
    return concatenate([_windows(stock, series, length, horizon, stride) for stock, series in closes.items()])


def _windows(stock: str, closes: np.ndarray, length: int, horizon: int, stride: int) -> WindowSet:
    dates = np.datetime64("2001-01-01", "ns") + np.arange(len(closes)).astype("timedelta64[D]")
    origins = np.arange(length - 1, len(closes) - horizon, stride)
    past = closes[origins[:, None] + np.arange(1 - length, 1)]
    ahead = origins[:, None] + np.arange(1, horizon + 1)
    features = np.ones((len(origins), len(FEATURES)))
    features[:, FEATURES.index("volatility")] = trailing_volatility(past)
    features[:, FEATURES.index("past_volatility")] = past_statistics(closes)["past_volatility"][origins]
    return WindowSet(
        context=Context(
            item_id=(stock,) * len(origins), origin=dates[origins], past=past[:, :, None], features=features
        ),
        truth=Truth(future=closes[ahead], dates=dates[ahead]),
    )


def with_feature(windows: WindowSet, name: str, values: np.ndarray | float) -> WindowSet:
    """The same windows with one feature replaced."""
    features = windows.context.features.copy()
    features[:, FEATURES.index(name)] = values
    context = windows.context
    return WindowSet(
        context=Context(item_id=context.item_id, origin=context.origin, past=context.past, features=features),
        truth=windows.truth,
    )


def fit(plugin, train: WindowSet, config=None, val: WindowSet | None = None):
    """Fit as the comparison does; the folder stays unused."""
    return plugin.fit(
        config or plugin.Config(), train, train if val is None else val, horizon=train.horizon, seed=0, out_dir=None
    )


def random_walk(rows: int, *, seed: int, volatility: float = 0.01) -> np.ndarray:
    """Closes of a driftless Gaussian random walk in log price that begins near 100."""
    steps = np.random.default_rng(seed).standard_normal(rows) * volatility
    return 100 * np.exp(np.cumsum(steps))
