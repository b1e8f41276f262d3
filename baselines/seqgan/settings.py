"""Sizes and schedule of SeqGAN; no torch.

Where a default is that of the original (Yu et al. 2017), the field says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.building_blocks.settings import require_at_least, require_positive

FILTERS = {1: 10, 2: 20, 3: 20, 4: 20, 5: 20, 6: 10, 7: 10, 8: 10, 9: 10, 10: 10, 15: 16, 20: 16}
"""Widths of the discriminator's filters, in steps, and how many there are of each: the original's widths, and a
tenth of its numbers, as a step is one number here and not one of 5,000 words."""


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """The generator and its pre-training by maximum likelihood."""

    hidden: int = 32
    """Units of the generator's LSTM; the original's."""
    scale_floor: float = 0.01
    """Least standard deviation of a step, in units of the scaled values."""
    context_channels: int = 4
    """Numbers that every step sees of the context window, where there is one."""
    context_dropout: float = 0.0
    """Share of the context's inputs that a step of the pre-training leaves out, the others scaled up; against learning
    few training windows by heart."""
    batch_size: int = 64
    """Sequences per gradient step; the original's."""
    learning_rate: float = 1e-3
    """Adam's first step in the pre-training; it falls linearly to 0."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden", "context_channels")
        require_at_least(self, 2, "batch_size")
        require_positive(self, "scale_floor", "learning_rate")
        if not 0 <= self.context_dropout < 1:
            raise ValueError(f"context_dropout must be at least 0 and below 1; got {self.context_dropout}")


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """The discriminator, the Monte-Carlo search and the adversarial training."""

    dropout_keep: float = 0.75
    """Share of the discriminator's features that a training step keeps; the original's."""
    l2: float = 0.2
    """Weight of half the squared weights of the discriminator's last layer in its loss; the original's."""
    discriminator_learning_rate: float = 1e-3
    """Adam's step for the discriminator."""
    discriminator_pretraining_sets: int = 50
    """Sets of freshly generated sequences that it is trained on before the adversarial stage; the original's."""
    discriminator_sets: int = 5
    """Sets per adversarial batch; the original's."""
    discriminator_set_batches: int = 4
    """Batches of real and as many of generated sequences in a set."""
    discriminator_epochs: int = 3
    """Passes over each set; the original's."""
    adversarial_batches: int = 200
    """Policy-gradient steps, one batch of sequences each; the original's."""
    adversarial_learning_rate: float = 1e-3
    """Adam's step for the generator in the adversarial stage."""
    rollouts: int = 16
    """Ways in which each unfinished sequence is continued to value its next step; the original's."""
    rollout_keep: float = 0.8
    """Share of its weights that the rollout policy keeps when it follows the generator; the original's."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "discriminator_set_batches", "discriminator_epochs", "rollouts")
        require_at_least(
            self, 0, "discriminator_pretraining_sets", "discriminator_sets", "adversarial_batches", "l2", "rollout_keep"
        )
        require_positive(self, "discriminator_learning_rate", "adversarial_learning_rate", "dropout_keep")
        if self.dropout_keep > 1 or self.rollout_keep > 1:
            raise ValueError(
                f"dropout_keep and rollout_keep are shares, 1 at most; got {self.dropout_keep} and {self.rollout_keep}"
            )
