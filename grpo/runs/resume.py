"""One stage of a run, by the one resume rule; no torch.

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
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from grpo.runs.checkpoints import newest_checkpoint
from grpo.runs.folder import MANIFEST_FILE, stage_folder
from grpo.runs.log import explained, logger, start_logging
from grpo.runs.manifest import (
    fingerprints,
    git_commit,
    output_changes,
    request_changes,
    request_record,
    to_json,
    versions,
)
from grpo.runs.processes import barrier, rank
from grpo.runs.stages import STAGES
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically


@dataclass(frozen=True)
class StageRun:
    """What the body of a stage gets to know.

    Attributes:
        name: the stage's key.
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
    run: Path,
    *,
    seed: int,
    sections: Mapping[str, object],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    body: Callable[[StageRun], Mapping[str, object]],
    remake: bool = False,
) -> None:
    """Run one stage by the resume rule, and write its manifest when all its outputs are there.

    Under several processes each decides for itself from the same files, all run the body, and rank 0 alone
    writes.

    Args:
        name: the stage's key.
        run: the run folder.
        seed: of the run, for the manifest.
        sections: the parts of the configuration that the result depends on, by name.
        inputs: files or folders that must exist, by name.
        outputs: files or folders that the body makes, by name.
        body: does the work and returns the headline metrics for the manifest.
        remake: make a finished stage again where its settings, inputs or outputs differ now, instead of refusing.

    Raises:
        UserError: an input or output is missing, the stage holds something else, or the disk is full.
    """
    with explained(run):
        start_logging(run)
        _require_inputs(name, run, inputs)
        # Hashed before the work: an input that is edited meanwhile shows as a change at the next start.
        request = request_record(name, sections, inputs)
        stage = _decide(name, stage_folder(run, name), request, outputs, remake)
        if stage is None:
            return
        begin = time.monotonic()
        metrics = body(stage)
        # Whoever sees a manifest may rely on all that it names, so rank 0 writes it when every process is done, and
        # last.
        barrier()
        if rank() == 0:
            _finish(stage, seed, request, outputs, metrics, seconds=round(time.monotonic() - begin, 3))


def _decide(
    name: str, folder: Path, request: Mapping[str, object], outputs: Mapping[str, Path], remake: bool
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
        # Deleted before anything is made again, so that a kill from here on leaves an unfinished stage.
        if rank() == 0:
            manifest.unlink()
    resume_from = newest_checkpoint(folder / "checkpoints")
    # Without a checkpoint nothing of the former attempt is used, and other settings may start over.
    if resume_from and started.exists():
        _refuse_changes(folder, request_changes(_read_record(started), request))
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_atomically(started, to_json(request))
    logger.info("%s: %s", name, f"resume from {resume_from}" if resume_from else f"start in {folder}")
    return StageRun(name, folder, resume_from, logger)


def _finish(
    stage: StageRun,
    seed: int,
    request: Mapping[str, object],
    outputs: Mapping[str, Path],
    metrics: Mapping[str, object],
    seconds: float,
) -> None:
    for name, path in outputs.items():
        if not Path(path).exists():
            raise UserError(
                f"{stage.name}: ended without its output {name} at {path}; the stage does not count as done"
            )
    record = {
        **request,
        "outputs": fingerprints(outputs),
        "metrics": metrics,
        "seed": seed,
        "seconds": seconds,
        "resumed_from": stage.resume_from.name if stage.resume_from else None,
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_atomically(stage.folder / MANIFEST_FILE, to_json(record))
    logger.info("%s: done in %.0f s", stage.name, seconds)


def _require_inputs(name: str, run: Path, inputs: Mapping[str, Path]) -> None:
    for key, path in inputs.items():
        if Path(path).exists():
            continue
        # The stage in whose folder the missing file would lie is the one that makes it.
        makers = [stage for stage in STAGES if stage_folder(run, stage.key) in Path(path).parents]
        way_out = f"run `python -m {makers[0].module}` first, or " if makers else ""
        raise UserError(f"{name}: input {key} is missing at {path}; {way_out}correct the path")


def _refuse_changes(folder: Path, changes: Sequence[str]) -> None:
    if changes:
        raise UserError(
            f"{folder} holds this stage with something else: {'; '.join(changes)}. "
            f"Give another --run-dir, or delete {folder} to run the stage again"
        )


def _read_record(path: Path) -> JsonObject:
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"config", "config_sha256", "inputs"} <= record.keys():
        raise UserError(f"{path} is not a stage's record; delete {path.parent} to run the stage again")
    return record
