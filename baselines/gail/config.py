"""Settings of the token model and of the imitation; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from baselines.building_blocks.settings import require_at_least, require_not_negative
from preprocessing.returns import VolatilityConfig

PRETRAINING, ADVERSARIAL, CONTEXTS, DISCRIMINATOR, VALIDATION, JUDGING, TUNING = range(7)
"""What random numbers are for: keys of `baselines.neural.seeds`."""


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(VolatilityConfig):
    """Tokens, the size of the network, and its supervised training."""

    num_tokens: int = 33
    """Quantile bins of the daily log returns over daily volatility; fewer where returns tie."""
    decode: Literal["mean", "uniform", "quantile"] = "quantile"
    """What a token stands for: the mean of its bin, a uniform draw between its ends, or a draw from the training
    returns in it (their piecewise linear quantile function)."""
    embedding_size: int = 8
    """Numbers per embedded token."""
    context_size: int = 8
    """Numbers per encoded context."""
    hidden_size: int = 24
    """Cells of the LSTM."""
    pretrain_steps: int = 1000
    """Gradient steps of teacher forcing at most."""
    pretrain_batch: int = 256
    """Sequences per gradient step of teacher forcing."""
    pretrain_learning_rate: float = 2e-3
    """Step size of AdamW, falling to 0 along a cosine."""
    weight_decay: float = 1.0
    """Decoupled weight decay of AdamW, in units of the learning rate."""
    validate_every: int = 50
    """Gradient steps between two looks at the validation sequences."""
    patience: int = 6
    """Looks in a row without a lower validation loss after which teacher forcing ends."""
    criterion: Literal["crps", "nll"] = "crps"
    """What of the validation sequences decides which weights are kept: the CRPS of sampled paths, or the negative
    log-likelihood of the tokens."""
    validation_steps: int = 10_000
    """Steps of validation sequences that are looked at: as many whole sequences as these make, spread evenly."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 2, "num_tokens")
        if self.decode not in ("mean", "uniform", "quantile"):
            raise ValueError(f"decode must be mean, uniform or quantile; got '{self.decode}'")
        if self.criterion not in ("crps", "nll"):
            raise ValueError(f"criterion must be crps or nll; got '{self.criterion}'")
        counts = ("embedding_size", "context_size", "hidden_size", "pretrain_steps", "pretrain_batch")
        _require_positive(self, *counts, "validate_every", "patience", "validation_steps", "pretrain_learning_rate")
        require_not_negative(self, "weight_decay")


@dataclass(frozen=True, kw_only=True)
class GailConfig(PretrainedConfig):
    """The same, and both sides of the imitation."""

    iterations: int = 40
    """Rounds of sampling, judging and updating both sides."""
    environments: int = 256
    """Paths sampled per round."""
    learning_rate: float = 3e-4
    """Step size of the policy's Adam, falling linearly to 0."""
    batch: int = 64
    """Whole paths per gradient step of either side."""
    epochs: int = 4
    """Passes of PPO over the paths of a round."""
    clip_range: float = 0.2
    """PPO keeps the ratio of new to old probability within 1 plus and minus this."""
    gae_lambda: float = 0.95
    """Weight of later rewards in the advantage, 0 to 1; rewards are not discounted, as the horizon is fixed."""
    kl_weight: float = 0.05
    """Reward lost per nat of divergence from the pre-trained policy."""
    discriminator_size: int = 32
    """Cells of the discriminator's LSTM."""
    discriminator_learning_rate: float = 3e-3
    """Step size of the discriminator's Adam."""
    discriminator_steps: int = 6
    """Gradient steps of the discriminator per round."""
    gradient_penalty: float = 1.0
    """Weight of the squared gradient of the discriminator's logits."""
    replayed_share: float = 0.5
    """Share of the fakes in a discriminator batch that come from former rounds, 0 to 1."""
    replay_size: int = 4096
    """Fakes that are kept for that."""
    validate_rounds: int = 5
    """Rounds between two looks at the validation sequences; the best weights are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "iterations", "environments", "batch", "epochs", "discriminator_size")
        _require_positive(self, "discriminator_steps", "replay_size", "validate_rounds")
        _require_positive(self, "learning_rate", "discriminator_learning_rate", "clip_range")
        require_not_negative(self, "kl_weight", "gradient_penalty")
        for name in ("gae_lambda", "replayed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1]; got {getattr(self, name)}")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive; got {getattr(config, name)}")
