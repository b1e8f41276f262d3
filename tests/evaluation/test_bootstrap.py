from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap, StationaryBootstrap, optimal_block_length

from grpo.evaluation.bootstrap import (
    bootstrap_interval,
    date_bootstrap_indices,
    politis_white_block_length,
    ratio,
    resampled_means,
    skill,
)


def moving_sums(rng: np.random.Generator, num_dates: int, terms: int, columns: int = 1) -> np.ndarray:
    """[D, K] sums of `terms` independent shocks, scaled to variance 1: what overlapping windows do at worst."""
    shocks = np.cumsum(rng.standard_normal((num_dates + terms, columns)), axis=0)
    return (shocks[terms:] - shocks[:-terms]) / np.sqrt(terms)


def autoregression(seed: int, num_dates: int, weight: float) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(num_dates)
    for t in range(1, num_dates):
        noise[t] += weight * noise[t - 1]
    return noise


def test_circular_blocks_are_runs_of_equal_length():
    indices = date_bootstrap_indices(10, block_length=4, num_resamples=500, seed=0, kind="circular")
    steps = (np.diff(indices, axis=1) % 10).reshape(-1, 9)
    assert (steps[:, [0, 1, 2, 4, 5, 6, 8]] == 1).all()
    assert (steps[:, [3, 7]] != 1).any()
    assert set(np.unique(indices)) == set(range(10))


def test_stationary_blocks_have_geometric_lengths():
    indices = date_bootstrap_indices(1000, block_length=5, num_resamples=400, seed=1)
    breaks = np.diff(indices, axis=1) % 1000 != 1
    # a block ends with probability 1/5, and the next begins elsewhere than at its follower with 999/1000
    assert breaks.mean() == pytest.approx(0.2 * 0.999, abs=4 * np.sqrt(0.16 / breaks.size))
    # geometric: whether a block ends does not depend on whether the one before just began
    after = breaks[:, 1:][breaks[:, :-1]]
    assert after.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / after.size))
    share = np.bincount(indices.ravel(), minlength=1000) / indices.size
    assert share == pytest.approx(np.full(1000, 1e-3), rel=0.35)


def test_a_block_of_one_date_is_the_plain_bootstrap_and_less_is_refused():
    indices = date_bootstrap_indices(50, block_length=1, num_resamples=2000, seed=0)
    assert (np.diff(indices, axis=1) % 50 == 1).mean() == pytest.approx(1 / 50, abs=0.002)
    with pytest.raises(ValueError, match=r"at least 1 date; got 0\.5"):
        date_bootstrap_indices(5, block_length=0.5, num_resamples=1, seed=0)


def test_variance_of_the_resampled_mean_is_the_closed_form():
    # Politis and Romano (1994), eq. 6: circular autocovariances c_i by (1 - i/n) (1 - p)^i
    series, length = autoregression(0, 60, 0.6), 7.0
    n, centred = len(series), series - series.mean()
    circular = np.array([centred @ np.roll(centred, -i) / n for i in range(n)])
    lags = np.arange(1, n)
    expected = circular[0] + 2 * np.sum((1 - lags / n) * (1 - 1 / length) ** lags * circular[1:])
    indices = date_bootstrap_indices(n, block_length=length, num_resamples=40_000, seed=3)
    means = resampled_means(series[:, None], indices)[:, 0]
    assert n * means.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / 40_000))
    assert means.mean() == pytest.approx(series.mean(), abs=4 * np.sqrt(expected / n / 40_000))


@pytest.mark.parametrize(
    ("kind", "reference"), [("stationary", StationaryBootstrap), ("circular", CircularBlockBootstrap)]
)
def test_resampled_means_are_distributed_as_those_of_arch(kind, reference):
    series = autoregression(1, 80, 0.5)
    indices = date_bootstrap_indices(80, block_length=6, num_resamples=4000, seed=0, kind=kind)
    means = resampled_means(series[:, None], indices)[:, 0]
    theirs = reference(6, series, seed=0).apply(np.mean, 4000)[:, 0]
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        # a sample quantile at p has the sampling error sqrt(p (1-p) / R) / density; both samples err
        below = np.mean(means <= np.quantile(theirs, level))
        assert below == pytest.approx(level, abs=4 * np.sqrt(2 * level * (1 - level) / 4000))


def test_resampled_means_are_the_means_of_the_rows():
    columns = np.random.default_rng(0).standard_normal((30, 3))
    indices = date_bootstrap_indices(30, block_length=4, num_resamples=20, seed=0)
    np.testing.assert_allclose(resampled_means(columns, indices), columns[indices].mean(axis=1))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 0.95])
def test_block_length_is_that_of_arch(weight):
    # arch divides the covariance of lag j by the norms left at lag j + 1, which moves the bandwidth now and then
    ours, theirs = [], []
    for seed in range(20):
        series = autoregression(seed, 300, weight)
        ours += [politis_white_block_length(series), politis_white_block_length(series, kind="circular")]
        theirs += optimal_block_length(series).loc[0, ["stationary", "circular"]].clip(lower=1).tolist()
    assert np.mean(np.isclose(ours, theirs, rtol=1e-9)) >= 0.9


def test_block_length_grows_with_dependence_and_is_one_for_a_constant():
    lengths = [politis_white_block_length(autoregression(0, 2000, weight)) for weight in (0.0, 0.5, 0.9)]
    # AR(1) of weight w: sum |k| gamma_k = 2 w / (1-w)^2 and sum gamma_k = (1+w) / (1-w) in units of gamma_0
    exact = [((2 * w / (1 - w**2)) ** 2 * 2000) ** (1 / 3) for w in (0.5, 0.9)]
    assert lengths[0] < 5
    assert lengths[1:] == pytest.approx(exact, rel=0.3)
    assert politis_white_block_length(np.ones(50)) == 1


def test_ratio_and_skill_by_hand():
    assert ratio(np.array([3.0, 4.0])) == 0.75
    assert skill(np.array([[1.0, 2.0, 0.5], [2.0, 2.0, 1.0]])) == pytest.approx([1 / 1.5, 0])


def test_interval_of_independent_dates_is_that_of_students_t():
    series = np.random.default_rng(2).standard_normal((400, 1)) + 5
    interval = bootstrap_interval(series, lambda m: m[..., 0], horizon=1, block_length=1, num_resamples=20_000)
    half = 1.966 * series.std() / np.sqrt(400)  # 97.5 % quantile of t with 399 degrees of freedom
    assert interval.estimate == pytest.approx(series.mean())
    assert (interval.low, interval.high) == pytest.approx((series.mean() - half, series.mean() + half), abs=0.04 * half)
    assert (interval.level, interval.block_length, interval.num_dates) == (0.95, 1, 400)


def test_interval_of_a_ratio_has_the_width_of_the_delta_method():
    rng = np.random.default_rng(4)
    columns = np.array([3.0, 2.0]) + 0.2 * rng.standard_normal((500, 2))
    interval = bootstrap_interval(columns, ratio, horizon=1, block_length=1, num_resamples=5000)
    x, y = columns.mean(axis=0)
    covariance = np.cov(columns.T)
    gradient = np.array([1 / y, -x / y**2])
    half = 1.965 * np.sqrt(gradient @ covariance @ gradient / 500)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.05)
    assert interval.estimate == pytest.approx(x / y)


def test_an_affine_statistic_moves_its_interval_along():
    columns = np.random.default_rng(5).standard_normal((90, 1))
    plain = bootstrap_interval(columns, lambda m: m[..., 0], horizon=3)
    moved = bootstrap_interval(columns, lambda m: 10 - 2 * m[..., 0], horizon=3)
    assert ((10 - moved.high) / 2, (10 - moved.low) / 2) == pytest.approx((plain.low, plain.high), rel=1e-7)


@pytest.mark.parametrize(("terms", "num_dates"), [(1, 60), (5, 100), (10, 100)])
def test_coverage_on_overlapping_dates(terms, num_dates):
    # Worst case: sums of `terms` shocks. Binomial standard error of a coverage of 0.93 over 400 series: 0.013.
    rng = np.random.default_rng(terms)
    covered = []
    for seed in range(400):
        noise = moving_sums(rng, num_dates, terms, columns=2)
        losses = np.exp(0.3 * noise @ np.array([[1.0, 0.6], [0.0, 0.8]]))  # two correlated losses of equal mean
        interval = bootstrap_interval(losses, ratio, horizon=terms, num_resamples=300, seed=seed)
        covered.append(interval.low < 1 < interval.high)
    assert 0.89 <= np.mean(covered) <= 0.98


def test_the_percentile_interval_covers_too_little():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(300):
        series = moving_sums(rng, 60, 10)
        interval = bootstrap_interval(
            series, lambda m: m[..., 0], horizon=10, method="percentile", num_resamples=300, seed=seed
        )
        covered.append(interval.low < 0 < interval.high)
    assert 0.65 < np.mean(covered) < 0.85


def test_equal_seeds_give_equal_intervals():
    columns = np.random.default_rng(0).random((40, 2))
    first, second, other = (bootstrap_interval(columns, ratio, horizon=2, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


@pytest.mark.parametrize(
    ("columns", "horizon"),
    [
        pytest.param(np.ones((9, 2)), 5, id="fewer dates than lags"),
        pytest.param(np.array([[1.0, 0.0]] * 20), 1, id="nothing to divide by"),
        pytest.param(np.array([[np.inf, 1.0]] * 20), 1, id="an infinite loss"),
    ],
)
def test_no_interval_where_there_is_no_evidence(columns, horizon):
    interval = bootstrap_interval(columns, ratio, horizon=horizon)
    assert np.isnan([interval.low, interval.high]).all()


def test_a_constant_has_an_interval_of_no_width():
    interval = bootstrap_interval(np.array([[1.0, 2.0]] * 20), ratio, horizon=1)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-8)
