"""Flags and YAML files to a typed config: one parser for every command.

Types are strict and unknown keys are errors that name their path. `--lora-rank` and `--lora_rank` are the
same flag; short names (aliases) stand for dotted ones. A flag that was called otherwise once is still taken by its
former name, with a note.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from preprocessing.files import JsonObject

C = TypeVar("C")

RENAMED = {"out_dir": "output_dir", "output": "output_dir"}
"""Former names of flags, in every command that has the flag of today and none of the former name."""

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class UsageError(SystemExit):
    """A wrong flag or key: one line on standard error and exit code 2."""


class _Parser(ArgumentParser):
    renamed: Mapping[str, str] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        # flags were given their name of today before; what is left stands in a YAML file
        lines += [f"({old} is called {new} now)" for old, new in self.renamed.items() if f"'{old}'" in message]
        print(f"{self.prog}: error: {' '.join(lines)} (see --help)", file=sys.stderr)
        raise UsageError(2)


def with_fields(fields: Mapping[str, tuple[str, Any, str]]) -> Callable[[type[C]], type[C]]:
    """Give a class fields that a table names, before `dataclass` makes it a config.

    Args:
        fields: annotation, default (or `dataclasses.field`) and help of each field, by name.
    """

    def add(config_class: type[C]) -> type[C]:
        for name, (annotation, default, _) in fields.items():
            config_class.__annotations__[name] = annotation
            setattr(config_class, name, default)
        # the parser takes the help of a field from below it in the source, or else from the class's docstring
        helps = "\n".join(f"        {name}: {text}" for name, (_, _, text) in fields.items())
        if fields:
            config_class.__doc__ = f"{(config_class.__doc__ or '').rstrip()}\n\n    Args:\n{helps}\n"
        return config_class

    return add


def build_parser(
    config_class: type[Any], *, prog: str, description: str, aliases: Mapping[str, str] | None = None
) -> _Parser:
    """A parser with one flag per config field, `--config FILE` and `--print_config`."""
    epilog = None
    if aliases:
        names = ", ".join(f"--{short} = --{full}" for short, full in aliases.items())
        epilog = f"Short names: {names}. Dashes and underscores are the same in every flag."
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [--config FILE] [--SETTING VALUE ...]",
        description=description,
        epilog=epilog,
        default_env=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these settings; flags override it.")
    parser.add_class_arguments(config_class, as_group=False, fail_untyped=True)
    return parser


def parse_config(
    config_class: type[C],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    aliases: Mapping[str, str] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> C:
    """Parse flags and config files into an instance of a config dataclass.

    Args:
        config_class: the dataclass.
        argv: the arguments; None takes those of this process.
        prog: how the command is called.
        description: shown by --help.
        aliases: short names of flags, and what they stand for.
        renamed: former names of flags beside those in `RENAMED`, and their names of today.

    Raises:
        UsageError: unknown flag or key, wrong type, unreadable file; the message names the place.
    """
    parser = build_parser(config_class, prog=prog, description=description, aliases=aliases)
    parser.renamed = _former_names(config_class, aliases or {}) | dict(renamed or {})
    arguments = _call_by_names_of_today(sys.argv[1:] if argv is None else list(argv), parser.renamed)
    return build_config(parser, config_class, expand_aliases(arguments, aliases or {}))


def expand_switches(arguments: Sequence[str], *names: str) -> list[str]:
    """Let a lone `--name` mean true, as one expects of a switch."""
    return [
        f"{one}=true" if one in names and after not in ("true", "false") else one
        for one, after in pairwise([*arguments, ""])
    ]


def build_config(parser: ArgumentParser, config_class: type[C], arguments: Sequence[str]) -> C:
    """Parse already expanded arguments; values that the dataclass itself refuses are usage errors too."""
    try:
        namespace = parser.parse_args(list(arguments))
        built = parser.instantiate(namespace)
        return config_class(**_fields_of(built, config_class))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def plain(value: Any) -> Any:
    """A config (or part of one) as plain dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def expand_aliases(arguments: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Normalise dashes and replace short names: `--lora-rank 8` becomes `--lora.rank 8`."""
    return [_with_name(argument, lambda name: aliases.get(name, name)) for argument in arguments]


def _with_name(argument: str, name_of: Callable[[str], str]) -> str:
    """An argument whose flag, if it is one, is called by another name."""
    # a value such as -0.5 or a text with dashes is no flag and stays as it is
    match = re.fullmatch(r"--([A-Za-z][\w.-]*)(=.*)?", argument, flags=re.DOTALL)
    return f"--{name_of(match[1].replace('-', '_'))}{match[2] or ''}" if match else argument


def _former_names(config_class: type[Any], aliases: Mapping[str, str]) -> dict[str, str]:
    """The entries of `RENAMED` that mean something to a command."""
    own = {*config_class.__dataclass_fields__, *aliases}
    return {old: new for old, new in RENAMED.items() if new in own and old not in own}


def _call_by_names_of_today(arguments: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Flags by their names of today, with one note for each former name that was given."""
    given: dict[str, str] = {}

    def name_of(name: str) -> str:
        if name in renamed:
            given[name] = renamed[name]
        return renamed.get(name, name)

    called = [_with_name(argument, name_of) for argument in arguments]
    for old, new in given.items():
        print(f"note: --{old.replace('_', '-')} is called --{new.replace('_', '-')} now", file=sys.stderr)
    return called


def _fields_of(namespace: Namespace | Mapping[str, object], config_class: type[Any]) -> JsonObject:
    return {name: namespace[name] for name in config_class.__dataclass_fields__}
