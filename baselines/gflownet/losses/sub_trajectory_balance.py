"""Sub-trajectory balance (Madan et al. 2022, arXiv:2209.12782, equation 10).

Every piece of a trajectory, from state i to state j > i, has a residual; a piece of n steps weighs decay^(n - 1),
normalised within its trajectory, so that long and short trajectories count alike.
"""

from __future__ import annotations

import torch


def residuals(
    log_flows: torch.Tensor, log_forward: torch.Tensor, log_backward: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """[B, T + 1, T + 1] log F(s_i) + sum log P_F - log F(s_j) - sum log P_B at [:, i, j]; meaningful for i < j.

    With S_t = log F(s_t) - sum of (log P_F - log P_B) over the steps before t, it is S_i - S_j.
    """
    steps = torch.where(mask, log_forward - log_backward, 0.0).cumsum(dim=1)
    # With every state's level known, all pieces are differences of two levels, and no loop over pieces is needed.
    level = log_flows - torch.nn.functional.pad(steps, (1, 0))  # [B, T + 1]
    # [B, T + 1, 1] minus [B, 1, T + 1].
    return level[:, :, None] - level[:, None, :]


def piece_weights(mask: torch.Tensor, decay: float) -> torch.Tensor:
    """[B, T + 1, T + 1] weight of each piece; those of a trajectory sum to 1."""
    num_states = mask.shape[1] + 1
    number = torch.arange(num_states, device=mask.device)
    steps = number[None, :] - number[:, None]  # [T + 1, T + 1] j - i
    # A piece must not reach beyond the end of its own trajectory.
    within = (steps > 0) & (number <= mask.sum(dim=1)[:, None, None])  # [B, T + 1, T + 1]
    weights = torch.where(within, decay ** (steps - 1).clamp(min=0).to(torch.get_default_dtype()), 0.0)
    return weights / weights.sum(dim=(1, 2), keepdim=True)


def loss(
    log_flows: torch.Tensor,
    log_forward: torch.Tensor,
    log_backward: torch.Tensor,
    mask: torch.Tensor,
    *,
    decay: float,
) -> torch.Tensor:
    """[] weighted mean squared residual over the pieces, mean over the trajectories; `decay` in (0, 1]."""
    weights = piece_weights(mask, decay)
    squared = residuals(log_flows, log_forward, log_backward, mask).square()
    # Pieces of no weight may hold anything, infinities too, and 0 times infinity is nan.
    return torch.where(weights > 0, weights * squared, 0.0).sum(dim=(1, 2)).mean()
