"""Monte-Carlo search: what a step is worth, by continuing the sequence in many ways and asking the discriminator.

The value of step t is the mean reward over N continuations of the values up to t; the last step's is the reward of the
sequence itself. The reward is the discriminator's logit: for the best discriminator log p_data - log p_generator, so
that the policy gradient is that of minus the Kullback-Leibler divergence of the generator from the data.

All continuations of all steps run side by side: a sequence's state is forked after each of its values.

Letters: B sequences, T steps, N rollouts, C context inputs, R columns.
"""

from __future__ import annotations

import copy

import torch

from baselines.seqgan.discriminator import Discriminator
from baselines.seqgan.generator import Generator, Sampler

_SCORED = 2048
"""Sequences that the discriminator reads at once, for the memory's sake."""


class RolloutPolicy:
    """A generator that follows another one: a hard copy at first, then an exponential moving average.

    It lives where the generator lives.
    """

    def __init__(self, generator: Generator) -> None:
        # A hard copy and not a second random network: a random policy would value every step by noise at first.
        self.generator = copy.deepcopy(generator).requires_grad_(False)

    @torch.no_grad()
    def copy(self, generator: Generator) -> None:
        """Take the weights of the generator."""
        self.generator.load_state_dict(generator.state_dict())

    @torch.no_grad()
    def follow(self, generator: Generator, *, keep: float) -> None:
        """Move to keep * own + (1 - keep) * generator's weights."""
        for own, other in zip(self.generator.parameters(), generator.parameters(), strict=True):
            own.lerp_(other, 1 - keep)


@torch.no_grad()
def roll_out(sampler: Sampler, values: torch.Tensor, context: torch.Tensor, *, num_rollouts: int) -> torch.Tensor:
    """[T - 1, N, B, T] sequences: at [t - 1, n, b] the first t values of sequence b, and its n-th continuation.

    Args:
        sampler: of the policy that continues.
        values: [B, T].
        context: [B, C].
        num_rollouts: N.
    """
    batch, steps = values.shape
    block = num_rollouts * batch
    # The first columns are the sequences as given; each later block of columns continues them from one step on. Side by
    # side, T matrix products replace the N T^2 / 2 small ones of a loop over rollouts.
    columns = batch + (steps - 1) * block  # the sequences themselves, then a block for each number of given values
    state = sampler.start(context, columns=columns)
    rolled = values.new_empty(steps, columns)
    rolled[:, :batch] = values.T
    active = batch
    for step in range(steps):
        mean, scale = sampler.step(state, active)
        # The continuations are sampled: with means all N of a sequence would be alike. The given values are replayed,
        # so the first columns need no noise.
        noise = torch.randn(active - batch, dtype=values.dtype, device=values.device)
        rolled[step, batch:active] = torch.addcmul(mean[batch:], scale[batch:], noise)
        sampler.observe(state, rolled[step, :active])
        # Fork after the value of this step is known: the new block shares the state that has read the values up to it.
        # After the last step nothing is left to continue.
        if step < steps - 1:
            fork = slice(active, active + block)
            state.fork(slice(0, batch), fork, num_rollouts)
            rolled[: step + 1, fork] = rolled[: step + 1, :batch].repeat(1, num_rollouts)
            active += block
    # [T, R - B] to [(T - 1) N B, T] to [T - 1, N, B, T]: blocks were opened in order of time, rollout by rollout.
    return rolled[:, batch:].T.reshape(steps - 1, num_rollouts, batch, steps)


@torch.no_grad()
def action_values(
    discriminator: Discriminator, sampler: Sampler, values: torch.Tensor, context: torch.Tensor, *, num_rollouts: int
) -> torch.Tensor:
    """[B, T] value of each step of the sequences [B, T]: mean logit over the continuations."""
    batch, steps = values.shape
    encoded = discriminator.encode(context)  # [B, M]
    # [(T - 1) N B, T]: row r continues sequence r modulo B, as B is the innermost of the three.
    rolled = roll_out(sampler, values, context, num_rollouts=num_rollouts).reshape(-1, steps)
    rows = torch.arange(len(rolled), device=values.device) % batch
    logits = [
        discriminator.logits(part, encoded[part_rows])
        for part, part_rows in zip(rolled.split(_SCORED), rows.split(_SCORED), strict=True)
    ]
    unfinished = torch.cat(logits).view(steps - 1, num_rollouts, batch).mean(dim=1)  # [T - 1, B]
    # The last value leaves nothing to sample: its worth is the logit of the sequence itself.
    return torch.cat([unfinished, discriminator.logits(values, encoded)[None]]).T


def policy_gradient_loss(log_probs: torch.Tensor, step_values: torch.Tensor) -> torch.Tensor:
    """A number whose gradient is minus that of the expected reward (REINFORCE, Williams 1992).

    The baseline of a step is the mean value of that step over the other sequences of the batch, which does not
    depend on the sequence's own values and leaves the gradient's expectation as it is.

    Args:
        log_probs: [B, T] log density of each value, B at least 2.
        step_values: [B, T].
    """
    # The baseline leaves the sequence itself out, so it does not depend on the values that it is set against. One that
    # included it would shrink the gradient by a factor (B - 1)/B.
    others = (step_values.sum(dim=0) - step_values) / (len(step_values) - 1)
    # The values are weights and no path for gradients: the generator is to learn through the density alone.
    return -((step_values - others).detach() * log_probs).sum(dim=1).mean()
