"""Which language model is meant, and how it is loaded: all that loading, sampling and prediction need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from grpo.language.config import TemplateValue
from grpo.models.config import EMBEDDED, Backend, LoadingConfig


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A base model, alone or with an adapter on it.

    Attributes:
        base: `embedded`, a Hub model id, or a local folder with a transformers model.
        adapter: folder of the adapter that it wears; None: the base model alone.
        loading: precision, quantisation, attention and kernels.
        trust_remote_code: let a Hub model run its own Python code.
        chat_template: arguments that its chat template is rendered with, for example {"enable_thinking": False}.
        backend: what trains it, where it is trained.
    """

    base: str = EMBEDDED
    adapter: Path | None = None
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    trust_remote_code: bool = False
    chat_template: Mapping[str, TemplateValue] = field(default_factory=dict)
    backend: Backend = "transformers"
