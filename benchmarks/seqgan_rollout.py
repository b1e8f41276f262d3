"""Monte-Carlo rollouts of SeqGAN: all side by side, against one value at a time.

    .venv/bin/python benchmarks/seqgan_rollout.py
    .venv/bin/python benchmarks/seqgan_rollout.py --steps 20 --rollouts 16 --batch 64 --rounds 7

Three ways to continue every unfinished sequence of a batch, with the same networks and the same numbers of sequences:

    batched     `baselines.seqgan.rollouts.roll_out`: one state per value, forked, one matrix product per step
    replayed    as the published program does: for each rollout and each number of given values, read the given values
                one by one, then sample the others one by one
    forked      the same loops, but the state after the given values is computed once and kept

`sequence by sequence` is `replayed` for one sequence of the batch at a time, timed on a few and multiplied. After a
round that warms up, the ways are timed in alternation; a ratio is the median over the rounds of a way's seconds over
those of `batched` in the same round. CPU seconds are printed too: they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from baselines.seqgan.discriminator import Discriminator
from baselines.seqgan.generator import Generator, Sampler
from baselines.seqgan.rollouts import action_values, roll_out
from baselines.seqgan.settings import GeneratorSettings

SOME = 2
"""Sequences that stand for all where they are taken one at a time."""
State = tuple[torch.Tensor, torch.Tensor]


class StepByStep:
    """The generator's own modules, one value at a time."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def law(self, value: torch.Tensor, total: torch.Tensor, state: State) -> tuple[torch.Tensor, torch.Tensor, State]:
        inputs = torch.stack([value, total], dim=1)[:, None]  # [B, 1, 2]
        outputs, state = self.generator.lstm(inputs, state)
        mean, raw_scale = self.generator.law(torch.cat([outputs, inputs], dim=2))[:, 0].unbind(1)
        return *self.generator.law_of(mean, raw_scale), state

    def begin(self, batch: int) -> State:
        zeros = torch.zeros(1, batch, self.generator.hidden)
        return zeros, zeros

    def proceed(self, value: torch.Tensor, total: torch.Tensor, state: State, steps: int) -> torch.Tensor:
        drawn = []
        for _ in range(steps):
            mean, scale, state = self.law(value, total, state)
            value = torch.normal(mean, scale)
            total = total + value
            drawn.append(value)
        return torch.stack(drawn, dim=1)


def replayed(walker: StepByStep, values: torch.Tensor, num_rollouts: int) -> torch.Tensor:
    batch, steps = values.shape
    rolled = torch.empty(steps - 1, num_rollouts, batch, steps)
    for rollout in range(num_rollouts):
        for given in range(1, steps):
            state, value, total = walker.begin(batch), torch.zeros(batch), torch.zeros(batch)
            for step in range(given):
                _, _, state = walker.law(value, total, state)
                value = values[:, step]
                total = total + value
            rolled[given - 1, rollout, :, :given] = values[:, :given]
            rolled[given - 1, rollout, :, given:] = walker.proceed(value, total, state, steps - given)
    return rolled


def forked(walker: StepByStep, values: torch.Tensor, num_rollouts: int) -> torch.Tensor:
    batch, steps = values.shape
    rolled = torch.empty(steps - 1, num_rollouts, batch, steps)
    state, value, total = walker.begin(batch), torch.zeros(batch), torch.zeros(batch)
    for given in range(1, steps):
        _, _, state = walker.law(value, total, state)
        value = values[:, given - 1]
        total = total + value
        for rollout in range(num_rollouts):
            rolled[given - 1, rollout, :, :given] = values[:, :given]
            rolled[given - 1, rollout, :, given:] = walker.proceed(value, total, state, steps - given)
    return rolled


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def check(rolled: torch.Tensor, values: torch.Tensor, generator: Generator) -> None:
    """The given values are kept, and what follows is as wide as the generator says."""
    steps = values.shape[1]
    mean, scale = generator(rolled.reshape(-1, steps), torch.zeros(rolled[..., 0].numel(), 0))
    noise = ((rolled.reshape(-1, steps) - mean) / scale).view_as(rolled)
    drawn = torch.cat([noise[given - 1, :, :, given:].flatten() for given in range(1, steps)])
    assert all(torch.equal(rolled[n - 1, 0, :, :n], values[:, :n]) for n in range(1, steps))
    assert abs(drawn.mean()) < 5 / len(drawn) ** 0.5
    assert abs(drawn.std() - 1) < 5 / (2 * len(drawn)) ** 0.5


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    generator = Generator(GeneratorSettings(), context_size=0)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.2)
    discriminator = Discriminator(num_steps=arguments.steps, context_size=0, dropout_keep=0.75).eval()
    context = torch.zeros(arguments.batch, 0)
    sampler, walker = Sampler(generator), StepByStep(generator)
    values = sampler.sample(context, torch.randn(arguments.batch, 1, arguments.steps))[:, 0]
    number = arguments.rollouts
    ways: dict[str, tuple[Callable[[], object], float]] = {
        "batched": (lambda: roll_out(sampler, values, context, num_rollouts=number), 1),
        "forked": (lambda: forked(walker, values, number), 1),
        "replayed": (lambda: replayed(walker, values, number), 1),
        "sequence by sequence": (
            lambda: [replayed(walker, values[row : row + 1], number) for row in range(SOME)],
            arguments.batch / SOME,
        ),
    }
    for rolled in (roll_out(sampler, values, context, num_rollouts=number), replayed(walker, values, number)):
        check(rolled, values, generator)
    check(forked(walker, values, number), values, generator)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, (work, times) in ways.items():
            wall, cpu = timed(work)
            seconds[name].append((wall * times, cpu * times))
    print(
        f"T {arguments.steps}, N {number}, batch {arguments.batch}: "
        f"{(arguments.steps - 1) * number * arguments.batch} continuations, {torch.get_num_threads()} threads"
    )
    for name, rounds in seconds.items():
        wall = statistics.median(one / own for (one, _), (own, _) in zip(rounds, seconds["batched"], strict=True))
        cpu = statistics.median(one / own for (_, one), (_, own) in zip(rounds, seconds["batched"], strict=True))
        least = [1e3 * min(part[kind] for part in rounds) for kind in (0, 1)]
        print(f"{name:22}{least[0]:10.1f} ms wall{least[1]:10.1f} ms CPU{wall:8.1f} x wall{cpu:8.1f} x CPU")
    scored = [
        timed(lambda: action_values(discriminator, sampler, values, context, num_rollouts=number))
        for _ in range(arguments.rounds)
    ]
    print(f"batched and scored by the discriminator: {1e3 * min(scored)[0]:.1f} ms wall")


if __name__ == "__main__":
    main()
