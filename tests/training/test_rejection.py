"""Which of a window's samples are kept: against enumeration, hand-computed frequencies and a known law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from grpo.stages.sft_data_generation import range_coverage
from grpo.training.config import RejectionConfig
from grpo.training.rejection import draw_stratified, select, strata

SELECTIONS = ["energy_subset", "tempered", "best_of_k"]


def config(selection: str, *, keep: int, temperature: float = 1.0) -> RejectionConfig:
    return RejectionConfig(num_samples=64, keep=keep, selection=selection, temperature=temperature)  # type: ignore[arg-type]


def energy_score(paths: np.ndarray, truth: np.ndarray) -> float:
    """E||X - y|| - E||X - X'|| / 2 of the paths as a law, written as plain loops over sqrt(mean square)."""
    error = sum(np.sqrt(np.mean((x - truth) ** 2)) for x in paths) / len(paths)
    pairs = sum(np.sqrt(np.mean((x - z) ** 2)) for x in paths for z in paths)
    return error - pairs / (2 * len(paths) ** 2)


def chosen(paths, truth, settings, seed=0) -> list[int]:
    return select(np.asarray(paths), np.asarray(truth), settings, np.random.default_rng(seed)).tolist()


@pytest.mark.parametrize("size, keep, horizon", [(6, 2, 1), (7, 3, 2), (9, 4, 3)])
def test_energy_subset_finds_the_best_of_all_subsets(size, keep, horizon):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        paths, truth = rng.standard_normal((size, horizon)), rng.standard_normal(horizon)
        subsets = list(itertools.combinations(range(size), keep))
        best = min(subsets, key=lambda subset: energy_score(paths[list(subset)], truth))
        assert tuple(chosen(paths, truth, config("energy_subset", keep=keep))) == best


def test_best_of_k_keeps_the_closest():
    assert chosen([[0.0], [3.0], [1.0], [9.0], [2.5]], [2.0], config("best_of_k", keep=3)) == [1, 2, 4]


def test_tempered_draws_by_the_energy_reward():
    """Paths 0, 1, 3 and the truth 0: rewards -0 + 2, -1 + 1.5 and -3 + 2.5; two are drawn without replacement."""
    weights = np.exp(np.array([2.0, 0.5, -0.5]) / 2)
    p = weights / weights.sum()
    expected = {(i, j): p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in [(0, 1), (0, 2), (1, 2)]}
    rng, draws = np.random.default_rng(0), 20_000
    settings = config("tempered", keep=2, temperature=2.0)
    counts = dict.fromkeys(expected, 0)
    for _ in range(draws):
        counts[tuple(select(np.array([[0.0], [1.0], [3.0]]), np.zeros(1), settings, rng).tolist())] += 1
    for pair, probability in expected.items():
        assert counts[pair] / draws == pytest.approx(probability, abs=4 * np.sqrt(0.25 / draws))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_no_invalid_sample_is_kept(selection):
    rng = np.random.default_rng(0)
    paths = rng.standard_normal((12, 3))
    paths[[0, 3, 4, 7]] = np.nan
    paths[9, 1] = np.inf
    kept = chosen(paths, np.zeros(3), config(selection, keep=5))
    assert len(kept) == len(set(kept)) == 5
    assert set(kept) <= {1, 2, 5, 6, 8, 10, 11}
    assert chosen(paths, np.zeros(3), config(selection, keep=7)) == [1, 2, 5, 6, 8, 10, 11]
    assert chosen(np.full((4, 3), np.nan), np.zeros(3), config(selection, keep=2)) == []


def test_best_of_k_narrows_a_right_law_and_the_energy_subset_far_less():
    """Samples and truths of one Gaussian law: whatever is kept should still look like that law."""
    rng = np.random.default_rng(0)
    windows, samples, horizon = 200, 32, 4
    paths = rng.standard_normal((windows, samples, horizon))
    truths = rng.standard_normal((windows, horizon))

    def spread(selection: str) -> float:
        """Mean deviation of the kept samples of a window around their own mean; 1 for the law itself."""
        settings = config(selection, keep=8)
        kept = np.stack([paths[i][select(paths[i], truths[i], settings, rng)] for i in range(windows)])
        return float(np.sqrt(kept.var(axis=1, ddof=1).mean()))

    found = {selection: spread(selection) for selection in SELECTIONS}
    assert found["best_of_k"] < 0.75
    assert found["best_of_k"] + 0.1 < found["energy_subset"] < found["tempered"]


def test_strata_are_terciles_of_volatility_and_date_times_direction():
    volatility = np.array([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])  # terciles: middle low low high high middle
    move = np.array([0.1, -0.1, 0.2, 0.0, 0.3, -0.2])  # up down up down up down
    origin = np.array(["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-06", "2020-01-03", "2020-01-04"], "M8[ns]")
    expected = [  # volatility x direction x date
        (1 * 2 + 1) * 3 + 0,
        (0 * 2 + 0) * 3 + 0,
        (0 * 2 + 1) * 3 + 2,
        (2 * 2 + 0) * 3 + 2,
        (2 * 2 + 1) * 3 + 1,
        (1 * 2 + 0) * 3 + 1,
    ]
    assert strata(volatility, move, origin).tolist() == expected


def test_a_stratified_draw_is_balanced_as_far_as_the_strata_go():
    stratum = np.repeat([7, 3, 11], [50, 4, 20])
    for seed in range(10):
        drawn = draw_stratified(stratum, 24, np.random.default_rng(seed))
        assert drawn.tolist() == sorted(set(drawn.tolist()))
        counts = dict(zip(*np.unique(stratum[drawn], return_counts=True), strict=True))
        assert counts == {3: 4, 7: 10, 11: 10}


def test_a_stratified_draw_repeats_with_its_seed_alone():
    stratum = np.arange(60) % 4
    first, again, other = (draw_stratified(stratum, 20, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_a_draw_of_more_than_there_are_takes_all():
    assert draw_stratified(np.array([1, 0, 1]), 5, np.random.default_rng(0)).tolist() == [0, 1, 2]


def test_range_coverage_counts_days_inside_the_chosen_samples():
    samples = np.arange(1.0, 10.0)[None, :, None].repeat(4, axis=2)  # [N, K, H], 1..9 on each of four days
    paths = np.concatenate([samples, np.full((1, 2, 4), np.nan)], axis=1)
    chosen = np.zeros((1, 11), dtype=bool)
    chosen[0, [1, 3, 6]] = True  # 2, 4 and 7
    truth = np.array([[2.0, 7.0, 1.9, 7.1]])
    assert range_coverage(paths, chosen, truth) == 0.5
    nothing = np.concatenate([chosen, np.zeros_like(chosen)])  # a window without a chosen sample does not count
    assert range_coverage(paths.repeat(2, axis=0), nothing, truth.repeat(2, axis=0)) == 0.5


def test_range_coverage_of_a_calibrated_law():
    rng = np.random.default_rng(0)
    paths, truth = rng.standard_normal((4000, 4, 2)), rng.standard_normal((4000, 2))
    everything = np.ones((4000, 4), dtype=bool)
    assert abs(range_coverage(paths, everything, truth) - 3 / 5) < 0.02  # two standard errors: 0.011


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_worst_of_few_samples_is_not_kept_because_they_are_few(selection):
    settings = RejectionConfig(num_samples=64, keep=4, selection=selection, max_distance=3.0)  # type: ignore[arg-type]
    assert chosen([[1.0], [np.nan], [-3.5], [5.0]], [0.0], settings) == [0]
    assert chosen([[30.0], [np.nan]], [0.0], settings) == []


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_far_sample_is_not_kept_among_many_either(selection):
    settings = RejectionConfig(num_samples=64, keep=2, selection=selection, max_distance=3.0)  # type: ignore[arg-type]
    paths = [[0.5], [9.0], [-9.0], [1.0], [-1.0]]
    for seed in range(20):
        assert set(chosen(paths, [0.0], settings, seed)) <= {0, 3, 4}
