from __future__ import annotations

import numpy as np
import pytest

from grpo.evaluation.plugins import PluginError
from grpo.evaluation.source_code import source_hash
from grpo.language.rewards import (
    REWARDS,
    Reward,
    RewardError,
    accuracy,
    as_trl,
    crps,
    direction,
    energy,
    find_rewards,
    group_rewards,
    pnl,
)
from grpo.language.scale import scale_paths

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

    ours = expected_gradient(lambda paths: group_rewards(REWARDS[reward.__name__], paths, truth))
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
    assert group_rewards(REWARDS["energy"], paths, truth).tolist() == [-1 + 4, -0.5, -3 + 4]


def test_a_group_without_a_valid_answer_teaches_nothing():
    rewards = group_rewards(REWARDS["energy"], np.full((4, 3), np.nan), np.zeros(3))
    assert np.ptp(rewards) == 0


def test_scaled_paths():
    assert scale_paths(np.array([510.0, 480.0, 500.0])).tolist() == pytest.approx([1.0, -2 / np.sqrt(2), 0.0])


def test_trl_callable_groups_by_window_whatever_the_order():
    reward = as_trl(REWARDS["energy"])
    paths = np.array([[0.0, 0.0], [1.0, 2.0], [np.nan, np.nan], [-1.0, -2.0], [3.0, 0.0], [0.0, 0.0]])
    ids = np.array([7, 3, 7, 3, 7, 3])
    truths = {7: [0.5, 0.0], 3: [0.0, 1.0]}
    columns = {"path": list(paths), "truth": [truths[i] for i in ids], "volatility": [0.01] * 6, "prompts": ["x"] * 6}
    whole = reward(window_id=ids.tolist(), **columns)
    for window in (3, 7):
        rows = np.flatnonzero(ids == window)
        alone = reward(window_id=[window] * 3, **{name: [values[i] for i in rows] for name, values in columns.items()})
        assert [whole[i] for i in rows] == alone
    assert whole[2] == min(whole[0], whole[4], 0.0) - 0.5
    assert whole[0] != whole[4]


def test_pnl_pays_for_its_trades():
    # last move one daily deviation of 1 %: return 1 in scale, cost 2 x .001 / .01
    paid = group_rewards(REWARDS["pnl"], np.array([[2.0], [np.nan]]), np.array([1.0]), volatility=0.01)
    assert paid.tolist() == [pytest.approx(0.8), pytest.approx(-0.7)]


def test_a_reward_may_look_at_log_returns():
    last = Reward(name="last", score=lambda paths, truth: paths[:, -1] - truth[-1], scale="log_return")
    # z = 2 and 1 on the fourth day of 1 % a day: 2 x .01 x sqrt(4) and half of it
    rewards = group_rewards(last, np.array([[0, 0, 0, 2.0]]), np.array([0, 0, 0, 1.0]), volatility=0.01)
    assert rewards.tolist() == [pytest.approx(0.02)]


def test_a_reward_of_zero_for_invalid_answers_has_no_margin():
    paths = np.array([[1.0], [np.nan]])
    assert group_rewards(REWARDS["format"], paths, np.zeros(1)).tolist() == [1.0, 0.0]


OWN = """
import numpy as np

from grpo.language.rewards import Reward


def closeness(paths, truth):
    return -np.abs(paths - truth).mean(-1)


def shortness(completions, completion_ids, **columns):
    return [-float(len(ids)) for ids in completion_ids]


twice = Reward(name="twice", score=lambda paths, truth: 2 * closeness(paths, truth), smallest_group=4)


def of_one_number(paths, truth):
    return 1.0


def with_three(paths, truth, more):
    return more


text = "closeness"
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    return file


def test_a_function_of_paths_and_truth_is_a_reward(own):
    [found] = find_rewards([f"{own}:closeness"], num_generations=2)
    columns = {"window_id": [0, 0], "truth": [[1.0]] * 2, "volatility": [0.01] * 2}
    assert found.function(path=[np.array([3.0]), np.array([np.nan])], **columns) == [-2.0, -2.5]
    assert (found.name, found.source) == ("closeness", source_hash(file=own))


def test_trls_own_form_is_a_reward(own):
    [found] = find_rewards([f"{own}:shortness"], num_generations=2)
    assert found.function(completions=["a", "b"], completion_ids=[[1, 2], [3]], path=[]) == [-2.0, -1.0]


def test_an_object_of_a_module_is_a_reward(own, monkeypatch):
    monkeypatch.syspath_prepend(own.parent)
    [found] = find_rewards(["mine:twice"], num_generations=4)
    assert (found.name, found.smallest_group) == ("twice", 4)
    assert found.source


def test_an_edited_file_is_another_reward(own):
    [before] = find_rewards([f"{own}:closeness"], num_generations=2)
    own.write_text(OWN.replace(".mean(-1)", ".max(-1)"))
    [after] = find_rewards([f"{own}:closeness"], num_generations=2)
    columns = {"path": [np.array([0.0, 4.0])], "window_id": [0], "truth": [[0.0, 0.0]], "volatility": [0.01]}
    assert before.source != after.source
    assert (before.function(**columns), after.function(**columns)) == ([-2.0], [-4.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mse", "there is no reward 'mse'; there are accuracy, crps, direction, energy, format, pnl, and package.mod"),
        ("{own}:nothing", "mine.py has no nothing"),
        ("{own}:text", "is no Reward, f.paths, truth. or f.completions"),
        ("{own}:with_three", "is no Reward"),
        ("gone.py:f", "there is no file .*gone.py"),
        ("nowhere.at.all:f", "no module nowhere is installed"),
        ("numpy:nothing", "module numpy has no nothing"),
    ],
)
def test_a_reward_that_is_not_there_is_one_line(name, message, own):
    with pytest.raises(PluginError, match=message) as caught:
        find_rewards([name.format(own=own)], num_generations=8)
    assert "\n" not in str(caught.value)


def test_a_file_that_python_cannot_read_is_one_line(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("x = 1\ndef f(:\n")
    with pytest.raises(PluginError, match=r"broken\.py, line 2: "):
        find_rewards([f"{file}:f"], num_generations=8)


def test_rewards_that_do_not_fit_the_group_or_one_another_are_refused(own):
    other = own.with_name("other.py")
    other.write_text(OWN)
    with pytest.raises(PluginError, match="num_generations must be at least 3 with the reward energy; got 2"):
        find_rewards(["energy"], num_generations=2)
    with pytest.raises(PluginError, match="two rewards are called 'closeness'"):
        find_rewards([f"{own}:closeness", f"{other}:closeness"], num_generations=8)


def test_a_reward_that_gives_no_number_for_each_path_is_named(own):
    [found] = find_rewards([f"{own}:of_one_number"], num_generations=2)
    with pytest.raises(RewardError, match=r"reward 'of_one_number' gave shape \(\) for 1 valid paths"):
        found.function(path=[np.zeros(1)], truth=[[0.0]], window_id=[0], volatility=[0.01])
