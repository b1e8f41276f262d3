from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.sandwich_covariance import S_hac_simple

from grpo.evaluation.dates import (
    average_by_date,
    long_run_covariance,
    long_run_variance,
    overlapping_dates,
    sum_by_date,
)

DATES = np.array(["2020-01-03", "2020-01-01", "2020-01-03", "2020-01-02"], dtype="datetime64[D]")


def test_averages_and_sums_run_over_ascending_dates():
    np.testing.assert_allclose(average_by_date(np.array([1.0, 5.0, 2.0, 7.0]), DATES), [5, 7, 1.5])
    values = np.array([[1.0, 1.0], [5.0, 1.0], [2.0, 1.0], [7.0, 1.0]])
    np.testing.assert_allclose(sum_by_date(values, DATES), [[5, 1], [7, 1], [3, 2]])


def test_long_run_variance_by_hand():
    series = np.array([1.0, 2.0, 4.0, 1.0])  # centred: -1 0 2 -1; autocovariances 6/4, -2/4, -2/4, 1/4
    assert long_run_variance(series, 0) == pytest.approx(6 / 4)
    assert long_run_variance(series, 1) == pytest.approx(6 / 4 + 2 * (1 / 2) * (-2 / 4))
    assert long_run_variance(series, 2) == pytest.approx(6 / 4 + 2 * (2 / 3) * (-2 / 4) + 2 * (1 / 3) * (-2 / 4))


def test_long_run_variance_agrees_with_statsmodels_on_many_series_at_once():
    series = np.random.default_rng(0).standard_normal((2, 3, 50)).cumsum(axis=-1)
    for lag in (0, 1, 18):
        values = long_run_variance(series, lag)
        assert values.shape == (2, 3)
        for index in np.ndindex(2, 3):
            centred = series[index] - series[index].mean()
            assert values[index] == pytest.approx(S_hac_simple(centred[:, None], nlags=lag).item() / 50)


@pytest.mark.parametrize(("stride", "expected"), [(1, 5), (2, 3), (4, 2), (5, 1), (9, 1)])
def test_overlapping_dates_count_the_origins_until_a_window_ends(stride, expected):
    # window t covers the days t+1 .. t+5, so 5 - 1 daily origins after t overlap with it
    days = np.datetime64("2020-01-01") + np.arange(0, 90, stride)
    origins = np.concatenate([days, days])  # two stocks
    assert overlapping_dates(origins, origins + 5) == expected


def test_long_run_covariance_is_the_variance_of_sums_and_differences():
    series = np.random.default_rng(0).standard_normal((4, 3, 50)).cumsum(axis=-1)
    covariance = long_run_covariance(series, 5)
    assert covariance.shape == (4, 3, 3)
    np.testing.assert_allclose(np.diagonal(covariance, axis1=1, axis2=2), long_run_variance(series, 5))
    difference = long_run_variance(series[:, 0] - series[:, 2], 5)
    np.testing.assert_allclose(covariance[:, 0, 0] + covariance[:, 2, 2] - 2 * covariance[:, 0, 2], difference)
