"""Settings of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from preprocessing.errors import require


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a window is put into words."""

    style: Literal["direct", "reasoning"] = "direct"
    """`direct` asks for the numbers only; `reasoning` for <think>..</think><answer>[..]</answer>."""
    max_seq_length: int = 1024
    """Longest prompt plus completion, tokens; a longer prompt stops the run before training."""
    max_completion_length: int | None = None
    """Longest completion, tokens; null: enough for the answer (direct) or 512 (reasoning)."""

    def __post_init__(self) -> None:
        require(self.max_seq_length > 0, f"prompt.max_seq_length must be positive; got {self.max_seq_length}")
