"""What a training stage trains, and how; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from grpo.language.config import PromptConfig
from grpo.models.config import LoraSettings
from grpo.models.spec import ModelSpec
from grpo.publishing.config import HubConfig
from grpo.runs.config import PathsConfig
from grpo.sampling.config import GenerationConfig
from grpo.training.config import GrpoConfig, SftConfig
from preprocessing.config import DataConfig

Settings = TypeVar("Settings", GrpoConfig, SftConfig, covariant=True)


@dataclass(frozen=True, kw_only=True)
class TrainingTask(Generic[Settings]):
    """One training stage, but for the files that it reads and writes.

    Attributes:
        stage: its key.
        settings: its own section of the configuration.
        learning_rate: peak.
        spec: the model; its adapter is the one that training continues and the KL reference, None starts a fresh one.
        lora: what a fresh adapter looks like.
        prompt: how windows are put into words.
        generation: what samples.
        data: how windows were cut, where the adapter's record cannot read it from them.
        stock: what is trained on.
        seed: of every random choice.
        published: folder for a copy of the finished adapter.
        paths: the files that the user names.
        hub: where the stage pushes it, which is looked at before the training too.
    """

    stage: str
    settings: Settings
    learning_rate: float
    spec: ModelSpec
    lora: LoraSettings
    prompt: PromptConfig
    generation: GenerationConfig
    data: DataConfig
    stock: str
    seed: int
    published: Path
    hub: HubConfig
    paths: PathsConfig


AnyTask = TrainingTask[GrpoConfig] | TrainingTask[SftConfig]
