from __future__ import annotations

import numpy as np
import pytest

from preprocessing.simulation import parse_simulated_stock
from preprocessing.variance_memories import FLOOR, HALF_LIVES, MEMORIES, variance_memories

RNG = np.random.default_rng(4)
CLOSES = 100 * np.exp(np.cumsum(0.01 * RNG.standard_normal(60)))
OPENS = CLOSES * np.exp(0.005 * RNG.standard_normal(60))
HIGHS = np.maximum(OPENS, CLOSES) * np.exp(0.004 * RNG.random(60))
LOWS = np.minimum(OPENS, CLOSES) * np.exp(-0.004 * RNG.random(60))


@pytest.mark.parametrize("day", [1, 2, 59])
def test_they_equal_a_loop(day: int) -> None:
    got = variance_memories(OPENS, HIGHS, LOWS, CLOSES)[day]
    o, h, l, c = (np.log(prices) for prices in (OPENS, HIGHS, LOWS, CLOSES))  # noqa: E741
    squared, ranges = [], []
    for t in range(1, day + 1):
        squared.append(np.log((c[t] - c[t - 1]) ** 2 + FLOOR))
        rogers_satchell = (h[t] - c[t]) * (h[t] - o[t]) + (l[t] - c[t]) * (l[t] - o[t])
        ranges.append(np.log((o[t] - c[t - 1]) ** 2 + rogers_satchell + FLOOR))
    expected = []
    for values in (squared, ranges):
        for half_life in HALF_LIVES:
            weights = [0.5 ** ((day - t) / half_life) for t in range(1, day + 1)]
            expected.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_first_day_is_unknown_and_the_price_level_does_not_matter() -> None:
    got = variance_memories(OPENS, HIGHS, LOWS, CLOSES)
    assert got.shape == (60, len(MEMORIES))
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(variance_memories(9 * OPENS, 9 * HIGHS, 9 * LOWS, 9 * CLOSES), got, rtol=1e-9)


def test_a_price_that_stands_still_is_at_the_floor() -> None:
    constant = np.full(40, 7.0)
    np.testing.assert_allclose(variance_memories(constant, constant, constant, constant)[1:], np.log(FLOOR))


def test_the_range_tells_the_variance_of_a_day_better_than_its_return() -> None:
    """On bars that walk within the day: the long memories of the range differ less from day to day."""
    bars = parse_simulated_stock("sim:gbm?rows=3000&seed=3").bars()
    got = variance_memories(*(bars[name].to_numpy() for name in ("open", "high", "low", "close")))[500:]
    squared, ranges = (got[:, MEMORIES.index(f"{name}_10")] for name in ("log_squared_return", "log_range_variance"))
    assert ranges.std() < 0.6 * squared.std()
