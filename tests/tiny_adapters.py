"""Adapters with random weights, published as a stage publishes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from peft import get_peft_model

from grpo.config import RunConfig
from grpo.models.adapters import AdapterRecord, describe_adapter
from grpo.models.config import LoraSettings
from grpo.models.loading import load_base_model, load_tokenizer, lora_config, save_adapter
from grpo.runs.folder import publish_adapter
from preprocessing.windows import WindowSet


def record_of(config: RunConfig, stage: str, windows: WindowSet | None = None) -> AdapterRecord:
    """What a stage of this run would write beside its adapter."""
    return describe_adapter(
        config.model,
        stage,
        stock=config.stock,
        prompt=config.prompt,
        data=config.data,
        seed=config.seed,
        windows=windows,
    )


def publish_random_adapter(
    config: RunConfig, target: Path, windows: WindowSet | None = None, *, stage: str = "stage1", scale: float = 0.02
) -> Path:
    """An adapter of `config.model` that changes what the model says."""
    spec = config.spec()
    model = get_peft_model(load_base_model(spec), lora_config(LoraSettings(rank=4, alpha=8)))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    with tempfile.TemporaryDirectory() as temporary:
        save_adapter(model, load_tokenizer(spec), Path(temporary), config.model)
        publish_adapter(Path(temporary), target, record_of(config, stage, windows))
    return target
