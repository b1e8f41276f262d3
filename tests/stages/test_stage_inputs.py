"""What a stage declares that it reads, so that a run is not resumed on other data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from grpo.stages import stage2_train_sft
from tests.tiny_runs import TinyRun, paths_of


@pytest.fixture
def declared(tmp_path, monkeypatch):
    """The inputs that stage 2 hands to the resume rule."""
    run = TinyRun(tmp_path)

    def call(*flags: object) -> dict[str, Path]:
        caught = {}
        monkeypatch.setattr(stage2_train_sft, "run_stage", lambda *_, **given: caught.update(given["inputs"]))
        monkeypatch.setattr(sys, "argv", ["stage2", *run.arguments("stage2", *flags)])
        stage2_train_sft.main()
        return caught

    call.run = run  # type: ignore[attr-defined]
    return call


def test_stage_2_declares_the_windows_that_its_record_is_read_from(declared):
    files = paths_of(declared.run.config("stage2")).named("train_x", "train_y")
    assert list(declared()) == ["sft_data", "grpo_lora_1st"]  # SFT data alone are enough
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    told = declared()
    assert {name: told[name] for name in files} == files
    assert set(told) == {"sft_data", "grpo_lora_1st", *files}


def test_stage_2_from_the_base_model_needs_no_adapter(declared):
    assert "grpo_lora_1st" not in declared("--stage2.start_from", "base")
