"""Steps per second of GAIL's environments: as tensors, against the same game in processes.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gail_env.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gail_env.py --envs 256 --processes 4 --rounds 3

Both play windows of 30 closes and 10 days with the default discriminator. `SubprocVecEnv` of stable-baselines3 holds
one environment per process, `DummyVecEnv` as many in this one. The three take turns, round by round, and a ratio is the
median over the rounds of one's steps per second over another's in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from baselines.building_blocks.features import SCALE_FREE
from baselines.gail.config import GailConfig
from baselines.gail.environment import ForecastEnv, TensorVecEnv
from baselines.gail.network import NetworkSizes, SequenceNetwork

HORIZON, CONTEXTS = 10, 1000
CONTEXT_DIM = 29 + len(SCALE_FREE)


def new_discriminator() -> SequenceNetwork:
    """Of the default sizes; what it says does not matter here."""
    torch.manual_seed(0)
    config = GailConfig()
    sizes = NetworkSizes(
        num_tokens=config.num_tokens,
        context_dim=CONTEXT_DIM,
        embedding_size=config.embedding_size,
        context_size=config.context_size,
        hidden_size=config.discriminator_size,
    )
    return SequenceNetwork(sizes, 1)


def new_env() -> ForecastEnv:
    """One environment, as a process makes its own."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return ForecastEnv(new_discriminator(), torch.randn(CONTEXTS, CONTEXT_DIM), HORIZON)


def steps_per_second(env: VecEnv, seconds: float) -> float:
    """Whole episodes of random tokens for at least so long."""
    rng = np.random.default_rng(0)
    actions = rng.integers(GailConfig().num_tokens, size=(HORIZON, env.num_envs))
    env.reset()
    steps, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for step in actions:
            env.step(step)
        steps += HORIZON * env.num_envs
    return steps / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=2048, help="environments as tensors")
    parser.add_argument("--processes", type=int, default=2, help="environments in processes, one each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per environment and round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contexts = torch.randn(CONTEXTS, CONTEXT_DIM)
    envs: dict[str, VecEnv] = {
        f"TensorVecEnv, {arguments.envs}": TensorVecEnv(
            new_discriminator(), contexts, horizon=HORIZON, num_envs=arguments.envs, seed=0
        ),
        f"SubprocVecEnv, {arguments.processes}": SubprocVecEnv([new_env] * arguments.processes),
        f"DummyVecEnv, {arguments.processes}": DummyVecEnv([new_env] * arguments.processes),
    }
    for env in envs.values():
        steps_per_second(env, 0.2)  # warms up
    speeds: dict[str, list[float]] = {name: [] for name in envs}
    for number in range(arguments.rounds):
        for name in sorted(envs, reverse=bool(number % 2)):
            speeds[name].append(steps_per_second(envs[name], arguments.seconds))
    first = next(iter(envs))
    for name, values in speeds.items():
        ratio = statistics.median(own / other for own, other in zip(speeds[first], values, strict=True))
        print(f"{name:22s} {statistics.median(values):12,.0f} steps/s   TensorVecEnv is {ratio:7.1f} x as fast")
    for env in envs.values():
        env.close()


if __name__ == "__main__":
    main()
