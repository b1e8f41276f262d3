"""Trainings on toys reach what enumeration says they should; a training that is killed goes on; the commands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.gflownet.__main__ import main
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.learner import LearnerConfig
from baselines.gflownet.standalone.train import task_named_by
from baselines.gflownet.toys import exact, tfbind8
from baselines.gflownet.toys.task_training import TrainConfig, Training, mean_hamming, sample_quality

FAST = LearnerConfig(
    learning_rate=2e-2, dynamics_learning_rate=2e-2, final_rate=0.001, buffer=200_000, dynamics_batch=2048
)
TREE = {"task": "tree", "tokens": 3, "length": 2, "min_share": 0.1, "batch": 256}


@pytest.fixture(autouse=True)
def same_random_state_after():
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


def trained(out_dir: Path, **settings) -> Training:
    training = Training(TrainConfig(output_dir=out_dir, learner=settings.pop("learner", FAST), **settings))
    training.run()
    return training


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["db", "kl"])
def test_a_feasible_toy_is_learnt_with_its_noise(generator, tmp_path):
    model = GeneratorConfig(width=32, stick=0.2, explore=0.4, gamma=0.5, kl_share=0.5)
    training = trained(tmp_path, **TREE, steps=700, check_every=700, model=model, generator=generator)
    last = training.state.curve.rows[-1]
    assert last["l1"] < 0.02
    assert last["log_z_error"] < 0.01
    assert last["dynamics_error"] < 0.01


@pytest.mark.slow
def test_where_noise_is_too_strong_expected_balance_reaches_its_own_optimum(tmp_path, capsys):
    model = GeneratorConfig(width=32, stick=0.4, explore=0.2, balance="expected_balance")
    settings = TREE | {"min_share": 0.0, "task_seed": 3}
    training = trained(tmp_path, **settings, steps=500, check_every=500, model=model)
    graph = training.graph
    optimum = exact.terminal_distribution(graph, exact.executed_policy(graph, exact.expected_policy(graph, 0.4), 0.4))
    policy = exact.learnt_policy(training.generator, graph)
    found = exact.terminal_distribution(graph, exact.executed_policy(graph, policy, 0.4))
    assert exact.l1_distance(found, optimum) < 0.02
    assert exact.l1_distance(found, graph.target) > 0.5
    assert training.state.curve.rows[-1]["log_z_error"] < 0.01
    flags = "--task tree --tokens 3 --length 2 --min-share 0 --task-seed 3 --stick .4"
    assert main(["feasibility", *flags.split()]) == 0
    assert "INFEASIBLE: no policy reaches R/Z" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["detailed_balance", "trajectory_balance", "sub_trajectory_balance"])
def test_without_noise_every_balance_reaches_the_target(balance, tmp_path):
    model = GeneratorConfig(width=32, stick=0.0, explore=0.2, balance=balance)
    training = trained(tmp_path, **TREE, steps=250, check_every=250, model=model)
    assert training.state.curve.rows[-1]["l1"] < 0.02
    assert training.state.curve.rows[-1]["log_z_error"] < 0.01


@pytest.mark.slow
def test_a_grid_with_noise_is_learnt_with_an_explicit_z(tmp_path):
    model = GeneratorConfig(width=64, stick=0.1, explore=0.2, explicit_z=True, learn_dynamics=False)
    training = trained(tmp_path, task="hypergrid", side=3, batch=256, steps=600, check_every=600, model=model)
    assert training.state.curve.rows[-1]["l1"] < 0.02
    assert training.state.curve.rows[-1]["log_z_error"] < 0.01


def test_the_quality_of_samples_by_hand():
    assert mean_hamming(np.array([[0, 0], [0, 1], [1, 1]])) == pytest.approx((1 + 2 + 1) / 2 / 3)
    assert mean_hamming(np.array([[0, 1], [0, 1]])) == 0
    ends = torch.arange(400).remainder(200)[:, None]
    found = sample_quality(ends, ends[:, 0].double().add(1).log())
    assert found["top_100_reward"] == pytest.approx(np.mean([*range(151, 201)]))  # 151 ... 200, twice each
    assert found["distinct"] == 0.5
    assert found["top_100_diversity"] == pytest.approx(1 - 1 / 99)


# The table of 8-mers


def write_arrays(folder: Path, tokens: np.ndarray, scores: np.ndarray) -> Path:
    np.save(folder / "tf_bind_8-x-0.npy", tokens)
    np.save(folder / "tf_bind_8-y-0.npy", scores[:, None])
    return folder / "tf_bind_8-y-0.npy"


def all_tokens() -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(4)] * 8, indexing="ij"), axis=-1).reshape(-1, 8)


def test_a_table_is_read_in_any_order_and_checked(tmp_path):
    scores = np.random.default_rng(0).random(65_536)
    order = np.random.default_rng(1).permutation(65_536)
    tokens = all_tokens()
    file = write_arrays(tmp_path, tokens[order], scores[order])
    table = tfbind8.read_table(file)
    np.testing.assert_array_equal(table.scores, scores)
    tfbind8.read_table(file, table.sha256.upper())
    with pytest.raises(tfbind8.UserError, match=r"has the SHA-256 .* not abc"):
        tfbind8.read_table(file, "abc")
    lines = [f"{tfbind8.spell(row)},{score}" for row, score in zip(tokens, scores, strict=True)]
    csv = tmp_path / "scores.csv"
    csv.write_text("\n".join(["sequence,score", *lines]))
    np.testing.assert_array_equal(tfbind8.read_table(csv).scores, scores)
    csv.write_text("\n".join(["sequence,score", *lines[:-1]]))
    with pytest.raises(tfbind8.UserError, match="holds 65535 of the 65536"):
        tfbind8.read_table(csv)
    csv.write_text("\n".join(["sequence,score", *lines, "AAAAAAAA,7"]))
    with pytest.raises(tfbind8.UserError, match="AAAAAAAA comes twice"):
        tfbind8.read_table(csv)
    csv.write_text("sequence,score\nACGTACGX,1\n")
    with pytest.raises(tfbind8.UserError, match="line 2 needs 8 letters"):
        tfbind8.read_table(csv)
    file = write_arrays(tmp_path, tokens[:, :7], scores)
    with pytest.raises(tfbind8.UserError, match="must be integers 0 to 3"):
        tfbind8.read_table(file)
    with pytest.raises(tfbind8.UserError, match="TFBind8 is not shipped"):
        tfbind8.read_table(tmp_path / "nothing.npy")


def test_the_synthetic_landscape_scores_by_distance_to_its_motifs():
    table = tfbind8.motif_landscape(0, num_motifs=2, sharpness=0.5)
    best = np.flatnonzero(table.scores == 1)
    assert len(best) == 2
    tokens = all_tokens()
    distance = (tokens[:, None] != tokens[best]).sum(axis=-1).min(axis=1)
    np.testing.assert_allclose(table.scores, np.exp(-0.5 * distance))
    task = tfbind8.table_task("motifs", table, floor=0.1)
    assert task.log_reward(torch.tensor([[4, *tokens[best[0]]]])).item() == 0
    assert task.log_rewards.min().item() == pytest.approx(np.log(0.1))


# Commands


def test_the_commands_train_go_on_and_sample(tmp_path, capsys):
    folder = tmp_path / "tree"
    flags = ["--task", "tree", "--length", "2", "--steps", "4", "--check-every", "2", "--batch", "8"]
    flags += ["--model.width", "8", "--output-dir", str(folder)]
    assert main(["train", *flags]) == 0
    assert "L1 to R/Z" in capsys.readouterr().out
    assert main(["train", *flags]) == 0
    assert "is trained: all of its 4 steps are done" in capsys.readouterr().out
    assert main(["sample", "--run", str(folder), "--num-samples", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "end,reward"
    assert len(lines) == 6
    assert all(re.fullmatch(r"[0-3] [0-3],[\d.e-]+", line) for line in lines[1:])
    assert main(["train", *flags, "--stick", ".1"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("python -m baselines.gflownet train: error: ")
    assert "is of a training with other model.stick (0.25, not 0.1);" in error


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert main(["sample", "--run", str(tmp_path)]) == 1
    assert "training.safetensors cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        main(["train", "--task", "tfbind8", "--output-dir", str(tmp_path)])
    assert refused.value.code == 2
    assert "needs --table" in capsys.readouterr().err
    assert main(["feasibility", "--task", "tfbind8", "--table", str(tmp_path / "none.csv")]) == 1
    assert "TFBind8 is not shipped" in capsys.readouterr().err
    assert main(["feasibility", "--task", "hypergrid", "--dimensions", "4", "--side", "40"]) == 1
    assert "has more than" in capsys.readouterr().err
    assert main(["dance"]) == 2
    assert main(["--help"]) == 0


def test_price_paths_are_trained_and_sampled(tmp_path, capsys):
    folder = str(tmp_path / "paths")
    flags = ["--task", "price_paths", "--stock", "sim:ou?rows=500", "--data.horizon", "3", "--output-dir", folder]
    flags += ["--forecaster.steps", "4", "--forecaster.check-every", "2", "--forecaster.check-windows", "8"]
    assert main(["train", *flags]) == 0
    assert main(["train", *flags]) == 0
    assert "is trained" in capsys.readouterr().out
    assert main(["sample", "--run", folder, "--stock", "sim:ou?rows=500", "--data.horizon", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "day,mean,quantile_0.1,quantile_0.5,quantile_0.9"
    assert len(shown.out.splitlines()) == 4
    assert "log Z" in shown.err
    assert main(["sample", "--run", folder]) == 1
    assert "say whose future by --stock" in capsys.readouterr().err


def test_the_task_is_what_the_flag_says_and_no_other_word(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("task: price_paths\nstock: sim:ou\n")
    assert task_named_by(["--task", "tree", "--output-dir", "price_paths"]) == "tree"
    assert task_named_by(["--output-dir", "price_paths"]) is None
    assert task_named_by(["--task=price_paths"]) == "price_paths"
    assert task_named_by(["--task", "tree", "--task", "price_paths"]) == "price_paths"
    assert task_named_by(["--config", str(file)]) == "price_paths"
    assert task_named_by(["--config", str(file), "--task", "tree"]) == "tree"
    assert task_named_by(["--config", str(tmp_path / "none.yaml")]) is None
    assert task_named_by(["--task"]) is None


def test_a_folder_may_be_called_as_a_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--task", "tree", "--length", "2", "--steps", "2", "--check-every", "2", "--model.width", "8"]
    assert main(["train", *flags, "--output-dir", "price_paths"]) == 0
    assert "L1 to R/Z" in capsys.readouterr().out
    assert main(["train", *flags, "--out-dir", "price_paths"]) == 0  # its former name
    shown = capsys.readouterr()
    assert "price_paths is trained" in shown.out
    assert "note: --out-dir is called --output-dir now" in shown.err
