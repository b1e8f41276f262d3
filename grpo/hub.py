"""Push the adapters of a run to the Hugging Face Hub.

    python -m grpo.hub push results/RUN --repo-id user/name [--private false]

What a push is stands in `grpo.publishing.push`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from grpo.config import SHORT_NAMES, RunConfig
from grpo.publishing.push import PushError, push_run
from grpo.runs.folder import resolve_paths
from grpo.runs.log import stage_entry
from grpo.stages.training_settings import upload
from preprocessing.command_line import parse_config
from preprocessing.errors import UserError

_FLAGS = {"repo_id": "hub.repo_id", "private": "hub.private", "base_model_id": "hub.base_model_id"}


def main(argv: Sequence[str] | None = None) -> None:
    """`push RUN [FLAGS]`: FLAGS are those of a run, on top of RUN/config.yaml."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = "python -m grpo.hub"
    if len(arguments) < 2 or arguments[0] != "push" or arguments[1].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(__doc__)
            return
        raise UserError(f"usage: {prog} push RUN [--repo-id user/name] [--private false] [--base-model-id user/name]")
    run, flags = Path(arguments[1]), arguments[2:]
    if not run.is_dir():
        raise UserError(f"{run} is no run folder; correct the path")
    file = run / "config.yaml"
    settings = ["--config", str(file)] if file.is_file() else []
    config = parse_config(
        RunConfig,
        [*settings, "--run_dir", str(run), *flags],
        prog=f"{prog} push",
        description="Push the finished adapters of a run.",
        aliases=SHORT_NAMES | _FLAGS,
    )
    paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
    try:
        addresses = push_run(upload(config, paths))
    except PushError as error:
        raise PushError(f"{error}. Push again with: {shlex.join(['python', '-m', 'grpo.hub', *arguments])}") from error
    print(*addresses, sep="\n")


if __name__ == "__main__":
    sys.exit(stage_entry(main))
