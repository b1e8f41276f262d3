"""Compare the language model at every stage with baselines on the same test windows.

Writes into the run's model_comparison folder: leaderboard.md and .csv, rows.csv (one row per forecaster and
window), forecasts.parquet (every sample) and pictures. Forecasts are kept as they are made, so that a killed
comparison goes on with the next forecaster.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from grpo.config import RunConfig, parse_run_config, plain
from grpo.evaluation import plots
from grpo.evaluation.forecast_files import forecast_key, load_forecast, save_forecast, write_forecasts_table
from grpo.evaluation.harness import Evaluation, choose_windows, on_common_valid, predict, rows_table
from grpo.evaluation.leaderboard import (
    OPTIMUM,
    REFERENCE,
    describe_windows,
    explain_columns,
    leaderboard,
    to_markdown,
    verdict,
)
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.optimum import Optimum
from grpo.evaluation.protocol import Forecaster, forecaster_names, forecaster_plugin
from grpo.manifest import sha256
from grpo.runs import RunError, RunPaths, StageRun, rank, resolve_paths, run_stage, stage_entry, stage_folder
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet, read_windows

LANGUAGE_MODEL = {"base": None, "grpo_1st": "grpo_lora_1st", "sft": "sft_lora", "grpo_2nd": "grpo_lora_2nd"}
"""Names that mean the language model, and the path of the adapter that each one wears."""
_TRAINING_STAGES = {
    "stage1": "stage 1: GRPO",
    "stage2": "stage 2: SFT",
    "stage3": "stage 3: GRPO from SFT",
}


@dataclass(frozen=True)
class Forecasters:
    """Makes forecasters by name, and says what each one's forecasts depend on."""

    config: RunConfig
    paths: RunPaths
    folder: Path

    def adapter(self, name: str) -> Path | None:
        """Folder of the adapter that a language model wears; None for the base model."""
        field = LANGUAGE_MODEL[name]
        return getattr(self.paths, field) if field else None

    def identity(self, name: str) -> dict[str, Any]:
        """All that makes this forecaster different from another, as plain JSON values."""
        if name == OPTIMUM:
            return {"name": name}
        if name in LANGUAGE_MODEL:
            adapter = self.adapter(name)
            return {
                "name": name,
                "model": self.config.model,
                "adapter": sha256(adapter) if adapter else None,
                "prompt": plain(self.config.prompt),
                "generation": plain(self.config.generation),
            }
        return {"name": name, "config": plain(_plugin(name).Config()), "windows": self._training_hashes}

    def make(self, name: str, horizon: int) -> Forecaster:
        """Load a language model, or fit a plugin on the training windows and save it."""
        if name == OPTIMUM:
            return Optimum()
        if name in LANGUAGE_MODEL:
            from grpo.forecaster import (
                load_llm_forecaster,
            )  # brings torch, which --help and baselines do not need

            return load_llm_forecaster(self.config, self.adapter(name), name=name)
        plugin, folder = _plugin(name), self.folder / "forecasters" / name
        train, val = self._training_windows
        forecaster = plugin.fit(plugin.Config(), train, val, horizon=horizon, seed=self.config.seed, out_dir=folder)
        forecaster.save(folder)
        return forecaster

    @cached_property
    def _training_windows(self) -> tuple[WindowSet, WindowSet]:
        paths = vars(self.paths)
        return (
            read_windows(paths["train_x"], paths["train_y"]),
            read_windows(paths["val_x"], paths["val_y"]),
        )

    @cached_property
    def _training_hashes(self) -> list[str]:
        return [sha256(vars(self.paths)[name]) for name in ("train_x", "train_y", "val_x", "val_y")]


def main() -> None:
    """Parse the flags, run the stage by the resume rule, print the table."""
    prog = "python -m grpo.stages.compare_models"
    config = parse_run_config(prog=prog, description=__doc__ or "")
    if rank() > 0:
        return  # one process compares; under `accelerate launch` the others have nothing to add
    paths = vars(resolve_paths(config))
    names = list(dict.fromkeys(config.compare.forecasters))
    for name in names:
        if name not in LANGUAGE_MODEL:
            _plugin(name)  # a misspelt name must not wait for the slow ones before it
    needed = ["train_x", "train_y", "val_x", "val_y", "test_x", "test_y"]
    needed += [field for name in names if (field := LANGUAGE_MODEL.get(name))]
    folder = stage_folder(config, "compare")
    run_stage(
        "compare",
        config,
        sections={
            "compare": config.compare,
            "model": config.model,
            "prompt": config.prompt,
            "generation": config.generation,
            "seed": config.seed,
        },
        inputs={name: paths[name] for name in needed},
        outputs={
            name: folder / name for name in ("rows.csv", "forecasts.parquet", "leaderboard.csv", "leaderboard.md")
        },
        body=lambda run: compare(run, config, names),
    )
    print((folder / "leaderboard.md").read_text())
    print(f"Everything else: {folder}")


def compare(run: StageRun, config: RunConfig, names: Sequence[str]) -> Mapping[str, Any]:
    """Forecast, score, write tables and pictures; returns the headline metrics."""
    paths = vars(resolve_paths(config))
    windows = read_windows(paths["test_x"], paths["test_y"])
    windows = windows.take(choose_windows(windows.context, config.compare.max_windows))
    if Optimum.knows(windows.context):
        names = [*names, OPTIMUM]
    evaluations = _evaluate_all(run, config, names, windows)
    table = leaderboard(evaluations, windows)
    rows = rows_table(evaluations, windows)
    write_atomically(run.folder / "rows.csv", rows.to_csv(index=False))
    write_forecasts_table(evaluations, windows.context, run.folder / "forecasts.parquet")
    write_atomically(run.folder / "leaderboard.csv", table.to_csv(index=False))
    report = f"# Test windows of {config.stock}\n\n{_section(table, windows, config.compare.num_samples)}"
    report += _common_valid_section(run.folder, evaluations, windows)
    report += f"\n{explain_columns(table)}\n"
    write_atomically(run.folder / "leaderboard.md", report)
    _draw(run.folder, config, evaluations, windows)
    by_name = table.set_index("forecaster")
    return {
        "verdict": verdict(table),
        "rel_crps": by_name["rel_crps"].to_dict(),
        "skill": by_name["skill"].to_dict(),
        "coverage_80": by_name["coverage_80"].to_dict(),
    }


def _evaluate_all(run: StageRun, config: RunConfig, names: Sequence[str], windows: WindowSet) -> list[Evaluation]:
    forecasters = Forecasters(config, resolve_paths(config), run.folder)
    settings = {"num_samples": config.compare.num_samples, "seed": config.seed}
    evaluations = []
    progress = tqdm(names, desc="compare", unit="forecaster")
    for name in progress:
        progress.set_description(f"compare: {name}")
        key = forecast_key({**forecasters.identity(name), **settings, "horizon": windows.horizon}, windows.context)
        file = run.folder / "forecasts" / f"{name}-{key}.npz"
        if file.exists():
            run.logger.info("%s: forecasts of an earlier attempt are used again", name)
        else:
            forecast, seconds = predict(forecasters.make(name, windows.horizon), windows, **settings)
            save_forecast(forecast, seconds, file)
            gc.collect()  # models hold reference cycles: free one before the next is loaded
        forecast, seconds = load_forecast(file)
        scores = score_windows(forecast, windows)
        evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=seconds))
    return evaluations


def _section(table: pd.DataFrame, windows: WindowSet, num_samples: int | None) -> str:
    return f"{to_markdown(table)}\n\n**{verdict(table)}**\n\n{describe_windows(windows, num_samples)}\n"


def _common_valid_section(folder: Path, evaluations: Sequence[Evaluation], windows: WindowSet) -> str:
    """The same table without filled-in samples; empty where every sample was valid."""
    if all(evaluation.forecast.valid.all() for evaluation in evaluations):
        return ""
    common, subset = on_common_valid(evaluations, windows)
    title = "\n## Where every forecaster answered\n\n"
    if not common:
        return f"{title}No window has two valid samples of every forecaster.\n"
    table = leaderboard(common, subset)
    write_atomically(folder / "leaderboard_common_valid.csv", table.to_csv(index=False))
    return title + _section(table, subset, None)


def _draw(folder: Path, config: RunConfig, evaluations: Sequence[Evaluation], windows: WindowSet) -> None:
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    subject = min(_fan_candidates(by_name), key=lambda evaluation: evaluation.scores.crps.mean())
    plots.fan_chart(subject, by_name[REFERENCE], windows, folder / "fan_chart.png")
    plots.error_by_horizon(evaluations, folder / "error_by_horizon.png")
    plots.coverage(evaluations, folder / "coverage.png")
    histories = {}
    for stage, title in _TRAINING_STAGES.items():
        log = stage_folder(config, stage) / "log_history.json"
        if log.exists():
            histories[title] = json.loads(log.read_text())
    if histories:
        plots.training_curves(histories, folder / "training_curves.png")


def _fan_candidates(by_name: Mapping[str, Evaluation]) -> list[Evaluation]:
    """The trained adapters; without any the base model, else other forecasters, else the random walk."""
    tiers = (
        [name for name, adapter in LANGUAGE_MODEL.items() if adapter],
        ["base"],
        [name for name in by_name if name not in (REFERENCE, OPTIMUM)],
        [REFERENCE],
    )
    return next(found for tier in tiers if (found := [by_name[name] for name in tier if name in by_name]))


def _plugin(name: str) -> Any:
    try:
        return forecaster_plugin(name)
    except KeyError as error:
        known = ", ".join((*LANGUAGE_MODEL, *forecaster_names()))
        raise RunError(f"compare.forecasters: there is no '{name}'; there are {known}") from error


if __name__ == "__main__":
    sys.exit(stage_entry(main))
