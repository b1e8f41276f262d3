"""Trajectory balance (Malkin et al. 2022, arXiv:2201.13259, equation 14)."""

from __future__ import annotations

import torch


def residuals(
    log_z: torch.Tensor,
    log_reward: torch.Tensor,
    log_forward: torch.Tensor,
    log_backward: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """[B] log Z + sum log P_F - log R - sum log P_B.

    Args:
        log_z: [] or [B].
        log_reward: [B] of the terminal states.
        log_forward: [B, T]; with noise, policy and dynamics together.
        log_backward: [B, T].
        mask: [B, T].
    """
    # Masked before the sum: after an early end the logits mean nothing.
    return log_z + torch.where(mask, log_forward - log_backward, 0.0).sum(dim=1) - log_reward


def loss(
    log_z: torch.Tensor,
    log_reward: torch.Tensor,
    log_forward: torch.Tensor,
    log_backward: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """[] mean squared residual over the trajectories."""
    return residuals(log_z, log_reward, log_forward, log_backward, mask).square().mean()
