"""Means over the steps that were taken."""

from __future__ import annotations

import torch


def masked_square(residuals: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[] mean of squared residuals where `mask`."""
    # Mask first, then square: the square of an infinite residual has a nan gradient, which no mask takes away again.
    return masked_mean(torch.where(mask, residuals, 0.0).square(), mask)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[] mean of `values` where `mask`; values elsewhere do not change it."""
    # `where` and not a product with the mask: 0 times infinity is nan.
    return torch.where(mask, values, 0.0).sum() / mask.sum()
