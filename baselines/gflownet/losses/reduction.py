"""Means over the steps that were taken."""

from __future__ import annotations

import torch


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[] mean of `values` where `mask`; values elsewhere, infinite or not, change neither it nor its gradient."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()
