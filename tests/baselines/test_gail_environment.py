"""The game in its two forms: one environment, and many as tensors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from baselines.gail.environment import ForecastEnv, TensorVecEnv
from tests.baselines.gail_toys import random_network

HORIZON, COPIES = 4, 6
CONTEXTS = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))


def judge():
    return random_network(outputs=1, seed=3)


def vector_env(**settings) -> TensorVecEnv:
    return TensorVecEnv(judge(), CONTEXTS, **({"horizon": HORIZON, "num_envs": COPIES, "seed": 5} | settings))


def play(env: TensorVecEnv, actions: np.ndarray):
    """Contexts [E, C], rewards [E, H] and whether each step ended, of one episode."""
    context = env.reset()["context"].copy()
    steps = [env.step(step)[1:3] for step in actions.T]
    rewards, ended = zip(*steps, strict=True)
    return context, np.stack(rewards, axis=1), np.stack(ended, axis=1)


def test_gymnasium_and_stable_baselines_accept_the_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*infinity", category=UserWarning)  # returns have no bounds
        check_gymnasium(ForecastEnv(judge(), CONTEXTS, HORIZON), skip_render_check=True)
        check_sb3(ForecastEnv(judge(), CONTEXTS, HORIZON))


def test_many_environments_play_the_game_of_one():
    env = vector_env()
    actions = np.random.default_rng(0).integers(5, size=(COPIES, HORIZON))
    contexts, rewards, ended = play(env, actions)
    assert ended.tolist() == [[False] * (HORIZON - 1) + [True]] * COPIES
    for copy in range(COPIES):
        single = ForecastEnv(judge(), torch.from_numpy(contexts[copy : copy + 1]), HORIZON)
        observation, _ = single.reset(seed=0)
        assert observation["token"] == 5
        for step in range(HORIZON):
            observation, reward, terminated, truncated, _ = single.step(actions[copy, step])
            assert observation["token"] == actions[copy, step]
            assert reward == pytest.approx(rewards[copy, step], rel=1e-5)
            assert (terminated, truncated) == (step == HORIZON - 1, False)


def test_rewards_are_minus_the_log_of_one_minus_d_on_the_prefixes_that_d_is_trained_on():
    actions = np.random.default_rng(1).integers(5, size=(COPIES, HORIZON))
    contexts, rewards, _ = play(vector_env(), actions)
    real = torch.sigmoid(judge()(torch.from_numpy(actions), torch.from_numpy(contexts)))[..., 0]
    np.testing.assert_allclose(rewards, -torch.log(1 - real).detach().numpy(), rtol=1e-4)


def test_a_discriminator_that_learns_between_episodes_judges_the_next_one():
    env = vector_env()
    actions = np.random.default_rng(2).integers(5, size=(COPIES, HORIZON))
    play(env, actions)  # has begun the next episode
    env.discriminator.load_state_dict(random_network(outputs=1, seed=4).state_dict())
    contexts = torch.from_numpy(env._observations(actions[:, 0])["context"])
    rewards = np.stack([env.step(step)[1] for step in actions.T], axis=1)
    real = torch.sigmoid(random_network(outputs=1, seed=4)(torch.from_numpy(actions), contexts))[..., 0]
    np.testing.assert_allclose(rewards, -torch.log(1 - real).detach().numpy(), rtol=1e-4)


def test_the_next_episode_begins_by_itself_with_other_contexts():
    env = vector_env()
    first = env.reset()
    assert first["token"].tolist() == [5] * COPIES
    for _ in range(HORIZON):
        observations = env.step(np.zeros(COPIES, dtype=np.int64))[0]
    assert observations["token"].tolist() == [5] * COPIES
    assert not np.array_equal(observations["context"], first["context"])
    # contexts depend on seed and episode alone, so that a resumed training meets the same
    again = vector_env()
    again.episode = 1
    np.testing.assert_array_equal(again.reset()["context"], observations["context"])
    assert not np.array_equal(vector_env(seed=6).reset()["context"], first["context"])


def test_every_context_is_drawn():
    env = vector_env(num_envs=3000)
    drawn = torch.from_numpy(env.reset()["context"])
    counts = (drawn[:, None] == CONTEXTS).all(dim=2).sum(dim=0)
    # binomial with mean 333 and deviation 17
    assert ((counts - 3000 / 9).abs() < 5 * np.sqrt(3000 / 9 * 8 / 9)).all()


def test_it_is_what_stable_baselines_asks_of_many_environments():
    env = vector_env()
    assert env.get_attr("horizon") == [HORIZON] * COPIES
    assert env.get_attr("horizon", indices=[0, 2]) == [HORIZON] * 2
    assert env.env_is_wrapped(object) == [False] * COPIES
    env.reset()
    infos = env.step(np.zeros(COPIES, dtype=np.int64))[3]
    assert infos == [{}] * COPIES
    assert all(info is infos[0] for info in infos)
    for refused in (lambda: env.set_attr("horizon", 3), lambda: env.env_method("reset")):
        with pytest.raises(NotImplementedError):
            refused()
    env.close()
