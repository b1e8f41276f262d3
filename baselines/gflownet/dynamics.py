"""The noise of the environment, the network that learns it, and the transitions that it learns from.

Sticky noise: with probability alpha the environment executes a uniformly drawn one of the n allowed actions in place
of the intended one, so P(k|s, a) = (1 - alpha) 1[k = a] + alpha/n.

Letters: * any batch shape, A actions, D integers of a state, N transitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from baselines.gflownet.environment import Environment

FIRST_ROOM = 1024
"""Transitions that a buffer has room for at first; the room doubles."""


@dataclass(frozen=True)
class StickyNoise:
    """The true noise.

    Attributes:
        alpha: probability in [0, 1) that chance plays.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"stick must be in [0, 1); got {self.alpha}")

    def execute(self, intended: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """[*] executed actions for intended ones [*], among those allowed [*, A]."""
        # Uniform over the allowed actions, the intended one included: that is the alpha/n of the law.
        other = torch.multinomial(allowed.flatten(0, -2).float(), 1).view(intended.shape)
        return torch.where(torch.rand(intended.shape, device=intended.device) < self.alpha, other, intended)

    def log_probabilities(self, intended: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """[*, A] log probability of each executed action; -inf where it cannot be."""
        uniform = allowed / allowed.sum(dim=-1, keepdim=True)
        same = torch.nn.functional.one_hot(intended, allowed.shape[-1])
        return ((1 - self.alpha) * same + self.alpha * uniform).to(torch.get_default_dtype()).log()

    def executed_policy(self, policy: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """[*, A] law of the executed action where the intended one has the law `policy`."""
        return (1 - self.alpha) * policy + self.alpha * allowed / allowed.sum(dim=-1, keepdim=True)


class ForwardDynamics(torch.nn.Module):
    """P_phi(k|s, a): log probabilities of the executed action, learnt by maximum likelihood."""

    def __init__(self, environment: Environment, width: int, thought_width: int = 0) -> None:
        super().__init__()
        self.environment = environment
        inputs = environment.num_features + environment.num_actions + thought_width
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(inputs, width), torch.nn.GELU(), torch.nn.Linear(width, environment.num_actions)
        )
        # the network corrects a guess that an intention mostly comes true
        self.persistence = torch.nn.Parameter(torch.tensor(2.0))

    def forward(
        self, states: torch.Tensor, intended: torch.Tensor, thought: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[*, A] log probabilities.

        Args:
            states: [*, D].
            intended: [*].
            thought: [*, W] encoded context; no gradient goes into its encoder.
        """
        same = torch.nn.functional.one_hot(intended, self.environment.num_actions)
        dtype = self.persistence.dtype
        features = [self.environment.encode(states).to(dtype), same.to(dtype)]
        if thought is not None:
            # The encoder learns from the balance alone; here it is an input like others.
            features.append(thought.detach())
        logits = self.layers(torch.cat(features, dim=-1)) + self.persistence * same
        # Forbidden actions leave before the softmax, so that those that can be executed sum to 1.
        return logits.masked_fill(~self.environment.allowed(states), -torch.inf).log_softmax(dim=-1)


class ReplayBuffer:
    """The latest transitions: a ring of rows (state, intended, executed, and the context where there is one).

    Attributes:
        capacity: most rows; the oldest are overwritten.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the buffer's capacity must be at least 1; got {capacity}")
        self.capacity = capacity
        self._columns: list[torch.Tensor] = []
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(self, *columns: torch.Tensor) -> None:
        """Append N rows, given as tensors of N rows each."""
        count = len(columns[0])
        # Only the latest fit; the others would be overwritten within this very call, in an order that is not defined.
        if count > self.capacity:
            columns, count = tuple(column[-self.capacity :] for column in columns), self.capacity
        needed = min(self._added + count, self.capacity)
        if not self._columns:
            self._columns = [column.new_empty(min(FIRST_ROOM, self.capacity), *column.shape[1:]) for column in columns]
        # Room grows by doubling: a capacity of a million rows would else be paid for by a training of a thousand.
        while (room := len(self._columns[0])) < needed:
            larger = min(2 * room, self.capacity)
            self._columns = [torch.cat([c, c.new_empty(larger - room, *c.shape[1:])]) for c in self._columns]
        # The ring: row numbers wrap around, and the oldest rows are the next to be written over.
        rows = (self._added + torch.arange(count)) % self.capacity
        for kept, column in zip(self._columns, columns, strict=True):
            kept[rows] = column
        self._added += count

    def sample(self, count: int) -> list[torch.Tensor]:
        """`count` rows, drawn with replacement, column by column."""
        rows = torch.randint(len(self), (count,))
        return [column[rows] for column in self._columns]

    def state(self) -> dict[str, torch.Tensor]:
        """As tensors for a checkpoint."""
        kept = {str(number): column[: len(self)] for number, column in enumerate(self._columns)}
        return kept | {"added": torch.tensor(self._added)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        self._added = int(state["added"])
        self._columns = [state[str(number)].clone() for number in range(len(state) - 1)]
