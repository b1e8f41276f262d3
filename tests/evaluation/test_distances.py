"""Distances between samples, against scipy, closed forms and histograms counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from grpo.evaluation.distributions import two_sample
from grpo.evaluation.distributions.distances import (
    autocorrelation,
    autocorrelation_distance,
    cdf_distances,
    diversity,
    jensen_shannon,
    moments,
    quantile_edges,
)
from grpo.evaluation.distributions.two_sample import (
    area_under_curve,
    classifier_test,
    median_distance,
    mmd_test,
    null_bound,
    null_share,
    squared_mmd,
)


@pytest.mark.parametrize("ties", [False, True])
def test_ks_and_wasserstein_are_scipys(ties):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((40, 5)), 0.3 + 1.4 * rng.standard_normal((70, 5))
    if ties:
        first, second = np.round(first), np.round(second)
    ks, wasserstein = cdf_distances(first, second)
    assert ks == pytest.approx(stats.ks_2samp(first.ravel(), second.ravel()).statistic, abs=1e-12)  # pyright: ignore
    assert wasserstein == pytest.approx(stats.wasserstein_distance(first.ravel(), second.ravel()), abs=1e-12)


def test_jensen_shannon_of_two_known_histograms():
    edges = np.array([1.0, 2.0])
    first = np.array([0.0, 0.5, 1.5, 2.0])  # shares 1/2, 1/4, 1/4; an edge belongs to the bin on its right
    second = np.array([1.0, 1.2, 2.5, 3.0])  # shares 0, 1/2, 1/2
    middle = np.array([1 / 4, 3 / 8, 3 / 8])
    expected = (
        0.5 * math.log2(0.5 / middle[0]) + 2 * 0.25 * math.log2(0.25 / middle[1]) + 2 * 0.5 * math.log2(0.5 / middle[1])
    ) / 2
    assert jensen_shannon(first, second, edges) == pytest.approx(expected, abs=1e-12)
    distance = jensenshannon([0.5, 0.25, 0.25], [0, 0.5, 0.5], base=2)
    assert expected == pytest.approx(distance**2, abs=1e-12)
    assert jensen_shannon(first, first, edges) == 0
    assert jensen_shannon(np.zeros(3), np.full(5, 9.0), edges) == 1


def test_edges_share_the_real_values_equally():
    values = np.random.default_rng(0).standard_normal(1000)
    edges = quantile_edges(values, 4)
    np.testing.assert_array_equal(np.bincount(np.searchsorted(edges, values, side="right")), [250] * 4)
    np.testing.assert_array_equal(quantile_edges(np.array([0.0, 0, 0, 1]), 4), [0, 0.25])


def test_autocorrelation_of_an_autoregression():
    rng = np.random.default_rng(0)
    sequences = ar(rng, 40_000, 12, 0.6)
    # lag-3 products of 9 steps of 40,000 sequences: a standard error below .005
    np.testing.assert_allclose(autocorrelation(sequences, 3), [0.6, 0.36, 0.216], atol=0.01)
    expected = math.sqrt(np.mean(np.square([0.6, 0.36, 0.216])))
    assert autocorrelation_distance(sequences, rng.standard_normal((40_000, 12)), 3) == pytest.approx(
        expected, abs=0.01
    )
    small = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, 2.0]])  # mean 2, deviations -1 0 2 / -2 1 0, variance 10/6
    np.testing.assert_allclose(autocorrelation(small, 2), [(-2 / 4) / (10 / 6), (-2 / 2) / (10 / 6)])


def test_moments_are_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=(30, 20))
    found = moments(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())
    assert found.skew == pytest.approx(stats.skew(values.ravel()))
    assert found.kurtosis == pytest.approx(stats.kurtosis(values.ravel()))


def test_diversity_by_hand():
    found = diversity(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]))
    # distances: 5, 0, 1 / 5, sqrt(18) / 1; nearest 0, sqrt(18), 0, 1
    assert found.nearest == pytest.approx((0 + math.sqrt(18) + 0 + 1) / 4)
    assert found.pairwise == pytest.approx((5 + 0 + 1 + 5 + math.sqrt(18) + 1) / 6)
    assert found.duplicates == 0.25


def test_squared_mmd_by_hand_and_unbiased():
    first, second = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [3.0]])

    def kernel(distance):
        return math.exp(-(distance**2) / 8)

    within = (2 * kernel(1) + kernel(2)) / 3
    between = (kernel(0) + kernel(3) + kernel(1) + kernel(2) + kernel(2) + kernel(1)) / 6
    assert squared_mmd(first, second, 2.0) == pytest.approx(within + kernel(3) - 2 * between, abs=1e-12)
    # draws from one law: the mean estimate is zero, although single ones are negative
    rng = np.random.default_rng(0)
    estimates = [squared_mmd(rng.standard_normal((8, 2)), rng.standard_normal((6, 2)), 1.0) for _ in range(3000)]
    assert abs(np.mean(estimates)) < 4 * np.std(estimates) / math.sqrt(3000)


def test_squared_mmd_of_two_gaussians():
    rng, dims, width, shift = np.random.default_rng(0), 4, 2.0, np.array([0.6, 0, 0, -0.3])
    first, second = rng.standard_normal((2000, dims)), shift + 1.3 * rng.standard_normal((2000, dims))

    def expected(variance, distance=0.0):
        """Mean of the kernel where the difference of two draws is N(shift, variance I)."""
        total = width**2 + variance
        return (width**2 / total) ** (dims / 2) * math.exp(-distance / (2 * total))

    truth = expected(2) + expected(2 * 1.3**2) - 2 * expected(1 + 1.3**2, float(shift @ shift))
    assert squared_mmd(first, second, width) == pytest.approx(truth, rel=0.08)


def test_median_distance_by_hand():
    assert median_distance(np.array([[0.0], [1.0]]), np.array([[3.0]])) == 2  # of 1, 2 and 3


def test_bound_and_p_value_agree():
    null = np.arange(59.0)  # 0 to 58
    assert null_bound(null) == 56
    assert null_share(null, 56) == pytest.approx(4 / 60)
    assert null_share(null, 56.5) == pytest.approx(3 / 60)


def test_area_under_curve_counts_pairs():
    scores, labels = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 1, 0, 1])
    assert area_under_curve(scores, labels) == (1 + 0.5 + 1 + 1) / 4


def test_classifier_reaches_the_best_possible_area(monkeypatch):
    rng, count = np.random.default_rng(0), 4000
    shift = np.array([0.4, -0.2, 0, 0.5, 0, 0.1])
    first, second = rng.standard_normal((count, 6)), shift + rng.standard_normal((count, 6))
    best = stats.norm.cdf(np.linalg.norm(shift) / math.sqrt(2))  # of the linear score, which is optimal here
    monkeypatch.setattr(two_sample, "REFITS", 19)
    found = classifier_test(first, second, rng)
    assert found.statistic == pytest.approx(best, abs=0.012)  # a standard error of .0055
    assert found.p_value == 1 / (1 + two_sample.REFITS)
    assert found.noise == pytest.approx(0.5, abs=0.01)


def test_classifier_sees_variance_and_dependence(monkeypatch):
    monkeypatch.setattr(two_sample, "REFITS", 19)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((600, 6))
    assert classifier_test(noise, 1.3 * rng.standard_normal((600, 6)), rng).statistic > 0.65
    assert classifier_test(noise, ar(rng, 600, 6, 0.5), rng).statistic > 0.65


@pytest.mark.parametrize("test", [mmd_test, classifier_test])
def test_two_sample_tests_keep_their_size(test, monkeypatch):
    monkeypatch.setattr(two_sample, "REFITS", 19)
    rng, p_values, statistics = np.random.default_rng(0), [], []
    for _ in range(80):
        found = test(rng.standard_t(5, (60, 3)), rng.standard_t(5, (40, 3)), rng)
        p_values.append(found.p_value)
        statistics.append(found.statistic - found.noise)
    # 80 trials at 10 %: a standard error of .034
    assert 0.01 < np.mean(np.array(p_values) <= 0.1) < 0.21
    assert abs(np.mean(statistics)) < 4 * np.std(statistics) / math.sqrt(80)


def ar(rng: np.random.Generator, count: int, length: int, coefficient: float) -> np.ndarray:
    """Stationary first-order autoregression of unit variance."""
    sequences = rng.standard_normal((count, length))
    for t in range(1, length):
        sequences[:, t] = coefficient * sequences[:, t - 1] + math.sqrt(1 - coefficient**2) * sequences[:, t]
    return sequences
