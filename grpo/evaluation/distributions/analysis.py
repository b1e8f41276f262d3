"""All distances between real and generated sequences, each beside what it is where both come from the real law.

Letters: N, M sequences, T length.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np

from grpo.evaluation.distributions import distances
from grpo.evaluation.distributions.two_sample import (
    FOLDS,
    PERMUTATIONS,
    REFITS,
    TwoSampleTest,
    classifier_test,
    mmd_test,
    null_bound,
    null_share,
)
from grpo.evaluation.markdown import markdown
from preprocessing.errors import UserError
from preprocessing.seeds import generator

REPLICATES = 59
"""Draws of the null distribution; with 59 the three largest are 5 % of them and the distance itself."""
MAX_LAGS = 10
PAIR_LIMIT = 1000
"""At most so many sequences of each sample for what compares all pairs: diversity and MMD."""
CLASSIFIER_LIMIT = 2000
"""The same for the classifier."""
FEWEST = 4 * FOLDS
"""Fewer sequences than that are refused."""


class SampleError(UserError):
    """Two samples that cannot be compared."""


@dataclass(frozen=True)
class Measure:
    """One distance.

    Attributes:
        name: what is compared.
        distance: how far apart real and generated are; 0 is equal, but for the classifier, where .5 is.
        noise: its mean where both samples come from the real law.
        bound: its 95 % quantile there.
        p_value: share of that null distribution at or above the distance.
        real: the property itself in the real sample, where there is one.
        generated: the same in the generated sample.
    """

    name: str
    distance: float
    noise: float
    bound: float
    p_value: float
    real: float | None = None
    generated: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the distance is more than chance explains, one time in twenty wrongly."""
        return self.distance > self.bound


@dataclass(frozen=True)
class DistributionReport:
    """What was measured on how much.

    Attributes:
        real_shape: N and T.
        generated_shape: M and T.
        measures: every distance, in the order of the report.
        lags: K, of the autocorrelations.
        bins: of the Jensen-Shannon divergence.
        diversity_size: sequences of each sample behind the diversity.
        mmd_sizes: real and generated sequences behind the MMD.
        classifier_sizes: the same of the classifier.
        seed: of the replicates and subsamples.
    """

    real_shape: tuple[int, int]
    generated_shape: tuple[int, int]
    measures: tuple[Measure, ...]
    lags: int
    bins: int
    diversity_size: int
    mmd_sizes: tuple[int, int]
    classifier_sizes: tuple[int, int]
    seed: int

    def measure(self, name: str) -> Measure:
        """One distance by its name."""
        return next(measure for measure in self.measures if measure.name == name)

    def json(self) -> str:
        """All fields, and for each measure whether it differs."""
        content = dataclasses.asdict(self)
        for entry, measure in zip(content["measures"], self.measures, strict=True):
            entry["differs"] = measure.differs
        return json.dumps(content, indent=2) + "\n"

    def markdown(self) -> str:
        """A table and a line on how it was made."""
        numbers = {
            "real": [measure.real for measure in self.measures],
            "generated": [measure.generated for measure in self.measures],
            "distance": [measure.distance for measure in self.measures],
            "by chance: mean": [measure.noise for measure in self.measures],
            "95 %": [measure.bound for measure in self.measures],
        }
        columns = {"measure": [measure.name for measure in self.measures]}
        columns |= {name: ["" if x is None else f"{x:.4g}" for x in values] for name, values in numbers.items()}
        columns["p"] = ["<.001" if one.p_value < 0.001 else f"{one.p_value:.3f}" for one in self.measures]
        columns["verdict"] = ["differs" if one.differs else "as chance has it" for one in self.measures]
        differing = sum(measure.differs for measure in self.measures)
        return "\n\n".join(["# Real against generated sequences", self._sizes(differing), markdown(columns)]) + "\n"

    def _sizes(self, differing: int) -> str:
        mmd, classifier = (
            f"{real} real and {made} generated" for real, made in (self.mmd_sizes, self.classifier_sizes)
        )
        return (
            f"{self.real_shape[0]} real and {self.generated_shape[0]} generated sequences of {self.real_shape[1]} "
            f"values. {differing} of {len(self.measures)} measures differ by more than chance explains; each does so "
            f"one time in twenty where nothing differs. By chance: {REPLICATES} pairs of samples of these sizes, both "
            f"drawn with replacement from the real sequences. Distances within a sample take {self.diversity_size} "
            f"sequences of each, and their chance {REPLICATES} pairs of disjoint parts of the real ones. MMD: {mmd} "
            f"sequences, {PERMUTATIONS} exchanges of labels. Classifier: logistic regression on values, squares and "
            f"products of neighbours, {FOLDS} folds, {classifier} sequences, {REFITS} exchanges of labels. "
            f"Autocorrelation to lag {self.lags}; Jensen-Shannon divergence in bits on {self.bins} bins of equal real "
            f"share. Seed {self.seed}."
        )


def compare_distributions(real: np.ndarray, generated: np.ndarray, seed: int = 0) -> DistributionReport:
    """Measure every distance between two samples, and what each would be by chance.

    Args:
        real: [N, T] sequences.
        generated: [M, T] sequences.
        seed: of replicates, subsamples and folds.

    Raises:
        SampleError: other shapes, too few sequences, or values that are not finite or never vary.
    """
    _check(real, generated)
    rng = generator(seed)
    lags, edges = min(MAX_LAGS, real.shape[1] - 1), distances.quantile_edges(real)
    # diversity depends on the number of sequences, and the null needs two disjoint parts of the real ones
    halves = min(len(real) // 2, len(generated), PAIR_LIMIT)
    for_mmd = [_some(sample, PAIR_LIMIT, rng) for sample in (real, generated)]
    for_classifier = [_some(sample, CLASSIFIER_LIMIT, rng) for sample in (real, generated)]
    return DistributionReport(
        real_shape=(len(real), real.shape[1]),
        generated_shape=(len(generated), generated.shape[1]),
        measures=(
            *_value_measures(real, generated, edges, lags, rng),
            *_diversity_measures(real, generated, halves, rng),
            _tested("squared MMD", mmd_test(for_mmd[0], for_mmd[1], rng)),
            _tested("classifier AUC", classifier_test(for_classifier[0], for_classifier[1], rng)),
        ),
        lags=lags,
        bins=len(edges) + 1,
        diversity_size=halves,
        mmd_sizes=(len(for_mmd[0]), len(for_mmd[1])),
        classifier_sizes=(len(for_classifier[0]), len(for_classifier[1])),
        seed=seed,
    )


def _value_measures(
    real: np.ndarray, generated: np.ndarray, edges: np.ndarray, lags: int, rng: np.random.Generator
) -> list[Measure]:
    """Distances against pairs of bootstrap samples of the real sequences, of the same two sizes."""
    found = _distances(real, generated, edges, lags)
    # sizes as in the real comparison: every one of these distances shrinks with the size of a sample
    null = [
        _distances(_resampled(real, len(real), rng), _resampled(real, len(generated), rng), edges, lags)
        for _ in range(REPLICATES)
    ]
    of_real, of_generated = (dataclasses.asdict(distances.moments(values)) for values in (real, generated))
    return [
        _measure(name, distance, [each[name] for each in null], of_real.get(name), of_generated.get(name))
        for name, distance in found.items()
    ]


def _distances(first: np.ndarray, second: np.ndarray, edges: np.ndarray, lags: int) -> dict[str, float]:
    """Every distance of values and autocorrelations; moments by the absolute difference."""
    ks, wasserstein = distances.cdf_distances(first, second)
    first_moments, second_moments = distances.moments(first), distances.moments(second)
    return {
        "Kolmogorov-Smirnov": ks,
        "Wasserstein-1": wasserstein,
        "Jensen-Shannon": distances.jensen_shannon(first, second, edges),
        "autocorrelation": distances.autocorrelation_distance(first, second, lags),
        "autocorrelation of absolute values": distances.autocorrelation_distance(np.abs(first), np.abs(second), lags),
    } | {
        field.name: abs(getattr(first_moments, field.name) - getattr(second_moments, field.name))
        for field in dataclasses.fields(distances.Moments)
    }


def _diversity_measures(real: np.ndarray, generated: np.ndarray, count: int, rng: np.random.Generator) -> list[Measure]:
    """Differences of diversity between subsamples of one size, against disjoint halves of the real sequences."""
    halves, others, generations = [], [], []
    for _ in range(REPLICATES):
        order = rng.permutation(len(real))
        # disjoint parts: a bootstrap sample holds copies, which would look like a lack of diversity
        halves.append(distances.diversity(real[order[:count]]))
        others.append(distances.diversity(real[order[count : 2 * count]]))
        generations.append(distances.diversity(_some(generated, count, rng)))
    measures = []
    names = {
        "nearest": "distance to the nearest",
        "pairwise": "distance between two",
        "duplicates": "share of duplicates",
    }
    for field, name in names.items():
        ours, theirs, made = (np.array([getattr(d, field) for d in part]) for part in (halves, others, generations))
        # the same kind of difference as in the null, of two subsamples; the median of many lets no single draw decide
        distance = float(np.median(np.abs(made - ours)))
        measures.append(_measure(name, distance, np.abs(theirs - ours), float(ours.mean()), float(made.mean())))
    return measures


def _measure(
    name: str, distance: float, null: np.ndarray | list[float], real: float | None, generated: float | None
) -> Measure:
    null = np.asarray(null)
    share = null_share(null, distance)
    return Measure(name, distance, float(null.mean()), null_bound(null), share, real, generated)


def _tested(name: str, test: TwoSampleTest) -> Measure:
    return Measure(name, test.statistic, test.noise, test.bound, test.p_value)


def _some(sequences: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return sequences[rng.permutation(len(sequences))[:count]]


def _resampled(sequences: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return sequences[rng.integers(len(sequences), size=count)]


def _check(real: np.ndarray, generated: np.ndarray) -> None:
    for name, sequences in (("real", real), ("generated", generated)):
        if sequences.ndim != 2 or len(sequences) < FEWEST or sequences.shape[1] < 2:
            shape = " x ".join(map(str, sequences.shape))
            raise SampleError(f"the {name} sample is {shape}; at least {FEWEST} sequences of 2 values are needed")
        if not np.isfinite(sequences).all():
            raise SampleError(f"the {name} sequences hold values that are not finite")
        if np.ptp(sequences) == 0:
            raise SampleError(f"the {name} sequences all hold one and the same number, {sequences.flat[0]:g}")
    if real.shape[1] != generated.shape[1]:
        raise SampleError(
            f"the real sequences have {real.shape[1]} values and the generated {generated.shape[1]}; "
            "they have to be equally long"
        )
