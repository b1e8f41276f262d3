from __future__ import annotations

import sys
from pathlib import Path

import pytest

from baselines.building_blocks import paths
from baselines.statistical import bootstrap
from grpo.evaluation import leaderboard, optimum, palette, protocol, report, sampling, source_code
from grpo.evaluation.source_code import reached_code, source_hash
from grpo.language import answers, prompts
from grpo.models import loading as modeling
from grpo.prediction import forecast as predict
from grpo.sampling import completion_logits, forecaster, generation, vllm_engine
from preprocessing import laws, seeds, simulation, windows
from preprocessing import plots as window_plots

PLUGIN = """
from {package}.deep.draws import draw
from .beside import near
import {package}.named, json
from preprocessing.seeds import generator

def forecast():
    from . import late
    from .deep import later
    return late
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose module `plugin` imports others of it in every way there is."""
    name = f"plugins_{tmp_path.name}"
    empty = ("__init__", "beside", "named", "late", "deep/__init__", "deep/draws", "deep/later", "unused")
    for module, text in {**dict.fromkeys(empty, "x = 1\n"), "plugin": PLUGIN.format(package=name)}.items():
        file = tmp_path / name / f"{module}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / name / "deep" / "draws.py").write_text("from ..far import draw\n")
    (tmp_path / name / "far.py").write_text("draw = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / name


def test_imports_of_every_kind_are_followed(package):
    reached = reached_code(f"{package.name}.plugin")
    own = {name.removeprefix(f"{package.name}") for name in reached if name.startswith(package.name)}
    assert own == {"", ".plugin", ".beside", ".named", ".late", ".deep", ".deep.draws", ".deep.later", ".far"}
    assert {name for name in reached if not name.startswith(package.name)} == {"preprocessing.seeds"}


@pytest.mark.parametrize("module", ["plugin", "beside", "named", "late", "deep/draws", "deep/later", "far"])
def test_code_that_is_reached_changes_the_hash(package, module):
    before, file = source_hash(f"{package.name}.plugin"), package / f"{module}.py"
    file.write_text(file.read_text() + "y = 2\n")
    assert source_hash(f"{package.name}.plugin") != before


def test_code_that_is_not_reached_leaves_the_hash(package):
    before = source_hash(f"{package.name}.plugin")
    (package / "unused.py").write_text("x = 2\n")
    assert source_hash(f"{package.name}.plugin") == before


def test_comments_docstrings_and_layout_leave_the_hash(package):
    file = package / "far.py"
    file.write_text('"""Draws."""\n\n\n# as in the paper\ndraw = (\n    1  # one\n)\n"""Of a kind."""\n')
    said = source_hash(f"{package.name}.plugin")
    file.write_text("draw = 1\n")
    assert source_hash(f"{package.name}.plugin") == said
    file.write_text('draw = "1"\n')
    assert source_hash(f"{package.name}.plugin") != said


def test_nothing_is_imported_to_be_read(package):
    reached_code(f"{package.name}.plugin")
    assert not [name for name in sys.modules if name.startswith(package.name)]


def test_a_module_that_is_not_there_is_no_empty_code(package):
    with pytest.raises(ModuleNotFoundError, match=r"no source of grpo\.nowhere"):
        source_hash("grpo.nowhere")


def test_a_file_of_ones_own_is_followed_into_the_project(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text("from grpo.evaluation.sampling import standard_normal\nimport numpy\n")
    assert set(reached_code(file=file)) >= {"mine.py", "grpo.evaluation.sampling", "preprocessing.seeds"}
    before = source_hash(file=file)
    file.write_text(file.read_text() + "# the same\n")
    assert source_hash(file=file) == before
    more = {Path(seeds.__file__): b"\ny = 1"}
    monkeypatch.setattr(source_code, "read_source", lambda file: file.read_bytes() + more.get(file, b""))
    assert source_hash(file=file) != before


def changed_by(monkeypatch, module, *, of):
    """Whether another line of code in a module changes the hash of another module."""
    before = source_hash(of.__name__)
    with monkeypatch.context() as patch:
        file = Path(module.__file__)
        patch.setattr(
            source_code, "read_source", lambda path: path.read_bytes() + (b"\ny = 1" if path == file else b"")
        )
        return source_hash(of.__name__) != before


@pytest.mark.parametrize("module", [laws, simulation, seeds, sampling, protocol, windows, optimum])
def test_what_decides_the_optimum(monkeypatch, module):
    assert changed_by(monkeypatch, module, of=optimum)


@pytest.mark.parametrize("module", [bootstrap, paths, seeds, sampling, protocol, windows])
def test_what_decides_a_plugin(monkeypatch, module):
    assert changed_by(monkeypatch, module, of=bootstrap)


@pytest.mark.parametrize(
    "module", [prompts, answers, generation, completion_logits, forecaster, modeling, vllm_engine, protocol]
)
def test_what_decides_a_language_model(monkeypatch, module):
    assert changed_by(monkeypatch, module, of=forecaster)


@pytest.mark.parametrize("module", [leaderboard, palette, report, predict, window_plots])
def test_what_decides_no_forecast(monkeypatch, module):
    assert not any(changed_by(monkeypatch, module, of=of) for of in (bootstrap, optimum, forecaster))


@pytest.mark.parametrize("name", protocol.forecaster_names())
def test_a_forecaster_reaches_neither_stages_nor_the_report(name):
    reached = reached_code(protocol.forecaster_entry(name).module)
    above = ("grpo.stages", "grpo.evaluation.report", "grpo.evaluation.palette", "grpo.evaluation.leaderboard")
    assert not [module for module in reached if module.startswith(above)]
