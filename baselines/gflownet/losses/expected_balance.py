"""Expected balance (EFlowNet: Brunswic et al. / Jiralerspong et al. 2023, arXiv:2310.02779), for trees.

    F(s) pi(a|s) = F(s, a),    F(s, a) = E_{s' ~ P(.|s, a)} F(s'),    F(x) = R(x) at the end.

It has a solution whatever the noise. Summed over a: F(s) = sum_a E F(s'). With sticky noise, which plays another of
the A actions with probability alpha, sum_a P(s'|s, a) = 1 for every child, so F(s) is the plain sum of the children's
flows and F(s0) = Z = sum of R. The policy is

    pi(a|s) = (1 - alpha) F(s a)/F(s) + alpha/A:

actions in proportion to the reward that is to be expected of them. The noise then acts a second time, and a child is
reached with probability (1 - alpha)^2 F(s')/F(s) + (1 - (1 - alpha)^2)/A. So the terminal distribution is NOT R/Z
unless alpha = 0: this is the price of a condition that always holds. `baselines.gflownet.toys.exact` computes it.
"""

from __future__ import annotations

import torch

from baselines.gflownet.losses.reduction import masked_square


def residuals(
    log_flows: torch.Tensor, log_policy: torch.Tensor, log_dynamics: torch.Tensor, log_child_flows: torch.Tensor
) -> torch.Tensor:
    """[B, T] log F(s) + log pi(a|s) - log sum_k P(k|s, a) F(child k of s).

    Args:
        log_flows: [B, T + 1].
        log_policy: [B, T] of the intended actions.
        log_dynamics: [B, T, A] log probability that action k is executed where a was intended.
        log_child_flows: [B, T, A] log F of the state that executing k leads to; log R where that is an end.
    """
    # The expectation over the children, taken in logs. Detached, as the dynamics must not learn to say what balances.
    expected = torch.logsumexp(log_dynamics.detach() + log_child_flows, dim=-1)
    return log_flows[:, :-1] + log_policy - expected


def loss(
    log_flows: torch.Tensor,
    log_policy: torch.Tensor,
    log_dynamics: torch.Tensor,
    log_child_flows: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """[] mean squared residual over the steps that were taken."""
    return masked_square(residuals(log_flows, log_policy, log_dynamics, log_child_flows), mask)
