"""Traders whose policy is known, as the windows that a training reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from baselines.trader.dataset import TraderDataset

Policy = Callable[[np.ndarray], np.ndarray]
"""States [N, 17] to actions [N]."""


def windows(
    policy: Policy,
    *,
    markets: int,
    bars: int,
    seed: int,
    reward: Callable[[np.ndarray], np.ndarray] = lambda actions: 0.001 * (actions - 2.0),
    first: int = 0,
) -> TraderDataset:
    """One window per market; states are independent normal numbers, rounded to halves so that a policy is sharp."""
    rng = np.random.default_rng(seed)
    states = (np.round(2 * rng.standard_normal((markets, bars, 17))) / 2).astype(np.float32)
    actions = policy(states.reshape(-1, 17)).reshape(markets, bars).astype(np.int64)
    rewards = reward(actions).astype(np.float32)
    return TraderDataset(
        states=states,
        actions=actions,
        rewards=rewards,
        returns_to_go=np.flip(np.cumsum(np.flip(rewards, axis=1), axis=1), axis=1).astype(np.float32),
        mask=np.ones((markets, bars), bool),
        market=np.array([f"trader/market-{first + number:04d}" for number in range(markets)]),
        start=np.datetime64("2026-01-01", "ms") + np.arange(markets) * np.timedelta64(1, "D"),
    )


def splits(policy: Policy, *, train: int, bars: int, seed: int = 0, **options) -> dict[str, TraderDataset]:
    """`train` training markets, a quarter as many to validate, and half as many to test."""
    sizes = {"train": train, "val": train // 4, "test": train // 2}
    made, first = {}, 0
    for number, (split, markets) in enumerate(sizes.items()):
        made[split] = windows(policy, markets=markets, bars=bars, seed=10 * seed + number, first=first, **options)
        first += markets
    return made


def buys_low(states: np.ndarray) -> np.ndarray:
    """Buys where feature 3 is low, and else sells where feature 12 is high; strongly where it is very much so."""
    low, high = states[:, 3], states[:, 12]
    return np.select([low < -0.75, low < -0.25, high > 0.75, high > 0.25], [0, 1, 4, 3], default=2)


def noisy(policy: Policy, share: float, seed: int) -> Policy:
    """With probability `share` any of the five actions instead; the best forecast is right 1 - share + share / 5."""
    rng = np.random.default_rng(seed)

    def act(states: np.ndarray) -> np.ndarray:
        random = rng.random(len(states)) < share
        return np.where(random, rng.integers(5, size=len(states)), policy(states))

    return act
