"""Training examples: exact targets, in the form of the prompts and answers that the pipeline uses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grpo.embedded.corpus import (
    MIN_STEP_SD,
    SHARES,
    draw_parameters,
    level_probabilities,
    simulate_examples,
    stream_examples,
)
from grpo.language.features import HIGHEST, LOWEST
from preprocessing.combined_preprocessor import DataConfig
from preprocessing.simulation import PROCESSES


def normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def test_level_probabilities_are_the_normal_law_in_steps_of_one():
    mean, sd = np.array([[500.0, 980.0]]), np.array([[10.0, 30.0]])
    probabilities = level_probabilities(mean, sd)
    assert probabilities.shape == (1, 2, HIGHEST - LOWEST + 1)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-12)
    assert probabilities[0, 0, 500 - LOWEST] == pytest.approx(2 * normal_cdf(0.05) - 1)
    assert probabilities[0, 0, 512 - LOWEST] == pytest.approx(normal_cdf(1.25) - normal_cdf(1.15))
    assert probabilities[0, 1, -1] == pytest.approx(
        1 - normal_cdf((HIGHEST - 0.5 - 980) / 30)
    )  # the last takes the tail
    below = level_probabilities(np.array([-400.0]), np.array([1.0]))
    assert below[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("process", SHARES)
def test_drawn_parameters_are_those_of_the_process(process):
    rng = np.random.default_rng(0)
    for _ in range(200):
        drawn = draw_parameters(process, rng)
        assert drawn.keys() <= PROCESSES[process].defaults.keys()
        for name, value in drawn.items():
            low, high = PROCESSES[process].ranges.get(name, (-np.inf, np.inf))
            assert low <= value <= high, name


def test_the_shares_add_up():
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) <= set(PROCESSES)


def test_answers_follow_the_stated_law_of_each_step():
    """Were a target one day off, its error would not have the stated size; answers are rounded (variance 1/12)."""
    rng = np.random.default_rng(1)
    parts = [simulate_examples(rng, per_series=32, config=DataConfig()) for _ in range(60)]
    answers = np.concatenate([part.answers for part in parts])
    mean = np.concatenate([part.step_mean for part in parts])
    sd = np.concatenate([part.step_sd for part in parts])
    inside = (sd > 2) & (answers > 0) & (answers < HIGHEST)
    z = ((answers - mean) / np.sqrt(sd**2 + 1 / 12))[inside]
    assert inside.mean() > 0.9
    assert z.mean() == pytest.approx(0, abs=0.03)
    assert z.var() == pytest.approx(1, abs=0.04)
    shifted = ((answers[:, 1:] - mean[:, :-1]) / sd[:, 1:])[inside[:, 1:]]
    assert shifted.var() > 1.5
    assert sd.min() >= MIN_STEP_SD


def test_a_chunk_holds_as_many_examples_as_asked_for_and_repeats_with_its_seed():
    first, again, other = (
        next(stream_examples(seed, size=40, per_series=8, config=DataConfig())) for seed in (3, 3, 4)
    )
    assert len(first.prompts) == 40
    assert first.answers.shape == first.step_mean.shape == first.step_sd.shape == (40, 10)
    assert first.prompts == again.prompts
    assert np.array_equal(first.step_mean, again.step_mean)
    assert first.prompts != other.prompts
