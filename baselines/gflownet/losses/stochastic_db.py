"""Stochastic detailed balance (Pan et al. 2023, arXiv:2302.09465, equation 7).

A step is split in two: the policy chooses an intended action a in s, and the environment moves to s'. The backward
policy tells both the former state and what was intended: P_B((s, a)|s'). Without noise it is detailed balance.
"""

from __future__ import annotations

import torch

from baselines.gflownet.losses import detailed_balance


def residuals(
    log_flows: torch.Tensor, log_policy: torch.Tensor, log_dynamics: torch.Tensor, log_backward: torch.Tensor
) -> torch.Tensor:
    """[B, T] log F(s) + log pi(a|s) + log P(s'|s,a) - log F(s') - log P_B((s, a)|s').

    Args:
        log_flows: [B, T + 1].
        log_policy: [B, T] of the intended actions.
        log_dynamics: [B, T] of the transitions that came; no gradient goes through it.
        log_backward: [B, T].
    """
    # Detached: the dynamics are to say what happens. With a gradient from here they would learn to say what balances.
    return detailed_balance.residuals(log_flows, log_policy + log_dynamics.detach(), log_backward)


def loss(
    log_flows: torch.Tensor,
    log_policy: torch.Tensor,
    log_dynamics: torch.Tensor,
    log_backward: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """[] mean squared residual over the steps that were taken."""
    return detailed_balance.loss(log_flows, log_policy + log_dynamics.detach(), log_backward, mask)
