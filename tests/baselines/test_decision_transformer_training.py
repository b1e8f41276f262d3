"""Fitting the Decision Transformer: what is learnt of known traders, checkpoints, and the command."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.decision_transformer.__main__ import main
from baselines.decision_transformer.model import DecisionTransformer, ModelConfig
from baselines.neural.checkpoints import write_tensors
from baselines.trader.action_scores import ActionScores, action_probabilities, judge
from baselines.trader.network_fitting import BEST, LAST, Batch, FitConfig, fit_network, mean_losses, read_best
from preprocessing.command_line import UsageError
from preprocessing.errors import UserError
from tests.baselines.trader_toys import buys_low, noisy, splits

ROOT = Path(__file__).parents[2]
BARS = 32
LEARNER = ModelConfig(d_model=32, num_layers=1, num_heads=2, dropout=0.0, context=BARS)
FAST = FitConfig(epochs=8, batch_size=16, learning_rate=6e-3, warm_up=30)
TINY = ModelConfig(d_model=8, num_layers=1, num_heads=2, dropout=0.2, context=6)
TINY_FIT = FitConfig(epochs=4, batch_size=8, learning_rate=1e-2, warm_up=2, patience=4)


def tiny_data():
    return splits(buys_low, train=20, bars=6, seed=3)


def scores_on_test(network: DecisionTransformer, data) -> ActionScores:
    return judge("it", data["test"], action_probabilities(network, data["test"], data["test"].returns_to_go)).scores


@pytest.mark.slow
def test_a_deterministic_policy_is_recovered(tmp_path):
    data = splits(buys_low, train=600, bars=BARS)
    fitted = fit_network(LEARNER, FAST, data, tmp_path, title="policy")
    scores = scores_on_test(fitted.network, data)
    assert scores.bars == 300 * BARS
    assert scores.accuracy > 0.99
    assert scores.balanced_accuracy > 0.99


@pytest.mark.slow
def test_a_noisy_policy_is_forecast_as_well_as_can_be(tmp_path):
    data = splits(noisy(buys_low, 0.3, seed=5), train=600, bars=BARS)
    fitted = fit_network(LEARNER, FAST, data, tmp_path, title="noisy policy")
    best = 1 - 0.3 + 0.3 / 5
    chance = 3 * np.sqrt(best * (1 - best) / (300 * BARS))
    assert best - 0.02 < scores_on_test(fitted.network, data).accuracy < best + chance


def unbroken(folder: Path):
    return fit_network(TINY, TINY_FIT, tiny_data(), folder, title="tiny")


KILLED = """
import os, signal
from pathlib import Path
from baselines.trader import network_fitting as fitting
from tests.baselines.test_decision_transformer_training import TINY, TINY_FIT, tiny_data

written, losses = [], fitting._losses

def kill_in_the_third_epoch(network, batch):
    if network.training and len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses(network, batch)

def count(original):
    def save(self):
        original(self)
        written.append(1)
    return save

fitting._losses = kill_in_the_third_epoch
fitting.TrainingRun.save = count(fitting.TrainingRun.save)
fitting.fit_network(TINY, TINY_FIT, tiny_data(), Path("FOLDER"), title="tiny")
"""


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(tmp_path):
    whole = unbroken(tmp_path / "whole")
    broken = tmp_path / "broken"
    code = KILLED.replace("FOLDER", str(broken))
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (broken / LAST).exists()
    assert not (broken / "learning_curves.csv").exists()
    torch.manual_seed(123)  # whatever the caller's random numbers are
    resumed = unbroken(broken)
    assert (resumed.epoch, resumed.epochs, resumed.validation_loss) == (whole.epoch, 4, whole.validation_loss)
    for file in (BEST, LAST, "learning_curves.csv"):
        assert (broken / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_seed_decides_and_the_callers_random_numbers_do_not(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = unbroken(tmp_path / "first").network.state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = unbroken(tmp_path / "second").network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = FitConfig(**{**vars(TINY_FIT), "seed": 1})
    third = fit_network(TINY, other, tiny_data(), tmp_path / "third", title="tiny").network.state_dict()
    assert not torch.equal(first["state_encoder.weight"], third["state_encoder.weight"])


def test_the_best_weights_are_those_of_the_lowest_validation_loss(tmp_path):
    data = tiny_data()
    fitted = unbroken(tmp_path)
    table = pd.read_csv(tmp_path / "learning_curves.csv")
    validation = table[table.phase == "validation"].set_index("step").loss
    assert validation.idxmin() == fitted.epoch
    assert len(validation) == 4
    for network in (fitted.network, read_best(tmp_path / BEST)[0]):
        assert mean_losses(network, Batch.of(data["val"], "cpu"), TINY_FIT).loss == validation.min()


def test_a_mean_over_batches_is_the_mean_over_bars():
    data = tiny_data()["train"]
    data.mask[:, 2:] = np.arange(20)[:, None] % 4 >= np.arange(4)  # windows of 2 to 5 bars
    torch.manual_seed(0)
    network, batch = DecisionTransformer(TINY), Batch.of(data, "cpu")
    parts = [mean_losses(network, batch, FitConfig(batch_size=size)) for size in (3, 20)]
    np.testing.assert_allclose(parts[0], parts[1], rtol=1e-5)
    logits = network(batch.states, batch.actions, batch.returns_to_go).action_logits.log_softmax(-1)
    entropies = -logits.gather(-1, batch.actions[..., None])[..., 0][batch.mask]
    assert parts[0].action_loss == pytest.approx(entropies.mean().item(), rel=1e-5)
    assert parts[0].loss == pytest.approx(parts[0].action_loss + 0.1 * parts[0].return_error)


def test_patience_ends_a_training_and_the_best_weights_stay(tmp_path):
    config = FitConfig(epochs=30, batch_size=20, learning_rate=1.0, warm_up=0, patience=2)
    fitted = fit_network(TINY, config, tiny_data(), tmp_path, title="wild")
    assert fitted.epochs == fitted.epoch + 1 + 2 < 30
    again = fit_network(TINY, config, tiny_data(), tmp_path, title="wild")  # it was done: the best weights come back
    assert (again.epoch, again.epochs) == (fitted.epoch, fitted.epochs)
    one, other = fitted.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_training_in_the_folder_is_refused(tmp_path):
    unbroken(tmp_path)
    other = FitConfig(**{**vars(TINY_FIT), "batch_size": 4})
    with pytest.raises(SavedFileError, match=r"last\.safetensors is of a training with other batch_size \(8, not 4\)"):
        fit_network(TINY, other, tiny_data(), tmp_path, title="tiny")
    with pytest.raises(SavedFileError, match="with other data"):
        fit_network(TINY, TINY_FIT, splits(buys_low, train=20, bars=6, seed=4), tmp_path, title="tiny")


def test_a_loss_that_is_never_finite_is_said(tmp_path):
    data = tiny_data()
    data["val"].states[:] = np.nan
    with pytest.raises(UserError, match="tiny: the validation loss was never finite"):
        fit_network(TINY, TINY_FIT, data, tmp_path, title="tiny")


def test_a_file_that_is_no_checkpoint_is_one_line_that_names_it(tmp_path):
    file = tmp_path / BEST
    with pytest.raises(SavedFileError, match="cannot be read"):
        read_best(file)
    write_tensors(file, {"x": torch.zeros(1)}, {"format": "another"})
    with pytest.raises(SavedFileError, match=r"best\.safetensors is no trader's decision transformer"):
        read_best(file)
    unbroken(tmp_path)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(SavedFileError, match=r"best\.safetensors cannot be read"):
        read_best(file)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1; got 0"),
        (["--device", "tpu9"], "device"),
        (["--device", "cuda:77"], "device cuda:77 is not there; take cpu"),
        (["--d_model", "30"], "num_heads must divide d_model"),
        (["--learning_rate", "-1"], "learning_rate must be above 0"),
        (["--colour", "red"], "colour"),
    ],
)
def test_a_wrong_flag_is_one_line(flags, message, capsys):
    with pytest.raises(UsageError) as wrong:
        main(["train", "--data", "x.parquet", *flags])
    assert wrong.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_data_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path / "none.parquet"), "--output-dir", str(tmp_path / "models")]) == 1
    error = capsys.readouterr().err
    assert "none.parquet is not there; write it with python -m baselines.decision_transformer pipeline" in error
    assert error.count("\n") == 1


SMALL_FLAGS = ["--epochs", "2", "--batch-size", "8", "--d-model", "8", "--num-layers", "1", "--num-heads", "2"]
SMALLER = {"simulate": ["--markets", "20", "--bars", "150"], "pipeline": ["--embargo", "0"], "train": SMALL_FLAGS}
README = (ROOT / "baselines" / "decision_transformer" / "README.md").read_text()


def readme_commands() -> list[list[str]]:
    """The commands of the README's blocks from simulated files to a model, without what comes before their names."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prefix = "python -m baselines.decision_transformer "
    return [shlex.split(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)]


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    """On the folder that a training left; the network takes windows of 6 bars here."""
    unbroken(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "TraderInference" in block
    )
    namespace = {"states": np.zeros((1, 6, 17), np.float32)}
    exec(code, namespace)
    assert namespace["prediction"].probabilities.shape == (1, 6, 5)


def test_from_simulated_files_to_a_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate, pipeline, train = readme_commands()[:3]
    assert [command[0] for command in (simulate, pipeline, train)] == ["simulate", "pipeline", "train"]
    for command in (simulate, pipeline, train):
        assert main([*command, *SMALLER[command[0]]]) == 0
    shown = capsys.readouterr().out
    report = json.loads(Path("models/report.json").read_text())
    assert [*report["rows"]] == [
        "decision_transformer",
        "target_return",
        "constant_return",
        "shuffled_return",
        "bc",
        "bc_best_25",
        "bc_best_10",
        "majority",
    ]
    rows = pd.read_parquet("data/processed_trader_data.parquet")
    test_rows = rows[rows.split == "test"]
    taken = np.bincount(test_rows.action, minlength=5)
    always = np.bincount(rows[rows.split == "train"].action, minlength=5).argmax()
    assert report["rows"]["majority"]["accuracy"] == pytest.approx(taken[always] / len(test_rows))
    for name, row in report["rows"].items():
        assert np.sum(row["confusion"], axis=1).tolist() == taken.tolist(), name
        assert row["accuracy"] == pytest.approx(np.trace(row["confusion"]) / len(test_rows)), name
        assert f"| {name} | {row['accuracy']:.4f} |" in " ".join(shown.split())  # the table is padded
        assert row["sees_future"] == (name == "decision_transformer")
    for folder in ("models", "models/bc", "models/bc_best_25", "models/bc_best_10"):
        for file in (BEST, LAST, "learning_curves.csv", "learning_curves.png"):
            assert (Path(folder) / file).stat().st_size > 0
    before = Path("models/report.md").read_bytes()
    assert main([*train, *SMALL_FLAGS]) == 0  # done: it only reports again
    assert Path("models/report.md").read_bytes() == before
    assert main([*train, *SMALL_FLAGS, "--seed", "1"]) == 1
    assert "with other seed (0, not 1)" in capsys.readouterr().err
