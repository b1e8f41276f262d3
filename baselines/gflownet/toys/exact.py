"""Everything about a small environment by enumeration: no sampling noise.

Letters: N states, A actions, D integers of a state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import logsumexp

from baselines.gflownet.environment import Environment
from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
from preprocessing.errors import UserError

MAX_STATES = 200_000
"""More states than this are not enumerated."""
CHUNK = 8192


@dataclass(frozen=True, eq=False)
class StateGraph:
    """All states that can be reached, those of fewer steps first.

    Attributes:
        states: [N, D] long; row 0 is the first state.
        children: [N, A] row that an executed action leads to; -1 where it is not allowed, or the state an end.
        levels: row numbers of the states that are not ends, one array per number of steps.
        ends: [E] rows of the terminal states.
        log_rewards: [E] float64.
    """

    states: torch.Tensor
    children: np.ndarray
    levels: tuple[np.ndarray, ...]
    ends: np.ndarray
    log_rewards: np.ndarray

    @property
    def allowed(self) -> np.ndarray:
        """[N, A] whether an action is allowed."""
        return self.children >= 0

    @property
    def log_z(self) -> float:
        """Log of the total reward."""
        return float(np.logaddexp.reduce(self.log_rewards))

    @property
    def target(self) -> np.ndarray:
        """[E] R/Z."""
        return np.exp(self.log_rewards - self.log_z)


def enumerate_states(environment: Environment, *, exponent: float = 1.0, floor: float = 0.0) -> StateGraph:
    """Every state of an environment in which equal states have equal numbers of steps.

    Args:
        environment: without a context.
        exponent: of the reward.
        floor: of the reward, before the exponent.

    Raises:
        UserError: there are more than MAX_STATES.
    """
    frontier, parts, links, levels, first = environment.initial(1), [], [], [], 0
    for _ in range(environment.num_steps):
        parts.append(frontier)
        going, allowed = ~environment.ended(frontier), environment.allowed(frontier)
        actions = torch.arange(environment.num_actions).expand(len(frontier), -1)
        reached = environment.step(frontier[:, None].expand(-1, environment.num_actions, -1), actions)  # [n, A, D]
        valid = allowed & going[:, None]
        # Equal states have equal numbers of steps, so a level can be made unique by itself.
        following, rows = torch.unique(reached[valid], dim=0, return_inverse=True)
        children = np.full(valid.shape, -1)
        # Row numbers count all states of the levels before.
        children[valid.numpy()] = rows.numpy() + first + len(frontier)
        links.append(children)
        levels.append(np.flatnonzero(going.numpy()) + first)
        first += len(frontier)
        frontier = following
        if first + len(frontier) > MAX_STATES:
            raise UserError(f"{environment.name} has more than {MAX_STATES} states; it is not enumerated")
    parts.append(frontier)
    links.append(np.full((len(frontier), environment.num_actions), -1))
    states, children = torch.cat(parts), np.concatenate(links)
    ends = np.flatnonzero((children < 0).all(axis=1))
    rewards = environment.log_reward(states[ends]).numpy()
    if floor > 0:
        rewards = np.maximum(rewards, np.log(floor))
    return StateGraph(states, children, tuple(levels), ends, exponent * rewards)


def executed_policy(graph: StateGraph, policy: np.ndarray, alpha: float) -> np.ndarray:
    """[N, A] law of the executed action under sticky noise where the intended one has the law `policy` [N, A]."""
    allowed = graph.allowed
    uniform = allowed / np.maximum(allowed.sum(axis=1, keepdims=True), 1)
    return (1 - alpha) * policy + alpha * uniform


def terminal_distribution(graph: StateGraph, executed: np.ndarray) -> np.ndarray:
    """[E] probability of each end where actions [N, A] are executed with these probabilities."""
    mass = np.zeros(len(graph.states))
    mass[0] = 1.0
    for rows in graph.levels:
        allowed = graph.allowed[rows]
        # add.at and not +=, which would count a child once that several parents of this level lead to.
        np.add.at(mass, graph.children[rows][allowed], (mass[rows, None] * executed[rows])[allowed])
    return mass[graph.ends]


def l1_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Sum of absolute differences of two distributions, in [0, 2]."""
    return float(np.abs(one - other).sum())


def tree_log_flows(graph: StateGraph) -> np.ndarray:
    """[N] log of the total reward below each state of a tree."""
    log_flows = np.full(len(graph.states), -np.inf)
    log_flows[graph.ends] = graph.log_rewards
    # From the ends backwards. A child of -1 picks the last row, which `where` then puts aside.
    for rows in reversed(graph.levels):
        log_flows[rows] = logsumexp(np.where(graph.allowed[rows], log_flows[graph.children[rows]], -np.inf), axis=1)
    return log_flows


def tree_shares(graph: StateGraph) -> np.ndarray:
    """[N, A] share of each child in the flow of its parent, on a tree; 0 for ends."""
    log_flows = tree_log_flows(graph)
    shares = np.zeros(graph.children.shape)
    for rows in graph.levels:
        shares[rows] = np.exp(log_flows[graph.children[rows]] - log_flows[rows, None])
    return np.where(graph.allowed, shares, 0.0)


def balanced_policy(graph: StateGraph, alpha: float) -> np.ndarray:
    """[N, A] the policy of stochastic detailed balance on a tree: (share - alpha/A)/(1 - alpha).

    Summing the condition over the intended actions that may have led to a child gives sum_a pi(a|s) P(s'|s, a) =
    F(s')/F(s). An entry below 0 says that noise alone brings more to the child than its share: no policy balances.
    """
    shares, allowed = tree_shares(graph), graph.allowed
    uniform = allowed / np.maximum(allowed.sum(axis=1, keepdims=True), 1)
    return (shares - alpha * uniform) / (1 - alpha)


def expected_policy(graph: StateGraph, alpha: float) -> np.ndarray:
    """[N, A] the policy of expected balance on a tree: actions by the reward that is to be expected of them."""
    return executed_policy(graph, tree_shares(graph), alpha)


@torch.no_grad()
def learnt_policy(generator: StochasticDBGFlowNetGenerator, graph: StateGraph) -> np.ndarray:
    """[N, A] probabilities of the intended action in every state, without a context."""
    laws = [generator.action_law(states, None) for states in graph.states.split(CHUNK)]
    return np.where(graph.allowed, torch.cat(laws).double().numpy(), 0.0)


@torch.no_grad()
def dynamics_error(generator: StochasticDBGFlowNetGenerator, graph: StateGraph) -> float:
    """Largest difference between a learnt and a true transition probability, over all states and actions."""
    rows = np.concatenate(graph.levels)
    worst = 0.0
    for part in np.array_split(rows, max(1, len(rows) // CHUNK)):
        states = graph.states[part]
        allowed = generator.environment.allowed(states)
        for action in range(generator.environment.num_actions):
            able = allowed[:, action]
            intended = torch.full((int(able.sum()),), action)
            learnt = generator.log_dynamics_law(states[able], intended, None).exp()
            true = generator.noise.log_probabilities(intended, allowed[able]).exp()
            if len(intended):
                worst = max(worst, float((learnt - true).abs().max()))
    return worst
