"""What `compare.forecasters` may say, one word per forecaster.

    NAME                   `base`, an adapter of the run (`sft`, ...), a plugin, `optimum`, or `llm`, `all` for many
    NAME=ADAPTER           an adapter: a folder, or user/name[@revision] on the Hub
    NAME=ADAPTER@MODEL     the same on another base model than its record names
    NAME=base@MODEL        a base model alone
    [NAME=]module:Class    a plugin of an installed package that is not registered
    [NAME=]file.py:Class   a plugin in a file

After an @, what has a slash is a MODEL, and so is `embedded`; a word without is a revision. So a model is written as
`embedded`, user/name, or a path with a slash (./tiny), and a revision with a slash as user/name@refs/pr/1@MODEL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from grpo.models.config import EMBEDDED
from preprocessing.errors import UserError

BASE = "base"
"""The base model alone."""
_FORMS = "NAME, NAME=ADAPTER, NAME=ADAPTER@MODEL, NAME=base@MODEL, NAME=module:Class or NAME=file.py:Class"


@dataclass(frozen=True)
class Asked:
    """One word of `compare.forecasters`, taken apart.

    Attributes:
        name: how tables are to call it.
        plugin: reference to a plugin that is not registered.
        adapter: folder or Hub id of an adapter, `base` for none; None where the name says it all.
        model: base model; None: the one that the adapter's record names, or the run's.
    """

    name: str
    plugin: str | None = None
    adapter: str | None = None
    model: str | None = None


def read_asked(word: str) -> Asked:
    """Take one word apart.

    Raises:
        UserError: it has none of the forms.
    """
    named, equals, what = word.partition("=")
    if not equals and ":" not in word:
        return Asked(word)
    if not equals:
        # a plugin without a name of its own takes that of its class
        named, what = word.rpartition(":")[2], word
    # names become file names and columns of tables, so nothing odd and nothing long
    if not re.fullmatch(r"[A-Za-z_][\w.-]{0,59}", named):
        raise _refusal(word, f"'{named}' is no name: letters, digits, '_', '-' and '.', the first of them a letter")
    if ":" in what:
        if not re.fullmatch(r"[^:]+:[A-Za-z_][\w.]*", what):
            raise _refusal(word, f"'{what}' does not name a class")
        return Asked(named, plugin=what)
    return Asked(named, None, *_adapter_and_model(word, what))


def _adapter_and_model(word: str, what: str) -> tuple[str, str | None]:
    adapter, *rest = what.split("@")
    if not what or Path(what).is_dir() or not rest:  # a folder that is there may have an @ in its name
        if not what:
            raise _refusal(word, "nothing follows the =")
        return what, None
    # a slash tells a model from a revision; only the last part can be one
    model = rest.pop() if "/" in rest[-1] or rest[-1] == EMBEDDED else None
    # at most one revision, no empty part, and the base model has no revision here
    if len(rest) > 1 or not all([adapter, *rest]) or model == "" or (rest and adapter == BASE):
        raise _refusal(word, "the parts at its @ are no revision and no model (a model is `embedded` or has a slash)")
    return "@".join([adapter, *rest]), model


def _refusal(word: str, why: str) -> UserError:
    return UserError(f"compare.forecasters: '{word}': {why}; a forecaster is {_FORMS}")
