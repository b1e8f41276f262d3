from __future__ import annotations

import dataclasses
import sys
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest

from grpo.evaluation import protocol
from grpo.evaluation.identity import context_hash, key_of, plugin_identity, windows_hash
from grpo.evaluation.protocol import SettingsError, forecaster_config, missing_packages
from preprocessing.windows import Truth

PLUGIN = """
from dataclasses import dataclass
from {package}.deep.draws import draw

@dataclass(frozen=True)
class Config:
    decay: float = 0.9
    steps: int = 3
    def __post_init__(self):
        if self.decay > 1:
            raise ValueError(f"decay must be at most 1; got {{self.decay}}")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a plugin module that imports a module of its own, which imports nothing of it."""
    name = f"plugins_{tmp_path.name}"
    files = {
        "__init__.py": "",
        "plugin.py": PLUGIN.format(package=name),
        "deep/__init__.py": "",
        "deep/draws.py": "import json\ndraw = 1\n",
        "unused.py": "x = 1\n",
    }
    for file, text in files.items():
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("mine", f"{name}.plugin", protocol.ENTRY_POINT_GROUP)
    monkeypatch.setattr(protocol, "entry_points", lambda group: EntryPoints([entry]))
    yield tmp_path / name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_the_hash_of_windows_changes_with_all_that_a_forecast_depends_on(make_windows):
    windows = make_windows([100.0, 50.0], [[1.0], [1.0]], items=["A", "B"])
    context = windows.context
    past, features, origin = context.past.copy(), context.features.copy(), context.origin.copy()
    past[1, 0, 0] += 1e-9
    features[0, 3] = 1e-9
    origin[0] += np.timedelta64(1, "D")
    contexts = [
        context,
        context.take(np.array([1, 0])),
        dataclasses.replace(context, memories=np.zeros((2, 3))),
        dataclasses.replace(context, past=past),
        dataclasses.replace(context, features=features),
        dataclasses.replace(context, origin=origin),
        dataclasses.replace(context, item_id=("A", "C")),
    ]
    assert len({context_hash(other) for other in contexts}) == len(contexts)
    assert context_hash(context.take(np.array([0, 1]))) == context_hash(context)
    moved = dataclasses.replace(windows, truth=Truth(future=windows.truth.future + 1e-9, dates=windows.truth.dates))
    assert windows_hash(moved) != windows_hash(windows) == windows_hash(windows.take(np.array([0, 1])))


def test_the_key_does_not_depend_on_the_order_of_names():
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})


def test_a_plugin_is_another_with_other_settings_or_code(package):
    first = plugin_identity("mine", {})
    assert first["config"] == {"decay": 0.9, "steps": 3}
    assert plugin_identity("mine", {"decay": 0.9}) == first
    assert plugin_identity("mine", {"decay": 0.8}) != first
    (package / "plugin.py").write_text((package / "plugin.py").read_text() + "another = 1\n")
    assert plugin_identity("mine", {}) != first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dcay": 0.5}, "baselines.mine.dcay: mine has no such setting; there are decay, steps"),
        ({"decay": "fast"}, "baselines.mine: Parser key \"decay\": Expected a <class 'float'>. Got value: fast"),
        ({"decay": 2.0}, "baselines.mine: decay must be at most 1; got 2.0"),
    ],
)
def test_settings_that_a_plugin_refuses(package, settings, message):
    with pytest.raises(SettingsError) as error:
        forecaster_config("mine", settings)
    assert str(error.value) == message


def test_settings_are_typed(package):
    config = forecaster_config("mine", {"decay": 1})
    assert (config.decay, type(config.decay), config.steps) == (1.0, float, 3)


def test_a_plugin_says_which_packages_it_lacks():
    class Plugin:
        requires = ("json", "no_such_package_here")

    assert missing_packages(Plugin) == ("no_such_package_here",)
    assert missing_packages(object()) == ()
