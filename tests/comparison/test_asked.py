"""The words of `compare.forecasters`."""

from __future__ import annotations

import pytest

from grpo.comparison.asked import Asked, read_asked
from preprocessing.errors import UserError


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("ridge", Asked("ridge")),
        ("mine=results/A/adapter", Asked("mine", adapter="results/A/adapter")),
        ("mine=user/name", Asked("mine", adapter="user/name")),
        ("mine=user/name@v2", Asked("mine", adapter="user/name@v2")),
        ("mine=user/name@Qwen/Qwen2.5-7B", Asked("mine", adapter="user/name", model="Qwen/Qwen2.5-7B")),
        ("mine=user/name@v2@Qwen/Qwen2.5-7B", Asked("mine", adapter="user/name@v2", model="Qwen/Qwen2.5-7B")),
        ("mine=user/name@refs/pr/1@./tiny", Asked("mine", adapter="user/name@refs/pr/1", model="./tiny")),
        ("mine=results/A/adapter@embedded", Asked("mine", adapter="results/A/adapter", model="embedded")),
        ("mine=results/A/adapter@/models/tiny", Asked("mine", adapter="results/A/adapter", model="/models/tiny")),
        ("small=base@Qwen/Qwen2.5-0.5B", Asked("small", adapter="base", model="Qwen/Qwen2.5-0.5B")),
        ("again=base", Asked("again", adapter="base")),
        ("my.package:Mine", Asked("Mine", plugin="my.package:Mine")),
        ("new-one=my.package:Mine", Asked("new-one", plugin="my.package:Mine")),
        ("plugins/mine.py:Mine", Asked("Mine", plugin="plugins/mine.py:Mine")),
    ],
)
def test_each_form_says_one_thing(word, asked):
    assert read_asked(word) == asked


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("mine=", "nothing follows the ="),
        ("=results/A", "'' is no name"),
        ("a b=results/A", "'a b' is no name"),
        ("../x=results/A", "'../x' is no name"),
        ("mine=base@v2", "no revision and no model"),
        ("mine=user/name@", "no revision and no model"),
        ("mine=@Qwen/Qwen2.5-7B", "no revision and no model"),
        ("mine=user/name@@Qwen/Qwen2.5-7B", "no revision and no model"),
        ("mine=user/name@v1@v2", "no revision and no model"),
        ("mine=my.package:", "'my.package:' does not name a class"),
        ("my.package:", "'' is no name"),
    ],
)
def test_a_wrong_form_gets_one_line_that_names_it_and_the_right_ones(word, why):
    with pytest.raises(UserError) as error:
        read_asked(word)
    line = str(error.value)
    assert line.startswith(f"compare.forecasters: '{word}': ")
    assert why in line
    assert line.endswith(
        "a forecaster is NAME, NAME=ADAPTER, NAME=ADAPTER@MODEL, NAME=base@MODEL, NAME=module:Class or "
        "NAME=file.py:Class"
    )


def test_a_folder_that_is_there_may_have_an_at_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me@home" / "adapter").mkdir(parents=True)
    assert read_asked("mine=me@home/adapter") == Asked("mine", adapter="me@home/adapter")
    assert read_asked("mine=me@other/adapter") == Asked("mine", adapter="me", model="other/adapter")
