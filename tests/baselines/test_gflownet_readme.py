"""The commands of the page run, at tiny settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import baselines.gflownet as package
from baselines.gflownet.__main__ import main
from baselines.gflownet.toys.task_training import TrainConfig
from preprocessing.command_line import parse_config

PAGE = Path(package.__file__ or "").with_name("README.md").read_text()
TINY = {
    "tree": "--steps 2 --check-every 2 --batch 8 --model.width 8",
    "hypergrid": "--steps 2 --check-every 2 --batch 8 --model.width 8 --side 3",
    "motifs": "--steps 1 --check-every 1 --batch 8 --model.width 8",
    "price_paths": "--forecaster.steps 2 --forecaster.check_every 2 --forecaster.check_windows 8 --data.horizon 3",
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words[:3] == ["python", "-m", "baselines.gflownet"]]


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 7
    for words in commands():
        arguments = [word.replace("half_life=5", "half_life=5&rows=500") for word in words[3:]]
        if arguments[0] == "train":
            arguments += TINY[arguments[arguments.index("--task") + 1]].split()
        if "gflownet_ou" in arguments and arguments[0] == "sample":
            arguments += ["--data.horizon", "3"]
        assert main(arguments) == 0, (words, capsys.readouterr().err)


def test_the_settings_of_the_paper_are_understood():
    [block] = re.findall(r"```\n(python -m baselines.gflownet train --task tfbind8.*?)```", PAGE, flags=re.DOTALL)
    arguments = shlex.split(block.replace("\\\n", " "))[4:]
    aliases = {"stick": "model.stick"}
    config = parse_config(TrainConfig, arguments, prog="train", description="", aliases=aliases)
    assert (config.model.width, config.model.layers, config.steps, config.batch, config.data_batch) == (
        2048,
        2,
        5000,
        16,
        16,
    )
    assert config.model.reward_exponent == 3
    assert config.learner.dynamics_learning_rate == 1e-5
