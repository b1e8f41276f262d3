"""Imports go one way, as the docstrings of the packages say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("grpo", "preprocessing", "baselines")

# Each room may import from itself and from the rooms above it in this list (grpo/__init__.py)
LEVELS = [
    {"preprocessing"},
    {"grpo.evaluation"},
    {"grpo.language"},
    {"grpo.models"},
    {"grpo.runs"},
    {"grpo.sampling"},
    {"grpo.publishing"},
    {"grpo.machine"},
    {"grpo.training"},
    {"grpo.config", "grpo.comparison.config"},
    {"grpo.prediction", "grpo.comparison"},
    {"grpo.stages", "grpo.hub", "grpo.predict", "grpo.doctor", "grpo.preflight", "grpo.embedded",
     "grpo.runs.__main__"},
]  # fmt: skip
# preprocessing/__init__.py
PREPROCESSING_LEVELS = [
    {"errors"},
    {"files", "command_line", "parallel", "bars_store", "seeds", "sequence_files"},
    {"simulation", "laws", "indicators", "statistics", "variance_memories", "scaling", "splits"},
    {"config"},
    {"bars"},
    {"reading", "checks", "notices"},
    {"calendars", "windows_contract"},
    {"download"},
    {"bars_files"},
    {"market_data", "windows"},
    {"windows_reader", "windows_writer", "presets", "returns"},
    {"stock_windows"},
    {"combined_preprocessor"},
    {"plots"},
]


def modules() -> dict[str, Path]:
    files = [file for package in OWN for file in (ROOT / package).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports_of(file: Path, *, within_functions: bool = True) -> set[str]:
    """Full names that a file imports from these packages."""
    tree = ast.parse(file.read_text())
    nodes = ast.walk(tree) if within_functions else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            known = modules()
            found |= {
                name if (name := f"{node.module}.{alias.name}") in known else str(node.module) for alias in node.names
            }
    return {name for name in found if name.partition(".")[0] in OWN}


def level_of(module: str, levels: list[set[str]]) -> int | None:
    depths = [(len(name), i) for i, names in enumerate(levels) for name in names if f"{module}.".startswith(f"{name}.")]
    return max(depths)[1] if depths else None


def test_the_levels_name_every_module():
    missing = [m for m in modules() if m not in ("grpo", "preprocessing") and not m.startswith("baselines")]
    assert [m for m in missing if level_of(m, LEVELS) is None] == []


@pytest.mark.parametrize("module", [m for m in modules() if level_of(m, LEVELS) is not None])
def test_imports_go_down(module):
    own = level_of(module, LEVELS)
    assert own is not None
    for imported in imports_of(modules()[module]):
        level = level_of(imported, LEVELS)
        assert level is not None, f"{module} imports {imported}"
        assert level <= own, f"{module} imports {imported}, which lies above it"


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("preprocessing.")])
def test_imports_within_preprocessing_go_down(module):
    own = level_of(module.removeprefix("preprocessing."), PREPROCESSING_LEVELS)
    assert own is not None
    for imported in imports_of(modules()[module]) - {"preprocessing"}:
        level = level_of(imported.removeprefix("preprocessing."), PREPROCESSING_LEVELS)
        assert level is not None, f"{module} imports {imported}"
        assert level <= own, f"{module} imports {imported}, which lies above it"


@pytest.mark.parametrize("module", [m for m in modules() if not m.startswith("baselines")])
def test_baselines_are_found_by_name_alone(module):
    assert not [name for name in imports_of(modules()[module]) if name.startswith("baselines")]


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("grpo.runs.") and m != "grpo.runs.__main__"])
def test_the_rooms_below_the_stages_take_what_they_need_and_not_the_whole_configuration(module):
    assert "grpo.config" not in imports_of(modules()[module])


def test_nothing_imports_in_a_circle():
    graph = {module: imports_of(file, within_functions=False) for module, file in modules().items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in graph.get(module, set()):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


WITHOUT_TORCH = [
    *(m for m in modules() if level_of(m, LEVELS[:3]) is not None or m.endswith(".config")),
    *(m for m in modules() if m.startswith(("grpo.runs.", "grpo.publishing."))),
    "grpo.models.adapters",
    "grpo.models.spec",
    "grpo.training.task",
    "grpo.models.download",
    "grpo.models.unsloth",
    "grpo.models.hardware",
    "grpo.sampling.endpoint",
    "grpo.prediction.files",
    "grpo.stages.preprocess",
    "grpo.stages.stage1_train_grpo",
    "grpo.stages.sft_data_generation",
    "grpo.stages.stage2_train_sft",
    "grpo.stages.stage3_train_grpo_from_sft",
    "grpo.stages.compare_models",
]


def test_what_needs_no_model_loads_without_torch():
    code = f"import importlib, sys\nfor name in {WITHOUT_TORCH!r}:\n    importlib.import_module(name)\n"
    code += "print([name for name in ('torch', 'transformers', 'trl', 'peft') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "home"), [("vllm", "grpo.sampling.vllm_engine"), ("unsloth", "grpo.models.unsloth")]
)
def test_an_optional_engine_is_imported_by_one_module_and_on_first_use(package, home):
    for module, file in modules().items():
        assert (f'import("{package}' in file.read_text() or f'import_module("{package}' in file.read_text()) == (
            module == home
        )
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] == package]


def test_random_numbers_are_derived_in_one_place():
    by_hand = re.compile(r"default_rng\(|SeedSequence\(|crc32\(")
    users = {module for module, file in modules().items() if by_hand.search(file.read_text())}
    assert users == {"preprocessing.seeds"}
