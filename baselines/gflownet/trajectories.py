"""Trajectories that were walked, and what they were walked for.

Letters: B trajectories, T steps, D integers of a state, C context positions, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch


@dataclass(frozen=True, eq=False)
class Trajectories:
    """B trajectories of at most T steps; those that end earlier stay in their end.

    Attributes:
        states: [B, T + 1, D] long.
        intended: [B, T] long, actions that the policy chose.
        executed: [B, T] long, actions that the environment took.
        mask: [B, T] bool, the steps that were taken.
        thought: contexts [B, C] (tokens) or [B, C, F] (vectors), or None; fewer than B where each is shared by as many
            consecutive trajectories.
        condition: [B, *] what the reward depends on beside the end, or None.
    """

    states: torch.Tensor
    intended: torch.Tensor
    executed: torch.Tensor
    mask: torch.Tensor
    thought: torch.Tensor | None = None
    condition: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    @property
    def ends(self) -> torch.Tensor:
        """[B, D] terminal states."""
        return self.states[:, -1]

    def joined(self, other: Self) -> Self:
        """These and others, with as many steps and the same kind of context."""
        parts = {}
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            parts[field.name] = None if ours is None else torch.cat([ours, theirs])
        return type(self)(**parts)
