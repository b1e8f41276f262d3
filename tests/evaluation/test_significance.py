from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from grpo.evaluation.significance import average_by_date, diebold_mariano, holm, long_run_variance


def test_average_by_date_sorts_the_dates():
    dates = np.array(["2020-01-03", "2020-01-01", "2020-01-03", "2020-01-02"], dtype="datetime64[D]")
    np.testing.assert_allclose(average_by_date(np.array([1.0, 5.0, 2.0, 7.0]), dates), [5, 7, 1.5])


def test_long_run_variance_by_hand():
    series = np.array([1.0, 2.0, 4.0, 1.0])  # centred: -1 0 2 -1; autocovariances 6/4, -2/4, -2/4, 1/4
    assert long_run_variance(series, 0) == pytest.approx(6 / 4)
    assert long_run_variance(series, 1) == pytest.approx(6 / 4 + 2 * (1 / 2) * (-2 / 4))
    assert long_run_variance(series, 2) == pytest.approx(6 / 4 + 2 * (2 / 3) * (-2 / 4) + 2 * (1 / 3) * (-2 / 4))


def test_one_step_ahead_is_the_t_test():
    # lag 0 and the factor sqrt((n - 1) / n) turn the population variance into the sample variance
    series = np.random.default_rng(3).standard_normal(20) + 0.4
    expected = stats.ttest_1samp(series, 0.0)
    result = diebold_mariano(series, horizon=1)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.mean_difference, result.num_dates) == (pytest.approx(series.mean()), 20)


def test_statistic_agrees_with_least_squares_on_a_constant_with_newey_west_errors():
    # statsmodels 0.15: OLS(series, ones(40)).fit(cov_type="HAC", cov_kwds={"maxlags": 4}).tvalues[0]
    series = np.sin(np.arange(40.0)) + 0.01 * np.arange(40) - 0.1
    newey_west = 1.6685175181008314
    small_sample = np.sqrt((40 + 1 - 6 + 3 * 2 / 40) / 40)
    result = diebold_mariano(series, horizon=3)
    assert result.statistic == pytest.approx(newey_west * small_sample, rel=1e-9)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(result.statistic), 1.5 * 40 / 5))


@pytest.mark.parametrize(("horizon", "num_dates", "low", "high"), [(1, 60, 0.035, 0.065), (10, 150, 0.04, 0.11)])
def test_size_on_overlapping_losses(horizon, num_dates, low, high):
    # The worst case: the difference is a sum of `horizon` independent shocks of mean zero. The usual choice,
    # lag H-1 and the t law with n-1 degrees of freedom, rejects in 12 % of samples at horizon 10.
    shocks = np.random.default_rng(0).standard_normal((2000, num_dates + horizon))
    sums = np.cumsum(shocks, axis=1)
    differences = sums[:, horizon:] - sums[:, :-horizon]
    rejected = np.mean([diebold_mariano(series, horizon=horizon).p_value < 0.05 for series in differences])
    assert low < rejected < high


def test_a_clear_difference_is_found_with_its_sign():
    noise = np.random.default_rng(5).standard_normal(200)
    better, worse = diebold_mariano(noise - 1, horizon=5), diebold_mariano(noise + 1, horizon=5)
    assert better.p_value < 1e-3
    assert worse.p_value < 1e-3
    assert better.statistic < 0 < worse.statistic


@pytest.mark.parametrize(
    "series",
    [
        pytest.param(np.zeros(0), id="no dates"),
        pytest.param(np.arange(9.0), id="fewer dates than lags"),
        pytest.param(np.zeros(50), id="equal losses"),
        pytest.param(np.append(np.arange(50.0), np.inf), id="an infinite loss"),
        pytest.param(np.append(-np.arange(50.0), np.nan), id="a NaN"),
    ],
)
def test_no_verdict_where_there_is_no_evidence(series):
    assert np.isnan(diebold_mariano(series, horizon=5).p_value)


def test_holm_by_hand():
    # sorted .01 .03 .04 times 3, 2, 1 -> .03 .06 .04, made monotone
    np.testing.assert_allclose(holm([0.04, np.nan, 0.01, 0.03]), [0.06, np.nan, 0.03, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
