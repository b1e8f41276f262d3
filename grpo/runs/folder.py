"""Where things lie: the run folder, its stages' folders, and the adapters that a run makes."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grpo.config import RunConfig
from grpo.models.adapters import ADAPTER_STAGES, RECORD_FILE, AdapterRecord, is_hub_id, record_text
from grpo.models.download import locate_adapter
from grpo.runs.stages import STAGE_FOLDERS
from preprocessing.windows import SPLITS

MANIFEST_FILE = "manifest.json"


def run_folder(config: RunConfig) -> Path:
    """The run folder: `run_dir`, or results_dir/STOCK where none is given."""
    return config.run_dir or config.results_dir / config.stock_slug


def stage_folder(config: RunConfig, name: str) -> Path:
    """The folder of one stage, by its name in `STAGE_FOLDERS`."""
    return run_folder(config) / STAGE_FOLDERS[name]


def stage_manifest(config: RunConfig, name: str) -> Path:
    """The record of what a stage made; it is there when, and only when, the stage is finished."""
    return stage_folder(config, name) / MANIFEST_FILE


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """`PathsConfig` with every place filled in."""

    train_x: Path
    train_y: Path
    val_x: Path
    val_y: Path
    test_x: Path
    test_y: Path
    full_x: Path
    full_y: Path
    sft_data: Path
    grpo_lora_1st: Path
    sft_lora: Path
    grpo_lora_2nd: Path


def resolve_paths(config: RunConfig) -> RunPaths:
    """`config.paths` with every null replaced by the place where the pipeline puts that file.

    An adapter given as user/name[@revision] that is no folder here is fetched from the Hub.

    Raises:
        HubError: the Hub has no such adapter, or cannot be reached.
    """
    stock = config.stock_slug
    defaults = {
        f"{split}_{part}": stage_folder(config, "preprocess") / f"{stock}_{split}_{part}.csv"
        for split in SPLITS
        for part in ("x", "y")
    }
    defaults["sft_data"] = stage_folder(config, "rejection") / f"{stock}_sft_training_data.csv"
    defaults["grpo_lora_1st"] = stage_folder(config, "stage1") / "adapter"
    defaults["sft_lora"] = stage_folder(config, "stage2") / "adapter"
    defaults["grpo_lora_2nd"] = stage_folder(config, "stage3") / "adapter"
    paths = {name: getattr(config.paths, name) or path for name, path in defaults.items()}
    for name in ADAPTER_STAGES:
        given = getattr(config.paths, name)
        if given is not None and is_hub_id(str(given)) and not given.exists():
            paths[name] = locate_adapter(str(given))
    return RunPaths(**paths)


def adapter_place(config: RunConfig, name: str) -> Path:
    """Where a finished adapter is published: models_dir/MODEL/STOCK/NAME."""
    return config.models_dir / config.model_slug / config.stock_slug / name


def publish_adapter(source: Path, target: Path, record: AdapterRecord | None = None) -> None:
    """Copy an adapter folder in place of the former one, with what it was trained on beside it if that is given.

    Readers see the whole former adapter or the whole next one. A kill in the instant between the two renames
    leaves none; the stage that was publishing has no manifest yet, so it publishes again on resume.
    """
    source, target = Path(source), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        shutil.copytree(source, Path(temporary, "next"))
        if record is not None:
            Path(temporary, "next", RECORD_FILE).write_text(record_text(record))
        with suppress(FileNotFoundError):
            target.rename(Path(temporary, "former"))
        Path(temporary, "next").rename(target)
