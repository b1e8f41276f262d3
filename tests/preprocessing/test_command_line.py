"""Flags and YAML files to a typed config."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preprocessing.command_line import UsageError, parse_config


@dataclass(frozen=True, kw_only=True)
class Nested:
    """Settings of a section."""

    rate: float = 0.5
    """A rate."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A command that writes into a folder."""

    output_dir: Path = Path("here")
    """Where to."""
    nested: Nested = field(default_factory=Nested)


@dataclass(frozen=True, kw_only=True)
class File:
    """A command that writes a file, and has a folder too."""

    output: Path = Path("out.png")
    """Where to."""
    output_dir: Path = Path("here")
    """Where else."""


def parse(config_class, *arguments, **settings):
    return parse_config(config_class, [*arguments], prog="test", description="", **settings)


@pytest.mark.parametrize("flags", [["--out-dir", "x"], ["--out_dir=x"], ["--output", "x"], ["--output=x"]], ids=str)
def test_a_former_name_of_a_flag_is_taken_with_one_note(flags, capsys):
    assert parse(Folder, *flags).output_dir == Path("x")
    old = flags[0].partition("=")[0].replace("_", "-")
    assert capsys.readouterr() == ("", f"note: {old} is called --output-dir now\n")


@pytest.mark.parametrize("flag", ["--output-dir", "--output_dir"])
def test_the_name_of_today_needs_no_note(flag, capsys):
    assert parse(Folder, flag, "x").output_dir == Path("x")
    assert capsys.readouterr() == ("", "")


def test_a_flag_given_twice_is_noted_once_and_the_last_value_counts(capsys):
    assert parse(Folder, "--out-dir", "x", "--out_dir", "y").output_dir == Path("y")
    assert capsys.readouterr().err.count("note:") == 1


def test_a_name_that_the_command_has_itself_keeps_its_meaning(capsys):
    parsed = parse(File, "--output", "x.png", "--out-dir", "y")
    assert (parsed.output, parsed.output_dir) == (Path("x.png"), Path("y"))
    assert capsys.readouterr().err == "note: --out-dir is called --output-dir now\n"


def test_a_command_adds_former_names_of_its_own(capsys):
    assert parse(Folder, "--nested.speed", "2", renamed={"nested.speed": "nested.rate"}).nested.rate == 2
    assert capsys.readouterr().err == "note: --nested.speed is called --nested.rate now\n"


def test_a_former_name_in_a_file_is_refused_with_its_name_of_today(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("out_dir: x\n")
    with pytest.raises(UsageError):
        parse(Folder, "--config", str(tmp_path / "c.yaml"))
    [line] = capsys.readouterr().err.splitlines()
    assert "(out_dir is called output_dir now)" in line
