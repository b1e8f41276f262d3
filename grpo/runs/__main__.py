"""Make a run folder, or check one, and print its path; or print the stages of a run.

    python -m grpo.runs start --stock AAPL ...   make a run folder with its resolved config.yaml
    python -m grpo.runs resume DIR               check that a folder holds a run
    python -m grpo.runs stages                   the stages in their order, one a line: module, processes, title

run_pipeline.sh starts every run with one of the first two and runs the stages that the third one names; `processes` is
`many` for a stage that may share its work among several.
"""

from __future__ import annotations

import dataclasses
import sys
from datetime import datetime
from pathlib import Path

from grpo.config import RunConfig, parse_run_config, to_yaml
from grpo.runs.log import stage_entry
from grpo.runs.manifest import config_changes
from grpo.runs.stages import STAGES
from preprocessing.command_line import plain
from preprocessing.errors import UserError
from preprocessing.files import write_atomically


def start(config: RunConfig) -> Path:
    """Make the run folder with its resolved config.yaml.

    Raises:
        UserError: `run_dir` already holds a run with another configuration.
    """
    folder = config.run_dir or _fresh_folder(config.results_dir, config.stock_slug)
    # Before the file is written: config.yaml names its own folder, so it alone is enough to run any stage of this run.
    config = dataclasses.replace(config, run_dir=folder)
    file = folder / "config.yaml"
    if file.exists():
        # Compared as the parser reads both, so that a default that is written out is no difference.
        changes = config_changes(plain(_read_config(file)), plain(config))
        if changes:
            raise UserError(
                f"{folder} holds a run with another configuration: {'; '.join(changes)}. Give another "
                f"--run-dir, delete {folder}, or go on with that run: ./run_pipeline.sh --resume {folder}"
            )
    else:
        write_atomically(file, to_yaml(config))
    return folder


def resume(folder: Path) -> Path:
    """Check that a folder holds a run with a valid config.yaml.

    Raises:
        UserError: it does not; the message lists the runs beside it.
    """
    if not (folder / "config.yaml").is_file():
        beside = sorted(str(path.parent) for path in folder.parent.glob("*/config.yaml"))
        there = f"runs there: {', '.join(beside)}" if beside else "start a run without --resume"
        raise UserError(f"{folder} is not a run folder, it has no config.yaml; {there}")
    _read_config(folder / "config.yaml")
    return folder


def stage_lines() -> str:
    """One line per stage: its module, how many processes share its work, and what stands over its output."""
    return "\n".join(
        f"{stage.module}\t{'many' if stage.adapter else 'one'}\t{number}/{len(STAGES)} {stage.title}"
        for number, stage in enumerate(STAGES, start=1)
    )


def _read_config(file: Path) -> RunConfig:
    return parse_run_config(["--config", str(file)], prog=str(file), description="")


def _fresh_folder(results_dir: Path, stock: str) -> Path:
    """Make results_dir/STOCK_TIMESTAMP, with a number behind it where two runs start in the same second."""
    name = f"{stock}_{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while True:
        folder = results_dir / (f"{name}-{number}" if number > 1 else name)
        try:
            # Making the folder is what claims the name: a look whether it exists would let two runs that start at once
            # share it.
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            # Something else stands there, or in place of a parent (a broken link), where counting on would never end.
            if not folder.is_dir():
                raise
            number += 1


def main() -> None:
    """`start [FLAGS]`, `resume DIR` or `stages`; standard output holds what was asked for alone."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command == "start":
        description = "Make a run folder with the resolved config.yaml and print its path."
        print(start(parse_run_config(arguments, prog="python -m grpo.runs start", description=description)))
    elif command == "resume" and len(arguments) == 1:
        print(resume(Path(arguments[0])))
    elif command == "stages" and not arguments:
        print(stage_lines())
    elif command in ("-h", "--help"):
        print(__doc__)
    else:
        raise UserError("usage: python -m grpo.runs start [FLAGS] | resume DIR | stages")


if __name__ == "__main__":
    sys.exit(stage_entry(main))
