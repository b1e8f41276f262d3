"""Push adapters to the Hugging Face Hub. No torch.

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
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from httpx import HTTPError
from huggingface_hub import HfApi, get_token

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
from grpo.publishing.config import HubConfig
from grpo.runs.folder import stage_manifest
from grpo.runs.processes import rank
from grpo.runs.stages import ADAPTER_STAGES, Stage

logger = logging.getLogger("grpo")


class PushError(HubError):
    """A push that broke off, and that may succeed if it is repeated."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What can be pushed of a run, and where to.

    Attributes:
        run: the run folder.
        adapters: the folder of each adapter, by name.
        stock: what they were trained on.
        model: their base model, as `--model` names it.
        hub: the repositories.
    """

    run: Path
    adapters: Mapping[str, Path]
    stock: str
    model: str
    hub: HubConfig


def push_after_stage(upload: Upload, *names: str) -> None:
    """Push finished adapters (all, if none is named) where `hub.repo_id` asks for it; a failure is a warning.

    Under several processes rank 0 alone pushes.
    """
    if upload.hub.repo_id is None or rank() > 0:
        return
    try:
        for address in push_run(upload, *names):
            logger.info("pushed to %s", address)
    # A run of hours must not fail for a network: its adapter lies in the run folder.
    except (HubError, ModelError) as error:
        logger.warning("%s. The run is not affected; push again with: %s", str(error).rstrip("."), _repeat(upload))


def push_run(upload: Upload, *names: str) -> list[str]:
    """Push the named adapters of a run, or all whose stage is done; returns the addresses of the repositories.

    Raises:
        HubError: no adapter is finished, no token, no right to write, no network, or the Hub refuses.
        ModelError: an adapter folder is damaged.
    """
    done = [
        stage
        for stage in ADAPTER_STAGES
        if (not names or stage.adapter in names) and stage_manifest(upload.run, stage.key).is_file()
    ]
    if not done:
        raise HubError(f"{upload.run} has no finished adapter to push; run a training stage first")
    # Before the first upload, so that nothing is half pushed for want of a token.
    require_pushable(upload.hub, upload.model)
    return [_push(upload, stage) for stage in done]


def require_pushable(hub: HubConfig, model: str) -> str:
    """What a push needs besides an adapter; gives the name by which others load the base model.

    Raises:
        HubError: no repository, no token, or a base model that others cannot load.
    """
    if hub.repo_id is None:
        raise HubError("no repository to push to; give --hub.repo_id user/name")
    if get_token() is None:
        raise HubError(f"no token to push to {hub.repo_id} with; run `hf auth login`, or set HF_TOKEN")
    if hub.base_model_id is not None:
        return hub.base_model_id
    if model != EMBEDDED and Path(model).is_dir():
        raise HubError(
            f"the base model {model} is a local folder, which others cannot load; say what it is on the Hub "
            "with --hub.base_model_id user/name"
        )
    return model


def _push(upload: Upload, stage: Stage) -> str:
    """Push one adapter as one commit; gives the address of its repository."""
    hub, adapter = upload.hub, upload.adapters[stage.adapter]
    base = require_pushable(hub, upload.model)
    repository = f"{hub.repo_id}-{stage.hub_suffix}"
    record = dataclasses.replace(read_record(adapter), base_model=base)
    settings = adapter_settings(adapter) | {"base_model_name_or_path": base}
    api = HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        # A copy, since the files of the run keep the local name of the base model and stay what the manifest hashed.
        folder = Path(shutil.copytree(adapter, Path(temporary, "adapter")))
        (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        (folder / RECORD_FILE).write_text(record_text(record))
        (folder / "README.md").write_text(
            model_card(stage, adapter, record, run=upload.run, repo_id=repository, license_name=hub.license)
        )
        try:
            address = api.create_repo(repository, private=hub.private, exist_ok=True)
            # `exist_ok` takes a public repository as it is, and the adapter would be public with it.
            if hub.private and not api.model_info(repository).private:
                raise HubError(
                    f"{repository} is public on the Hub; make it private there, or give --hub.private false, or "
                    "another --hub.repo_id"
                )
            message = f"{stage.adapter} of {upload.stock} ({record.stage})"
            # One commit, so that a push that breaks off leaves the repository as it was.
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        # RuntimeError: a file that the Hub did not take; the reason is its cause.
        except (OSError, HTTPError, RuntimeError) as error:
            reason = hub_reason(error.__cause__ or error if isinstance(error, RuntimeError) else error)
            raise PushError(f"pushing {stage.adapter} to {repository} failed: {reason}") from error
    return str(address)


def _repeat(upload: Upload) -> str:
    """The command that pushes the run again."""
    words = ["python", "-m", "grpo.hub", "push", str(upload.run)]
    if not (upload.run / "config.yaml").is_file():
        words += ["--stock", upload.stock, "--model", upload.model, "--hub.repo_id", str(upload.hub.repo_id)]
        words += [] if upload.hub.private else ["--hub.private", "false"]
    return shlex.join(words)
