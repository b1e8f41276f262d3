from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from baselines.building_blocks.quantiles import random_walk_scores, rank_scores, scores_of, values_at
from tests.baselines.series import random_walk, windows_of

LEVELS = np.array([0.1, 0.3, 0.5, 0.8])
RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((3, 500, 2)) * 2  # [B, S, H]


def test_a_gaussian_law_comes_out_exactly_tails_included():
    mean, deviation = RNG.standard_normal((3, 2)), RNG.uniform(0.5, 2, (3, 2))
    quantiles = mean[:, :, None] + deviation[:, :, None] * stats.norm.ppf(LEVELS)
    expected = mean[:, None] + deviation[:, None] * SCORES
    np.testing.assert_allclose(values_at(SCORES, LEVELS, quantiles), expected, rtol=1e-10, atol=1e-10)


def test_between_levels_it_is_linear_in_the_normal_score():
    quantiles = np.array([[[1.0, 2.0, 10.0, 11.0]]])
    knots = stats.norm.ppf(LEVELS)
    halfway, beyond = (knots[1] + knots[2]) / 2, knots[0] - (knots[1] - knots[0])
    values = values_at(np.array([[[knots[1]], [halfway], [beyond]]]), LEVELS, quantiles)
    np.testing.assert_allclose(values[0, :, 0], [2.0, 6.0, 0.0], atol=1e-12)


def test_crossing_quantiles_are_sorted():
    crossed = values_at(SCORES[:1, :, :1], LEVELS, np.array([[[2.0, 1.0, 4.0, 3.0]]]))
    ordered = values_at(SCORES[:1, :, :1], LEVELS, np.array([[[1.0, 2.0, 3.0, 4.0]]]))
    np.testing.assert_array_equal(crossed, ordered)


def test_scores_of_values_are_the_inverse():
    quantiles = np.cumsum(RNG.uniform(0.1, 1, (3, 2, 4)), axis=-1)
    values = values_at(SCORES, LEVELS, quantiles)
    np.testing.assert_allclose(scores_of(values, LEVELS, quantiles), SCORES, atol=1e-9)


def test_ranks_become_normal_scores_of_each_day():
    values = np.array([[3.0, -1.0], [1.0, -2.0], [2.0, 9.0], [7.0, 5.0]])
    expected = stats.norm.ppf([[5 / 8, 3 / 8], [1 / 8, 1 / 8], [3 / 8, 7 / 8], [7 / 8, 5 / 8]])
    np.testing.assert_allclose(rank_scores(values), expected)


def test_the_copula_of_a_random_walk_has_its_correlation():
    context = windows_of({"A": random_walk(40, seed=1)}, length=30, horizon=4).context.take(np.array([0]))
    scores = random_walk_scores(context, num_samples=40_000, horizon=4, seed=0)[0]
    days = np.arange(1, 5)
    expected = np.sqrt(np.minimum.outer(days, days) / np.maximum.outer(days, days))
    np.testing.assert_allclose(np.cov(scores.T), expected, atol=4 * np.sqrt(2 / 40_000))


@pytest.mark.parametrize("day", range(2))
def test_flat_quantiles_give_their_value(day):
    values = values_at(SCORES[:1], LEVELS, np.full((1, 2, 4), 7.0))
    np.testing.assert_array_equal(values[0, :, day], 7.0)
