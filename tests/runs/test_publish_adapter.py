"""Where a finished adapter is put: readable by others, and not over another one without a word."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest

from grpo.config import RunConfig
from grpo.runs.folder import publish_adapter, publish_for_others
from tests.tiny_adapters import record_of
from tests.windows_factory import simulated_windows

RECORD = record_of(RunConfig(stock="AAPL", seed=3), "stage1", simulated_windows()["train"])


@pytest.fixture
def adapter(tmp_path) -> Path:
    """An adapter folder that only its owner may read, as `tempfile` makes them."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    (folder / "adapter_model.safetensors").write_bytes(b"1")
    (folder / "adapter_model.safetensors").chmod(0o600)
    return folder


@pytest.mark.parametrize(("mask", "folders", "files"), [(0o022, 0o755, 0o644), (0o027, 0o750, 0o640)])
def test_the_umask_says_who_may_read_an_adapter(adapter, tmp_path, mask, folders, files):
    before = os.umask(mask)
    try:
        publish_adapter(adapter, tmp_path / "published", RECORD)
    finally:
        os.umask(before)
    assert adapter.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "published").stat().st_mode & 0o777 == folders
    for file in (tmp_path / "published").iterdir():
        assert file.stat().st_mode & 0o777 == files


def test_the_adapter_of_another_run_is_not_replaced_without_a_word(adapter, tmp_path, caplog):
    target, logger = tmp_path / "models" / "adapter", logging.getLogger("test")
    with caplog.at_level(logging.INFO):
        publish_adapter(adapter, adapter.with_name("first"), RECORD)
        publish_for_others(adapter.with_name("first"), target, logger)
        publish_for_others(adapter.with_name("first"), target, logger)
        assert not caplog.messages, "nothing was there, then the same"
        publish_for_others(adapter, target, logger)
        publish_for_others(adapter.with_name("first"), target, logger)
    known, unknown = caplog.messages
    assert f"{target}: replaces the adapter of an earlier run, trained on AAPL up to" in known
    assert "with seed 3" in known
    assert "which has no record that can be read" in unknown
