"""Run folders, logs and the one resume rule; no torch.

A run is a folder: the resolved `config.yaml`, `pipeline.log`, and one folder per stage. A stage is finished
when its `manifest.json` exists, and the manifest is written last. Before a stage starts, `run_stage` decides:

    an input is missing                        error that names the stage to run
    manifest there, same config and files      skip
    manifest there, anything else              error that says what changed and the ways out; a stage whose parts
                                               are kept one by one (the comparison) is made again instead
    no manifest, a complete checkpoint         resume from the newest one
    no manifest, no complete checkpoint        start

`started.json` holds the config and the inputs of an unfinished attempt, so that a checkpoint is never resumed
under another configuration. Nothing here needs a clean shutdown: a killed process leaves no manifest.

    python -m grpo.runs start --stock AAPL ...   make a run folder and print its path
    python -m grpo.runs resume DIR               check a run folder and print its path
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from grpo.adapters import ADAPTER_STAGES, RECORD_FILE, AdapterRecord, is_hub_id, record_text
from grpo.checkpoints import newest_checkpoint
from grpo.config import RunConfig, parse_run_config, plain, to_yaml
from grpo.manifest import (
    config_changes,
    fingerprints,
    git_commit,
    output_changes,
    request_changes,
    request_record,
    to_json,
    versions,
)
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from preprocessing.windows import SPLITS

STAGE_FOLDERS = {
    "preprocess": "data",
    "stage1": "stage1_grpo_training",
    "rejection": "sft_data_generation",
    "stage2": "stage2_sft_training",
    "stage3": "stage3_grpo_from_sft",
    "compare": "model_comparison",
}
STAGE_MODULES = {
    "preprocess": "grpo.stages.preprocess",
    "stage1": "grpo.stages.stage1_train_grpo",
    "rejection": "grpo.stages.sft_data_generation",
    "stage2": "grpo.stages.stage2_train_sft",
    "stage3": "grpo.stages.stage3_train_grpo_from_sft",
    "compare": "grpo.stages.compare_models",
}
MANIFEST_FILE = "manifest.json"
OWN_PACKAGES = ("grpo", "preprocessing", "baselines", "__main__")  # the last: `python -m grpo.hub` and the like

logger = logging.getLogger("grpo")


class RunError(UserError):
    """A run cannot go on; the message names the place and the way out."""


# Where things lie


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
            from grpo.hub import locate_adapter  # it imports this module

            paths[name] = locate_adapter(str(given))
    return RunPaths(**paths)


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


# One stage


@dataclass(frozen=True)
class StageRun:
    """What the body of a stage gets to know.

    Attributes:
        name: the stage's name in `STAGE_FOLDERS`.
        folder: the stage's folder; it exists.
        resume_from: the newest complete `checkpoints/checkpoint-N`, or None for a fresh start.
        logger: writes to standard error and to the run's pipeline.log.
    """

    name: str
    folder: Path
    resume_from: Path | None
    logger: logging.Logger


def run_stage(
    name: str,
    config: RunConfig,
    *,
    sections: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    body: Callable[[StageRun], Mapping[str, Any]],
    remake: bool = False,
) -> None:
    """Run one stage by the resume rule, and write its manifest when all its outputs are there.

    Under several processes each decides for itself from the same files, all run the body, and rank 0 alone
    writes.

    Args:
        name: the stage's name in `STAGE_FOLDERS`.
        config: the whole configuration; gives the folder and the seed.
        sections: the parts of the configuration that the result depends on, by name.
        inputs: files or folders that must exist, by name.
        outputs: files or folders that the body makes, by name.
        body: does the work and returns the headline metrics for the manifest.
        remake: make a finished stage again where its settings, inputs or outputs differ now, instead of refusing.

    Raises:
        RunError: an input or output is missing, the stage holds something else, or the disk is full.
    """
    with _explained(run_folder(config)):
        _start_logging(run_folder(config))
        _require_inputs(name, config, inputs)
        request = request_record(name, sections, inputs)
        stage = _decide(name, stage_folder(config, name), request, outputs, remake)
        if stage is None:
            return
        begin = time.monotonic()
        metrics = body(stage)
        _barrier()
        if rank() == 0:
            _finish(stage, config, request, outputs, metrics, seconds=round(time.monotonic() - begin, 3))


def _decide(
    name: str, folder: Path, request: Mapping[str, Any], outputs: Mapping[str, Path], remake: bool
) -> StageRun | None:
    """The resume rule; None: the stage is done."""
    manifest, started = folder / MANIFEST_FILE, folder / "started.json"
    if manifest.exists():
        former = _read_record(manifest)
        changes = request_changes(former, request) + output_changes(former, outputs)
        if not changes:
            logger.info("%s: already done in %s; skipped", name, folder)
            return None
        if not remake:
            _refuse_changes(folder, changes)
        logger.info("%s: made again, since %s", name, "; ".join(changes))
        if rank() == 0:
            manifest.unlink()  # a kill from here on leaves the stage unfinished
    resume_from = newest_checkpoint(folder / "checkpoints")
    if resume_from and started.exists():
        _refuse_changes(folder, request_changes(_read_record(started), request))
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_atomically(started, to_json(request))
    logger.info("%s: %s", name, f"resume from {resume_from}" if resume_from else f"start in {folder}")
    return StageRun(name, folder, resume_from, logger)


def _finish(
    stage: StageRun,
    config: RunConfig,
    request: Mapping[str, Any],
    outputs: Mapping[str, Path],
    metrics: Mapping[str, Any],
    seconds: float,
) -> None:
    for name, path in outputs.items():
        if not Path(path).exists():
            raise RunError(f"{stage.name}: ended without its output {name} at {path}; the stage does not count as done")
    record = {
        **request,
        "outputs": fingerprints(outputs),
        "metrics": metrics,
        "seed": config.seed,
        "seconds": seconds,
        "resumed_from": stage.resume_from.name if stage.resume_from else None,
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_atomically(stage.folder / MANIFEST_FILE, to_json(record))
    logger.info("%s: done in %.0f s", stage.name, seconds)


def _require_inputs(name: str, config: RunConfig, inputs: Mapping[str, Path]) -> None:
    for key, path in inputs.items():
        if Path(path).exists():
            continue
        makers = [stage for stage in STAGE_FOLDERS if stage_folder(config, stage) in Path(path).parents]
        way_out = f"run `python -m {STAGE_MODULES[makers[0]]}` first, or " if makers else ""
        raise RunError(f"{name}: input {key} is missing at {path}; {way_out}correct the path")


def _refuse_changes(folder: Path, changes: Sequence[str]) -> None:
    if changes:
        raise RunError(
            f"{folder} holds this stage with something else: {'; '.join(changes)}. "
            f"Give another --run-dir, or delete {folder} to run the stage again"
        )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"config", "config_sha256", "inputs"} <= record.keys():
        raise RunError(f"{path} is not a stage's record; delete {path.parent} to run the stage again")
    return record


def rank() -> int:
    """This process's number among those that the launcher started; 0 writes."""
    return int(os.environ.get("RANK", "0"))


def _barrier() -> None:
    """Wait for the other processes, if the body has started a process group."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


# Errors and the log


def stage_entry(main: Callable[[], None]) -> int:
    """Run a stage's `main` and turn expected errors into one line on standard error; gives the exit code.

    Expected are UserError, whoever raises it, the ValueError classes that this project defines, and OSError. Anything
    else is a bug and keeps its traceback. pipeline.log gets the traceback of both.
    Use as `sys.exit(stage_entry(main))`.
    """
    try:
        main()
    except KeyboardInterrupt as interrupt:
        _report(str(interrupt) or "interrupted")
        return 130
    except Exception as error:
        if not _is_expected(error):
            _report(f"unexpected {type(error).__name__}: {error}")
            raise
        _report(f"the disk is full, free space and run again: {error}" if _is_disk_full(error) else str(error))
        return 1
    return 0


def _is_expected(error: Exception) -> bool:
    own_class = type(error).__module__.partition(".")[0] in OWN_PACKAGES
    return isinstance(error, (UserError, OSError)) or (isinstance(error, ValueError) and own_class)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say how to go on after a full disk, a lost process or Ctrl-C."""
    way_out = f"./run_pipeline.sh --resume {folder}"
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: {way_out}") from interrupt
    except Exception as error:
        if "gloo/transport" in str(error):  # several processes on a CPU; on GPUs the launcher ends the others
            raise RunError(f"another process of this run ended, its message says why; go on with: {way_out}") from error
        if not (_is_disk_full(error) or _is_cut_short_save(error, folder)):
            raise
        raise RunError(f"disk full: free space on the disk of {folder} and go on with: {way_out}") from error


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors wraps the operating system's error in a class of its own
    return "No space left on device" in str(error)


def _is_cut_short_save(error: BaseException, folder: Path) -> bool:
    """Whether torch.save, which does not pass on why a write failed, stopped on a disk without space."""
    from_torch_save = any(sign in str(error) for sign in ("iostream error", "inline_container.cc"))
    return from_torch_save and folder.is_dir() and shutil.disk_usage(folder).free < 2**20


def _report(message: str) -> None:
    if not logger.handlers:
        _start_logging(None)
    logger.error(" ".join(message.split()), exc_info=True)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: a full disk is reported by the stage's own writes, not by the log."""


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write to what sys.stderr is now, which progress bars and tests replace."""
        print(self.format(record), file=sys.stderr, flush=True)


class _ConsoleFormat(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One line, without the traceback that pipeline.log gets."""
        message = f"[process {rank()}] {record.getMessage()}" if rank() else record.getMessage()
        return f"{record.levelname.lower()}: {message}" if record.levelno >= logging.WARNING else message


def _start_logging(folder: Path | None) -> None:
    """Send the log to standard error and, on rank 0, to the run's pipeline.log; other ranks only warn."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    logger.propagate = False
    console = _Console()
    console.setFormatter(_ConsoleFormat())
    logger.addHandler(console)
    if folder is not None and rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        file = _LogFile(folder / "pipeline.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)


# Starting and resuming a run


def start(config: RunConfig) -> Path:
    """Make the run folder with its resolved config.yaml.

    Raises:
        RunError: `run_dir` already holds a run with another configuration.
    """
    folder = config.run_dir or _fresh_folder(config.results_dir, config.stock_slug)
    config = dataclasses.replace(config, run_dir=folder)
    file = folder / "config.yaml"
    if file.exists():
        changes = config_changes(plain(_read_config(file)), plain(config))
        if changes:
            raise RunError(
                f"{folder} holds a run with another configuration: {'; '.join(changes)}. Give another "
                f"--run-dir, delete {folder}, or go on with that run: ./run_pipeline.sh --resume {folder}"
            )
    else:
        write_atomically(file, to_yaml(config))
    return folder


def resume(folder: Path) -> Path:
    """Check that a folder holds a run with a valid config.yaml.

    Raises:
        RunError: it does not; the message lists the runs beside it.
    """
    if not (folder / "config.yaml").is_file():
        beside = sorted(str(path.parent) for path in folder.parent.glob("*/config.yaml"))
        there = f"runs there: {', '.join(beside)}" if beside else "start a run without --resume"
        raise RunError(f"{folder} is not a run folder, it has no config.yaml; {there}")
    _read_config(folder / "config.yaml")
    return folder


def _read_config(file: Path) -> RunConfig:
    return parse_run_config(["--config", str(file)], prog=str(file), description="")


def _fresh_folder(results_dir: Path, stock: str) -> Path:
    """Make results_dir/STOCK_TIMESTAMP, with a number behind it where two runs start in the same second."""
    name = f"{stock}_{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while True:
        folder = results_dir / (f"{name}-{number}" if number > 1 else name)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise
            number += 1


def main() -> None:
    """`start [FLAGS]` or `resume DIR`; standard output holds the run folder alone."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command == "start":
        description = "Make a run folder with the resolved config.yaml and print its path."
        print(start(parse_run_config(arguments, prog="python -m grpo.runs start", description=description)))
    elif command == "resume" and len(arguments) == 1:
        print(resume(Path(arguments[0])))
    elif command in ("-h", "--help"):
        print(__doc__)
    else:
        raise RunError("usage: python -m grpo.runs start [FLAGS] | resume DIR")


if __name__ == "__main__":
    sys.exit(stage_entry(main))
