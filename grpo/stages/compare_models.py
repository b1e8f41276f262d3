"""Compare the language model at every stage with baselines on the same test windows.

    python -m grpo.stages.compare_models --stock AAPL --data DIR --forecasters llm,random_walk,fhs --folds 3 --seeds 3

Writes into the run's model_comparison folder: report.html, leaderboard.md and .csv, further tables as .csv, rows.csv
(one row per forecaster, seed and window), forecasts.parquet (every sample) and pictures. Without windows in the run
folder it makes them first. Forecasts are kept as they are made: a killed comparison goes on where it was, and one with
other settings asks only those forecasters that the change concerns.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from grpo.comparison.folds import read_folds
from grpo.comparison.forecasters import LANGUAGE_MODEL, Choice, Forecasters, ask_all, choose_forecasters, knows_optimum
from grpo.comparison.placebos import run_placebos
from grpo.comparison.probes import run_probes
from grpo.comparison.results import cutoff_section, usual_sections, usual_warnings, write_results
from grpo.comparison.trading import trading_section
from grpo.config import RunConfig, parse_run_config
from grpo.evaluation.comparison import limit_windows, pooled_table
from grpo.evaluation.contamination import cutoff_table, cutoff_warnings, training_warnings
from grpo.evaluation.identity import key_of
from grpo.evaluation.leaderboard import OPTIMUM, verdict
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import fetch_adapters, resolve_paths, stage_folder
from grpo.runs.log import logger, stage_entry
from grpo.runs.processes import rank
from grpo.runs.resume import StageRun, run_stage
from grpo.stages.preprocess import make_run_windows
from preprocessing.command_line import plain
from preprocessing.windows import concatenate

OUTPUTS = ("rows.csv", "forecasts.parquet", "leaderboard.csv", "leaderboard.md", "report.html")


def main() -> None:
    """Parse the flags, make the windows where there are none, run the stage by the resume rule, print the table."""
    prog = "python -m grpo.stages.compare_models"
    config = parse_run_config(prog=prog, description=__doc__ or "")
    if rank() > 0:
        return  # one process compares; under `accelerate launch` the others have nothing to add
    paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
    choice = choose_forecasters(config, paths)
    needed = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("x", "y")]
    needed += ["full_x", "full_y"] if config.compare.folds > 1 else []
    if not any(getattr(config.paths, name) or path.exists() for name, path in paths.named(*needed).items()):
        make_run_windows(config)
    adapters = [adapter for name in choice.names if (adapter := LANGUAGE_MODEL.get(name))]
    paths = fetch_adapters(paths, *adapters)
    folder = stage_folder(config.run_folder, "compare")
    forecasters = Forecasters(config, paths, folder, logger)
    run_stage(
        "compare",
        config.run_folder,
        seed=config.seed,
        sections={
            "forecasters": {name: key_of(forecasters.identity(name)) for name in (*choice.names, OPTIMUM)},
            "compare": plain(config.compare) | {"forecasters": list(choice.names)},
            "model": config.model,
            "prompt": config.prompt,
            "generation": config.generation,
            "loading": config.loading,
            "baselines": config.baselines,
            "seed": config.seed,
        },
        inputs=paths.named(*needed, *adapters),
        outputs={name: folder / name for name in OUTPUTS},
        body=lambda run: compare(run, config, choice, forecasters),
        remake=True,
    )
    if adapters:
        push_after_stage(config)  # the cards now have scores
    print((folder / "leaderboard.md").read_text())
    print(f"Report: {folder / 'report.html'}\nTables, forecasts and pictures: {folder}")


def compare(run: StageRun, config: RunConfig, choice: Choice, forecasters: Forecasters) -> Mapping[str, Any]:
    """Forecast, score, write tables and pictures; returns the headline metrics."""
    for notice in choice.notices:
        run.logger.info(notice)
    every = read_folds(config, forecasters.paths)
    folds = limit_windows(every, config.compare.max_windows)
    names = choice.names
    if knows_optimum(concatenate([fold.test for fold in folds]).context):
        names = (*names, OPTIMUM)
    seeds = range(config.seed, config.seed + config.compare.seeds)
    comparison = ask_all(forecasters, names, folds, seeds=seeds, title="compare")
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
    identities = {name: key_of(forecasters.identity(name)) for name in names}
    market = concatenate([fold.test for fold in every])
    sections += trading_section(config, comparison, market, identities, run.logger)
    if config.compare.probes and language_models:
        probe_sections, probe_warnings = run_probes(forecasters, language_models, folds)
        sections += probe_sections
        warnings += probe_warnings
    if config.compare.placebo != "none":
        placebo_sections, placebo_warnings = run_placebos(forecasters, choice.names, folds)
        sections += placebo_sections
        warnings += placebo_warnings
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


if __name__ == "__main__":
    sys.exit(stage_entry(main))
