"""Objects that are named by reference."""

from __future__ import annotations

import pytest

from grpo.evaluation.plugins import PluginError, load_reference, source_of
from grpo.evaluation.protocol import forecaster_config, forecaster_plugin


def test_a_class_of_a_module_and_of_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class Outer:\n    class Mine:\n        value = 1\n")
    assert load_reference(f"{file}:Outer.Mine").value == 1
    assert load_reference("pathlib:Path.cwd").__name__ == "cwd"
    before = source_of(f"{file}:Outer")
    file.write_text("class Outer:\n    class Mine:\n        value = 2\n")
    assert load_reference(f"{file}:Outer.Mine").value == 2
    assert source_of(f"{file}:Outer") != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file "),
        ("class Other:\n    pass\n", "mine.py has no Mine"),
        ("class Mine\n", "mine.py, line 1: "),
        ("import no_such_package_here\n", "cannot be loaded: No module named 'no_such_package_here'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, message):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PluginError, match=r"mine\.py") as error:
        load_reference(f"{file}:Mine")
    assert message in str(error.value)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(PluginError, match="no module no_such_package_here is installed"):
        load_reference("no_such_package_here.models:Mine")


def test_a_registered_plugin_is_found_by_its_reference_too():
    by_name = forecaster_plugin("random_walk")
    assert forecaster_plugin("baselines.statistical.naive:RandomWalk") is by_name
    assert forecaster_config("mine", {}, "baselines.statistical.naive:RandomWalk") == by_name.Config()
