from __future__ import annotations

import numpy as np
import pytest

from baselines.building_blocks.training_closes import longest_stretches
from tests.baselines.series import windows_of

A, B = np.arange(1.0, 41.0), np.arange(101.0, 131.0)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_overlapping_windows_give_the_series_back(stride):
    windows = windows_of({"B": B, "A": A}, length=5, horizon=3, stride=stride)
    shuffled = windows.take(np.random.default_rng(0).permutation(len(windows)))
    stretches = longest_stretches(shuffled)
    assert list(stretches) == ["A", "B"]
    for stock, closes in (("A", A), ("B", B)):
        ends = np.arange(4, len(closes) - 3, stride)[-1] + 3  # the last target day
        np.testing.assert_array_equal(stretches[stock], closes[: ends + 1])


def test_a_stride_above_the_horizon_leaves_single_windows():
    windows = windows_of({"A": A}, length=5, horizon=3, stride=4)
    np.testing.assert_array_equal(longest_stretches(windows)["A"], A[:8])


def test_the_longer_side_of_a_gap_is_kept():
    windows = windows_of({"A": A}, length=5, horizon=3)  # origins on rows 4..36
    origins = np.arange(4, 37)
    with_gap = windows.take((origins <= 10) | (origins >= 20))
    np.testing.assert_array_equal(longest_stretches(with_gap)["A"], A[16:40])
