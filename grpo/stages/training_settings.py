"""What a training stage reads, what decides its result, and where its adapter goes; no torch.

A stage looks at these before it loads anything heavy, so that one that is finished is skipped at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from grpo.config import GrpoConfig, RunConfig, plain
from grpo.processes import num_processes
from grpo.runs import RunPaths


def grpo_inputs(paths: RunPaths) -> dict[str, Path]:
    """The window files that a GRPO stage reads."""
    return {name: getattr(paths, name) for name in ("train_x", "train_y", "val_x", "val_y")}


def grpo_sections(config: RunConfig, stage: GrpoConfig) -> dict[str, Any]:
    """The parts of the configuration that decide a GRPO stage's result."""
    return {
        "model": config.model,
        "backend": config.backend,
        "seed": config.seed,
        "prompt": plain(config.prompt),
        "lora": plain(config.lora),
        "loading": plain(config.loading),
        "generation": plain(replace(config.generation, vllm_server=None)),  # where it runs decides nothing
        "processes": num_processes(),
        "grpo": plain(stage),
    }


def adapter_place(config: RunConfig, name: str) -> Path:
    """Where a finished adapter is published: models_dir/MODEL/STOCK/NAME."""
    return config.models_dir / config.model_slug / config.stock_slug / name
