"""What an adapter folder says of itself: its base model, and what its prompts were made of. No torch.

Beside PEFT's adapter_config.json and weights lies `grpo_forecast.json` (`AdapterRecord`), written when a stage
publishes its adapter, so that `grpo.predict` needs no other setting. A base model is named as people call it, by
Hub id or folder name, never by a path of one machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

from grpo.language.config import PromptConfig
from grpo.language.plugins import PluginError
from grpo.language.prompts import style_of
from grpo.models.config import EMBEDDED
from grpo.models.spec import ModelSpec
from preprocessing.command_line import plain
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, sha256
from preprocessing.indicators import IndicatorPeriods
from preprocessing.windows import FEATURES, Context, WindowSet

EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded" / "model"
RECORD_FILE = "grpo_forecast.json"


class ModelError(UserError):
    """A model or adapter that cannot be used; the message names it and the way out."""


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """What an adapter was trained on, and what it needs to forecast.

    Attributes:
        base_model: `embedded`, a Hub id, or the name of the base model's folder.
        base_sha256: hash of the weights of the embedded model; None for any other base.
        stage: the stage that made the adapter.
        stock: the stocks it was trained on.
        prompt: style and lengths of its prompts.
        prompt_format: fingerprint of how prompts are worded (`prompt_format`).
        window: days that a prompt shows, L.
        horizon: days that an answer holds, H.
        indicators: look-back of each indicator.
        seed: of the training.
        training_windows: number of windows it was trained on; None if unknown.
        trained_from: first origin of these, YYYY-MM-DD; None if unknown.
        trained_until: last day whose price it was trained on, YYYY-MM-DD; None if unknown.
        package_version: of this package, when it was trained.
        rewards: weight of each reward of a GRPO stage, by name; None for any other.
        sources: hash of the code of each reward and prompt style that is not of this package, by name.
    """

    base_model: str
    base_sha256: str | None
    stage: str
    stock: str
    prompt: PromptConfig
    prompt_format: str
    window: int
    horizon: int
    indicators: IndicatorPeriods
    seed: int
    training_windows: int | None
    trained_from: str | None
    trained_until: str | None
    package_version: str
    rewards: dict[str, float] | None = None
    sources: dict[str, str] = field(default_factory=dict)


def describe_adapter(
    base: str,
    stage: str,
    *,
    stock: str,
    prompt: PromptConfig,
    data: DataConfig,
    seed: int,
    windows: WindowSet | None = None,
) -> AdapterRecord:
    """The record of an adapter that a stage has trained.

    Args:
        base: the base model, as `--model` names it.
        stage: the stage's name.
        stock: the stocks that it was trained on.
        prompt: style and lengths of its prompts.
        data: window, horizon and indicators.
        seed: of the training.
        windows: what it was trained on; None where that is not at hand.
    """
    days: list[str] = []
    if windows is not None:
        span = [windows.context.origin.min(), windows.truth.dates.max()]
        days = [str(np.datetime_as_string(day, unit="D")) for day in span]
    return AdapterRecord(
        base_model=base_name(base),
        base_sha256=embedded_sha256() if base == EMBEDDED else None,
        stage=stage,
        stock=stock,
        prompt=prompt,
        prompt_format=prompt_format(prompt),
        window=windows.context.past.shape[1] if windows else data.window,
        horizon=windows.horizon if windows else data.horizon,
        indicators=data.indicators,
        seed=seed,
        training_windows=len(windows) if windows else None,
        trained_from=days[0] if days else None,
        trained_until=days[1] if days else None,
        package_version=metadata.version("grpo-forecast"),
    )


def record_text(record: AdapterRecord) -> str:
    """The record as JSON, for `RECORD_FILE`."""
    return json.dumps(plain(record), indent=2) + "\n"


def read_record(adapter: Path) -> AdapterRecord:
    """Read `RECORD_FILE` of an adapter folder.

    Raises:
        ModelError: it is missing or damaged, or the prompts were worded otherwise than they are now.
    """
    file = Path(adapter) / RECORD_FILE
    if not file.is_file():
        raise ModelError(
            f"adapter {adapter} has no {RECORD_FILE}, which says what its prompts were made of; take an adapter "
            "folder that a stage has published, or copy the file from another adapter of the same run."
        )
    try:
        values = json.loads(file.read_text())
        parts = {"prompt": PromptConfig(**values["prompt"]), "indicators": IndicatorPeriods(**values["indicators"])}
        record = AdapterRecord(**values | parts)
        sizes = record.window, record.horizon, record.prompt.max_seq_length
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError("window, horizon and max_seq_length must be positive whole numbers")
        now = prompt_format(record.prompt)
    except PluginError as error:
        raise ModelError(f"adapter {adapter} asks in a style of its own: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{file} is damaged ({error}); publish the adapter again by running its stage.") from error
    style = record.prompt.style or ""
    # First, since changed code of a style also changes the fingerprint, whose message would blame the version.
    if style in record.sources and style_of(record.prompt).source != record.sources[style]:
        raise ModelError(
            f"prompt style '{style}' has changed since adapter {adapter} was trained; put the former code back, or "
            "train the adapter again."
        )
    if record.prompt_format != now:
        raise ModelError(
            f"adapter {adapter} was trained by version {record.package_version}, which words its prompts in another "
            "way; install that version, or train the adapter again."
        )
    return record


def prompt_format(prompt: PromptConfig) -> str:
    """Fingerprint of a prompt's wording and numbers, and of the code of a style of one's own.

    It is that of what is rendered for a fixed window.
    """
    style = style_of(prompt)
    rendered = json.dumps(style.render(fixed_context(20), 10)) + (style.source or "")
    return hashlib.sha256(rendered.encode()).hexdigest()[:16]


def fixed_context(window: int) -> Context:
    """One window of that many days that no data decide."""
    # Ones, and for volatility a value that spreads the closes over many levels: a change of any scale or feature shows
    # in the text.
    features = np.ones((1, len(FEATURES)))
    features[0, FEATURES.index("volatility")] = 0.02
    return Context(
        item_id=("X",),
        origin=np.array(["2000-01-03"], dtype="datetime64[ns]"),
        past=np.linspace(1, 2, window)[None, :, None],
        features=features,
    )


def is_hub_id(adapter: str) -> bool:
    """Whether a name has the form of a Hub repository, user/name or user/name@revision."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", adapter) is not None


def embedded_sha256() -> str:
    """Hash of the embedded model's weights."""
    return sha256(EMBEDDED_FOLDER / "model.safetensors")


def model_source(model: str) -> str:
    """Where a model is loaded from: the embedded folder, a local folder or a Hub id.

    Raises:
        ModelError: a local folder that is not a transformers model.
    """
    if model == EMBEDDED:
        return str(EMBEDDED_FOLDER)
    folder = Path(model)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"--model {model} is a folder without config.json, so it is not a transformers model.")
    # Said here, or transformers would look for the missing folder on the Hub and complain of a name or a network.
    looks_local = folder.is_absolute() or model.startswith(".") or model.count("/") > 1
    if looks_local and not folder.is_dir():
        raise ModelError(f"--model {model}: there is no such folder (a Hub id looks like Qwen/Qwen2.5-0.5B-Instruct).")
    return model


def base_name(base: str) -> str:
    """The name that an adapter records for its base model: never a path of this machine."""
    # resolve, so that `.` and a trailing slash have a name too.
    return base if not Path(base).is_dir() else Path(base).resolve().name


def adapter_settings(adapter: Path) -> JsonObject:
    """What an adapter's adapter_config.json holds.

    Raises:
        ModelError: not an adapter folder, or a damaged one.
    """
    file = Path(adapter) / "adapter_config.json"
    if not file.is_file():
        raise ModelError(f"{adapter} is not an adapter folder: it has no adapter_config.json.")
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise ModelError(f"{file} is damaged ({error}); make the adapter again.") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{file} does not hold an adapter's settings; make the adapter again.")
    return settings


def check_adapter(adapter: Path, spec: ModelSpec) -> None:
    """Check that an adapter belongs to a base model.

    Raises:
        ModelError: not an adapter folder, trained for another base model, or for other weights of the embedded one.
    """
    trained_on = str(adapter_settings(adapter).get("base_model_name_or_path"))
    if trained_on != base_name(spec.base):
        raise ModelError(
            f"adapter {adapter} was trained on base model '{trained_on}', but --model is '{base_name(spec.base)}'; "
            "give that model, or another adapter."
        )
    if spec.base == EMBEDDED and (Path(adapter) / RECORD_FILE).is_file():
        record = read_record(adapter)
        if record.base_sha256 not in (None, embedded_sha256()):
            raise ModelError(
                f"adapter {adapter} was trained on the embedded model of version {record.package_version}, whose "
                "weights are not those of this version; install that version, or train the adapter again."
            )
