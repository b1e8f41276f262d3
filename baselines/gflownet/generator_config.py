"""What a generator is built with: the noise, the reward, and the condition that is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from baselines.gflownet.dynamics import StickyNoise
from baselines.gflownet.networks import NetworkConfig

Balance = Literal[
    "stochastic_db", "expected_balance", "detailed_balance", "trajectory_balance", "sub_trajectory_balance"
]
BALANCES = (
    "stochastic_db",
    "expected_balance",
    "detailed_balance",
    "trajectory_balance",
    "sub_trajectory_balance",
)
STEPWISE = BALANCES[:3]
"""Balances with one residual per step."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(NetworkConfig):
    """The environment's noise, the reward, and the condition that is learnt."""

    balance: Balance = "stochastic_db"
    """The condition. detailed_balance is blind to noise: it takes the executed action for the intended one. The
    trajectory balances hold the dynamics, as stochastic_db does."""
    stick: float = 0.25
    """Probability in [0, 1) that chance executes one of the allowed actions in place of the intended one."""
    learn_dynamics: bool = True
    """Whether P(s'|s, a) is learnt; false: the true one is used. Without noise there is nothing to learn."""
    reward_exponent: float = 1.0
    """The reward is raised to this power."""
    reward_floor: float = 0.0
    """Rewards below this count as this (before the exponent), so that no log R is too low."""
    explicit_z: bool = False
    """Whether log F(s0) is a parameter (or, with a context, a linear read-out of it) in place of the flow head."""
    forward_looking: bool = False
    """Whether the flow head learns log F(s) less the part of log R that is settled in s (Pan et al. 2023,
    arXiv:2302.01687), for rewards that are sums over steps."""
    piece_decay: float = 0.9
    """Weight of a piece of a trajectory per further step, in (0, 1], in sub_trajectory_balance."""
    explore: float = 0.0
    """Share of uniformly drawn actions mixed into the policy while training, in [0, 1)."""
    gamma: float = 1.0
    """How strongly states are weighed by the entropy of the policy, in (0, 1]; 1: all alike. For the KL generator."""
    kl_share: float = 0.0
    """Share of the KL penalty in the loss, in [0, 1]. Read by the KL generator."""
    quantile_decay: float = 0.99
    """Decay per step of the moving entropy quantiles, in [0, 1). Read by the KL generator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(BALANCES)}; got '{self.balance}'")
        StickyNoise(self.stick)
        for name, low, high in (("explore", 0, 1), ("quantile_decay", 0, 1)):
            if not low <= getattr(self, name) < high:
                raise ValueError(f"{name} must be in [0, 1); got {getattr(self, name)}")
        for name in ("piece_decay", "gamma"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1]; got {getattr(self, name)}")
        if not 0 <= self.kl_share <= 1:
            raise ValueError(f"kl_share must be in [0, 1]; got {self.kl_share}")
        if not self.reward_exponent > 0 or not self.reward_floor >= 0:
            raise ValueError(
                "reward_exponent must be above 0 and reward_floor 0 or more; "
                f"got {self.reward_exponent} and {self.reward_floor}"
            )
        if self.forward_looking and (self.reward_floor > 0 or self.explicit_z):
            raise ValueError("forward_looking goes with reward_floor 0 and without explicit_z")
