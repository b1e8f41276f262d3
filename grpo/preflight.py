"""What would go wrong in a run, before it does.

    python -m grpo.preflight --config results/RUN/config.yaml --num-processes 4

Prints one line for each problem; the exit code is then 1. The checks stand in `grpo.training.preflight`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from grpo.config import parse_run_config
from grpo.runs.folder import resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.processes import SHARDING
from grpo.runs.stages import ADAPTER_STAGES
from grpo.stages.training_settings import training_task
from grpo.training.preflight import PreflightError, problems_of_run

DEFAULT_PORT = 29500
"""Where `accelerate launch` lets processes meet unless it is told otherwise."""


def _follow_launcher(file: Path) -> int:
    """Take over what a file of `accelerate launch` decides: whether weights are shared out; gives the port.

    Raises:
        PreflightError: it is not a YAML file of settings.
    """
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PreflightError(f"--accelerate-config {file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(settings, dict):
        raise PreflightError(f"--accelerate-config {file} holds no settings")
    sharding = SHARDING.get(str(settings.get("distributed_type")))
    if sharding:
        os.environ[sharding] = "true"  # as the launcher will say it to the stages
    return int(settings.get("main_process_port") or DEFAULT_PORT)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags of a run, print every problem."""
    launch: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    launch.add_argument("--num-processes", "--num_processes", type=int, default=1)
    launch.add_argument("--main-process-port", "--main_process_port", type=int)
    launch.add_argument("--accelerate-config", "--accelerate_config", type=Path)
    own, flags = launch.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    config = parse_run_config(
        flags,
        prog="python -m grpo.preflight",
        description="Name what would go wrong in a run. Further flags: --num-processes N, --main-process-port PORT, "
        "--accelerate-config FILE.",
    )
    paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
    port = _follow_launcher(own.accelerate_config) if own.accelerate_config else DEFAULT_PORT
    problems = problems_of_run(
        [training_task(config, stage) for stage in ADAPTER_STAGES],
        config.run_folder,
        train=(paths.train_x, paths.train_y),
        processes=own.num_processes,
        port=own.main_process_port or port,
    )
    if len(problems) == 1:
        raise PreflightError(problems[0])
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise PreflightError(f"{len(problems)} problems, named above")
    print("no problem found")


if __name__ == "__main__":
    sys.exit(stage_entry(main))
