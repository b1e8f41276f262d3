"""Sequences with a given reward each: toys whose every flow is known."""

from __future__ import annotations

import numpy as np
import torch

from baselines.gflownet.environment import SequenceEnvironment
from preprocessing.seeds import generator


class TableTask(SequenceEnvironment):
    """A reward for every sequence of T tokens.

    Attributes:
        log_rewards: [V^T] float64, the sequences in lexicographic order.
    """

    def __init__(self, name: str, log_rewards: np.ndarray, num_tokens: int, num_steps: int) -> None:
        if len(log_rewards) != num_tokens**num_steps:
            raise ValueError(f"{name}: {len(log_rewards)} rewards where there are {num_tokens**num_steps} sequences")
        super().__init__(name, num_tokens, num_steps)
        self.log_rewards = torch.from_numpy(np.asarray(log_rewards, dtype=np.float64))
        self._places = num_tokens ** torch.arange(num_steps - 1, -1, -1)

    def log_reward(self, states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """[*] looked up."""
        # BOS and padding are no digits; the clamp keeps the row within the table for states that are not ends, whose
        # reward nobody reads.
        rows = (states[..., 1:].clamp(max=self.num_actions - 1) * self._places).sum(dim=-1)
        return self.log_rewards[rows]


def random_tree(*, num_tokens: int, num_steps: int, min_share: float, log_z: float, seed: int) -> TableTask:
    """A tree in which every child holds at least `min_share` of its parent's flow, the rest being random.

    Sticky noise alpha can be balanced exactly iff alpha <= V min_share (`baselines.gflownet.toys.feasibility`).

    Args:
        num_tokens: V.
        num_steps: T.
        min_share: in [0, 1/V].
        log_z: log of the total reward.
        seed: of the random shares.

    Raises:
        ValueError: `min_share` is outside its range.
    """
    if not 0 <= min_share <= 1 / num_tokens:
        raise ValueError(f"min_share must lie in [0, 1/V] = [0, {1 / num_tokens:g}]; got {min_share}")
    random = generator(seed)
    log_flows = np.array([log_z])
    for _ in range(num_steps):
        free = random.dirichlet(np.ones(num_tokens), size=len(log_flows))
        # What is left after every child has its least share is divided at random.
        shares = min_share + (1 - num_tokens * min_share) * free
        log_flows = (log_flows[:, None] + np.log(shares)).ravel()
    return TableTask("tree", log_flows, num_tokens, num_steps)
