"""Adapters from the Hugging Face Hub. No torch."""

from __future__ import annotations

import functools
from pathlib import Path

from httpx import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from grpo.models.adapters import ModelError, is_hub_id
from preprocessing.errors import UserError


class HubError(UserError):
    """The Hub cannot be used; the message is one line that names the repository and the way out."""


def locate_adapter(adapter: str) -> Path:
    """The folder of an adapter: a local one, or the copy of user/name[@revision] that is fetched from the Hub.

    Raises:
        ModelError: there is no such folder.
        HubError: there is none, and the Hub has no such repository or cannot be reached.
    """
    if Path(adapter).is_dir():
        return Path(adapter)
    if not is_hub_id(adapter):
        raise ModelError(
            f"adapter {adapter}: there is no such folder (a Hub id looks like user/name or user/name@main)."
        )
    repository, _, revision = adapter.partition("@")
    return _fetch(repository, revision or None)


# One look at the Hub per process.
@functools.cache
def _fetch(repository: str, revision: str | None) -> Path:
    try:
        # A forecast needs the files at the top alone; what lies in folders may be checkpoints of the training.
        return Path(snapshot_download(repository, revision=revision, ignore_patterns=["*/*"]))
    except (OSError, ValueError, HTTPError) as error:
        place = f"{repository}@{revision}" if revision else repository
        raise HubError(f"adapter {place} is no folder here, and cannot be fetched: {hub_reason(error)}") from error


def hub_reason(error: BaseException) -> str:
    """One line of what the Hub or the network said, with the way out where it is known."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to reach the Hub"
    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        ways = {
            401: "log in with `hf auth login`, or set HF_TOKEN to a valid token",
            403: "the token has no right to write there; take one with write access",
            404: "there is no such repository or revision, or it is private and the token has no access to it",
        }
        said = error.server_message or str(error).strip().splitlines()[0]
        return f"the Hub answers {code}: {ways.get(code, said)}"
    lines = str(error).strip().splitlines() or [""]
    return f"{lines[0]} ({type(error).__name__}); check the network and HF_ENDPOINT"
