"""Validation windows may be left out where training windows are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo.runs.config import PathsConfig
from grpo.runs.folder import has_val, resolve_paths
from grpo.stages.training_settings import grpo_inputs


@pytest.mark.parametrize(
    ("given", "made", "expected"),
    [
        (PathsConfig(train_x=Path("x"), train_y=Path("y")), False, False),
        (PathsConfig(train_x=Path("x"), train_y=Path("y")), True, True),  # a run made them
        (PathsConfig(train_x=Path("x"), val_x=Path("v")), False, True),  # a wrong path is told when it is read
        (PathsConfig(), False, True),  # and so is a run without windows
    ],
)
def test_val_may_be_left_out_beside_named_training_windows(
    tmp_path: Path, given: PathsConfig, made: bool, expected: bool
) -> None:
    paths = resolve_paths(given, tmp_path, "AAPL")
    if made:
        paths.val_x.parent.mkdir(parents=True)
        paths.val_x.touch()
    assert has_val(given, paths) is expected
    assert ("val_x" in grpo_inputs(given, paths)) is expected
