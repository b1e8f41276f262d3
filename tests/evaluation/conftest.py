from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from preprocessing.windows import FEATURES, Context, Truth, WindowSet


@pytest.fixture
def make_windows() -> Callable[..., WindowSet]:
    """Windows from their last closes and futures; origins are consecutive days unless given."""

    def build(
        last: Sequence[float],
        future: Sequence[Sequence[float]],
        items: Sequence[str] | None = None,
        days: Sequence[int] | None = None,
    ) -> WindowSet:
        count, horizon = np.shape(future)
        day = np.arange(count) if days is None else np.asarray(days)
        origin = (np.datetime64("2020-01-01") + day.astype("timedelta64[D]")).astype("datetime64[ns]")
        ahead = np.arange(1, horizon + 1).astype("timedelta64[D]")
        past = np.full((count, 5, 1), np.asarray(last, dtype=float)[:, None, None])
        features = np.zeros((count, len(FEATURES)))
        features[:, FEATURES.index("volatility")] = 0.02
        features[:, FEATURES.index("past_volatility")] = 0.01
        return WindowSet(
            context=Context(item_id=tuple(items or ["A"] * count), origin=origin, past=past, features=features),
            truth=Truth(future=np.asarray(future, dtype=float), dates=origin[:, None] + ahead),
        )

    return build
