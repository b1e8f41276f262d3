"""Two-sample tests on whole sequences: maximum mean discrepancy, and a classifier.

Letters: N, M sequences, T length, P permutations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import expit
from scipy.stats import rankdata

PERMUTATIONS = 499
"""Exchanges of labels for the MMD."""
REFITS = 59
"""Exchanges of labels for the classifier, which is fitted anew each time."""
FOLDS = 5
# inputs are standardised, so one unit of ridge suits them all
_RIDGE = 1.0
# Newton's method doubles the correct digits; the ridge keeps the optimum finite, so a dozen steps are plenty
_NEWTON_STEPS = 12
_NEWTON_TOLERANCE = 1e-4
# squares of fat tails would let a few sequences decide the fit
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
    # [P, N + M] labels; the kernel does not change with them and is computed once
    exchanged = rng.permuted(np.tile(labels, (PERMUTATIONS, 1)), axis=1)
    statistic = float(_squared_mmds(kernel, labels[None])[0])
    null = _squared_mmds(kernel, exchanged)
    return TwoSampleTest(statistic, float(null.mean()), null_bound(null), null_share(null, statistic))


def classifier_test(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> TwoSampleTest:
    """Cross-validated AUC of a ridge logistic regression that tells the samples apart; .5 where it cannot.

    It sees each value, its square and its product with the next value, so it finds differences in mean, in variance and
    in dependence from one step to the next, and none of higher order. The null distribution is that of labels exchanged
    between the samples.

    Args:
        first: [N, T], N >= 2 FOLDS.
        second: [M, T], M >= 2 FOLDS.
        rng: decides folds and exchanges.
    """
    inputs = _classifier_inputs(np.concatenate([first, second]))
    labels = np.concatenate([np.zeros(len(first)), np.ones(len(second))])
    statistic = _cross_validated_area(inputs, labels, rng)
    # Not the textbook variance of the Mann-Whitney statistic: folds share most of what they learn from, and it would be
    # too small. The whole procedure is run again instead, new folds included.
    null = np.array([_cross_validated_area(inputs, rng.permutation(labels), rng) for _ in range(REFITS)])
    return TwoSampleTest(statistic, float(null.mean()), null_bound(null), null_share(null, statistic))


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
    # row sums give what is left of the second sample without a second matrix product
    within_second = (row_sums * (1 - labels)).sum(axis=1) - between
    return within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m)


def _classifier_inputs(sequences: np.ndarray) -> np.ndarray:
    """A constant, and each value, square and product of neighbours, standardised and cut at 5."""
    features = np.concatenate([sequences, sequences**2, sequences[:, :-1] * sequences[:, 1:]], axis=1)
    std = features.std(axis=0)
    standardised = (features - features.mean(axis=0)) / np.where(std > 0, std, 1.0)
    return np.column_stack([np.ones(len(features)), np.clip(standardised, -_CLIP, _CLIP)])


def _cross_validated_area(inputs: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """Mean over folds, each with its share of both classes, of the area on what the fit has not seen."""
    fold = np.empty(len(labels), dtype=int)
    for members in (labels == 0, labels == 1):
        # per class: a fold without one of them would have no area
        fold[members] = rng.permutation(np.arange(members.sum()) % FOLDS)
    areas = []
    for number in range(FOLDS):
        unseen = fold == number
        weights = _logistic_weights(inputs[~unseen], labels[~unseen])
        areas.append(area_under_curve(inputs[unseen] @ weights, labels[unseen]))
    return float(np.mean(areas))


def _logistic_weights(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression with a ridge penalty on all but the constant, by Newton's method."""
    weights, penalty = np.zeros(inputs.shape[1]), np.full(inputs.shape[1], _RIDGE)
    # the constant is free: it only says how large the two samples are
    penalty[0] = 0
    for _ in range(_NEWTON_STEPS):
        odds = expit(inputs @ weights)
        gradient = inputs.T @ (odds - labels) + penalty * weights
        # a floor under the weights: a perfect separation sends them to 0 and the matrix towards singular
        curvature = (inputs.T * np.maximum(odds * (1 - odds), 1e-6)) @ inputs + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < _NEWTON_TOLERANCE:
            break
    return weights
