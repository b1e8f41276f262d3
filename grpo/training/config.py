"""Settings of the training stages and of rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from preprocessing.errors import require
from preprocessing.files import JsonObject

REFUSED_GRPO_FIELDS = {
    "chat_template_kwargs": "give prompt.chat_template_kwargs, which every stage reads",
    "remove_unused_columns": "rewards need the columns that it removes",
}
REFUSED_SFT_FIELDS = {
    "assistant_only_loss": "the loss is on the answer alone already",
    "chat_template_path": "every stage asks with the model's own template; give prompt.chat_template_kwargs",
}
"""Fields of TRL that would part the stages from one another, and what to do."""


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """One GRPO stage (1 or 3)."""

    steps: int = 200
    """Optimizer steps."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW, cosine decay; null: 1e-3 for the embedded model, 2e-5 for any other, half
    of that in stage 3."""
    num_generations: int = 8
    """Completions per prompt (the group that the energy reward compares), G."""
    prompts_per_step: int = 16
    """Prompts per device and micro-batch; a device forwards prompts_per_step x num_generations completions."""
    beta: float = 0.0
    """Weight of the KL to the reference model; the reference is the adapter the stage starts from."""
    rewards: dict[str, float] = field(default_factory=lambda: {"energy": 1.0})
    """Weight of each reward: energy, crps, accuracy, direction, format, pnl, or one of your own: an entry point of
    grpo.rewards, package.module:name, file.py:name."""
    scale_rewards: Literal["none", "group", "batch"] = "none"
    """Division of the advantages: by nothing, by the group's or by the batch's standard deviation."""
    warmup_steps: int = 5
    """Steps of linear warm-up of the learning rate."""
    eval_every: int = 25
    """Steps between two scores on the validation split and two checkpoints; the latest adapter that is not
    clearly worse than the best is kept."""
    eval_windows: int = 128
    """Validation windows scored each time, spread evenly over the split."""
    trl: JsonObject = field(default_factory=dict)
    """Any further field of TRL's GRPOConfig, passed through; TRL refuses what it does not know."""

    def __post_init__(self) -> None:
        require(self.steps > 0, f"steps must be at least 1; got {self.steps}")
        require(self.num_generations >= 2, f"num_generations must be at least 2; got {self.num_generations}")
        require(self.prompts_per_step > 0, f"prompts_per_step must be at least 1; got {self.prompts_per_step}")
        require(
            self.learning_rate is None or self.learning_rate > 0,
            f"learning_rate must be positive; got {self.learning_rate}",
        )
        require(bool(self.rewards), "rewards must name at least one reward")
        require(self.eval_every > 0, f"eval_every must be at least 1; got {self.eval_every}")
        _refuse(self.trl, REFUSED_GRPO_FIELDS)

    @property
    def group_size(self) -> int:
        """Completions per prompt, G, also where TRL's own field says it."""
        return self.trl.get("num_generations", self.num_generations)


@dataclass(frozen=True, kw_only=True)
class RejectionConfig:
    """How the stage-1 model's samples become SFT data."""

    num_samples: int = 32
    """Completions sampled per training window, K."""
    keep: int = 4
    """Completions kept per window, m."""
    selection: Literal["energy_subset", "tempered", "best_of_k"] = "energy_subset"
    """`energy_subset` keeps the m samples that together score best; `tempered` accepts in proportion to
    exp(energy reward / temperature); `best_of_k` keeps the m closest to the truth (narrows the law)."""
    temperature: float = 1.0
    """Temperature of `tempered`, in scaled reward units."""
    max_distance: float = 20.0
    """Furthest that a kept sample may lie from what happened: root mean square over the days of the log return in daily
    standard deviations, over the root of the day. Of the 78,512 futures of StockNet's 88 stocks one in a thousand lies
    5 from its last close, and the furthest 19."""
    max_windows: int = 1000
    """Training windows used at most, spread evenly over the volatility, direction and date strata."""

    def __post_init__(self) -> None:
        require(2 <= self.keep <= self.num_samples, "rejection.keep must be between 2 and rejection.num_samples")
        require(self.temperature > 0, "rejection.temperature must be positive")
        require(self.max_distance > 0, "rejection.max_distance must be positive")


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """The SFT stage (2)."""

    start_from: Literal["stage1", "base"] = "stage1"
    """Adapter that training goes on from: stage 1's, or a fresh one on the base model."""
    epochs: float = 1.0
    """Passes over the SFT data."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW, cosine decay; null: 3e-4 for the embedded model, 5e-5 for any other."""
    batch_size: int = 32
    """Examples per device and step."""
    trl: JsonObject = field(default_factory=dict)
    """Any further field of TRL's SFTConfig, passed through; TRL refuses what it does not know."""

    def __post_init__(self) -> None:
        _refuse(self.trl, REFUSED_SFT_FIELDS)


def _refuse(given: JsonObject, fields: dict[str, str]) -> None:
    for name, way_out in fields.items():
        require(not given.get(name), f"trl.{name} is refused: {way_out}")
