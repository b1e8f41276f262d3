"""The whole configuration as one tree of frozen dataclasses, without torch.

Every field has a default, a unit and one sentence; `--help` of each stage prints them. YAML files and flags are
parsed by `preprocessing.command_line`; unknown keys and wrong types are errors that name the path.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml

from preprocessing.command_line import UsageError, parse_config
from preprocessing.config import DataConfig
from preprocessing.files import slug

EMBEDDED = "embedded"
REWARD_NAMES = ("energy", "crps", "accuracy", "direction", "format", "pnl")

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
    "grpo_saved_lora_1st": "paths.grpo_lora_1st",
    "sft_saved_lora": "paths.sft_lora",
    "grpo_saved_lora_2nd": "paths.grpo_lora_2nd",
}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


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
        _require(self.max_seq_length > 0, f"prompt.max_seq_length must be positive; got {self.max_seq_length}")


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
        _require(self.rank > 0, f"lora.rank must be at least 1; got {self.rank}")
        _require(0 <= self.dropout < 1, f"lora.dropout must be in [0, 1); got {self.dropout}")


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
        _require(0 < self.gpu_memory_utilization <= 1, "generation.gpu_memory_utilization must be in (0, 1]")
        _require(self.rows_per_batch > 0, "generation.rows_per_batch must be at least 1")
        _require(
            self.vllm_server is None or self.backend == "vllm",
            "generation.vllm_server needs generation.backend vllm",
        )
        _require(
            self.structured == "none" or self.backend == "vllm",
            f"generation.structured {self.structured} needs generation.backend vllm",
        )


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
    """Weight of each reward: energy, crps, accuracy, direction, format, pnl."""
    scale_rewards: Literal["none", "group", "batch"] = "none"
    """Division of the advantages: by nothing, by the group's or by the batch's standard deviation."""
    warmup_steps: int = 5
    """Steps of linear warm-up of the learning rate."""
    eval_every: int = 25
    """Steps between two scores on the validation split and two checkpoints; the latest adapter that is not
    clearly worse than the best is kept."""
    eval_windows: int = 128
    """Validation windows scored each time, spread evenly over the split."""
    trl: dict[str, Any] = field(default_factory=dict)
    """Any further field of TRL's GRPOConfig, passed through; TRL refuses what it does not know."""

    def __post_init__(self) -> None:
        _require(self.steps > 0, f"steps must be at least 1; got {self.steps}")
        _require(self.num_generations >= 2, f"num_generations must be at least 2; got {self.num_generations}")
        _require(self.prompts_per_step > 0, f"prompts_per_step must be at least 1; got {self.prompts_per_step}")
        _require(
            self.learning_rate is None or self.learning_rate > 0,
            f"learning_rate must be positive; got {self.learning_rate}",
        )
        _require(bool(self.rewards), "rewards must name at least one reward")
        unknown = sorted(set(self.rewards) - set(REWARD_NAMES))
        _require(not unknown, f"rewards: there is no {', '.join(unknown)}; there are {', '.join(REWARD_NAMES)}")
        ensemble = {"energy", "crps"} & set(self.rewards)
        _require(
            not ensemble or self.num_generations >= 3,
            f"num_generations must be at least 3 with the reward(s) {', '.join(sorted(ensemble))}",
        )
        _require(self.eval_every > 0, f"eval_every must be at least 1; got {self.eval_every}")


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
    max_windows: int = 1000
    """Training windows used at most, spread evenly over the volatility, direction and date strata."""

    def __post_init__(self) -> None:
        _require(2 <= self.keep <= self.num_samples, "rejection.keep must be between 2 and rejection.num_samples")
        _require(self.temperature > 0, "rejection.temperature must be positive")


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
    trl: dict[str, Any] = field(default_factory=dict)
    """Any further field of TRL's SFTConfig, passed through; TRL refuses what it does not know."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The comparison on the test split."""

    forecasters: tuple[str, ...] | str = ("llm", "random_walk", "random_walk_drift", "fhs_drift", "ridge")
    """Which to compare, a list or a,b,c: base, grpo_1st, sft, grpo_2nd (the language model at each stage), `llm` (base
    and every adapter that there is), any installed plugin by name, `all` (every plugin whose packages are installed).
    random_walk is always among them."""
    num_samples: int = 100
    """Sample paths per window and forecaster, S."""
    max_windows: int = 200
    """Test windows used at most, spread evenly over the split; 0 uses all."""
    folds: int = 1
    """Walk-forward blocks of the test span: before each, plugins are fitted again on all that came before it; the
    language model stays as it was trained."""
    seeds: int = 1
    """Runs with the seeds seed, seed + 1, ...: plugins are fitted again and every forecaster samples again."""
    placebo: Literal["none", "shuffle", "sign_flip", "gbm", "all"] = "none"
    """Also compare on data that hold nothing to learn: futures that belong to other windows (`shuffle`), future returns
    of random sign (`sign_flip`), random walks in place of the prices (`gbm`). Skill there is a leak."""
    base_cutoff: str | None = None
    """Day YYYY-MM-DD up to which the base model may have read prices: test windows before and after get own tables."""
    probes: bool = False
    """Ask the language model to recite prices and to name the stock of a window: what it may know by heart."""

    def __post_init__(self) -> None:
        _require(self.num_samples >= 2, f"compare.num_samples must be at least 2; got {self.num_samples}")
        _require(self.max_windows >= 0, f"compare.max_windows must be 0 or more; got {self.max_windows}")
        _require(self.folds >= 1, f"compare.folds must be at least 1; got {self.folds}")
        _require(self.seeds >= 1, f"compare.seeds must be at least 1; got {self.seeds}")
        _require(bool(self.names), "compare.forecasters must name at least one forecaster")
        _require(
            self.base_cutoff is None or _is_day(self.base_cutoff),
            f"compare.base_cutoff must be a day as YYYY-MM-DD; got {self.base_cutoff}",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The forecasters as they were asked for, each once."""
        asked = self.forecasters.split(",") if isinstance(self.forecasters, str) else self.forecasters
        return tuple(dict.fromkeys(name.strip() for name in asked if name.strip()))


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Files of single stages; null: the place in the run folder where the pipeline puts them."""

    train_x: Path | None = None
    """Training windows, X (CSV)."""
    train_y: Path | None = None
    """Training windows, Y (CSV)."""
    val_x: Path | None = None
    """Validation windows, X (CSV)."""
    val_y: Path | None = None
    """Validation windows, Y (CSV)."""
    test_x: Path | None = None
    """Test windows, X (CSV)."""
    test_y: Path | None = None
    """Test windows, Y (CSV)."""
    full_x: Path | None = None
    """Windows of the whole span, X (CSV); walk-forward folds are cut from them."""
    full_y: Path | None = None
    """Windows of the whole span, Y (CSV)."""
    sft_data: Path | None = None
    """SFT data, {STOCK}_sft_training_data.csv."""
    grpo_lora_1st: Path | None = None
    """Adapter of stage 1 (folder)."""
    sft_lora: Path | None = None
    """Adapter of stage 2 (folder)."""
    grpo_lora_2nd: Path | None = None
    """Adapter of stage 3 (folder)."""


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Where finished adapters are pushed; nothing leaves this machine unless `repo_id` is given."""

    repo_id: str | None = None
    """user/name: each adapter goes to a repository of its own, user/name-grpo-1st, user/name-sft and
    user/name-grpo-2nd, as soon as its stage is done; null: no push."""
    private: bool = True
    """Make the repositories private; a public one that is already there is then refused."""
    base_model_id: str | None = None
    """Hub id of the base model where `model` is a local folder, so that others can load the adapter."""
    license: str | None = None
    """Licence named in the model card, for example apache-2.0; null: the card refers to the base model's."""

    def __post_init__(self) -> None:
        for name, value in (("repo_id", self.repo_id), ("base_model_id", self.base_model_id)):
            _require(
                value is None or re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", value) is not None,
                f"hub.{name} must look like user/name; got '{value}'",
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a run depends on."""

    stock: str = "sim:ou?half_life=5"
    """A ticker, several (AAPL,MSFT), `all` (every CSV of data.data_dir), or a simulated stock (sim:ou?half_life=10)."""
    model: str = EMBEDDED
    """`embedded`, a Hub model id, or a local folder with a transformers model."""
    backend: Literal["transformers", "unsloth"] = "transformers"
    """What trains: `transformers`, or `unsloth`, whose own GRPO trainer samples and shares prompts; it needs a CUDA
    device and the unsloth extra. Rejection sampling and comparison do not depend on it."""
    seed: int = 0
    """Seed of every random choice."""
    results_dir: Path = Path("results")
    """Folder that holds the run folders."""
    models_dir: Path = Path("models")
    """Folder that holds the adapters: models_dir/MODEL/STOCK/{grpo_lora_1st,sft_lora,grpo_lora_2nd}."""
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
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of plugin forecasters by name, for example {garch_t: {decay: 0.9}}; the rest keep their defaults."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    hub: HubConfig = field(default_factory=HubConfig)

    @property
    def stock_slug(self) -> str:
        """The stock as a file name: `AAPL`, `AAPL-MSFT`, `sim_ou_half_life-5`."""
        return slug(self.stock)

    def learning_rate(self, stage: GrpoConfig | SftConfig) -> float:
        """A stage's learning rate, or the default that suits the size of the model."""
        if stage.learning_rate is not None:
            return stage.learning_rate
        small, large = (3e-4, 5e-5) if isinstance(stage, SftConfig) else (1e-3, 2e-5)
        return (small if self.model == EMBEDDED else large) / (2 if stage is self.stage3 else 1)

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
    return parse_config(RunConfig, argv, prog=prog, description=description, aliases=SHORT_NAMES)


def _refuse_scattered_settings(argv: Sequence[str], prog: str) -> None:
    """Of several `--baselines.NAME.FIELD` of one plugin the parser would keep the last alone, without a word."""
    names = [match[1] for argument in argv if (match := re.match(r"--baselines\.([^.=]+)\.", argument))]
    for name in names:
        if names.count(name) > 1:
            way_out = f"give its settings together: --baselines.{name} '{{FIELD: VALUE, ...}}'"
            print(f"{prog}: error: baselines.{name}: {way_out} (see --help)", file=sys.stderr)
            raise UsageError(2)


def plain(value: Any) -> Any:
    """A config (or part of one) as plain dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that `--config` reads back to an equal RunConfig."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
