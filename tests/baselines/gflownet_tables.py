"""A network that is a table, so that known flows and policies can be put into a generator."""

from __future__ import annotations

import numpy as np
import torch

from baselines.gflownet.networks import Flows
from baselines.gflownet.toys.exact import StateGraph


class TableNetwork(torch.nn.Module):
    """Heads looked up by state.

    Attributes:
        policy: [N, A] log probabilities; backward: [N, K A]; flow: [N] log flows.
    """

    def __init__(self, states: torch.Tensor, policy, backward, flow) -> None:
        super().__init__()
        self.rows = {tuple(state): row for row, state in enumerate(states.tolist())}
        self.policy, self.backward, self.flow = (
            torch.nn.Parameter(torch.as_tensor(np.asarray(table)).to(torch.get_default_dtype()))
            for table in (policy, backward, flow)
        )

    def forward(self, states: torch.Tensor, thought=None) -> Flows:
        rows = torch.tensor([self.rows[tuple(state)] for state in states.reshape(-1, states.shape[-1]).tolist()])
        rows = rows.view(states.shape[:-1])
        return Flows(self.policy[rows], self.backward[rows], self.flow[rows])

    along = forward

    def policy_logits(self, states: torch.Tensor, thought=None) -> torch.Tensor:
        return self(states, thought).policy_logits


def tree_tables(graph: StateGraph, policy: np.ndarray, log_flows: np.ndarray, alpha: float) -> TableNetwork:
    """The network of a tree's flows [N], an intended policy [N, A] and the backward policy that goes with them.

    P_B(a|s') = pi(a|s) P(s'|s, a) share^-1, computed child by child from the definition.
    """
    num_actions = graph.children.shape[1]
    backward = np.full(graph.children.shape, 1 / num_actions)
    for parent, action in zip(*np.nonzero(graph.allowed), strict=True):
        reach = np.array([(1 - alpha) * (a == action) + alpha / num_actions for a in range(num_actions)])
        joint = policy[parent] * reach
        backward[graph.children[parent, action]] = joint / joint.sum()
    with np.errstate(divide="ignore"):
        return TableNetwork(graph.states, np.log(np.maximum(policy, 1e-300)), np.log(backward), log_flows)
