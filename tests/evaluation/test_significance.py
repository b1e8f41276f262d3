from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import MCS
from scipy import stats

from grpo.evaluation.dates import average_by_date
from grpo.evaluation.significance import (
    clark_west,
    diebold_mariano,
    eliminate,
    holm,
    model_confidence_set,
    pesaran_timmermann,
    pesaran_timmermann_by_date,
)


def moving_sums(rng: np.random.Generator, shape: tuple[int, ...], terms: int) -> np.ndarray:
    """[..., D] sums of `terms` independent shocks of variance 1 / terms: what overlapping windows do at worst."""
    shocks = np.cumsum(rng.standard_normal((*shape[:-1], shape[-1] + terms)), axis=-1)
    return (shocks[..., terms:] - shocks[..., :-terms]) / np.sqrt(terms)


def binomial_error(rate: float, count: int) -> float:
    return np.sqrt(rate * (1 - rate) / count)


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


def test_clark_west_by_hand():
    realised, nested, forecast = np.array([2.0, -1.0, 3.0, 0.0]), np.zeros(4), np.array([1.0, 1.0, 2.0, -1.0])
    dates = np.array([0, 1, 2, 3], dtype="datetime64[D]")
    # y^2 - (y - m)^2 + m^2 = 2 y m: 4, -2, 12, 0
    result = clark_west(realised, nested, forecast, dates, horizon=1)
    expected = stats.ttest_1samp([4, -2, 12, 0], 0.0, alternative="greater")
    assert result.mean_gain == pytest.approx(3.5)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)
    moved = clark_west(realised + 7, nested + 7, forecast + 7, dates, horizon=1)
    assert moved.statistic == pytest.approx(result.statistic)


def test_clark_west_averages_stocks_per_date():
    rng = np.random.default_rng(0)
    realised, forecast = rng.standard_normal((2, 60))
    dates = np.repeat(np.arange(20), 3).astype("datetime64[D]")
    result = clark_west(realised, np.zeros(60), forecast, dates, horizon=4)
    two_sided = diebold_mariano(average_by_date(2 * realised * forecast, dates), horizon=4)
    assert (result.statistic, result.num_dates) == (pytest.approx(two_sided.statistic), 20)
    assert result.p_value == pytest.approx(two_sided.p_value / 2 if result.statistic > 0 else 1 - two_sided.p_value / 2)


@pytest.mark.parametrize(("horizon", "num_dates", "high"), [(1, 100, 0.065), (10, 150, 0.075)])
def test_size_of_clark_west(horizon, num_dates, high):
    # prices that nothing predicts, and forecasts as persistent as the overlapping moves themselves
    rng, dates = np.random.default_rng(horizon), np.arange(num_dates).astype("datetime64[D]")
    realised, forecasts = (moving_sums(rng, (1500, num_dates), horizon) for _ in range(2))
    zero = np.zeros(num_dates)
    p_values = [
        clark_west(y, zero, m, dates, horizon=horizon).p_value for y, m in zip(realised, forecasts, strict=True)
    ]
    assert 0.035 < np.mean(np.array(p_values) < 0.05) < high


def test_clark_west_sees_a_drift_that_squared_errors_hide():
    # y = 0.2 + noise, predicted by the mean of the last 20: its noise, variance 1/20, outweighs the gain 0.2^2
    rng, dates = np.random.default_rng(0), np.arange(300).astype("datetime64[D]")
    found, hidden = [], []
    for _ in range(200):
        series = 0.2 + rng.standard_normal(320)
        total = np.cumsum(np.append(0, series))
        forecast, realised = (total[20:320] - total[:300]) / 20, series[20:]
        found.append(clark_west(realised, np.zeros(300), forecast, dates, horizon=1).p_value < 0.05)
        better = diebold_mariano((realised - forecast) ** 2 - realised**2, horizon=1)
        hidden.append(better.p_value < 0.10 and better.statistic < 0)
    assert np.mean(found) > 0.6
    assert np.mean(hidden) < 0.1


@pytest.mark.parametrize(
    ("forecast", "horizon", "reason"),
    [
        pytest.param(np.zeros(30), 1, "never differs", id="the nested forecast itself"),
        pytest.param(np.ones(30), 20, "30 dates are too few for a horizon of 20", id="few dates"),
        pytest.param(np.append(np.ones(29), np.inf), 1, "not finite", id="infinite"),
    ],
)
def test_clark_west_says_why_it_cannot_test(forecast, horizon, reason):
    realised = np.random.default_rng(0).standard_normal(30)
    result = clark_west(realised, np.zeros(30), forecast, np.arange(30).astype("datetime64[D]"), horizon=horizon)
    assert np.isnan(result.p_value)
    assert reason in result.reason


def directions(up_up: int, up_down: int, down_up: int, down_down: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and realised moves with these counts."""
    predicted = np.repeat([0.5, 0.5, -2.0, -2.0], [up_up, up_down, down_up, down_down])
    realised = np.repeat([1.0, -1.0, 1.0, -1.0], [up_up, up_down, down_up, down_down])
    return predicted, realised


def test_pesaran_timmermann_by_hand():
    # p_x = .6, p_y = .55: P* = .33 + .18, V(P) = .51 * .49 / 100,
    # V(P*) = (.1^2 * .24 + .2^2 * .2475) / 100 + 4 * .24 * .2475 / 100^2
    result = pesaran_timmermann(*directions(40, 20, 15, 25))
    variance = 0.51 * 0.49 / 100 - ((0.01 * 0.24 + 0.04 * 0.2475) / 100 + 4 * 0.24 * 0.2475 / 100**2)
    assert (result.hit_rate, result.expected_hit_rate) == (pytest.approx(0.65), pytest.approx(0.51))
    assert result.statistic == pytest.approx((0.65 - 0.51) / np.sqrt(variance))
    assert result.p_value == pytest.approx(stats.norm.sf(result.statistic))
    assert (result.num_windows, result.reason) == (100, "")


def test_pesaran_timmermann_is_the_signed_root_of_chi_square():
    for counts, sign in (((40, 20, 15, 25), 1), ((10, 30, 45, 15), -1)):
        chi_square = stats.chi2_contingency(np.reshape(counts, (2, 2)), correction=False).statistic
        expected = sign * np.sqrt(chi_square * 99 / 100)
        # the variance is taken around the mean of n - 1
        assert pesaran_timmermann(*directions(*counts)).statistic == pytest.approx(expected * 100 / 99)


def test_windows_without_a_direction_are_left_out():
    predicted, realised = directions(40, 20, 15, 25)
    padded = pesaran_timmermann(np.append(predicted, [0, 0, 1]), np.append(realised, [1, 0, 0]))
    assert padded == pesaran_timmermann(predicted, realised)


@pytest.mark.parametrize(
    ("predicted", "realised", "reason"),
    [
        ([1, 2, 3, 1], [1, -1, 1, -1], "the forecast is always up"),
        ([-1, -2, -3, -1], [1, -1, 1, -1], "the forecast is always down"),
        ([1, -1, 1, -1], [1, 1, 1, 1], "the price always goes up"),
        ([0, 0, 0, 0], [1, -1, 1, -1], "no window moves"),
    ],
)
def test_without_a_change_of_sign_there_is_nothing_to_test(predicted, realised, reason):
    predicted, realised = np.array(predicted, dtype=float), np.array(realised, dtype=float)
    dates = np.arange(4).astype("datetime64[D]")
    for result in (
        pesaran_timmermann(predicted, realised),
        pesaran_timmermann_by_date(predicted, realised, dates, horizon=1),
    ):
        assert np.isnan(result.p_value)
        assert result.reason == reason


def test_both_tests_of_direction_agree_on_many_independent_windows():
    rng = np.random.default_rng(0)
    realised = rng.standard_normal(20_000) + 0.1
    predicted = realised + 40 * rng.standard_normal(20_000)
    plain = pesaran_timmermann(predicted, realised)
    by_date = pesaran_timmermann_by_date(predicted, realised, np.arange(20_000).astype("datetime64[D]"), horizon=1)
    assert 2 < plain.statistic < 6
    assert by_date.statistic == pytest.approx(plain.statistic, rel=0.02)
    assert by_date.hit_rate == plain.hit_rate


def test_directions_by_date_are_a_test_on_the_sums_of_products():
    rng = np.random.default_rng(1)
    predicted, realised = rng.standard_normal((2, 90))
    dates = np.repeat(np.arange(30), 3).astype("datetime64[D]")
    x, y = (predicted > 0).astype(float), (realised > 0).astype(float)
    sums = ((x - x.mean()) * (y - y.mean())).reshape(30, 3).sum(axis=1)
    result = pesaran_timmermann_by_date(predicted, realised, dates, horizon=3)
    assert result.statistic == pytest.approx(diebold_mariano(sums, horizon=3).statistic)
    few = pesaran_timmermann_by_date(predicted, realised, dates, horizon=20)
    assert few.reason == "30 dates are too few for a horizon of 20"


@pytest.mark.parametrize(("horizon", "num_dates", "stocks"), [(1, 80, 1), (10, 150, 1), (10, 150, 5)])
def test_size_of_the_test_of_direction_on_overlapping_windows(horizon, num_dates, stocks):
    # realised and predicted moves independent of each other, each correlated over dates and between stocks
    rng, count = np.random.default_rng(stocks), 1200
    dates = np.repeat(np.arange(num_dates), stocks).astype("datetime64[D]")
    sides = []
    for _ in range(2):
        own = moving_sums(rng, (count, stocks, num_dates), horizon)
        common = moving_sums(rng, (count, 1, num_dates), horizon)
        sides.append((own + common).swapaxes(1, 2).reshape(count, -1))
    tests = [pesaran_timmermann_by_date(x, y, dates, horizon=horizon) for x, y in zip(*sides, strict=True)]
    size = np.nanmean([test.p_value < 0.05 for test in tests])
    assert 0.05 - 3 * binomial_error(0.05, count) < size < 0.085
    if horizon > 1:  # taking the windows for independent finds skill where there is none
        naive = np.nanmean([pesaran_timmermann(x, y).p_value < 0.05 for x, y in zip(*sides, strict=True)])
        assert naive > 0.2


def confidence_losses(seed: int, num_dates: int = 200) -> np.ndarray:
    """[D, 5] correlated losses of unequal means."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_dates, 1)) + rng.standard_normal((num_dates, 5)) + [0, 0.02, 0.1, 0.2, 0.5]


def test_elimination_is_that_of_arch_on_the_same_resamples():
    for seed in range(5):
        losses = confidence_losses(seed)
        theirs = MCS(losses, size=0.1, reps=500, block_size=5, method="R", seed=seed)
        theirs.compute()
        means, resampled = losses.mean(axis=0), losses[np.array(theirs._bootstrap_indices)].mean(axis=1)
        difference = means[:, None] - means
        centred = resampled[:, :, None] - resampled[:, None] - difference
        error = np.sqrt(np.mean(centred**2, axis=0)) + np.eye(5)
        ours = eliminate(difference / error, centred / error)
        np.testing.assert_allclose(ours, theirs.pvalues["Pvalue"].sort_index(), atol=1e-12)


def test_confidence_set_of_independent_dates_agrees_with_arch():
    # their standard error is the bootstrap's own, ours that of each resample: the same for many independent dates
    for seed in range(2):
        losses = confidence_losses(seed, 500)[:, :4]
        # the second is hardly worse than the first, but surely; the other two are as good and vary much more
        losses[:, 2:] -= losses[:, 2:].mean(axis=0) - losses[:, :1].mean()
        losses[:, 1] = losses[:, 0] + 0.1 * (losses[:, 1] - losses[:, 3]) + 0.02
        theirs = MCS(losses, size=0.1, reps=2000, block_size=1, method="R", seed=1)
        theirs.compute()
        ours = model_confidence_set(losses, horizon=1, block_length=1, num_resamples=2000, seed=2)
        np.testing.assert_allclose(ours.p_values, theirs.pvalues["Pvalue"].sort_index(), atol=4 * np.sqrt(0.5 / 2000))


@pytest.mark.parametrize(("horizon", "num_dates"), [(1, 80), (5, 150)])
def test_the_confidence_set_holds_all_of_equally_good_forecasters(horizon, num_dates):
    # the hardest case: any exclusion is an error, allowed in a tenth of the samples
    rng, count = np.random.default_rng(horizon), 300
    losses = moving_sums(rng, (count, 4, num_dates), horizon).swapaxes(1, 2)
    sets = [model_confidence_set(series, horizon=horizon, num_resamples=300) for series in losses]
    assert 0.9 - 4 * binomial_error(0.1, count) < np.mean([result.included.all() for result in sets]) < 0.96


def test_a_confidence_set_of_twins_outcasts_and_the_infinite():
    rng = np.random.default_rng(0)
    good = rng.standard_normal(100)
    losses = np.stack([good, good, good + 1e-3, np.where(good > 2, np.inf, good)], axis=1)
    result = model_confidence_set(losses, horizon=2)
    # a twin differs by nothing, a constant handicap is certain, an infinite loss has no mean
    assert result.p_values == pytest.approx([1, 1, 0, np.nan], nan_ok=True)
    assert result.included.tolist() == [True, True, False, False]
    alone = model_confidence_set(losses[:, :1], horizon=1)
    assert (alone.p_values.tolist(), alone.included.tolist()) == ([1.0], [True])
    assert not model_confidence_set(losses[:, 3:], horizon=1).included.any()


def test_too_few_dates_leave_every_finite_forecaster_in_the_set():
    losses = np.random.default_rng(0).standard_normal((9, 3)) + np.array([0, 5, np.inf])
    result = model_confidence_set(losses, horizon=5)
    assert np.isnan(result.p_values).all()
    assert result.included.tolist() == [True, True, False]


def test_confidence_set_of_independent_losses_orders_them():
    result = model_confidence_set(confidence_losses(3, 500), horizon=1)
    assert result.p_values[4] < 0.01
    assert result.p_values.max() == 1
    assert result.num_dates == 500
