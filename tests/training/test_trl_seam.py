"""The names of TRL's inside that are used: the installed version has each, and one module of ours names them."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer

from grpo.training import trl_seam

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", trl_seam.PRIVATE_NAMES)
def test_trl_has_the_method(name):
    assert callable(getattr(GRPOTrainer, name, None)), f"TRL {version('trl')} has no GRPOTrainer.{name}"


@pytest.mark.parametrize("name", trl_seam.PRIVATE_STATE)
def test_trl_sets_the_attribute(name):
    source = inspect.getsource(GRPOTrainer.__init__)
    assert re.search(rf"self\.{name}\b.*=", source), f"TRL {version('trl')} sets no GRPOTrainer.{name}"


@pytest.mark.parametrize("name", trl_seam.PRIVATE_NAMES)
def test_the_seam_takes_what_trl_passes(name):
    ours, theirs = (getattr(owner, name) for owner in (trl_seam.OpenGRPOTrainer, GRPOTrainer))
    if ours is theirs:
        return  # called, not overridden
    mine = inspect.signature(ours).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in mine.values())
    wanted = [
        parameter.name
        for parameter in inspect.signature(theirs).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert takes_any or set(wanted) <= set(mine)


def test_only_the_seam_names_what_is_private():
    names = "|".join((*trl_seam.PRIVATE_NAMES, *trl_seam.PRIVATE_STATE, "_last_loaded_step"))
    inherited = re.compile(rf"(?:self|trainer|super\(\))\.(?:{names})\b|from trl\.(?!trainer\.utils)")
    users = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "grpo").rglob("*.py")
        if "GRPOTrainer" in (text := file.read_text()) and inherited.search(text)
    }
    assert users == {"grpo/training/trl_seam.py"}


def test_resuming_beside_a_reference_is_still_not_done_upstream():
    # when this fails, OpenGRPOTrainer._load_from_checkpoint can go
    source = inspect.getsource(Trainer._load_from_checkpoint)
    assert "adapter_subdirs" in source


def test_rows_are_taken_from_what_has_rows():
    batch = {"ids": torch.arange(6).view(3, 2), "count": torch.tensor(3), "none": None}
    taken = trl_seam.take_rows(batch, torch.tensor([2, 0]))
    assert taken["ids"].tolist() == [[4, 5], [0, 1]]
    assert taken["count"] == 3
    assert taken["none"] is None
