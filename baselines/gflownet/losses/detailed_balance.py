"""Detailed balance (Bengio et al. 2021, GFlowNet Foundations, arXiv:2111.09266, section 3.2)."""

from __future__ import annotations

import torch

from baselines.gflownet.losses.reduction import masked_square


def residuals(log_flows: torch.Tensor, log_forward: torch.Tensor, log_backward: torch.Tensor) -> torch.Tensor:
    """[B, T] log F(s) + log P_F(s'|s) - log F(s') - log P_B(s|s')."""
    return log_flows[:, :-1] + log_forward - log_flows[:, 1:] - log_backward


def loss(
    log_flows: torch.Tensor, log_forward: torch.Tensor, log_backward: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """[] mean squared residual over the steps that were taken."""
    return masked_square(residuals(log_flows, log_forward, log_backward), mask)
