"""Settings of the model: the adapter, and how the base lies in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from preprocessing.errors import require

EMBEDDED = "embedded"
"""Name of the model that ships with this package."""
Backend = Literal["transformers", "unsloth"]
"""What trains a model."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter that is trained."""

    rank: int = 16
    """Rank of the adapter matrices."""
    alpha: int = 32
    """Scale of the adapter: its output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout inside the adapter, share of inputs; 0 keeps sampling and training log-probabilities equal."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: `all-linear` or a list of module names."""

    def __post_init__(self) -> None:
        require(self.rank > 0, f"lora.rank must be at least 1; got {self.rank}")
        require(0 <= self.dropout < 1, f"lora.dropout must be in [0, 1); got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """How the base model lies in memory and how it computes; what this machine lacks is refused."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers of the frozen weights; `auto`: bfloat16 on a GPU, float32 on a CPU and for the embedded model."""
    quantization: Literal["none", "4bit"] = "none"
    """`4bit` keeps the frozen weights in four bits (QLoRA, NF4); needs a CUDA device and bitsandbytes."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention kernel; `auto`: what transformers takes. `flash_attention_2` needs a CUDA device and flash-attn."""
    gradient_checkpointing: bool = False
    """Forget activations in training and compute them again: less memory, slower."""
    liger: bool = False
    """Liger's fused training kernels; needs a CUDA device and liger-kernel. Prompts are then no longer shared."""
