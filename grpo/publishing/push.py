"""Push adapters to the Hugging Face Hub. No torch.

    python -m grpo.hub push results/RUN --repo-id user/name [--private false]

Each adapter of a run has a repository of its own, since that is what PEFT, vLLM and the Hub's own pages take:
user/name-grpo-1st, user/name-sft and user/name-grpo-2nd. A repository holds the weights, the adapter's settings and
record with the base model's Hub id in place of any local name, the tokenizer, and a model card written from the run's
manifests. An adapter of the embedded model names the base `embedded`: it works with this package alone.

`hub.repo_id` makes the stages push as they finish. A push that fails never spoils the run: it is a warning that says
how to repeat it, and a repeated push sends only what has changed. One commit holds everything, so that a push that
breaks off leaves the repository as it was. The token is what huggingface_hub finds: HF_TOKEN, or `hf auth login`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from httpx import HTTPError
from huggingface_hub import HfApi, get_token

from grpo.config import SHORT_NAMES, RunConfig
from grpo.models.adapters import (
    RECORD_FILE,
    ModelError,
    adapter_settings,
    read_record,
    record_text,
)
from grpo.models.config import EMBEDDED
from grpo.models.download import HubError, hub_reason
from grpo.publishing.card import model_card
from grpo.runs.folder import resolve_paths, stage_manifest
from grpo.runs.processes import rank
from grpo.runs.stages import ADAPTER_STAGES, Stage
from preprocessing.command_line import parse_config
from preprocessing.errors import UserError

_FLAGS = {"repo_id": "hub.repo_id", "private": "hub.private", "base_model_id": "hub.base_model_id"}

logger = logging.getLogger("grpo")


class PushError(HubError):
    """A push that broke off, and that may succeed if it is repeated."""


def push_after_stage(config: RunConfig, *names: str) -> None:
    """Push finished adapters (all, if none is named) where `hub.repo_id` asks for it; a failure is a warning.

    Under several processes rank 0 alone pushes.
    """
    if config.hub.repo_id is None or rank() > 0:
        return
    try:
        for address in push_run(config, *names):
            logger.info("pushed to %s", address)
    except (HubError, ModelError) as error:
        logger.warning("%s. The run is not affected; push again with: %s", str(error).rstrip("."), _repeat(config))


def push_run(config: RunConfig, *names: str) -> list[str]:
    """Push the named adapters of a run, or all whose stage is done; returns the addresses of the repositories.

    Raises:
        HubError: no adapter is finished, no token, no right to write, no network, or the Hub refuses.
        ModelError: an adapter folder is damaged.
    """
    adapters = resolve_paths(config.paths, config.run_folder, config.stock_slug).adapters
    done = [
        stage
        for stage in ADAPTER_STAGES
        if (not names or stage.adapter in names) and stage_manifest(config.run_folder, stage.key).is_file()
    ]
    if not done:
        raise HubError(f"{config.run_folder} has no finished adapter to push; run a training stage first")
    require_pushable(config)
    return [_push(config, stage, adapters[stage.adapter]) for stage in done]


def require_pushable(config: RunConfig) -> str:
    """What a push needs besides an adapter; gives the base model's name for others.

    Raises:
        HubError: no repository, no token, or a base model that others cannot load.
    """
    if config.hub.repo_id is None:
        raise HubError("no repository to push to; give --hub.repo_id user/name")
    if get_token() is None:
        raise HubError(f"no token to push to {config.hub.repo_id} with; run `hf auth login`, or set HF_TOKEN")
    if config.hub.base_model_id is not None:
        return config.hub.base_model_id
    if config.model != EMBEDDED and Path(config.model).is_dir():
        raise HubError(
            f"the base model {config.model} is a local folder, which others cannot load; say what it is on the Hub "
            "with --hub.base_model_id user/name"
        )
    return config.model


def _push(config: RunConfig, stage: Stage, adapter: Path) -> str:
    """Push one adapter as one commit; gives the address of its repository."""
    base = require_pushable(config)
    repository = f"{config.hub.repo_id}-{stage.hub_suffix}"
    record = dataclasses.replace(read_record(adapter), base_model=base)
    settings = adapter_settings(adapter) | {"base_model_name_or_path": base}
    api = HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(adapter, Path(temporary, "adapter")))
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        (folder / RECORD_FILE).write_text(record_text(record))
        (folder / "README.md").write_text(model_card(config, stage, adapter, record, repository))
        try:
            address = api.create_repo(repository, private=config.hub.private, exist_ok=True)
            if config.hub.private and not api.model_info(repository).private:
                raise HubError(
                    f"{repository} is public on the Hub; make it private there, or give --hub.private false, or "
                    "another --hub.repo_id"
                )
            message = f"{stage.adapter} of {config.stock} ({record.stage})"
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        except (OSError, HTTPError, RuntimeError) as error:  # the last: a file that was not taken, the reason its cause
            reason = hub_reason(error.__cause__ or error if isinstance(error, RuntimeError) else error)
            raise PushError(f"pushing {stage.adapter} to {repository} failed: {reason}") from error
    return str(address)


def _repeat(config: RunConfig) -> str:
    """The command that pushes the run again."""
    folder = config.run_folder
    words = ["python", "-m", "grpo.hub", "push", str(folder)]
    if not (folder / "config.yaml").is_file():
        words += ["--stock", config.stock, "--model", config.model, "--hub.repo_id", str(config.hub.repo_id)]
        words += [] if config.hub.private else ["--hub.private", "false"]
    return shlex.join(words)


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
    try:
        addresses = push_run(config)
    except PushError as error:
        raise PushError(f"{error}. Push again with: {shlex.join(['python', '-m', 'grpo.hub', *arguments])}") from error
    print(*addresses, sep="\n")
