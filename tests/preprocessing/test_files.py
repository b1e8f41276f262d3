"""File names and atomic writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preprocessing.files import MAX_SLUG, AtomicFiles, slug, write_atomically


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


def test_long_names_are_cut_and_stay_apart() -> None:
    assert slug("A" * MAX_SLUG) == "A" * MAX_SLUG
    names = [",".join(f"STOCK{i}" for i in range(count)) for count in (500, 501)]
    slugs = [slug(name) for name in names]
    assert {len(text) for text in slugs} == {MAX_SLUG}
    assert slugs[0] != slugs[1]
    assert slugs[0].startswith("STOCK0-STOCK1-")


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


# Several files


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    paths = [tmp_path / "new" / "folder" / name for name in ("a", "b")]
    with AtomicFiles() as files:
        for path in paths:
            files.open(path).write(path.name.encode())
        assert not any(path.exists() for path in paths)
    assert [path.read_text() for path in paths] == ["a", "b"]
    assert {path.name for path in paths[0].parent.iterdir()} == {"a", "b"}
    assert paths[0].stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a").write_text("former")
    with pytest.raises(error), AtomicFiles() as files:  # noqa: PT012
        files.open(tmp_path / "a").write(b"next")
        files.open(tmp_path / "new" / "folder" / "b").write(b"next")
        files.open_scratch(tmp_path / "other").write(b"next")
        raise error
    assert (tmp_path / "a").read_text() == "former"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_holds_something_else_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), AtomicFiles() as files:  # noqa: PT012
        files.open(tmp_path / "new" / "a").write(b"next")
        (tmp_path / "new" / "of another").write_text("kept")
        raise ValueError("stop")
    assert os.listdir(tmp_path / "new") == ["of another"]


def test_scratch_has_no_name_and_reads_back(tmp_path: Path) -> None:
    with AtomicFiles() as files:
        scratch = files.open_scratch(tmp_path)
        scratch.write(b"abc")
        scratch.seek(1)
        assert scratch.read() == b"bc"
        assert os.listdir(tmp_path) == []
    assert scratch.closed
