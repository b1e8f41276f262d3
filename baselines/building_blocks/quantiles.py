"""From quantiles of single days to sample paths.

A model that says quantiles per day says nothing of how days hang together. A copula does: normal scores
z [B, S, H], standard normal for each day and dependent across days, are put through the quantile function of their
day. Between the given levels, and beyond the outermost, that function is linear in the normal score, so it is exact
for a Gaussian law and its tails are Gaussian.

Letters: B windows, S samples, H horizon, Q levels.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from grpo.evaluation.sampling import standard_normal
from preprocessing.windows import Context


def random_walk_scores(context: Context, *, num_samples: int, horizon: int, seed: int) -> np.ndarray:
    """[B, S, H] normal scores with the correlation of a random walk, sqrt(s / t) of days s <= t."""
    noise = standard_normal(context, num_samples=num_samples, horizon=horizon, seed=seed)
    # Days s <= t of a random walk correlate by sqrt(s / t); over the root of the day, each has unit variance.
    return np.cumsum(noise, axis=-1) / np.sqrt(np.arange(1, horizon + 1))


def values_at(scores: np.ndarray, levels: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Values [B, S, H] at normal scores [B, S, H].

    Args:
        scores: standard normal variates.
        levels: [Q] ascending, between 0 and 1, at least two.
        quantiles: [B, H, Q] of each day; sorted first, for quantiles that cross (Chernozhukov,
            Fernandez-Val and Galichon 2010).
    """
    knots = ndtri(levels)
    # Beyond the outermost levels the outermost interval goes on: linear in the score, so the tails are Gaussian.
    left = np.clip(np.searchsorted(knots, scores) - 1, 0, len(knots) - 2)  # [B, S, H]
    low, high = _ends(np.sort(quantiles, axis=-1), left)
    with np.errstate(invalid="ignore"):  # a quantile may be minus infinity: log of a price of 0
        return low + (scores - knots[left]) / (knots[left + 1] - knots[left]) * (high - low)


def scores_of(values: np.ndarray, levels: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Normal scores [B, S, H] of values [B, S, H]: the inverse of `values_at`."""
    knots, ordered = ndtri(levels), np.sort(quantiles, axis=-1)
    below = (values[:, :, :, None] > ordered[:, None]).sum(axis=-1)
    left = np.clip(below - 1, 0, len(knots) - 2)
    low, high = _ends(ordered, left)
    # Equal quantiles make an interval of no width; any share of it is right, and 1 keeps the quotient defined.
    share = (values - low) / np.where(high > low, high - low, 1.0)
    return knots[left] + share * (knots[left + 1] - knots[left])


def rank_scores(values: np.ndarray) -> np.ndarray:
    """Normal scores [N, H] of the ranks of values [N, H] within each day: ndtri((rank - 1/2) / N)."""
    # argsort twice gives ranks. The half keeps the scores of the least and the largest finite.
    ranks = np.argsort(np.argsort(values, axis=0, kind="stable"), axis=0, kind="stable")
    return ndtri((ranks + 0.5) / len(values))


def _ends(ordered: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles [B, S, H] at both ends of interval number `left` [B, S, H], from `ordered` [B, H, Q]."""
    # [B, 1, 1] and [H] broadcast against the numbers [B, S, H].
    windows, days = np.arange(len(left))[:, None, None], np.arange(left.shape[-1])
    return ordered[windows, days, left], ordered[windows, days, left + 1]
