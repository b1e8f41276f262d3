from __future__ import annotations

import numpy as np
import pytest

from grpo.language.rewards import (
    REWARDS,
    accuracy,
    crps,
    direction,
    energy,
    group_rewards,
    make_reward,
    pnl,
    scale_paths,
)
from grpo.training.config import REWARD_NAMES, GrpoConfig

STEPS = np.sqrt(np.arange(1, 4))


def test_energy_of_hand_computed_paths():
    # H = 1: errors 1 and 3, pair distance 2.
    paths, truth = np.array([[0.0], [2.0]]), np.array([-1.0])
    assert energy(paths, truth).tolist() == [-1 + 2, -3 + 2]
    # H = 4: norm of (2, 0, 0, 0) / sqrt(4) is 1.
    assert energy(np.array([[2.0, 0, 0, 0]]), np.zeros(4)).tolist() == [-1.0]


def test_crps_of_hand_computed_paths():
    paths, truth = np.array([[0.0, 4.0], [2.0, 0.0], [1.0, 1.0]]), np.array([1.0, 1.0])
    # errors (1+3)/2, (1+1)/2, 0; distances: 01: (2+4)/2, 02: (1+3)/2, 12: (1+1)/2
    assert crps(paths, truth).tolist() == [-2 + (3 + 2) / 2, -1 + (3 + 1) / 2, 0 + (2 + 1) / 2]


@pytest.mark.parametrize("reward", [energy, crps])
@pytest.mark.parametrize("size", [3, 4])
def test_the_group_advantage_is_the_policy_gradient_of_the_proper_score(reward, size):
    """On a finite set of paths with law p, d/dlogits of minus the score is the expected advantage times d log p.

    The advantage is GRPO's, reward minus group mean, whose only bias is the harmless factor 1 - 1/G. Enumerates
    every group, so the expectation is exact. The plain pair weight 1 fails (last assertion).
    """
    support = np.array([[-1.0, 0.5], [0.3, 2.0], [2.0, -1.0]])
    truth = np.array([0.4, 0.1])
    logits = np.array([0.2, -0.4, 0.1])

    def norm(d):
        return np.sqrt((d**2).mean(-1)) if reward is energy else np.abs(d).mean(-1)

    def minus_score(theta):
        p = np.exp(theta) / np.exp(theta).sum()
        pairs = norm(support[:, None] - support[None])
        return -(p @ norm(support - truth)) + 0.5 * p @ pairs @ p

    step = 1e-5
    numeric = [(minus_score(logits + step * e) - minus_score(logits - step * e)) / (2 * step) for e in np.eye(3)]
    p = np.exp(logits) / np.exp(logits).sum()

    def expected_gradient(rewards_of):
        total = np.zeros(3)
        for group in map(list, np.ndindex(*(3,) * size)):
            rewards = rewards_of(support[group])
            advantages = rewards - rewards.mean()
            total += np.prod(p[group]) * advantages @ (np.eye(3)[group] - p) / size
        return total / (1 - 1 / size)

    ours = expected_gradient(lambda paths: group_rewards(reward, paths, truth))
    np.testing.assert_allclose(ours, numeric, atol=1e-8)
    plain = expected_gradient(lambda paths: reward(paths, truth))
    assert np.abs(plain - numeric).max() > 0.01


def test_energy_prefers_the_true_spread_over_a_line_and_over_a_wild_spread():
    rng = np.random.default_rng(0)
    truths = rng.standard_normal((4000, 3))

    def expected_score(scale):
        samples = scale * rng.standard_normal((4000, 16, 3))
        total = 0.0
        for path, truth in zip(samples, truths, strict=True):
            error = np.sqrt(((path - truth) ** 2).mean(-1)).mean()
            pairs = np.sqrt(((path[:, None] - path[None]) ** 2).mean(-1)).sum() / (16 * 15)
            total += error - pairs / 2
        return total / len(truths)

    narrow, right, wide = (expected_score(scale) for scale in (0.1, 1.0, 2.0))
    assert right < narrow - 0.05
    assert right < wide - 0.05


def test_accuracy_direction_and_pnl():
    paths, truth = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([1.0, 4.0])
    assert accuracy(paths, truth).tolist() == [1 / 3, 1 / (1 + 13)]
    assert direction(paths, truth).tolist() == [0.1, -0.1]
    assert pnl(paths, truth).tolist() == [4.0, -4.0]


@pytest.mark.parametrize("name", list(REWARDS))
def test_an_invalid_answer_is_never_better_than_a_valid_one(name):
    rng = np.random.default_rng(1)
    for scale in (0.1, 50.0):
        paths = scale * rng.standard_normal((6, 3))
        paths[[1, 4]] = np.nan
        rewards = group_rewards(REWARDS[name], paths, rng.standard_normal(3))
        assert rewards[[1, 4]].max() < rewards[[0, 2, 3, 5]].min()


def test_invalid_answers_take_no_part_in_the_pair_term():
    paths, truth = np.array([[0.0], [np.nan], [2.0]]), np.array([-1.0])
    # errors 1 and 3, distance 2 to the one other valid path, weight (3-1)/(3-2) = 2 from the whole group
    assert group_rewards(energy, paths, truth).tolist() == [-1 + 4, -0.5, -3 + 4]


def test_a_group_without_a_valid_answer_teaches_nothing():
    rewards = group_rewards(energy, np.full((4, 3), np.nan), np.zeros(3))
    assert np.ptp(rewards) == 0


def test_scaled_paths():
    assert scale_paths(np.array([510.0, 480.0, 500.0])).tolist() == pytest.approx([1.0, -2 / np.sqrt(2), 0.0])


def test_trl_callable_groups_by_window_whatever_the_order():
    reward = make_reward("energy", style="direct", horizon=2)
    texts = ["500 500", "510 520", "nonsense", "490 480", "530 500", "500 500"]
    ids = [7, 3, 7, 3, 7, 3]
    truths = {7: [505.0, 500.0], 3: [500.0, 510.0]}
    whole = reward(completions=texts, window_id=ids, truth_levels=[truths[i] for i in ids], volatility=[0.01] * 6)
    for window in (3, 7):
        rows = [i for i, value in enumerate(ids) if value == window]
        alone = reward(
            completions=[[{"role": "assistant", "content": texts[i]}] for i in rows],
            window_id=[window] * len(rows),
            truth_levels=[truths[window]] * len(rows),
            volatility=[0.01] * len(rows),
        )
        assert [whole[i] for i in rows] == alone
    assert whole[2] == min(whole[0], whole[4], 0.0) - 0.5
    assert whole[0] != whole[4]


def test_pnl_pays_for_its_trades():
    reward = make_reward("pnl", style="direct", horizon=1)
    # last move one daily deviation of 1 %: return 1 in scale, cost 2 x .001 / .01
    assert reward(completions=["520"], window_id=[0], truth_levels=[[510.0]], volatility=[0.01]) == [pytest.approx(0.8)]


def test_an_unknown_reward_is_named():
    with pytest.raises(KeyError, match=r"no reward named 'mse'.*energy"):
        make_reward("mse", style="direct", horizon=10)


def test_the_config_knows_exactly_these_rewards():
    assert set(REWARD_NAMES) == set(REWARDS)
    with pytest.raises(ValueError, match="there is no mse"):
        GrpoConfig(rewards={"mse": 1.0})
    with pytest.raises(ValueError, match="num_generations must be at least 3"):
        GrpoConfig(num_generations=2)
