"""Two-sample tests on whole sequences: maximum mean discrepancy, and a classifier.

Letters: N, M sequences, T length, P permutations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import expit
from scipy.stats import norm, rankdata

PERMUTATIONS = 499
FOLDS = 5
_RIDGE = 1.0
_NEWTON_STEPS = 12
_CLIP = 5.0


@dataclass(frozen=True)
class TwoSampleTest:
    """What a test measured, and what it would measure if both samples came from one law.

    Attributes:
        statistic: the measurement.
        noise: its mean under one law.
        bound: its 95 % quantile under one law; the p-value of what exceeds it is at most .05.
        p_value: share of the null distribution at or above the statistic.
    """

    statistic: float
    noise: float
    bound: float
    p_value: float


def null_share(null: np.ndarray, statistic: float) -> float:
    """p-value by draws of the null distribution, the statistic itself counted as one of them."""
    return float((1 + (null >= statistic).sum()) / (1 + len(null)))


def null_bound(null: np.ndarray) -> float:
    """The draw, of at least 19, that only statistics of a p-value of at most .05 exceed."""
    return float(np.sort(null)[math.ceil(0.95 * (1 + len(null))) - 1])


def median_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Median Euclidean distance between two different sequences of both samples: the usual width of the kernel."""
    pooled = np.concatenate([first, second])
    return float(np.median(cdist(pooled, pooled)[np.triu_indices(len(pooled), 1)]))


def squared_mmd(first: np.ndarray, second: np.ndarray, bandwidth: float) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, equation 3).

    The kernel is exp(-d^2 / (2 bandwidth^2)). The estimate can be negative.
    """
    labels = np.concatenate([np.ones(len(first)), np.zeros(len(second))])
    return float(_squared_mmds(_kernel(first, second, bandwidth), labels[None])[0])


def mmd_test(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> TwoSampleTest:
    """Squared MMD with the median heuristic, against labels that are exchanged between the samples."""
    kernel = _kernel(first, second, median_distance(first, second))
    labels = np.concatenate([np.ones(len(first)), np.zeros(len(second))])
    exchanged = rng.permuted(np.tile(labels, (PERMUTATIONS, 1)), axis=1)
    statistic = float(_squared_mmds(kernel, labels[None])[0])
    null = _squared_mmds(kernel, exchanged)
    return TwoSampleTest(statistic, float(null.mean()), null_bound(null), null_share(null, statistic))


def classifier_test(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> TwoSampleTest:
    """Cross-validated AUC of a ridge logistic regression that tells the samples apart; .5 where it cannot.

    It sees each value, its square and its product with the next value, so it finds differences in mean, in variance and
    in dependence from one step to the next, and none of higher order. The null distribution is normal, with the
    variance of the Mann-Whitney statistic.

    Args:
        first: [N, T], N >= 2 FOLDS.
        second: [M, T], M >= 2 FOLDS.
        rng: decides the folds.
    """
    features = _features(np.concatenate([first, second]), first.std())
    labels = np.concatenate([np.zeros(len(first)), np.ones(len(second))])
    fold = np.empty(len(labels), dtype=int)
    for label, count in ((0, len(first)), (1, len(second))):
        fold[labels == label] = rng.permutation(np.arange(count) % FOLDS)
    areas, variances = [], []
    for held_out in (fold == number for number in range(FOLDS)):
        scores = _logistic_scores(features[~held_out], labels[~held_out], features[held_out])
        areas.append(area_under_curve(scores, labels[held_out]))
        n, m = (labels[held_out] == 0).sum(), (labels[held_out] == 1).sum()
        variances.append((n + m + 1) / (12 * n * m))
    statistic, std = float(np.mean(areas)), float(np.sqrt(np.mean(variances) / FOLDS))
    p_value = float(norm.sf((statistic - 0.5) / std))
    return TwoSampleTest(statistic, 0.5, 0.5 + float(norm.ppf(0.95)) * std, p_value)


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a random member of class 1 scores above one of class 0, ties counting half."""
    positives = labels == 1
    n, m = (~positives).sum(), positives.sum()
    return float((rankdata(scores)[positives].sum() - m * (m + 1) / 2) / (n * m))


def _kernel(first: np.ndarray, second: np.ndarray, bandwidth: float) -> np.ndarray:
    pooled = np.concatenate([first, second])
    kernel = np.exp(-cdist(pooled, pooled, "sqeuclidean") / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0)  # pairs of one sequence with itself are what biases the estimate
    return kernel


def _squared_mmds(kernel: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[P] estimates for P divisions of the pooled sequences, given as 0-1 rows."""
    n = labels[0].sum()
    m = len(kernel) - n
    in_first, row_sums = labels @ kernel, kernel.sum(axis=0)
    within_first = (in_first * labels).sum(axis=1)
    between = (in_first * (1 - labels)).sum(axis=1)
    within_second = (row_sums * (1 - labels)).sum(axis=1) - between
    return within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m)


def _features(sequences: np.ndarray, scale: float) -> np.ndarray:
    values = sequences / scale
    return np.concatenate([values, values**2, values[:, :-1] * values[:, 1:]], axis=1)


def _logistic_scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log odds of class 1 by a logistic regression with a ridge penalty on standardised features."""
    mean, std = train.mean(axis=0), train.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    inputs = np.clip((train - mean) / std, -_CLIP, _CLIP)
    inputs = np.column_stack([np.ones(len(inputs)), inputs])
    weights, penalty = np.zeros(inputs.shape[1]), np.full(inputs.shape[1], _RIDGE)
    penalty[0] = 0
    for _ in range(_NEWTON_STEPS):
        odds = expit(inputs @ weights)
        gradient = inputs.T @ (odds - labels) + penalty * weights
        curvature = (inputs.T * np.maximum(odds * (1 - odds), 1e-6)) @ inputs + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    return np.clip((test - mean) / std, -_CLIP, _CLIP) @ weights[1:] + weights[0]
