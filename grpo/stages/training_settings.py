"""What a training stage reads, what it trains, what decides its result, and what is pushed of it; no torch.

A stage looks at these before it loads anything heavy, so that one that is finished is skipped at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from grpo.config import RunConfig
from grpo.language.config import PromptConfig
from grpo.publishing.push import Upload
from grpo.runs.config import PathsConfig
from grpo.runs.folder import RunPaths, has_val
from grpo.runs.processes import num_processes
from grpo.runs.stages import Stage
from grpo.training.config import GrpoConfig
from grpo.training.record import plugin_sources
from grpo.training.task import TrainingTask
from preprocessing.command_line import plain
from preprocessing.files import JsonObject


def training_task(config: RunConfig, stage: Stage, start_from: Path | None = None) -> TrainingTask[Any]:
    """What a training stage of this run trains; `start_from` is the adapter that it continues."""
    return TrainingTask(
        stage=stage.key,
        settings=getattr(config, stage.key),
        learning_rate=config.learning_rate(stage.key),
        spec=config.spec(start_from),
        lora=config.lora,
        prompt=config.prompt,
        generation=config.generation,
        data=config.data,
        stock=config.stock,
        seed=config.seed,
        published=config.published(stage.adapter),
        hub=config.hub,
        paths=config.paths,
    )


def upload(config: RunConfig, paths: RunPaths) -> Upload:
    """What can be pushed of this run."""
    return Upload(
        run=config.run_folder, adapters=paths.adapters, stock=config.stock, model=config.model, hub=config.hub
    )


def grpo_inputs(given: PathsConfig, paths: RunPaths) -> dict[str, Path]:
    """The window files that a GRPO stage reads."""
    return paths.named("train_x", "train_y", *(("val_x", "val_y") if has_val(given, paths) else ()))


def sources_section(prompt: PromptConfig, rewards: GrpoConfig | None = None) -> JsonObject:
    """The section `sources` for prompt styles and rewards of one's own; none where there are none.

    Raises:
        PluginError: one of them is not there or not usable.
    """
    sources = plugin_sources(prompt, rewards)
    return {"sources": sources} if sources else {}


def grpo_sections(config: RunConfig, stage: GrpoConfig) -> JsonObject:
    """The parts of the configuration that decide a GRPO stage's result."""
    return {
        "model": config.model,
        "backend": config.backend,
        "seed": config.seed,
        "prompt": plain(config.prompt),
        "lora": plain(config.lora),
        "loading": plain(config.loading),
        # Where a vLLM server runs decides nothing, and a resumed run may find it at another address.
        "generation": plain(replace(config.generation, vllm_server=None)),
        # Their number decides the global batch, so a resume with another number would be another training.
        "processes": num_processes(),
        "grpo": plain(stage),
    } | sources_section(config.prompt, stage)
