"""Distances between two samples of sequences, and what describes one of them. Nothing here draws random numbers.

Letters: N, M sequences, T length, K lags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

BINS = 50
"""Bins of the Jensen-Shannon divergence, each with the same share of the real values."""


@dataclass(frozen=True)
class Moments:
    """Of all values, whatever their sequence and step.

    Attributes:
        mean: in the unit of the values.
        std: in the same unit, with N in the denominator.
        skew: third standardised moment, 0 for a symmetric law.
        kurtosis: fourth standardised moment less 3, 0 for a Gaussian.
    """

    mean: float
    std: float
    skew: float
    kurtosis: float


@dataclass(frozen=True)
class Diversity:
    """How different the sequences of one sample are from one another; all depend on how many there are.

    Attributes:
        nearest: mean Euclidean distance of a sequence to the nearest other one.
        pairwise: mean Euclidean distance of two sequences.
        duplicates: share of sequences that are exact copies of an earlier one.
    """

    nearest: float
    pairwise: float
    duplicates: float


def cdf_distances(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Kolmogorov-Smirnov statistic and Wasserstein-1 distance of all values of two samples.

    The first is the largest gap between the two distribution functions (0 to 1), the second the area between them (in
    the unit of the values).
    """
    first, second = np.sort(first, axis=None), np.sort(second, axis=None)
    # both functions are steps that change at these values only, so the largest gap lies at one of them
    values = np.sort(np.concatenate([first, second]), kind="stable")
    gaps = np.abs(
        np.searchsorted(first, values, side="right") / first.size
        - np.searchsorted(second, values, side="right") / second.size
    )
    # the area: each gap holds until the next value
    return float(gaps.max()), float(gaps[:-1] @ np.diff(values))


def quantile_edges(real: np.ndarray, bins: int = BINS) -> np.ndarray:
    """[at most bins - 1] inner edges of bins that hold equal shares of the real values; ties make fewer."""
    # from the real sample alone: edges that followed the generated one would move with what they measure
    return np.unique(np.quantile(real, np.arange(1, bins) / bins))


def jensen_shannon(first: np.ndarray, second: np.ndarray, edges: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits of two histograms: 0 for equal ones, 1 where no bin is shared.

    Args:
        first: values of one sample.
        second: values of the other.
        edges: inner edges of the bins; the outer bins are open.
    """
    shares = []
    for values in (first, second):
        counts = np.bincount(np.searchsorted(edges, values.ravel(), side="right"), minlength=len(edges) + 1)
        shares.append(counts / values.size)
    middle = (shares[0] + shares[1]) / 2
    # an empty bin adds nothing (0 log 0 = 0), and where a share is positive the middle is too
    terms = [share[share > 0] * np.log2(share[share > 0] / middle[share > 0]) for share in shares]
    return float(sum(term.sum() for term in terms) / 2)


def autocorrelation(sequences: np.ndarray, lags: int) -> np.ndarray:
    """[K] autocorrelation at lags 1 to K, K < T, of sequences [N, T] of one stationary process.

    Mean and variance are those of all values: those of each short sequence would bias the result downwards.
    """
    centred = sequences - sequences.mean()
    variance = np.square(centred).mean()
    return np.array([(centred[:, :-lag] * centred[:, lag:]).mean() / variance for lag in range(1, lags + 1)])


def autocorrelation_distance(first: np.ndarray, second: np.ndarray, lags: int) -> float:
    """Root mean square over lags 1 to K of the difference between two samples' autocorrelations."""
    return float(np.sqrt(np.square(autocorrelation(first, lags) - autocorrelation(second, lags)).mean()))


def moments(values: np.ndarray) -> Moments:
    """Mean, standard deviation, skew and excess kurtosis of all values."""
    mean, std = values.mean(), values.std()
    standardised = (values - mean) / std
    squared = standardised * standardised
    return Moments(float(mean), float(std), float((squared * standardised).mean()), float((squared**2).mean() - 3))


def diversity(sequences: np.ndarray) -> Diversity:
    """How different N >= 2 sequences are; memory grows with N squared."""
    count = len(sequences)
    distances = cdist(sequences, sequences)
    pairwise = distances.sum() / (count * (count - 1))
    # after the sum over pairs: no sequence is its own nearest neighbour
    np.fill_diagonal(distances, np.inf)
    copies = 1 - len(np.unique(sequences, axis=0)) / count
    return Diversity(float(distances.min(axis=1).mean()), float(pairwise), copies)
