"""What the README shows works: its Python runs, its commands name real scripts, modules and flags."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grpo.config import parse_run_config
from grpo.evaluation.harness import evaluate
from grpo.evaluation.metrics import summarise
from grpo.evaluation.protocol import Forecaster
from preprocessing.combined_preprocessor import PreprocessConfig
from preprocessing.command_line import parse_config
from tests.windows_factory import simulated_windows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OWN_FLAGS = {"--resume", "--cuda-devices", "--num-processes", "--accelerate-config"}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:\./|python -m |python benchmarks/|accelerate launch )[^`]*)`", README)
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@functools.cache
def shown_help(*words: str) -> str:
    command = [sys.executable, "-m", *words, "--help"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_readme_shows_commands():
    assert len(commands()) > 12


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_understood(words):
    if words[0].startswith("./tests/"):
        assert (ROOT / words[0]).is_file()
        return
    if len(words) > 1 and words[1].startswith("benchmarks/"):
        explained = subprocess.run([sys.executable, words[1], "--help"], cwd=ROOT, capture_output=True, text=True)
        assert all(word in explained.stdout for word in words[2:] if word.startswith("--"))
        return
    if words[0] == "./run_pipeline.sh":
        rest, skip = [], False
        for word in words[1:]:
            if not (skip or word in OWN_FLAGS or word == "--help"):
                rest.append(word)
            skip = word in OWN_FLAGS
    else:
        module = words[words.index("-m") + 1]
        assert importlib.util.find_spec(module) is not None
        rest = words[words.index("-m") + 2 :]
        if "--config_file" in words:
            assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        if module == "preprocessing.combined_preprocessor":
            aliases = {"root_path": "data_dir"}
            parse_config(PreprocessConfig, rest, prog="readme", description="", aliases=aliases)
            return
        if not module.startswith("grpo.stages."):
            subcommand = [word for word in rest[:1] if not word.startswith("-")]
            explained = shown_help(module, *subcommand)
            for flag in (word for word in rest if word.startswith("--")):
                assert flag.replace("-", "_").lstrip("_") in explained.replace("-", "_"), flag
            return
        if "--config" in rest:
            rest = []  # the config of a run that the reader has made
    config = parse_run_config(rest, prog="readme", description="")
    assert config.stock


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"`((?:configs|tests|grpo|benchmarks)/[\w./-]+\.\w+)`", README):
        assert (ROOT / name).is_file(), name


def test_the_forecaster_of_the_readme_forecasts(tmp_path):
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    windows = simulated_windows()
    plugin = namespace["LastReturns"]
    forecaster = plugin.fit(plugin.Config(), windows["train"], windows["val"], horizon=10, seed=0, out_dir=tmp_path)
    assert isinstance(forecaster, Forecaster)
    forecaster.save(tmp_path)
    assert isinstance(plugin.load(tmp_path), plugin)
    chosen = windows["train"].take(np.arange(0, 100, 10))
    scores = summarise(evaluate(forecaster, chosen, num_samples=50, seed=0).scores)
    assert scores["valid"] == 1
    assert 0.3 < scores["coverage_80"] <= 1
