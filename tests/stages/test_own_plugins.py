"""A reward and a prompt of one's own, from files beside the run, through stage 1 on the embedded model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from grpo.evaluation.plugins import source_of
from grpo.models.adapters import ModelError, read_record
from tests.tiny_runs import GROUP, PROMPTS, TinyRun

REWARDS = """
import numpy as np


def closeness(paths, truth):
    return -np.abs(paths - truth).mean(-1)


def shortness(completions, completion_ids, path, **columns):
    return [-float(len(ids)) if np.isfinite(p).all() else -100.0 for ids, p in zip(completion_ids, path)]
"""
STYLE = """
from grpo.language.answers import Numbers
from grpo.language.prompts import INSTRUCTIONS, PromptStyle

mine = PromptStyle(template=INSTRUCTIONS["direct"] + "\\ncloses {closes}\\nrsi {rsi}\\nnext {horizon}", form=Numbers())
"""
TEXT = "closes {closes}\ntrend {trend} drift {past_drift}\nnext {horizon}\n"


@pytest.fixture
def run(finished, tmp_path) -> TinyRun:
    run = TinyRun(tmp_path / "own")
    shutil.copytree(finished.place("preprocess"), run.place("preprocess"))
    return run


def test_own_rewards_and_an_own_text(run, tmp_path, capfd):
    rewards, text = tmp_path / "mine.py", tmp_path / "prompt.txt"
    rewards.write_text(REWARDS)
    text.write_text(TEXT)
    weights = f"{{energy: 0.5, '{rewards}:closeness': 1.0, '{rewards}:shortness': 0.1}}"
    flags = ("--stage1.rewards", weights, "--prompt.template", text)
    assert run.stage("stage1", *flags) == 0

    place = run.place("stage1")
    table = pd.read_parquet(place / "completions" / "step_000000.parquet")
    assert len(table) == GROUP * PROMPTS
    assert set(table.columns) >= {"reward_energy", "reward_closeness", "reward_shortness"}
    for prompt in table["prompt"]:
        assert prompt.startswith("closes ")
        assert prompt.endswith("next 10")
        assert " drift " in prompt
    valid = table["levels"].notna()
    assert valid.any()
    assert (table.loc[valid, "reward_closeness"] <= 0).all()
    assert set(table.loc[~valid, "reward_shortness"]) <= {-100.0}
    logged = [entry for entry in json.loads((place / "log_history.json").read_text()) if "reward" in entry]
    assert logged[0]["valid"] == pytest.approx(valid.mean())

    source = source_of(f"{rewards}:closeness")
    manifest = json.loads((place / "manifest.json").read_text())
    hashes = {f"{rewards}:closeness": source, f"{rewards}:shortness": source}
    assert manifest["config"]["sources"] == hashes
    assert manifest["config"]["prompt"]["template"] == TEXT.strip()

    record = read_record(place / "adapter")
    assert record.sources == hashes
    assert record.rewards == {"energy": 0.5, f"{rewards}:closeness": 1.0, f"{rewards}:shortness": 0.1}
    text.unlink()
    assert read_record(place / "adapter").prompt.template == TEXT.strip(), "the record needs no file"

    text.write_text(TEXT)
    rewards.write_text(REWARDS.replace("-np.abs", "-2 * np.abs"))
    capfd.readouterr()
    assert run.stage("stage1", *flags) == 1
    assert "sources" in capfd.readouterr().err


def test_an_own_style_goes_with_the_adapter_by_place_and_hash(run, tmp_path, capfd):
    style = tmp_path / "style.py"
    style.write_text(STYLE)
    assert run.stage("stage1", "--prompt.style", f"{style}:mine") == 0
    adapter = run.place("stage1") / "adapter"
    table = pd.read_parquet(run.place("stage1") / "completions" / "step_000000.parquet")
    assert np.all([("\nrsi " in prompt) and ("bbands" not in prompt) for prompt in table["prompt"]])
    assert read_record(adapter).sources == {f"{style}:mine": source_of(f"{style}:mine")}
    style.write_text(STYLE + "\nx = 1\n")
    with pytest.raises(ModelError, match=r"style.py:mine' has changed since adapter .* was trained"):
        read_record(adapter)
    style.unlink()
    with pytest.raises(ModelError, match=r"asks in a style of its own: prompt style .* there is no file .*style\.py"):
        read_record(adapter)
