"""Compare the language model at every stage with baselines on the same test windows.

Writes into the run's model_comparison folder: leaderboard.md and .csv, rows.csv (one row per forecaster and
window), forecasts.parquet (every sample) and pictures. Forecasts are kept as they are made, so that a killed
comparison goes on with the next forecaster.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from grpo.config import RunConfig, parse_run_config, plain
from grpo.evaluation import plots
from grpo.evaluation.comparison import Comparison, Fold, limit_windows
from grpo.evaluation.forecast_files import write_forecasts_table
from grpo.evaluation.harness import Evaluation, on_common_valid, rows_table
from grpo.evaluation.identity import key_of
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
from grpo.evaluation.protocol import concatenate_forecasts
from grpo.runs import RunPaths, StageRun, logger, rank, resolve_paths, run_stage, stage_entry, stage_folder
from grpo.stages.forecasters import LANGUAGE_MODEL, Choice, Forecasters, choose_forecasters, knows_optimum
from grpo.stages.preprocess import make_run_windows
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet, concatenate, read_windows

_TRAINING_STAGES = {
    "stage1": "stage 1: GRPO",
    "stage2": "stage 2: SFT",
    "stage3": "stage 3: GRPO from SFT",
}


def main() -> None:
    """Parse the flags, make the windows where there are none, run the stage by the resume rule, print the table."""
    prog = "python -m grpo.stages.compare_models"
    config = parse_run_config(prog=prog, description=__doc__ or "")
    if rank() > 0:
        return  # one process compares; under `accelerate launch` the others have nothing to add
    paths = resolve_paths(config)
    choice = choose_forecasters(config, paths)
    needed = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("x", "y")]
    needed += ["full_x", "full_y"] if config.compare.folds > 1 else []
    if not any(getattr(config.paths, name) or getattr(paths, name).exists() for name in needed):
        make_run_windows(config)
    needed += [field for name in choice.names if (field := LANGUAGE_MODEL.get(name))]
    folder = stage_folder(config, "compare")
    forecasters = Forecasters(config, paths, folder, logger)
    run_stage(
        "compare",
        config,
        sections={
            "forecasters": {name: key_of(forecasters.identity(name)) for name in choice.names},
            "compare": plain(config.compare) | {"forecasters": list(choice.names)},
            "model": config.model,
            "prompt": config.prompt,
            "generation": config.generation,
            "baselines": config.baselines,
            "seed": config.seed,
        },
        inputs={name: getattr(paths, name) for name in needed},
        outputs={
            name: folder / name for name in ("rows.csv", "forecasts.parquet", "leaderboard.csv", "leaderboard.md")
        },
        body=lambda run: compare(run, config, choice, forecasters),
        remake=True,
    )
    print((folder / "leaderboard.md").read_text())
    print(f"Everything else: {folder}")


def compare(run: StageRun, config: RunConfig, choice: Choice, forecasters: Forecasters) -> Mapping[str, Any]:
    """Forecast, score, write tables and pictures; returns the headline metrics."""
    for notice in choice.notices:
        run.logger.info(notice)
    folds = limit_windows(read_folds(config, forecasters.paths), config.compare.max_windows)
    names = choice.names
    if knows_optimum(concatenate([fold.test for fold in folds]).context):
        names = (*names, OPTIMUM)
    comparison = ask_all(forecasters, names, folds)
    evaluations, windows = comparison.ranked, comparison.windows
    table = leaderboard(evaluations, windows)
    rows = rows_table(comparison.evaluations, windows)
    write_atomically(run.folder / "rows.csv", rows.to_csv(index=False))
    write_forecasts_table(
        comparison.evaluations, windows.context, run.folder / "forecasts.parquet", seeds=comparison.seed
    )
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


def read_folds(config: RunConfig, paths: RunPaths) -> list[Fold]:
    """The test span as it was split, as one fold."""
    train, val, test = (
        read_windows(getattr(paths, f"{split}_x"), getattr(paths, f"{split}_y")) for split in ("train", "val", "test")
    )
    return [Fold(1, train, val, test)]


def ask_all(forecasters: Forecasters, names: Sequence[str], folds: Sequence[Fold]) -> Comparison:
    """Ask every forecaster with every seed about the test windows of all folds, and score what it says."""
    settings = forecasters.config
    seeds = range(settings.seed, settings.seed + settings.compare.seeds)
    tests = concatenate([fold.test for fold in folds])
    windows = concatenate([tests for _ in seeds])
    evaluations = []
    with tqdm(total=len(names) * len(seeds), desc="compare", unit="forecast") as bar:
        for name in names:
            answers = []
            for seed in seeds:
                bar.set_description(f"compare: {name}, seed {seed}" if len(seeds) > 1 else f"compare: {name}")
                answers.append(forecasters.ask(name, folds, seed))
                bar.update()
            forecasters.release()
            forecasts, seconds = zip(*answers, strict=True)
            forecast = concatenate_forecasts(forecasts)
            scores = score_windows(forecast, windows)
            evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=sum(seconds)))
    return Comparison(
        windows=windows,
        evaluations=tuple(evaluations),
        seed=np.repeat(np.array(seeds), len(tests)),
        fold=np.tile(np.repeat([fold.number for fold in folds], [len(fold.test) for fold in folds]), len(seeds)),
    )


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


if __name__ == "__main__":
    sys.exit(stage_entry(main))
