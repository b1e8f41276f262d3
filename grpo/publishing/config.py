"""Settings of the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from preprocessing.errors import require


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Where finished adapters are pushed; nothing leaves this machine unless `repo_id` is given."""

    repo_id: str | None = None
    """user/name: each adapter goes to a repository of its own, user/name-grpo-1st, user/name-sft and
    user/name-grpo-2nd, as soon as its stage is done; null: no push."""
    private: bool = True
    """Make the repositories private; a public one that is already there is then refused."""
    base_model_id: str | None = None
    """Hub id of the base model where `model` is a local folder, so that others can load the adapter."""
    license: str | None = None
    """Licence named in the model card, for example apache-2.0; null: the card refers to the base model's."""

    def __post_init__(self) -> None:
        for name, value in (("repo_id", self.repo_id), ("base_model_id", self.base_model_id)):
            require(
                value is None or re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", value) is not None,
                f"hub.{name} must look like user/name; got '{value}'",
            )
