"""What an adapter folder says of itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from grpo.config import RunConfig
from grpo.language.config import PromptConfig
from grpo.language.prompts import STYLES
from grpo.models import adapters
from grpo.models.adapters import (
    RECORD_FILE,
    ModelError,
    check_adapter,
    prompt_format,
    read_record,
    record_text,
)
from grpo.models.spec import ModelSpec
from preprocessing.config import DataConfig
from preprocessing.indicators import IndicatorPeriods
from tests.tiny_adapters import record_of
from tests.windows_factory import simulated_windows

DIRECT = PromptConfig(style="direct")
TRAIN = simulated_windows()["train"]
CONFIG = RunConfig(
    stock="sim:ou?rows=300&seed=4",
    seed=7,
    prompt=PromptConfig(style="reasoning", max_seq_length=2048),
    data=DataConfig(window=40, horizon=5, indicators=IndicatorPeriods(rsi=9)),
)


def folder_with(text: str, tmp_path: Path) -> Path:
    (tmp_path / RECORD_FILE).write_text(text)
    return tmp_path


def test_a_record_says_what_the_training_was():
    record = record_of(CONFIG, "stage1", TRAIN)
    first = str(TRAIN.context.origin[0])[:10]
    last = str(TRAIN.truth.dates[-1, -1])[:10]
    assert (record.trained_from, record.trained_until, record.training_windows) == (first, last, len(TRAIN))
    assert (record.window, record.horizon) == (30, 10), "of the windows, whatever the configuration says"
    assert (record.base_model, record.stage, record.stock, record.seed) == ("embedded", "stage1", CONFIG.stock, 7)
    assert record.base_sha256 == adapters.embedded_sha256()
    without = record_of(dataclasses.replace(CONFIG, model="Qwen/Qwen2.5-7B-Instruct"), "stage2")
    assert (without.window, without.horizon, without.trained_until, without.base_sha256) == (40, 5, None, None)


def test_a_record_survives_its_file(tmp_path):
    record = record_of(CONFIG, "stage3", TRAIN)
    assert read_record(folder_with(record_text(record), tmp_path)) == record
    assert "/" not in json.loads(record_text(record))["base_model"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: None, f"has no {RECORD_FILE}.*take an adapter"),
        (lambda text: text[:50], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"window": 30', '"window": 0'), "must be positive"),
        (lambda text: text.replace('"window": 30', '"window": "x"'), "must be positive"),
        (lambda text: text.replace('"reasoning"', '"poem"'), "asks in a style of its own: there is no prompt style"),
        (lambda text: text.replace('"rsi": 9', '"rsi": 0'), "indicators.rsi must be at least 2"),
        (lambda text: text.replace('"horizon"', '"horizons"'), "is damaged"),
        (lambda text: text.replace('"prompt_format": "', '"prompt_format": "0'), "words its prompts in another"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(damage, message, tmp_path):
    text = damage(record_text(record_of(CONFIG, "stage1", TRAIN)))
    folder = tmp_path if text is None else folder_with(text, tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        read_record(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_prompt_format_follows_the_wording(monkeypatch):
    direct, reasoning = prompt_format(DIRECT), prompt_format(PromptConfig(style="reasoning"))
    assert direct != reasoning
    assert direct == prompt_format(DIRECT)
    other = dataclasses.replace(STYLES["direct"], template="sma {sma} next {horizon}")
    monkeypatch.setitem(STYLES, "direct", other)
    assert prompt_format(DIRECT) != direct
    monkeypatch.undo()
    monkeypatch.setattr("grpo.language.features.POINTS_PER_DAILY_SD", 20)
    assert prompt_format(DIRECT) != direct


def test_an_adapter_of_other_embedded_weights_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "embedded"}')
    record = record_of(RunConfig(), "stage1", TRAIN)
    folder_with(record_text(record), tmp_path)
    check_adapter(tmp_path, ModelSpec())
    folder_with(record_text(dataclasses.replace(record, base_sha256="0" * 64, package_version="0.0.9")), tmp_path)
    with pytest.raises(ModelError, match=r"trained on the embedded model of version 0\.0\.9"):
        check_adapter(tmp_path, ModelSpec())


def test_features_beyond_the_prompt_do_not_change_its_format(monkeypatch):
    """Windows may grow columns; adapters stay valid as long as the prompt shows the same."""
    before = prompt_format(DIRECT)
    monkeypatch.setattr(adapters, "FEATURES", (*adapters.FEATURES, "one_more"))
    assert prompt_format(DIRECT) == before
