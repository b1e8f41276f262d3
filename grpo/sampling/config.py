"""Settings of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from preprocessing.errors import require


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How completions are sampled in every stage."""

    backend: Literal["transformers", "vllm"] = "transformers"
    """`transformers` samples with the trained model itself, each prompt forwarded once; `vllm` with vLLM in the same
    process, which the vllm extra installs."""
    vllm_server: str | None = None
    """Address of a `trl vllm-serve` for the rollouts of GRPO, http://HOST:8000, in place of the same process."""
    structured: Literal["none", "regex"] = "none"
    """`regex` lets vLLM sample only what has the form of an answer, in rejection sampling and comparison. That is not
    the model's own law, but one cut to the form and renormalised: a comparison then does not say how often the
    model answers validly, and GRPO refuses it, since its log-probabilities are those of the uncut law."""
    gpu_memory_utilization: float = 0.4
    """Share of each GPU's memory that vLLM may take (0 to 1); ignored without vLLM."""
    rows_per_batch: int = 1024
    """Completions sampled at once outside of training, rows."""

    def __post_init__(self) -> None:
        require(0 < self.gpu_memory_utilization <= 1, "generation.gpu_memory_utilization must be in (0, 1]")
        require(self.rows_per_batch > 0, "generation.rows_per_batch must be at least 1")
        require(
            self.vllm_server is None or self.backend == "vllm",
            "generation.vllm_server needs generation.backend vllm",
        )
        require(
            self.structured == "none" or self.backend == "vllm",
            f"generation.structured {self.structured} needs generation.backend vllm",
        )
