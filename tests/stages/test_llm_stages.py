"""The stages around the language model, run in order with the embedded model and tiny settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from grpo.config import RunConfig
from grpo.language.answers import Numbers, parse_all
from grpo.runs.stages import ADAPTER_STAGES, STAGES
from grpo.sampling.forecaster import LLMForecaster, load_llm_forecaster
from grpo.training import grpo as grpo_training
from preprocessing.windows_reader import read_windows
from tests.tiny_runs import GROUP, KEPT, NEEDS_UNSLOTH, PROMPTS, SAMPLES, SLUG, STEPS, STOCK, WINDOWS, TinyRun, paths_of

ADAPTERS = {stage.key: stage.adapter for stage in ADAPTER_STAGES}
TOKENS = torch.randint(5, 900, (3, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["finished", pytest.param("finished_with_unsloth", marks=NEEDS_UNSLOTH)])
def run(request) -> TinyRun:
    return request.getfixturevalue(request.param)


@torch.no_grad()
def log_probs(model) -> torch.Tensor:
    return torch.log_softmax(model(input_ids=TOKENS).logits, -1)


def read_manifest(run: TinyRun, stage: str) -> dict:
    return json.loads((run.place(stage) / "manifest.json").read_text())


@pytest.mark.parametrize("stage", [stage.key for stage in STAGES])
def test_a_second_call_skips_a_finished_stage(run, stage, capfd):
    before = {path: path.stat().st_mtime_ns for path in run.place(stage).rglob("*")}
    assert run.stage(stage) == 0
    assert f"{stage}: already done" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.place(stage).rglob("*")} == before


@pytest.mark.parametrize(("stage", "name"), ADAPTERS.items())
def test_an_adapter_is_published_with_its_base_by_name(run, stage, name):
    adapter = run.place(stage) / "adapter"
    published = run.models / "embedded" / SLUG / name
    assert {file.name: file.read_bytes() for file in published.iterdir()} == {
        file.name: file.read_bytes() for file in adapter.iterdir()
    }
    assert json.loads((published / "adapter_config.json").read_text())["base_model_name_or_path"] == "embedded"
    for file in published.iterdir():
        assert b"/embedded/model" not in file.read_bytes(), f"{file.name} tells where the model lay on this machine"


@pytest.mark.parametrize("stage", ["stage1", "stage3"])
def test_a_grpo_stage_logs_each_step_and_keeps_the_best_validation_score(run, stage):
    history = json.loads((run.place(stage) / "log_history.json").read_text())
    assert [entry["step"] for entry in history if "reward" in entry] == list(range(1, STEPS + 1))
    scores = {entry["step"]: entry["eval_crps"] for entry in history if "eval_crps" in entry}
    assert list(scores) == [0, 2, 4]
    best = read_manifest(run, stage)["metrics"]["kept"]
    assert scores[best["step"]] == min(scores.values())
    assert best["eval_crps"] == pytest.approx(scores[best["step"]])


def test_completions_are_logged_with_their_paths_and_rewards(run):
    table = pd.read_parquet(run.place("stage1") / "completions" / "step_000000.parquet")
    assert list(table.columns) == ["step", "window_id", "prompt", "completion", "levels", "reward_energy"]
    assert table.groupby("window_id").size().tolist() == [GROUP] * PROMPTS
    data = run.place("preprocess")
    windows = read_windows(data / f"{SLUG}_train_x.csv", data / f"{SLUG}_train_y.csv")
    for window, group in table.groupby("window_id"):
        paths = np.array([text.split() for text in group["completion"]], dtype=float)
        assert np.array_equal(paths, np.stack(group["levels"].tolist()))
        last, volatility = windows.context.last_price[window], windows.context.feature("volatility")[window]
        truth = np.log(windows.truth.future[window] / last) / volatility  # daily deviations
        scale = np.sqrt(10 * np.arange(1, 11))  # of day h, and the Euclidean norm's own sqrt(H)
        x, y = (paths - 500) / 10 / scale, truth / scale
        for row, reward in enumerate(group["reward_energy"]):
            pairs = sum(np.linalg.norm(x[row] - x[other]) for other in range(GROUP))
            assert reward == pytest.approx(pairs / (GROUP - 2) - np.linalg.norm(x[row] - y), rel=1e-5)


def test_rejection_accounts_for_every_sample(run):
    folder = run.place("rejection")
    kept = pd.read_csv(folder / f"{SLUG}_sft_training_data.csv")
    rejected = pd.read_parquet(folder / "rejected.parquet")
    acceptance = pd.read_csv(folder / "acceptance.csv")
    assert list(kept.columns) == ["prompt", "completion", "date", "stock", "energy_reward"]
    assert len(kept) + len(rejected) == acceptance["samples"].sum() == WINDOWS * SAMPLES
    assert len(kept) == acceptance["kept"].sum() == WINDOWS * KEPT
    assert acceptance["windows"].sum() == WINDOWS
    assert acceptance["valid"].sum() == (rejected["why"] == "not selected").sum() + len(kept)
    assert kept.groupby("date").size().tolist() == [KEPT] * WINDOWS
    assert set(kept["stock"]) == {STOCK}
    assert np.isfinite(parse_all(kept["completion"].tolist(), horizon=10, form=Numbers())).all()
    metrics = read_manifest(run, "rejection")["metrics"]
    assert (metrics["samples"], metrics["kept"]) == (WINDOWS * SAMPLES, WINDOWS * KEPT)


def test_rejection_says_why_each_sample_was_left_out(tmp_path, monkeypatch):
    run = TinyRun(tmp_path).stages("preprocess")
    adapter = tmp_path / "adapter"
    adapter.mkdir()

    class Answers:
        """Of six answers the first and the fourth are none."""

        def sample_texts(self, context, *, horizon, num_samples, seed):
            paths = [" ".join([str(500 + 10 * sample)] * horizon) for sample in range(num_samples)]
            paths[0], paths[3] = "up", paths[3] + " [cut off]"
            return [paths] * len(context)

    monkeypatch.setattr("grpo.sampling.forecaster.load_llm_forecaster", lambda *args, **kwargs: Answers())
    flags = ("--grpo-saved-lora-1st", adapter, "--rejection.num_samples", 6, "--rejection.keep", 3)
    assert run.stage("rejection", *flags) == 0
    rejected = pd.read_parquet(run.place("rejection") / "rejected.parquet")
    assert rejected["why"].value_counts().to_dict() == {"invalid answer": 2 * WINDOWS, "not selected": WINDOWS}
    assert rejected["energy_reward"].isna().equals(rejected["why"] == "invalid answer")
    assert pd.read_csv(run.place("rejection") / "acceptance.csv")["valid"].sum() == 4 * WINDOWS
    assert read_manifest(run, "rejection")["metrics"]["dropped_windows"] == 0

    near = TinyRun(tmp_path / "near").stages("preprocess")
    assert near.stage("rejection", *flags, "--rejection.max_distance", 0.6) == 0
    rejected = pd.read_parquet(near.place("rejection") / "rejected.parquet")
    far = rejected[rejected["why"] == "too far from what happened"]
    kept = pd.read_csv(near.place("rejection") / f"{SLUG}_sft_training_data.csv")
    dropped = read_manifest(near, "rejection")["metrics"]["dropped_windows"]
    assert len(far) > 0
    assert 0 < dropped == WINDOWS - kept["date"].nunique()


def test_only_the_first_process_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = TinyRun(tmp_path)
    assert run.stage("rejection") == 0
    assert not run.place("rejection").exists()


def test_every_step_has_its_own_log_entry_beside_the_validation_scores(run):
    history = json.loads((run.place("stage1") / "log_history.json").read_text())
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in history if "eval_crps" in entry] == list(range(0, STEPS + 1, 2))


def test_sft_teaches_every_kept_answer_once(run):
    history = json.loads((run.place("stage2") / "log_history.json").read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == WINDOWS * KEPT / 8  # examples / batch_size
    assert read_manifest(run, "stage2")["metrics"]["last_loss"] == losses[-1]


def test_the_comparison_ranks_every_stage(run):
    table = pd.read_csv(run.place("compare") / "leaderboard.csv").set_index("forecaster")
    names = {"base", "grpo_1st", "sft", "grpo_2nd", "random_walk", "random_walk_drift", "fhs_drift", "ridge", "optimum"}
    assert set(table.index) == names
    assert table["valid"].min() > 0.9
    assert np.isfinite(table["rel_crps"]).all()


def test_grpo_changes_the_adapter_and_the_models_predictions(run):
    checkpoint = run.place("stage1") / "checkpoints" / f"checkpoint-{STEPS}"
    weights = load_file(checkpoint / "adapter_model.safetensors")
    started_at_zero = {name: weight for name, weight in weights.items() if "lora_B" in name}
    assert len(started_at_zero) == 4 * 7  # layers x (q, k, v, o, gate, up, down)
    assert all(weight.abs().max() > 1e-5 for weight in started_at_zero.values())
    config = run.config("stage1")
    base = log_probs(language_model(config).model)
    trained = language_model(config, by_name(checkpoint, run.folder / "by_name")).model
    assert (log_probs(trained) - base).abs().max() > 1e-3


def language_model(config: RunConfig, adapter: Path | None = None) -> LLMForecaster:
    return load_llm_forecaster(config.spec(adapter), config.prompt, config.generation, name="model")


def by_name(checkpoint: Path, folder: Path) -> Path:
    """The adapter of a checkpoint, with its base recorded as the stages record it."""
    settings = json.loads((checkpoint / "adapter_config.json").read_text()) | {"base_model_name_or_path": "embedded"}
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes((checkpoint / "adapter_model.safetensors").read_bytes())
    return folder


class _BeforeTrainingError(Exception):
    pass


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_stage_3_starts_at_stage_2s_log_probs(run, beta, tmp_path, monkeypatch):
    caught = []

    def stop(trainer, **_):
        caught.append(trainer)
        raise _BeforeTrainingError

    monkeypatch.setattr(grpo_training.SharedPromptGRPOTrainer, "train", stop)
    other = TinyRun(tmp_path)
    config = run.config("stage3")
    files = paths_of(config).named("train_x", "train_y", "sft_lora")
    flags = [part for name, file in files.items() for part in (f"--paths.{name}", file)]
    flags += ["--paths.val_x", files["train_x"], "--paths.val_y", files["train_y"], "--stage3.beta", beta]
    with pytest.raises(_BeforeTrainingError):
        other.stage("stage3", *flags)
    policy = caught[0].model.eval()
    sft = log_probs(language_model(config, files["sft_lora"]).model)
    base = log_probs(language_model(config).model)
    assert torch.equal(log_probs(policy), sft)
    assert (sft - base).abs().max() > 1e-3
    assert all(parameter.requires_grad for name, parameter in policy.named_parameters() if ".default." in name)
    if beta:
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if ".default." in name:
                    parameter.add_(0.1)  # the policy moves on, its reference must not
        assert (log_probs(policy) - sft).abs().max() > 0.1
        policy.set_adapter("ref")
        assert torch.equal(log_probs(policy), sft)


def test_the_accuracy_reward_narrows_the_samples(tmp_path):
    """Training follows its reward: the published 1 / (1 + MSE) is best served by a line, so the spread shrinks."""
    run = TinyRun(tmp_path).stages("preprocess")
    flags = {"steps": 16, "num_generations": 8, "prompts_per_step": 4, "eval_every": 16}
    flags |= {"learning_rate": 3e-3, "rewards": "{accuracy: 1.0}"}
    assert run.stage("stage1", *[part for key, value in flags.items() for part in (f"--stage1.{key}", value)]) == 0
    data = run.place("preprocess")
    context = read_windows(data / f"{SLUG}_test_x.csv", data / f"{SLUG}_test_y.csv").context.take(np.arange(0, 50, 5))
    config = run.config("stage1")
    spread = []
    for adapter in (None, by_name(run.place("stage1") / "checkpoints" / "checkpoint-16", tmp_path / "by_name")):
        forecaster = language_model(config, adapter)
        forecast = forecaster.predict(context, horizon=10, num_samples=64, seed=0)
        returns = np.log(forecast.samples / context.last_price[:, None, None])
        spread.append(np.nanstd(returns, axis=1).mean())
    assert spread[1] < 0.8 * spread[0]
