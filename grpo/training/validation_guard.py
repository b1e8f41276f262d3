"""Trainer callbacks: a named progress bar, and validation that decides which adapter is kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grpo.evaluation.dates import average_by_date
from grpo.evaluation.metrics import score_windows, summarise
from grpo.evaluation.protocol import Forecaster
from grpo.evaluation.significance import diebold_mariano
from grpo.runs.folder import publish_adapter
from preprocessing.files import JsonObject, write_atomically
from preprocessing.windows import WindowSet

VALIDATION_SAMPLES = 32
"""Paths per validation window; the fair CRPS does not depend on their number."""


class StageProgress(TrainerCallback):
    """A progress bar that says which stage, which step, how long is left and the latest reward or loss."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Open the bar at the step where training starts or goes on."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.stage, unit="step", mininterval=1
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: JsonObject | None = None,
        **kwargs: object,
    ) -> None:
        """Show the numbers that matter most."""
        if self.bar is not None and logs:
            shown = {
                key: logs[key] for key in ("reward", "valid", "loss", "eval_crps", "eval_coverage_80") if key in logs
            }
            if shown:
                self.bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items()})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class ValidationGuard(TrainerCallback):
    """Scores the policy on validation windows and keeps the latest adapter that is not clearly worse than the best.

    A validation split of a year holds only some 25 ten-day windows that do not overlap, so its CRPS is noisy: the
    adapter that happens to score best would often be an early one. By the one-standard-error rule (Breiman et al.
    1984, section 3.4.3) an adapter is given up only where it is worse than the best so far by more than one standard
    error of their difference, averaged per date and autocorrelation-consistent. The first score is that of the
    starting adapter, so a stage that does clear harm ends where it began.

    Scores use the same seed each time (common random numbers) and never touch the random state of training. A
    checkpoint is written with each score, and a score that is repeated changes nothing, so a resumed run repeats
    the same decisions.

    Under several processes each samples the same paths from the same seed; rank 0 alone decides and writes, and the
    training of the others does not depend on what it decides.

    Args:
        windows: validation windows.
        make_forecaster: the current policy as a forecaster.
        save: writes the current adapter into a folder.
        every: steps between two scores.
        folder: the kept adapter lies in folder/kept, the best score so far in folder/best_validation.json.
        seed: of the samples.
        whole_model: entered by every process around sampling and saving, to gather weights that are sharded.
    """

    def __init__(
        self,
        windows: WindowSet,
        make_forecaster: Callable[[], Forecaster],
        save: Callable[[Path], None],
        *,
        every: int,
        folder: Path,
        seed: int,
        whole_model: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.windows = windows
        self.make_forecaster = make_forecaster
        self.save = save
        self.every = every
        self.kept_folder = folder / "kept"
        self.best_file = folder / "best_validation.json"
        self.seed = seed
        self.whole_model = whole_model
        self.trainer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Score the starting adapter of a fresh run."""
        # A resumed run keeps what it had; only a fresh one clears what a killed attempt left.
        if state.global_step == 0:
            if state.is_world_process_zero:
                shutil.rmtree(self.kept_folder, ignore_errors=True)
                self.best_file.unlink(missing_ok=True)
            with self.whole_model():
                self._score(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Score every few steps and at the end."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            due = control.should_log
            with self.whole_model():
                self._score(state)
            # Logging the score clears should_log, but the step's own entry (loss, learning rate) is still due.
            control.should_log = due
            # A checkpoint with each score, so that a resumed run takes the same decisions again.
            control.should_save = True

    def _score(self, state: TrainerState) -> None:
        forecast = self.make_forecaster().predict(
            self.windows.context, horizon=self.windows.horizon, num_samples=VALIDATION_SAMPLES, seed=self.seed
        )
        window_scores = score_windows(forecast, self.windows)
        summary = summarise(window_scores)
        scores = {f"eval_{name}": summary[name] for name in ("crps", "mae", "coverage_80", "valid")}
        self.trainer.log(dict(scores))
        if not state.is_world_process_zero:
            return
        crps = window_scores.crps.mean(axis=1)  # [B]
        best = self._read_best()
        if best is None or not self.clearly_worse(crps, best):
            self._keep({"step": state.global_step, **scores})
        # The best is the yardstick, and need not be the adapter that is kept: that one is the latest within an error of
        # it.
        if best is None or crps.mean() < best.mean():
            write_atomically(self.best_file, json.dumps(crps.tolist()))

    def clearly_worse(self, crps: np.ndarray, best: np.ndarray) -> bool:
        """Whether the CRPS [B] of the windows exceeds the best one's by more than a standard error."""
        # Stocks of one date move together, so a date counts once.
        difference = average_by_date(crps - best, self.windows.context.origin)
        test = diebold_mariano(difference, horizon=self.windows.horizon)
        if np.isfinite(test.statistic):
            return test.statistic > 1
        # Too few dates for a standard error, or the same difference on each.
        return bool(difference.mean() > 0)

    def _keep(self, scores: dict[str, float]) -> None:
        self.kept_folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.kept_folder.parent, prefix=".candidate.") as temporary:
            # Into a folder beside it first, so that a kill while saving leaves the former adapter whole.
            self.save(Path(temporary))
            Path(temporary, "kept.json").write_text(json.dumps(scores))
            publish_adapter(Path(temporary), self.kept_folder)

    def read_kept(self) -> dict[str, float] | None:
        """Step and validation scores of the kept adapter."""
        file = self.kept_folder / "kept.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def _read_best(self) -> np.ndarray | None:
        return np.array(json.loads(self.best_file.read_text())) if self.best_file.is_file() else None
