from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grpo.language.scale import log_returns, scale_paths, to_levels, to_prices, true_paths
from tests.windows_factory import simulated_windows


@given(st.floats(1e-3, 1e5), st.floats(1e-4, 0.3), st.floats(-3, 3))
def test_levels_and_prices_are_inverse(last, volatility, change):
    price = np.array([last * np.exp(change)])
    back = to_prices(to_levels(price, np.array(last), np.array(volatility)), np.array(last), np.array(volatility))
    np.testing.assert_allclose(back, price, rtol=1e-9)


def test_the_last_close_is_level_500_and_a_daily_deviation_is_10_points():
    last, volatility = np.array(80.0), np.array(0.01)
    np.testing.assert_allclose(to_levels(np.array([80.0, 80 * np.exp(0.01)]), last, volatility), [500, 510])


def test_true_paths_are_log_returns_in_daily_deviations():
    windows = simulated_windows()["test"]
    paths, last = true_paths(windows), windows.context.last_price[3]
    volatility = windows.context.feature("volatility")[3]
    expected = [
        np.log(price / last) / (volatility * np.sqrt(day + 1)) for day, price in enumerate(windows.truth.future[3])
    ]
    np.testing.assert_allclose(paths[3], expected, rtol=1e-12)
    np.testing.assert_allclose(log_returns(paths[3], volatility), np.log(windows.truth.future[3] / last), rtol=1e-9)
    assert scale_paths(np.array([500.0, 500.0])).tolist() == [0.0, 0.0]
