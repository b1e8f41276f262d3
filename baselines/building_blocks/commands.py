"""The shape of every `python -m baselines.NAME COMMAND --flags`: one line for what the user can mend, and no more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from preprocessing.errors import UserError

Command = Callable[[Sequence[str], str], None]
"""Takes the flags and how the program is called."""


def run_command(program: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names.

    Args:
        program: how it is called, for example "python -m baselines.seqgan".
        about: what --help shows.
        commands: by name.
        argv: the arguments; None takes those of this process.

    Returns:
        The exit code: 0, 1 for what the user can mend, or 2 for a command that is none. A wrong flag exits with 2.
    """
    name, *flags = (sys.argv[1:] if argv is None else [*argv]) or ["--help"]
    if name in ("-h", "--help"):
        print(about)
        return 0
    if name not in commands:
        named = f"'{name}' is no command; take {', '.join(commands)} (see --help)"
        print(f"{program}: error: {named}", file=sys.stderr)
        return 2
    try:
        commands[name](flags, f"{program} {name}")
    except (UserError, OSError) as error:
        print(f"{program} {name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
