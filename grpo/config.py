"""The whole configuration as one tree of frozen dataclasses, without torch.

Every field has a default, a unit and one sentence; `--help` of each stage prints them. YAML files and flags are
parsed by `preprocessing.command_line`; unknown keys and wrong types are errors that name the path.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml

from grpo.comparison.config import CompareConfig
from grpo.language.config import PromptConfig
from grpo.models.config import EMBEDDED, Backend, LoadingConfig, LoraSettings
from grpo.models.spec import ModelSpec
from grpo.publishing.config import HubConfig
from grpo.runs.config import PathsConfig
from grpo.runs.stages import ADAPTER_STAGES, STAGES, stage_of
from grpo.sampling.config import GenerationConfig
from grpo.training.config import GrpoConfig, RejectionConfig, SftConfig
from preprocessing.command_line import UsageError, parse_config, plain, with_fields
from preprocessing.config import DataConfig
from preprocessing.files import JsonObject, slug

C = TypeVar("C")

SHORT_NAMES = {
    "data": "data.data_dir",
    "data_dir": "data.data_dir",
    "forecasters": "compare.forecasters",
    "num_samples": "compare.num_samples",
    "max_windows": "compare.max_windows",
    "folds": "compare.folds",
    "seeds": "compare.seeds",
    "placebo": "compare.placebo",
    "base_cutoff": "compare.base_cutoff",
    "probes": "compare.probes",
    "max_seq_length": "prompt.max_seq_length",
    "lora_rank": "lora.rank",
    "gpu_memory_utilization": "generation.gpu_memory_utilization",
    "train_x_path": "paths.train_x",
    "train_y_path": "paths.train_y",
    "val_x_path": "paths.val_x",
    "val_y_path": "paths.val_y",
    "test_x_path": "paths.test_x",
    "test_y_path": "paths.test_y",
    "full_x_path": "paths.full_x",
    "full_y_path": "paths.full_y",
    "sft_data_path": "paths.sft_data",
    **{stage.flag: f"paths.{stage.adapter}" for stage in ADAPTER_STAGES},
}


def _with_sections_of_stages(config_class: type[C]) -> type[C]:
    """One section for each stage of the table that says whose settings it shares, and that has none of its own."""
    fields = {}
    for stage in STAGES:
        if stage.settings_like and stage.key not in config_class.__annotations__:
            annotation, model = (
                config_class.__annotations__[stage.settings_like],
                vars(config_class)[stage.settings_like],
            )
            default = field(default_factory=model.default_factory)
            fields[stage.key] = annotation, default, f"Settings of {stage.title}."
    return with_fields(fields)(config_class)


@dataclass(frozen=True, kw_only=True)
@_with_sections_of_stages
class RunConfig:
    """Everything a run depends on."""

    stock: str = "sim:ou?half_life=5"
    """A ticker, several (AAPL,MSFT), `all` (every CSV of data.data_dir), or a simulated stock (sim:ou?half_life=10)."""
    model: str = EMBEDDED
    """`embedded`, a Hub model id, or a local folder with a transformers model."""
    backend: Backend = "transformers"
    """What trains: `transformers`, or `unsloth`, whose own GRPO trainer samples and shares prompts; it needs a CUDA
    device and the unsloth extra. Rejection sampling and comparison do not depend on it."""
    seed: int = 0
    """Seed of every random choice."""
    cuda_devices: str | None = None
    """GPUs that a stage may use, as 0,1; null: all that CUDA_VISIBLE_DEVICES leaves. run_pipeline.sh takes the flag for
    itself and starts one process on each."""
    results_dir: Path = Path("results")
    """Folder that holds the run folders."""
    models_dir: Path = Path("models")
    """Folder that holds the adapters: models_dir/MODEL/STOCK/ADAPTER, for example .../AAPL/grpo_lora_1st."""
    run_dir: Path | None = None
    """Run folder; null: results_dir/STOCK (the pipeline adds a time stamp)."""
    trust_remote_code: bool = False
    """Let a Hub model run its own Python code; off unless you trust its authors."""
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    stage1: GrpoConfig = field(default_factory=GrpoConfig)
    rejection: RejectionConfig = field(default_factory=RejectionConfig)
    stage2: SftConfig = field(default_factory=SftConfig)
    stage3: GrpoConfig = field(default_factory=lambda: GrpoConfig(steps=100, beta=0.02))
    compare: CompareConfig = field(default_factory=CompareConfig)
    baselines: dict[str, JsonObject] = field(default_factory=dict)
    """Settings of plugin forecasters by name, for example {garch_t: {decay: 0.9}}; the rest keep their defaults."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    hub: HubConfig = field(default_factory=HubConfig)

    def __post_init__(self) -> None:
        if self.cuda_devices is not None and not re.fullmatch(r"[\w-]+(,[\w-]+)*", self.cuda_devices):
            raise ValueError(
                f"cuda_devices must be numbers of GPUs with commas between, as 0,1; got '{self.cuda_devices}'"
            )
        object.__setattr__(self, "prompt", self.prompt.for_model(embedded=self.model == EMBEDDED))

    @property
    def stock_slug(self) -> str:
        """The stock as a file name: `AAPL`, `AAPL-MSFT`, `sim_ou_half_life-5`."""
        return slug(self.stock)

    @property
    def run_folder(self) -> Path:
        """The run folder: `run_dir`, or results_dir/STOCK where none is given."""
        return self.run_dir or self.results_dir / self.stock_slug

    def published(self, adapter: str) -> Path:
        """Where a finished adapter is published: models_dir/MODEL/STOCK/ADAPTER."""
        return self.models_dir / self.model_slug / self.stock_slug / adapter

    def learning_rate(self, stage: str) -> float:
        """The learning rate of a training stage, by its key, or the default that suits the size of the model."""
        settings: GrpoConfig | SftConfig = getattr(self, stage)
        if settings.learning_rate is not None:
            return settings.learning_rate
        small, large = (3e-4, 5e-5) if isinstance(settings, SftConfig) else (1e-3, 2e-5)
        return (small if self.model == EMBEDDED else large) * stage_of(stage).learning_rate_factor

    def spec(self, adapter: Path | None = None) -> ModelSpec:
        """The run's model, alone or with an adapter on it."""
        return ModelSpec(
            base=self.model,
            adapter=adapter,
            loading=self.loading,
            trust_remote_code=self.trust_remote_code,
            backend=self.backend,
        )

    @property
    def model_slug(self) -> str:
        """The model as a folder name: its last path part."""
        return slug(self.model.rstrip("/").rsplit("/", 1)[-1])


def parse_run_config(argv: Sequence[str] | None = None, *, prog: str, description: str) -> RunConfig:
    """Flags and `--config FILE` to a RunConfig; `--help` explains every field.

    Raises:
        UsageError: a wrong flag or key; the message names the place.
    """
    _refuse_scattered_settings(sys.argv[1:] if argv is None else argv, prog)
    config = parse_config(RunConfig, argv, prog=prog, description=description, aliases=SHORT_NAMES)
    if config.cuda_devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = config.cuda_devices  # read when torch is loaded, which is later
    return config


def _refuse_scattered_settings(argv: Sequence[str], prog: str) -> None:
    """Of several `--baselines.NAME.FIELD` of one plugin the parser would keep the last alone, without a word."""
    names = [match[1] for argument in argv if (match := re.match(r"--baselines\.([^.=]+)\.", argument))]
    for name in names:
        if names.count(name) > 1:
            way_out = f"give its settings together: --baselines.{name} '{{FIELD: VALUE, ...}}'"
            print(f"{prog}: error: baselines.{name}: {way_out} (see --help)", file=sys.stderr)
            raise UsageError(2)


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that `--config` reads back to an equal RunConfig."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
