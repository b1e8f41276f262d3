"""A hash of code: equal as long as nothing that could change a result has changed.

It covers modules and all that they import, however deep and within functions too, as far as it belongs to this project
or to the package of one of them. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

PROJECT = ("grpo", "preprocessing", "baselines")
"""Top-level packages that are always followed."""


def source_hash(*modules: str, file: Path | None = None) -> str:
    """Hash of the code of modules, or of a file that is in no package, and of what they import.

    Raises:
        ModuleNotFoundError: a module is not there, or not written in Python.
        SyntaxError: code that Python cannot read.
        OSError: the file cannot be read.
    """
    code = reached_code(*modules, file=file)
    lines = [f"{name}\0{hashlib.sha256(text.encode()).hexdigest()}\n" for name, text in sorted(code.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def reached_code(*modules: str, file: Path | None = None) -> dict[str, str]:
    """The code of modules, or of a file, and of what they import, by full name, without comments and docstrings."""
    for name in modules:
        if _source_file(name) is None:
            raise ModuleNotFoundError(f"no source of {name} is found", name=name)
    followed = {*PROJECT, *(name.partition(".")[0] for name in modules)}
    # a circle of imports ends here: what is in the dictionary is not read again
    code: dict[str, str] = {}
    todo = list(modules)
    if file is not None:
        code[file.name], imports = _read(read_source(file), "")
        todo += imports
    while todo:
        name = todo.pop()
        if name in code or name.partition(".")[0] not in followed or (found := _source_file(name)) is None:
            continue
        package = name if found.name == "__init__.py" else name.rpartition(".")[0]
        code[name], imports = _read(read_source(found), package)
        todo += imports
    return code


def read_source(file: Path) -> bytes:
    """The bytes of a source file."""
    return file.read_bytes()


@lru_cache(maxsize=1024)
def _read(source: bytes, package: str) -> tuple[str, frozenset[str]]:
    """Code without comments and docstrings, and the names it imports; `package` is what relative imports start from."""
    tree = ast.parse(source)
    imports = frozenset(name for node in ast.walk(tree) for name in _imported(node, package))
    # parsed and written again: comments and layout are gone, and docstrings go here
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return ast.unparse(tree), imports


def _imported(node: ast.AST, package: str) -> list[str]:
    """Full names; `from a import b` gives both a and a.b, which may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    origin = ".".join([*above, *([node.module] if node.module else [])])
    # the syntax does not tell a module from a name in it; `_source_file` sorts that out
    return [origin, *(f"{origin}.{alias.name}" for alias in node.names)]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _source_file(module: str) -> Path | None:
    """Where a module's source lies, without importing anything; None for a name that is no module in Python."""
    top, *path = module.split(".")
    # of the top level alone: for a name below, find_spec would import its parents, and torch with them
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not path:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *path)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None
