"""Trainer callbacks: a named progress bar, and validation that keeps the best adapter."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from grpo.evaluation.metrics import score_windows, summarise
from grpo.evaluation.protocol import Forecaster
from grpo.runs import publish_adapter
from preprocessing.windows import WindowSet

VALIDATION_SAMPLES = 32
"""Paths per validation window; the fair CRPS does not depend on their number."""


class StageProgress(TrainerCallback):
    """A progress bar that says which stage, which step, how long is left and the latest reward or loss."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step where training starts or goes on."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.stage, unit="step", mininterval=1
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the numbers that matter most."""
        if self.bar is not None and logs:
            shown = {key: logs[key] for key in ("reward", "loss", "eval_crps", "eval_coverage_80") if key in logs}
            if shown:
                self.bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items()})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class BestOnValidation(TrainerCallback):
    """Scores the policy on validation windows every few steps and keeps the adapter with the lowest CRPS.

    The first score is that of the starting adapter, so a stage that only does harm ends where it began. Scores
    use the same seed each time (common random numbers) and never touch the random state of training. A checkpoint
    is written with each score, so a resumed run repeats the same decisions.

    Args:
        windows: validation windows.
        make_forecaster: the current policy as a forecaster.
        save: writes the current adapter into a folder.
        every: steps between two scores.
        folder: the best adapter is kept in folder/best.
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
    ) -> None:
        self.windows = windows
        self.make_forecaster = make_forecaster
        self.save = save
        self.every = every
        self.best_folder = folder / "best"
        self.seed = seed
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the starting adapter of a fresh run."""
        if state.global_step == 0:
            shutil.rmtree(self.best_folder, ignore_errors=True)
            self._score(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Score every few steps and at the end."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._score(state)
            control.should_save = True
        return control

    def _score(self, state: Any) -> None:
        forecast = self.make_forecaster().predict(
            self.windows.context, horizon=self.windows.horizon, num_samples=VALIDATION_SAMPLES, seed=self.seed
        )
        summary = summarise(score_windows(forecast, self.windows))
        scores = {f"eval_{name}": summary[name] for name in ("crps", "mae", "coverage_80", "valid")}
        self.trainer.log(dict(scores))
        if not state.is_world_process_zero:
            return
        best = self.read_best()
        if best is None or scores["eval_crps"] < best["eval_crps"]:
            self._keep({"step": state.global_step, **scores})

    def _keep(self, scores: dict[str, float]) -> None:
        self.best_folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.best_folder.parent, prefix=".candidate.") as temporary:
            self.save(Path(temporary))
            Path(temporary, "best.json").write_text(json.dumps(scores))
            publish_adapter(Path(temporary), self.best_folder)

    def read_best(self) -> dict[str, float] | None:
        """Step and scores of the best adapter so far."""
        file = self.best_folder / "best.json"
        return json.loads(file.read_text()) if file.is_file() else None
