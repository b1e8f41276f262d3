"""Flags and YAML files to a typed config: one parser for every command.

Types are strict and unknown keys are errors that name their path. `--lora-rank` and `--lora_rank` are the
same flag; short names (aliases) stand for dotted ones.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

C = TypeVar("C")

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class UsageError(SystemExit):
    """A wrong flag or key: one line on standard error and exit code 2."""


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        print(f"{self.prog}: error: {' '.join(lines)} (see --help)", file=sys.stderr)
        raise UsageError(2)


def build_parser(
    config_class: type[Any], *, prog: str, description: str, aliases: Mapping[str, str] | None = None
) -> ArgumentParser:
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
) -> C:
    """Parse flags and config files into an instance of a config dataclass.

    Raises:
        UsageError: unknown flag or key, wrong type, unreadable file; the message names the place.
    """
    parser = build_parser(config_class, prog=prog, description=description, aliases=aliases)
    arguments = expand_aliases(sys.argv[1:] if argv is None else list(argv), aliases or {})
    return build_config(parser, config_class, arguments)


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
    expanded = []
    for argument in arguments:
        match = re.fullmatch(r"--([A-Za-z][\w.-]*)(=.*)?", argument, flags=re.DOTALL)
        if not match:
            expanded.append(argument)
            continue
        name = match[1].replace("-", "_")
        expanded.append(f"--{aliases.get(name, name)}{match[2] or ''}")
    return expanded


def _fields_of(namespace: Namespace | Mapping[str, Any], config_class: type[Any]) -> dict[str, Any]:
    return {name: namespace[name] for name in config_class.__dataclass_fields__}
