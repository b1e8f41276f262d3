"""Validation during training: which adapter is kept, and that nothing else changes."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from grpo.evaluation.protocol import Forecast
from grpo.language.config import PromptConfig
from grpo.models.spec import ModelSpec
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import load_llm_forecaster
from grpo.training.validation_guard import StageProgress, ValidationGuard
from preprocessing.windows import Truth, WindowSet
from tests.windows_factory import simulated_windows

_WINDOWS = simulated_windows()["test"].take(np.arange(3))
FLAT = WindowSet(
    context=_WINDOWS.context,
    truth=Truth(future=np.repeat(_WINDOWS.context.last_price[:, None], 10, axis=1), dates=_WINDOWS.truth.dates),
)


class OffBy:
    """Says that every close lies a given percentage above the last, of which its CRPS on FLAT is the size."""

    name = "off"

    def __init__(self, percent: float):
        self.percent = percent

    def predict(self, context, *, horizon, num_samples, seed):
        price = context.last_price[:, None, None] * (1 + self.percent / 100)
        samples = np.broadcast_to(price, (len(context), num_samples, horizon)).copy()
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    def save(self, path): ...


class Training:
    """Calls the callback as the Trainer does; `scores` gives the policy's validation CRPS at each step."""

    def __init__(self, folder, scores: dict[int, float], every: int = 2):
        self.scores, self.step, self.logged = scores, 0, []
        self.saves: list[int] = []
        self.callback = ValidationGuard(
            FLAT, lambda: OffBy(scores[self.step]), self.write_adapter, every=every, folder=folder, seed=0
        )
        self.callback.trainer = SimpleNamespace(log=self.logged.append)

    def write_adapter(self, target):
        target.mkdir(exist_ok=True)
        (target / "weights").write_text(str(self.step))

    def state(self, rank: int = 0):
        return SimpleNamespace(
            global_step=self.step, max_steps=max(self.scores), is_world_process_zero=rank == 0, log_history=[]
        )

    def run(self, first: int = 0, until: int | None = None, rank: int = 0) -> Training:
        self.step = first
        self.callback.on_train_begin(None, self.state(rank), None)
        for step in range(first + 1, (max(self.scores) if until is None else until) + 1):
            self.step = step
            control = SimpleNamespace(should_save=False, should_log=True)
            self.callback.on_step_end(None, self.state(rank), control)
            if control.should_save:
                self.saves.append(step)
        return self

    def kept(self) -> tuple[float, str]:
        """Step that kept.json names, and the weights that lie beside it."""
        kept = self.callback.read_kept()
        assert kept is not None
        return kept["step"], (self.callback.kept_folder / "weights").read_text()


def test_the_best_adapter_is_kept(tmp_path):
    training = Training(tmp_path, {0: 3.0, 2: 1.0, 4: 2.0, 5: 1.5}).run()
    assert training.kept() == (2, "2")
    assert [entry["eval_crps"] for entry in training.logged] == pytest.approx([3.0, 1.0, 2.0, 1.5])
    assert training.logged[0]["eval_valid"] == 1
    assert training.logged[0]["eval_mae"] == pytest.approx(3.0)


def test_the_starting_adapter_wins_when_training_harms(tmp_path):
    assert Training(tmp_path, {0: 1.0, 2: 1.1, 4: 3.0}).run().kept() == (0, "0")


def test_every_score_comes_with_a_checkpoint(tmp_path):
    assert Training(tmp_path, {0: 1.0, 3: 1.0, 6: 1.0, 7: 1.0}, every=3).run().saves == [3, 6, 7]


@pytest.mark.parametrize(
    "scores",
    [
        {0: 3.0, 2: 2.0, 4: 1.5, 6: 1.0, 8: 1.2},  # the best came after the checkpoint
        {0: 3.0, 2: 1.0, 4: 1.5, 6: 1.1, 8: 1.2},  # at the checkpoint
        {0: 3.0, 2: 2.0, 4: 2.5, 6: 1.0, 8: 0.9},  # after the kill, past a worse score
        {0: 0.5, 2: 2.0, 4: 1.5, 6: 1.0, 8: 1.2},  # at the start
    ],
)
@pytest.mark.parametrize("killed_after", [2, 4, 6])
def test_a_resumed_run_keeps_what_the_uninterrupted_one_keeps(tmp_path, scores, killed_after):
    whole = Training(tmp_path / "whole", scores).run()
    Training(tmp_path / "killed", scores).run(until=killed_after)
    resumed = Training(tmp_path / "killed", scores).run(first=2)
    best = min(scores, key=scores.__getitem__)
    assert resumed.kept() == whole.kept() == (best, str(best))


def test_a_fresh_run_forgets_the_best_of_a_former_one(tmp_path):
    Training(tmp_path, {0: 0.1, 2: 0.1}).run()
    assert Training(tmp_path, {0: 3.0, 2: 2.0}).run().kept() == (2, "2")


def test_other_processes_score_but_do_not_write(tmp_path):
    training = Training(tmp_path, {0: 1.0, 2: 0.5}).run(rank=1)
    assert len(training.logged) == 2
    assert not (tmp_path / "kept").exists()


def test_validation_leaves_the_random_state_of_training_alone(tmp_path):
    forecaster = load_llm_forecaster(ModelSpec(), PromptConfig(), GenerationConfig(), name="policy")
    logged = []
    callback = ValidationGuard(_WINDOWS, lambda: forecaster, lambda target: None, every=1, folder=tmp_path, seed=0)
    callback.trainer = SimpleNamespace(log=logged.append)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    state = SimpleNamespace(global_step=0, max_steps=2, is_world_process_zero=True)
    callback.on_train_begin(None, state, None)
    torch.rand(3)  # training goes on between two scores
    moved = torch.get_rng_state()
    callback.on_train_begin(None, state, None)
    assert torch.equal(torch.get_rng_state(), moved)
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert logged[0] == logged[1], "scores must use common random numbers"


def test_the_progress_bar_says_stage_step_and_score(tmp_path, capsys):
    progress = StageProgress("stage 1 GRPO")
    state = SimpleNamespace(global_step=3, max_steps=10, is_world_process_zero=True)
    progress.on_train_begin(None, state, None)
    state.global_step = 5
    progress.on_log(None, state, None, logs={"reward": 0.25, "epoch": 1.0})
    progress.on_step_end(None, state, None)
    assert progress.bar is not None
    assert (progress.bar.n, progress.bar.total, progress.bar.initial) == (5, 10, 3)
    progress.on_train_end(None, state, None)
    shown = capsys.readouterr().err
    assert "stage 1 GRPO" in shown
    assert "reward=0.250" in shown
    assert "epoch" not in shown


def guard_of(windows, tmp_path) -> ValidationGuard:
    return ValidationGuard(windows, lambda: OffBy(0), lambda target: None, every=1, folder=tmp_path, seed=0)


def test_an_adapter_within_the_noise_of_the_best_is_not_clearly_worse(tmp_path):
    windows = simulated_windows("sim:ou?rows=600&seed=4")["train"]
    guard = guard_of(windows, tmp_path)
    noise = np.random.default_rng(0).standard_normal(len(windows))
    noise -= noise.mean()
    best = np.full(len(windows), 2.0)
    # Independent noise of deviation 1: the standard error of the mean over n dates is about 1 / sqrt(n).
    error = 1 / np.sqrt(len(windows))
    assert not guard.clearly_worse(best + noise + 0.3 * error, best)
    assert guard.clearly_worse(best + noise + 4 * error, best)
    assert not guard.clearly_worse(best + noise - 4 * error, best)


def test_the_latest_adapter_is_kept_while_it_is_not_clearly_worse(tmp_path):
    windows = simulated_windows("sim:ou?rows=600&seed=4")["train"]
    rng = np.random.default_rng(1)

    class Noisy:
        """CRPS near `level`, with noise between windows that hides differences of a tenth."""

        name = "noisy"

        def __init__(self, level):
            self.level = level

        def predict(self, context, *, horizon, num_samples, seed):
            off = 1 + (self.level + 0.3 * rng.standard_normal(len(context)))[:, None, None] / 100
            truth = windows.truth.future[:, None, :]
            samples = np.broadcast_to(truth * off, (len(context), num_samples, horizon)).copy()
            return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    levels = {0: 1.5, 1: 1.0, 2: 1.001, 3: 2.0}
    step = [0]
    callback = ValidationGuard(
        windows, lambda: Noisy(levels[step[0]]), lambda t: t.mkdir(exist_ok=True), every=1, folder=tmp_path, seed=0
    )
    callback.trainer = SimpleNamespace(log=lambda scores: None)
    kept = []
    for step[0] in levels:
        state = SimpleNamespace(global_step=step[0], max_steps=3, is_world_process_zero=True)
        if step[0] == 0:
            callback.on_train_begin(None, state, None)
        else:
            callback.on_step_end(None, state, SimpleNamespace(should_save=False, should_log=True))
        kept.append(callback.read_kept()["step"])
    assert kept == [0, 1, 2, 2]
