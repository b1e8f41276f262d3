"""The command: what it writes, that it goes on, and what it says to wrong input."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("sb3_contrib")

from baselines.gail.__main__ import main
from baselines.gail.config import GailConfig
from baselines.gail.standalone import tuning
from grpo.evaluation.protocol import forecaster_names
from preprocessing.simulation import parse_simulated_stock

ROOT = Path(__file__).parents[2]

TINY = [
    "--gbm.paths", "150", "--gbm.steps", "6", "--gail.num_tokens", "5", "--gail.pretrain_steps", "20",
    "--gail.validate_every", "10", "--gail.iterations", "2", "--gail.environments", "8", "--gail.batch", "4",
    "--gail.discriminator_steps", "1",
]  # fmt: skip
PICTURES = ("tokens", "boxes", "prices", "roc", "learning_curves")


def test_train_writes_all_it_names_and_is_done_the_second_time(tmp_path, capsys):
    arguments = ["train", "--output-dir", str(tmp_path / "out"), *TINY]
    assert main(arguments) == 0
    assert "trained and written" in capsys.readouterr().out
    folder = tmp_path / "out"
    written = {path.name for path in folder.iterdir()}
    assert written == {f"{name}.png" for name in PICTURES} | {
        "learning_curves.csv", "metrics.json", "settings.json", "networks.safetensors",
        *(f"distributions_{name}.{kind}" for name in ("pretrained", "gail") for kind in ("md", "json")),
    }  # fmt: skip
    for name in PICTURES:
        assert matplotlib.image.imread(folder / f"{name}.png").std() > 0.01
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["demonstrations"] == {"train": 105, "val": 15, "test": 30}
    assert set(metrics["gail"]) == {
        "nll", "crps", "kolmogorov_smirnov", "wasserstein", "discriminator_auc", "discriminator_f1",
    }  # fmt: skip
    # tokens of independent steps: no model is far from log 5, nor from the shares of the tokens
    assert metrics["simple"]["iid_nll"] == pytest.approx(np.log(5), abs=0.05)
    assert metrics["pretrained"]["nll"] == pytest.approx(np.log(5), abs=0.1)
    phases = pd.read_csv(folder / "learning_curves.csv")["phase"].unique()
    assert set(phases) == {"pretraining", "validation", "imitation"}

    before = (folder / "metrics.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert "this training is there and finished" in capsys.readouterr().out
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert main([*arguments, "--seed", "1"]) == 1
    assert capsys.readouterr().err == (
        f"python -m baselines.gail train: error: {folder} holds a training with other settings; "
        "give another --output-dir\n"
    )


def test_a_csv_of_bars_gives_windows_with_context(tmp_path, capsys):
    bars = parse_simulated_stock("sim:ou?rows=900&seed=1").bars()
    table = bars.rename(columns=str.capitalize).assign(**{"Adj Close": bars["close"]})
    table.rename_axis("Date").to_csv(tmp_path / "AAA.csv")
    arguments = ["train", "--output-dir", str(tmp_path / "out"), "--data", str(tmp_path / "AAA.csv"), *TINY]
    assert main(arguments) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert min(metrics["demonstrations"].values()) > 20
    (tmp_path / "empty").mkdir()
    assert main(["train", "--output-dir", str(tmp_path / "x"), "--data", str(tmp_path / "empty"), *TINY]) == 1
    assert not (tmp_path / "x").exists()
    assert "holds no CSV file of bars" in capsys.readouterr().err


def test_a_search_goes_on_and_writes_settings_that_train_reads(tmp_path, capsys):
    arguments = ["train", "--output-dir", str(tmp_path), *TINY, "--tune"]
    assert main([*arguments, "1"]) == 0
    assert "the best of 1 trials" in capsys.readouterr().out
    assert main([*arguments, "2"]) == 0
    assert "the best of 2 trials" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["0", "1"]
    curves = [pd.read_csv(tmp_path / "trials" / trial / "learning_curves.csv") for trial in "01"]
    best = min(curve["val_crps"].min() for curve in curves)
    assert main([*arguments, "2"]) == 0  # nothing is left to try
    shown = capsys.readouterr().out
    assert f"validation loss {best:.4f}" in shown
    settings = yaml.safe_load((tmp_path / tuning.BEST).read_text())
    found = GailConfig(**settings["gail"])
    assert found.num_tokens == 5
    assert found.learning_rate != GailConfig().learning_rate
    assert main(["train", "--config", str(tmp_path / tuning.BEST), *TINY, "--output-dir", str(tmp_path / "x")]) == 0


def exit_code(arguments: list[str]) -> int:
    """Of the command; wrong flags end the process at once."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(str(ended.code))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit"], 2, "'fit' is no command; take train"),
        (["train", "--data", "nowhere.csv"], 1, "--data nowhere.csv is neither gbm, nor sim:PROCESS"),
        (["train", "--data", "sim:nothing"], 1, "unknown process 'nothing'"),
        (["train", "--gail.num_tokens", "1"], 2, "num_tokens must be at least 2; got 1"),
        (["train", "--gail.batch", "0"], 2, "batch must be positive; got 0"),
        (["train", "--gbm.sigma", "-1"], 2, "gbm.sigma must be positive; got -1"),
        (["train", "--gail.colour", "red"], 2, "colour"),
    ],
)
def test_wrong_input_is_one_line(arguments, code, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exit_code(arguments) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_help_explains(capsys):
    assert main(["--help"]) == 0
    assert "python -m baselines.gail train" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "Reward lost per nat of divergence" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "baselines" / "gail" / "README.md").read_text()
    block = readme.split("```bash\n")[1].split("```")[0]
    commands = [shlex.split(line) for line in block.splitlines() if not line.startswith("#")]
    for _, *command in commands:
        if command[:2] == ["-m", "baselines.gail"]:
            assert main([*command[2:], *TINY, *(["--tune", "1"] if "--tune" in command else [])]) == 0
        elif command[:2] == ["-m", "grpo.stages.compare_models"]:
            assert set(command[3].split(",")) <= set(forecaster_names())
        else:
            flags = ["--envs", "4", "--processes", "1", "--rounds", "1", "--seconds", "0.05"]
            shown = subprocess.check_output([sys.executable, ROOT / command[0], *flags], text=True, cwd=ROOT)
            assert shown.count("steps/s") == 3
    assert {path.name for path in tmp_path.iterdir()} == {"results", "gail_ou", "search", "tuned"}
