"""The hypergrid (Bengio et al. 2021, arXiv:2106.04399): walks from a corner that stop where they like.

A state holds `dimensions` coordinates from 0 to side - 1 and whether the walk has stopped. Actions 0 ... dimensions-1
raise a coordinate, the last one stops. R(x) = .1 + .5 prod 1[|x/(side-1) - .5| > .25] + 2 prod 1[.3 < |.| < .4].
"""

from __future__ import annotations

import torch

from baselines.gflownet.environment import Environment

TOLERANCE = 1e-6
"""A coordinate exactly on a border of the reward's regions is outside."""


class Hypergrid(Environment):
    """Noise plays any of the allowed actions, stopping included."""

    vocabulary = None

    def __init__(
        self, *, dimensions: int, side: int, floor: float = 0.1, wide: float = 0.5, narrow: float = 2.0
    ) -> None:
        self.name = "hypergrid"
        self.dimensions, self.side = dimensions, side
        self.levels = (floor, wide, narrow)
        self.num_actions = self.num_slots = dimensions + 1
        self.num_steps = dimensions * (side - 1) + 1
        self.num_features = dimensions * side
        # rows of identity matrices: looking one up takes a third of the time of one_hot
        self._codes = torch.eye(side, dtype=torch.get_default_dtype())
        self._moves = torch.eye(self.num_actions, dtype=torch.long)
        self._strides = side ** torch.arange(dimensions).flip(0)
        # The last entry says whether the walk has stopped, 0 or 1; a limit of 2 makes stopping possible everywhere.
        self._limits = torch.tensor([side - 1] * dimensions + [2])

    def initial(self, count: int) -> torch.Tensor:
        """[count, dimensions + 1] the corner."""
        return torch.zeros(count, self.dimensions + 1, dtype=torch.long)

    def few_states(self) -> torch.Tensor:
        """[side^dimensions, dimensions + 1] every place, not stopped."""
        places = torch.cartesian_prod(*[torch.arange(self.side)] * self.dimensions).view(-1, self.dimensions)
        return torch.nn.functional.pad(places, (0, 1))

    def row_of(self, states: torch.Tensor) -> torch.Tensor:
        """[*] places counted with the last coordinate fastest."""
        return (states[..., :-1] * self._strides).sum(dim=-1)

    def allowed(self, states: torch.Tensor) -> torch.Tensor:
        """[*, A] coordinates that can still rise, and stopping."""
        return states < self._limits

    def step(self, states: torch.Tensor, executed: torch.Tensor) -> torch.Tensor:
        """[*, dimensions + 1] one entry raised by one."""
        # A walk that has stopped does not move.
        return states + torch.nn.functional.embedding(executed, self._moves) * (states[..., -1:] == 0)

    def ended(self, states: torch.Tensor) -> torch.Tensor:
        """[*] whether the walk has stopped."""
        return states[..., -1] == 1

    def backward_allowed(self, states: torch.Tensor, *, noise: bool) -> torch.Tensor:
        """[*, A, A] slots are executed actions; intended is what the parent allows, or the executed one."""
        stopped = states[..., -1:] == 1
        entered = torch.cat([(states[..., :-1] > 0) & ~stopped, stopped], dim=-1)  # [*, K]
        same = torch.eye(self.num_actions, dtype=torch.bool, device=states.device)
        if not noise:
            return entered[..., None] & same
        # Where a state cannot have been entered by an action, its parent is none (-1 somewhere); `entered` masks it.
        parents = states[..., None, :] - same.long()  # [*, K, D]
        return entered[..., None] & self.allowed(parents)

    def slots(self, executed: torch.Tensor) -> torch.Tensor:
        """[*] the executed action."""
        return executed

    def encode(self, states: torch.Tensor) -> torch.Tensor:
        """[*, dimensions side] one-hot coordinates."""
        return torch.nn.functional.embedding(states[..., :-1], self._codes).flatten(-2)

    def log_reward(self, states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """[*] of the place where the walk stopped."""
        floor, wide, narrow = self.levels
        off = (states[..., :-1].double() / (self.side - 1) - 0.5).abs()
        outer = (off > 0.25 + TOLERANCE).all(dim=-1)
        ring = ((off > 0.3 + TOLERANCE) & (off < 0.4 - TOLERANCE)).all(dim=-1)
        return torch.log(floor + wide * outer.double() + narrow * ring.double())
