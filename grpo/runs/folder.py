"""Where things lie in a run folder, and how an adapter is published."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from grpo.models.adapters import RECORD_FILE, AdapterRecord, ModelError, is_hub_id, read_record, record_text
from grpo.models.download import locate_adapter
from grpo.runs.config import PathsConfig
from grpo.runs.stages import ADAPTER_STAGES, stage_of
from preprocessing.files import give_ordinary_permissions, sha256
from preprocessing.windows import SPLITS

MANIFEST_FILE = "manifest.json"


def stage_folder(run: Path, key: str) -> Path:
    """The folder of one stage in a run folder."""
    return run / stage_of(key).folder


def stage_manifest(run: Path, key: str) -> Path:
    """The record of what a stage made; it is there when, and only when, the stage is finished."""
    return stage_folder(run, key) / MANIFEST_FILE


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """`PathsConfig` with every place filled in; the adapters by name, in the order of their stages."""

    train_x: Path
    train_y: Path
    val_x: Path
    val_y: Path
    test_x: Path
    test_y: Path
    full_x: Path
    full_y: Path
    sft_data: Path
    adapters: Mapping[str, Path]

    def named(self, *names: str) -> dict[str, Path]:
        """Some files and adapters by name, as a stage declares its inputs."""
        places = vars(self) | dict(self.adapters)
        return {name: places[name] for name in names}


def has_val(given: PathsConfig, paths: RunPaths) -> bool:
    """Whether there are windows to validate on.

    Either they are named, or the run has made them, or it will, since no training windows are named either.
    """
    named = given.val_x is not None or given.val_y is not None
    return named or given.train_x is None or paths.val_x.exists()


def resolve_paths(given: PathsConfig, run: Path, stock: str) -> RunPaths:
    """The places of all files: those that are given, and for the others where the pipeline puts them.

    Args:
        given: what the configuration names.
        run: the run folder.
        stock: the stock as a file name.
    """
    places = {
        f"{split}_{part}": stage_folder(run, "preprocess") / f"{stock}_{split}_{part}.csv"
        for split in SPLITS
        for part in ("x", "y")
    }
    places["sft_data"] = stage_folder(run, "rejection") / f"{stock}_sft_training_data.csv"
    adapters = {stage.adapter: stage_folder(run, stage.key) / "adapter" for stage in ADAPTER_STAGES}
    return RunPaths(
        **{name: getattr(given, name) or place for name, place in places.items()},
        adapters={name: getattr(given, name) or place for name, place in adapters.items()},
    )


def fetch_adapters(paths: RunPaths, *names: str) -> RunPaths:
    """The same places, with a copy of each named adapter that is a Hub id, user/name[@revision], and no folder here.

    Raises:
        HubError: the Hub has no such adapter, or cannot be reached.
    """
    places = dict(paths.adapters)
    for name in names:
        # A relative folder looks like user/name as well; what lies here wins.
        if is_hub_id(str(places[name])) and not places[name].exists():
            places[name] = locate_adapter(str(places[name]))
    return replace(paths, adapters=places)


def publish_for_others(source: Path, target: Path, logger: logging.Logger) -> None:
    """Copy an adapter to the place where adapters are looked for, and say which one it replaces there, if another."""
    if target.is_dir() and sha256(source) != sha256(target):
        logger.info("%s: replaces the adapter of an earlier run, %s", target, _described(target))
    publish_adapter(source, target)


def _described(adapter: Path) -> str:
    try:
        record = read_record(adapter)
    except ModelError:
        return "which has no record that can be read"
    return (
        f"trained on {record.stock or 'unknown stocks'} up to {record.trained_until or 'an unknown day'} with seed "
        f"{record.seed} by version {record.package_version}"
    )


def publish_adapter(source: Path, target: Path, record: AdapterRecord | None = None) -> None:
    """Copy an adapter folder in place of the former one, with what it was trained on beside it if that is given.

    Readers see the whole former adapter or the whole next one.
    """
    source, target = Path(source), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since a rename is one step only within one file system.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        shutil.copytree(source, Path(temporary, "next"))
        if record is not None:
            Path(temporary, "next", RECORD_FILE).write_text(record_text(record))
        # The source may be a temporary folder, which its maker alone can read, and the copy has its permissions.
        give_ordinary_permissions(Path(temporary, "next"))
        # A folder cannot be renamed onto one that has files. A kill between the two renames leaves no adapter, but no
        # manifest of the stage that was publishing either, so it publishes again on resume.
        with suppress(FileNotFoundError):
            target.rename(Path(temporary, "former"))
        Path(temporary, "next").rename(target)
