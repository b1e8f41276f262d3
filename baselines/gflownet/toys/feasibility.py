"""How much of the reward's distribution the noise puts out of reach.

Under sticky noise alpha every allowed child of a state gets at least alpha/n of the mass that comes to its parent (n:
allowed actions), whatever the policy does; and every law that respects this bound can be had. On a tree, stochastic
detailed balance is solvable iff each child holds at least that share of its parent's flow.

Letters: N states, A actions, E ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from baselines.gflownet.toys.exact import (
    StateGraph,
    executed_policy,
    expected_policy,
    l1_distance,
    terminal_distribution,
    tree_log_flows,
    tree_shares,
)

MAX_PROGRAM_ENDS = 5_000
"""With more ends the linear programme of `least_l1` is not solved: it takes minutes."""
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Feasibility:
    """What noise alpha leaves possible.

    Attributes:
        alpha: probability that chance plays.
        feasible: whether R/Z itself can be reached; None where it was not determined.
        limit: largest alpha for which it can be, on a tree; None elsewhere.
        short_states: number of states that have a child with less than its bound, on a tree; None elsewhere.
        short_flow: share of the flow that passes at least one of them, on a tree; None elsewhere.
        least_l1: smallest L1 distance to R/Z that any policy reaches; None where there are too many ends. Half of
            it is the share of the flow that cannot get where it belongs.
        nearest_kl_l1: L1 of the reachable law p with the smallest KL(R/Z || p), on a tree; None elsewhere.
        expected_balance_l1: L1 of the optimum of expected balance, on a tree; None elsewhere.
    """

    alpha: float
    feasible: bool | None
    limit: float | None
    short_states: int | None
    short_flow: float | None
    least_l1: float | None
    nearest_kl_l1: float | None
    expected_balance_l1: float | None


def measure(graph: StateGraph, alpha: float) -> Feasibility:
    """All that can be said of a graph under noise `alpha`."""
    least = least_l1(graph, alpha) if len(graph.ends) <= MAX_PROGRAM_ENDS else None
    if not is_tree(graph):
        return Feasibility(
            alpha=alpha,
            feasible=None if least is None else least < 1e-6,
            limit=None,
            short_states=None,
            short_flow=None,
            least_l1=least,
            nearest_kl_l1=None,
            expected_balance_l1=None,
        )
    shares, target = tree_shares(graph), graph.target
    short = np.any(graph.allowed & (shares < _bound(graph, alpha) - ROUNDING), axis=1)
    nearest = terminal_distribution(graph, nearest_kl(graph, alpha))
    expected = executed_policy(graph, expected_policy(graph, alpha), alpha)
    return Feasibility(
        alpha=alpha,
        feasible=not short.any(),
        limit=float((shares * graph.allowed.sum(axis=1, keepdims=True))[graph.allowed].min()),
        short_states=int(short.sum()),
        short_flow=_flow_through(graph, np.asarray(short)),
        least_l1=least,
        nearest_kl_l1=l1_distance(nearest, target),
        expected_balance_l1=l1_distance(terminal_distribution(graph, expected), target),
    )


def report(found: Feasibility) -> str:
    """What was measured, as lines to read."""
    lines = [f"noise: {found.alpha:g}"]
    if found.feasible is None:
        lines.append("whether R/Z can be reached was not determined: too many ends that are no tree's")
    elif found.feasible:
        lines.append("feasible: some policy reaches R/Z exactly, and stochastic detailed balance has a solution")
    else:
        lines.append("INFEASIBLE: no policy reaches R/Z, and stochastic detailed balance has no solution")
    if found.limit is not None:
        lines.append(f"largest feasible noise: {found.limit:.4f}")
    if found.short_states:
        lines.append(
            f"states with a child below its bound: {found.short_states}, passed by {found.short_flow:.1%} of the flow"
        )
    if found.least_l1 is not None:
        lines.append(
            f"least L1 to R/Z of any policy: {found.least_l1:.4f} ({found.least_l1 / 2:.1%} of the flow is unreachable)"
        )
    if found.nearest_kl_l1 is not None:
        lines.append(f"L1 of the reachable law nearest in KL(R/Z || p): {found.nearest_kl_l1:.4f}")
    if found.expected_balance_l1 is not None:
        lines.append(f"L1 of the optimum of expected balance: {found.expected_balance_l1:.4f}")
    return "\n".join(lines)


def is_tree(graph: StateGraph) -> bool:
    """Whether no state has two parents."""
    children = graph.children[graph.allowed]
    return len(np.unique(children)) == len(children)


def nearest_kl(graph: StateGraph, alpha: float) -> np.ndarray:
    """[N, A] law of the executed action, on a tree, that minimises KL(R/Z || p) under the noise's bound.

    KL(R/Z || p) falls into one term per state, -sum_k share_k log p_k; under p_k >= bound the minimum of each is
    p_k = max(bound, c share_k) with c such that they sum to 1. c is found by raising one child after the other to
    the bound, smallest share first.
    """
    shares, allowed = tree_shares(graph), graph.allowed
    bound = _bound(graph, alpha)
    raised = np.zeros_like(allowed)
    # A state that raises no child in a round is settled, so the rounds are hardly more than the actions.
    while True:
        free = np.where(allowed & ~raised, shares, 0.0).sum(axis=1, keepdims=True)
        left = 1 - np.where(raised, bound, 0.0).sum(axis=1, keepdims=True)
        # Where all children are raised nothing is free, and the 1 only keeps the quotient from dividing by 0.
        scaled = shares * left / np.where(free > 0, free, 1.0)
        more = allowed & ~raised & (scaled < bound)
        if not more.any():
            return np.where(raised, bound, np.where(allowed, scaled, 0.0))
        raised |= more


def least_l1(graph: StateGraph, alpha: float) -> float:
    """Smallest L1 distance to R/Z of a law that sticky noise allows, on any graph, by a linear programme.

    The unknowns are the mass on each step and the excess over R/Z at each end; mass is kept at every state, and each
    step carries at least alpha/n of what comes to its state. L1 is twice the total excess, as both laws sum to 1.
    """
    parents, actions = np.nonzero(graph.allowed)
    num_steps, num_ends = len(parents), len(graph.ends)
    reached = graph.children[parents, actions]
    inner = np.concatenate(graph.levels)
    place = np.full(len(graph.states), -1)
    place[inner] = np.arange(len(inner))
    step = np.arange(num_steps)
    ones = np.ones(num_steps)
    # Mass that leaves a state is the mass that enters it, and 1 at the first one.
    leaving = sparse.csr_matrix((ones, (place[parents], step)), shape=(len(inner), num_steps))
    into = place[reached] >= 0
    entering = sparse.csr_matrix((ones[into], (place[reached[into]], step[into])), shape=leaving.shape)
    source = np.zeros(len(inner))
    source[place[0]] = 1.0
    bound = _bound(graph, alpha)[parents, 0]
    # Bound times what comes to the state, less the step's own mass, must not be above 0.
    floor = sparse.diags(bound) @ leaving[place[parents]] - sparse.identity(num_steps)  # <= 0
    end_place = np.full(len(graph.states), -1)
    end_place[graph.ends] = np.arange(num_ends)
    ending = ~into
    arriving = sparse.csr_matrix(
        (ones[ending], (end_place[reached[ending]], step[ending])), shape=(num_ends, num_steps)
    )
    # What arrives at an end less its excess must not be above R/Z; the least total excess is half of the L1.
    found = optimize.linprog(
        np.concatenate([np.zeros(num_steps), np.ones(num_ends)]),
        A_ub=sparse.bmat([[floor, None], [arriving, -sparse.identity(num_ends)]], format="csr"),
        b_ub=np.concatenate([np.zeros(num_steps), graph.target]),
        A_eq=sparse.hstack([leaving - entering, sparse.csr_matrix((len(inner), num_ends))], format="csr"),
        b_eq=source,
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear programme of the least distance failed: {found.message}")
    return float(2 * found.fun)


def _bound(graph: StateGraph, alpha: float) -> np.ndarray:
    """[N, 1] least share of a child."""
    return alpha / np.maximum(graph.allowed.sum(axis=1, keepdims=True), 1)


def _flow_through(graph: StateGraph, marked: np.ndarray) -> float:
    """Share of a tree's flow that passes a marked state; each path counts once."""
    log_flows = tree_log_flows(graph)
    passed = np.zeros(len(marked), dtype=bool)
    total = 0.0
    for rows in graph.levels:
        # Only states that no marked one lies before, so that each path counts once.
        first = rows[marked[rows] & ~passed[rows]]
        total += float(np.exp(log_flows[first] - graph.log_z).sum())
        inherit = rows[marked[rows] | passed[rows]]
        children = graph.children[inherit]
        passed[children[children >= 0]] = True
    return total
