"""Means over the steps that were taken."""

from __future__ import annotations

import torch


def masked_square(residuals: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[] mean of squared residuals where `mask`.

    The mask comes before the square, whose gradient would be nan where a residual is infinite.
    """
    return masked_mean(torch.where(mask, residuals, 0.0).square(), mask)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[] mean of `values` where `mask`; values elsewhere do not change it."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()
