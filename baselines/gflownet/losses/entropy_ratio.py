"""The KL and entropy-ratio weighting of a balance loss: another path to the same optimum.

A residual d = log(forward/backward) is measured by a mixture of its square and of g(d) = d - 1 + exp(-d), which is 0
at d = 0 alone and whose mean is a generalised KL divergence of the flows; each step weighs by how undecided the policy
is there; and actions are drawn from a flattened policy. With gamma = 1 and kl_share = 0 nothing is changed at all.

Letters: B trajectories, T steps, A actions.
"""

from __future__ import annotations

import math

import torch

from baselines.gflownet.losses.reduction import masked_mean

MAX_EXPONENT = 10.0
"""exp(-d) is followed up to here and along its tangent beyond."""
WEIGHT_BOUNDS = (0.25, 4.0)
QUANTILES = (0.9, 0.1)
"""Of the normalised entropy: high and low."""


def kl_penalty(residuals: torch.Tensor) -> torch.Tensor:
    """Penalty d - 1 + exp(-d) >= 0 of each residual d, along its tangent below d = -MAX_EXPONENT."""
    inside = residuals.clamp(min=-MAX_EXPONENT)
    # A tangent and no mere cut of the exponent: cut, the rest d - 1 has the slope +1, which drives d further from 0.
    slope = 1 - math.exp(MAX_EXPONENT)
    return inside - 1 + torch.exp(-inside) + slope * (residuals - inside)


def mixed_penalty(residuals: torch.Tensor, kl_share: float) -> torch.Tensor:
    """(1 - kl_share) d^2 + 2 kl_share g(d): both have the curvature 2 at 0, and kl_share = 0 is the square itself."""
    # The square itself, so that no share at all gives the plain loss to the last bit.
    if kl_share == 0:
        return residuals.square()
    return (1 - kl_share) * residuals.square() + 2 * kl_share * kl_penalty(residuals)


def normalised_entropy(log_policy: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """[B, T] entropy over the log of the number of allowed actions, in [0, 1]; 0 where only one is allowed.

    Args:
        log_policy: [B, T, A] log probabilities.
        allowed: [B, T, A] bool.
    """
    # Forbidden actions have the log probability -inf, and -inf times 0 is nan.
    plain = log_policy.masked_fill(~allowed, 0.0)
    entropy = -(torch.where(allowed, plain.exp() * plain, 0.0)).sum(dim=-1)
    # One allowed action has the entropy 0, and log 1 = 0: at least 2 keeps the quotient at 0.
    return entropy / allowed.sum(dim=-1).clamp(min=2).log()


def step_weights(entropy: torch.Tensor, mask: torch.Tensor, gamma: float) -> torch.Tensor:
    """[B, T] h/(gamma h + (1 - gamma) mean h), brought to mean 1 over the steps taken, then cut to WEIGHT_BOUNDS.

    All are 1 where gamma is 1 or where no step leaves a choice. No gradient goes through them.
    """
    # The weights say where to look, not what to learn: with a gradient the policy could lower its loss by its entropy.
    entropy = entropy.detach()
    mean = masked_mean(entropy, mask)
    if gamma == 1 or mean == 0:
        return torch.ones_like(entropy)
    raw = entropy / (gamma * entropy + (1 - gamma) * mean)
    # Mean 1 first, so that the weighting does not change the size of the step; then the cut, against single steps that
    # would outweigh all others.
    return (raw / masked_mean(raw, mask)).clamp(*WEIGHT_BOUNDS)


def entropy_ratio(high: float, low: float, gamma: float) -> float:
    """H_hi/(gamma H_hi + (1 - gamma) H_lo), in [1, 1/gamma]: by how much the policy is flattened; 1 where H_hi is 0."""
    return 1.0 if high <= 0 else high / (gamma * high + (1 - gamma) * low)


def updated_quantiles(former: torch.Tensor, entropy: torch.Tensor, mask: torch.Tensor, decay: float) -> torch.Tensor:
    """[2] exponential moving averages of the QUANTILES of the entropies of the steps taken; nan before the first."""
    levels = torch.tensor(QUANTILES, dtype=entropy.dtype, device=entropy.device)
    found = torch.quantile(entropy.detach()[mask], levels).to(former.dtype)
    # nan stands for no batch so far; an average that began at 0 would need hundreds of batches to get away from it.
    return torch.where(former.isnan(), found, decay * former + (1 - decay) * found)
