"""Commands: one line for what the user can mend, whoever raised it, and a traceback for a bug."""

from __future__ import annotations

import pytest

from baselines.building_blocks.commands import run_command
from preprocessing.errors import UserError


class OfAnotherPackage(UserError):
    """As a plugin's author might derive it."""


def raising(error: Exception):
    def command(flags, program):
        raise error

    return command


def run(error: Exception) -> int:
    return run_command("python -m it", "what it does", {"fall": raising(error)}, ["fall"])


@pytest.mark.parametrize("error", [UserError("no\nluck"), OfAnotherPackage("no luck"), OSError("no luck")])
def test_what_the_user_can_mend_is_one_line(error, capsys):
    assert run(error) == 1
    assert capsys.readouterr().err == "python -m it fall: error: no luck\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"):
        run(ValueError("a bug"))


def test_flags_and_name_reach_the_command(capsys):
    commands = {"tell": lambda flags, program: print(program, *flags), "other": lambda flags, program: None}
    assert run_command("python -m it", "what it does", commands, ["tell", "--much", "3"]) == 0
    assert capsys.readouterr().out == "python -m it tell --much 3\n"
    for arguments in ([], ["-h"], ["--help"]):
        assert run_command("python -m it", "what it does", commands, arguments) == 0
        assert capsys.readouterr().out == "what it does\n"
    assert run_command("python -m it", "what it does", commands, ["tel"]) == 2
    assert capsys.readouterr().err == "python -m it: error: 'tel' is no command; take tell, other (see --help)\n"
