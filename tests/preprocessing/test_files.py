"""File names and atomic writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preprocessing.files import slug, write_atomically


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("AAPL", "AAPL"),
        ("AAPL,MSFT", "AAPL-MSFT"),
        ("BRK-A", "BRK-A"),
        ("sim:ou?half_life=5&seed=1", "sim_ou_half_life-5_seed-1"),
        ("../x", "x"),
        ("^GSPC", "GSPC"),
    ],
)
def test_slug_is_a_safe_file_name(name: str, want: str) -> None:
    assert slug(name) == want


def test_a_write_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failed_write_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "one")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "two")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]
