"""Compare the language model at every stage with baselines on the same test windows.

    python -m grpo.stages.compare_models --stock AAPL --data DIR --forecasters llm,random_walk,fhs --folds 3 --seeds 3

Writes into the run's model_comparison folder: report.html, leaderboard.md and .csv, further tables as .csv, rows.csv
(one row per forecaster, seed and window), forecasts.parquet (every sample) and pictures. Without windows in the run
folder it makes them first. Forecasts are kept as they are made: a killed comparison goes on where it was, and one with
other settings asks only those forecasters that the change concerns.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from grpo.config import RunConfig, parse_run_config, plain
from grpo.evaluation.comparison import Comparison, Fold, limit_windows, pooled_table
from grpo.evaluation.contamination import cutoff_table, cutoff_warnings, training_warnings
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.identity import key_of
from grpo.evaluation.leaderboard import OPTIMUM, verdict
from grpo.evaluation.metrics import score_windows, training_scale
from grpo.evaluation.protocol import concatenate_forecasts
from grpo.runs import RunError, RunPaths, StageRun, logger, rank, resolve_paths, run_stage, stage_entry, stage_folder
from grpo.stages.comparison_report import cutoff_section, usual_sections, usual_warnings, write_results
from grpo.stages.forecasters import LANGUAGE_MODEL, Choice, Forecasters, choose_forecasters, knows_optimum
from grpo.stages.preprocess import make_run_windows
from preprocessing.combined_preprocessor import fold_windows
from preprocessing.splits import CalendarCut, SplitError, walk_forward_cuts
from preprocessing.windows import WindowSet, concatenate, read_windows

OUTPUTS = ("rows.csv", "forecasts.parquet", "leaderboard.csv", "leaderboard.md", "report.html")


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
        outputs={name: folder / name for name in OUTPUTS},
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
    until = {name: forecasters.trained_until(name, folds) for name in names}
    table = pooled_table(comparison)
    table = table.assign(trained_until=[until[name] for name in table["forecaster"]])
    language_models = [name for name in choice.names if name in LANGUAGE_MODEL]
    sections = usual_sections(comparison)
    warnings = training_warnings({name: until[name] for name in language_models}, folds) + usual_warnings(table)
    if config.compare.base_cutoff:
        by_cutoff = cutoff_table(comparison, config.compare.base_cutoff)
        sections.append(cutoff_section(by_cutoff, config.compare.base_cutoff))
        warnings += cutoff_warnings(by_cutoff, language_models, config.compare.base_cutoff)
    write_results(
        run.folder,
        config,
        comparison,
        table,
        sections=sections,
        warnings=warnings,
        language_models=language_models,
    )
    by_name = table.set_index("forecaster")
    return {
        "verdict": verdict(table),
        "warnings": warnings,
        "rel_crps": by_name["rel_crps"].to_dict(),
        "skill": by_name["skill"].to_dict(),
        "coverage_80": by_name["coverage_80"].to_dict(),
    }


def read_folds(config: RunConfig, paths: RunPaths) -> list[Fold]:
    """The test span as it was split, as one fold, or as `compare.folds` walk-forward blocks of it.

    Raises:
        RunError: a block has no windows to train, validate or test on.
    """
    train, val, test = (
        read_windows(getattr(paths, f"{split}_x"), getattr(paths, f"{split}_y")) for split in ("train", "val", "test")
    )
    if config.compare.folds == 1:
        return [Fold(1, train, val, test)]
    full = read_windows(paths.full_x, paths.full_y)
    embargo = dataclasses.replace(config.data, window=full.context.past.shape[1], horizon=full.horizon).embargo_days
    try:
        cuts = walk_forward(full, val, test, embargo, config.compare.folds)
    except SplitError as error:
        raise RunError(str(error).replace("data.folds", "compare.folds")) from error
    folds = []
    for number, cut in enumerate(cuts, start=1):
        parts = fold_windows(full, cut)
        for name, windows in parts.items():
            if len(windows) == 0:
                raise RunError(f"compare.folds {len(cuts)}: fold {number} has no {name} windows; ask for fewer folds")
        folds.append(Fold(number, parts["train"], parts["val"], parts["test"]))
    return folds


def walk_forward(full: WindowSet, val: WindowSet, test: WindowSet, embargo: int, folds: int) -> list[CalendarCut]:
    """Cuts of the span that `test` covers; validation before each block is as long as `val` is.

    The spans begin `embargo` days before their first target, which is where the split that made them cut.
    """
    calendar = np.unique(np.concatenate([full.context.origin, full.truth.dates.ravel()]))
    starts = (
        calendar[max(np.searchsorted(calendar, part.truth.dates.min()) - embargo, 0)].astype("datetime64[D]").item()
        for part in (val, test)
    )
    val_start, test_start = starts
    return walk_forward_cuts(calendar, (0.7, 0.1, 0.2), embargo, folds, (val_start, test_start))


def ask_all(forecasters: Forecasters, names: Sequence[str], folds: Sequence[Fold]) -> Comparison:
    """Ask every forecaster with every seed about the test windows of all folds, and score what it says."""
    settings = forecasters.config
    seeds = range(settings.seed, settings.seed + settings.compare.seeds)
    tests = concatenate([fold.test for fold in folds])
    windows = concatenate([tests for _ in seeds])
    mase_scale = np.tile(np.concatenate([_mase_scale(fold) for fold in folds]), len(seeds))
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
            scores = score_windows(forecast, windows, mase_scale)
            evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=sum(seconds)))
    return Comparison(
        windows=windows,
        evaluations=tuple(evaluations),
        seed=np.repeat(np.array(seeds), len(tests)),
        fold=np.tile(np.repeat([fold.number for fold in folds], [len(fold.test) for fold in folds]), len(seeds)),
    )


def _mase_scale(fold: Fold) -> np.ndarray:
    """[B] `training_scale` of the fold's test windows; NaN for a stock without training windows."""
    known = np.isin(fold.test.context.item_id, np.unique(fold.train.context.item_id))
    scale = np.full(len(fold.test), np.nan)
    scale[known] = training_scale(fold.train, fold.test.take(known))
    return scale


if __name__ == "__main__":
    sys.exit(stage_entry(main))
