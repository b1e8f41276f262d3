"""Training steps per second on the hypergrid, beside torchgfn 2.4.1.

    .venv/bin/python benchmarks/gflownet.py --torchgfn-python /path/to/env/bin/python

Both sample a batch on-policy, compute the detailed balance loss and take one step of Adam, with one trunk of two
hidden layers on one-hot coordinates and a head each for forward policy, backward policy and flow, on one thread.
torchgfn runs in an environment of its own (it needs numpy < 2); the rounds alternate in one run, and the ratio of the
medians is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable


def our_step(dimensions: int, side: int, width: int, batch: int) -> Callable[[], object]:
    """One training step of this package."""
    import torch

    from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
    from baselines.gflownet.generator_config import GeneratorConfig
    from baselines.gflownet.learner import Learner, LearnerConfig
    from baselines.gflownet.toys.hypergrid import Hypergrid

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GeneratorConfig(balance="detailed_balance", stick=0.0, width=width, layers=2)
    generator = StochasticDBGFlowNetGenerator(Hypergrid(dimensions=dimensions, side=side), config)
    learner = Learner(generator, LearnerConfig(final_rate=1.0))
    return lambda: learner.step(generator.sample(batch, exploring=True), 0.0)


def torchgfn_step(dimensions: int, side: int, width: int, batch: int) -> Callable[[], object]:
    """One training step of torchgfn, put together as its tutorials do."""
    import torch
    from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
    from gfn.gflownet import DBGFlowNet
    from gfn.gym import HyperGrid
    from gfn.preprocessors import KHotPreprocessor
    from gfn.samplers import Sampler
    from gfn.utils.modules import MLP

    torch.set_num_threads(1)
    torch.manual_seed(0)
    env = HyperGrid(ndim=dimensions, height=side)
    states = KHotPreprocessor(height=side, ndim=dimensions)
    policy = MLP(side * dimensions, env.n_actions, hidden_dim=width, n_hidden_layers=2)
    backward = MLP(side * dimensions, env.n_actions - 1, hidden_dim=width, trunk=policy.trunk)
    flow = MLP(side * dimensions, 1, hidden_dim=width, trunk=policy.trunk)
    forward = DiscretePolicyEstimator(policy, env.n_actions, preprocessor=states)
    gflownet = DBGFlowNet(
        forward,
        DiscretePolicyEstimator(backward, env.n_actions, preprocessor=states, is_backward=True),
        ScalarEstimator(flow, preprocessor=states),
    )
    sampler = Sampler(forward)
    optimizer = torch.optim.Adam(gflownet.parameters(), lr=1e-3)

    def step() -> None:
        trajectories = sampler.sample_trajectories(env, n=batch, save_logprobs=False)
        loss = gflownet.loss(env, gflownet.to_training_samples(trajectories))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gflownet.parameters(), 10.0)
        optimizer.step()

    return step


def seconds(step: Callable[[], object], count: int) -> float:
    begin = time.process_time()
    for _ in range(count):
        step()
    return time.process_time() - begin


def worker(arguments: argparse.Namespace) -> None:
    """Answers each line (a number of steps) on standard input with the CPU seconds that torchgfn took."""
    step = torchgfn_step(arguments.dimensions, arguments.side, arguments.width, arguments.batch)
    for line in sys.stdin:
        print(json.dumps(seconds(step, int(line))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchgfn-python", help="a Python that has torchgfn 2.4.1")
    parser.add_argument("--dimensions", type=int, default=2)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    if not arguments.torchgfn_python:
        parser.error("name a Python with torchgfn 2.4.1 by --torchgfn-python")
    sizes = {name: getattr(arguments, name) for name in ("dimensions", "side", "width", "batch")}
    flags = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    step = our_step(**sizes)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [arguments.torchgfn_python, __file__, "--worker", *flags]
    taken: dict[str, list[float]] = {"ours": [], "torchgfn": []}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for number in range(arguments.rounds + 1):  # the first warms up
            print(arguments.steps, file=other.stdin, flush=True)
            theirs = json.loads(other.stdout.readline())
            ours = seconds(step, arguments.steps)
            if number:
                taken["torchgfn"].append(theirs)
                taken["ours"].append(ours)
        other.stdin.close()
    rates = {name: arguments.steps / statistics.median(values) for name, values in taken.items()}
    ratios = sorted(theirs / ours for ours, theirs in zip(taken["ours"], taken["torchgfn"], strict=True))
    print(", ".join(f"{name} {value}" for name, value in sizes.items()))
    print(f"steps per CPU second: ours {rates['ours']:.1f}, torchgfn {rates['torchgfn']:.1f}")
    print(f"ratio of medians {rates['ours'] / rates['torchgfn']:.2f} (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
