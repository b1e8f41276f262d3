"""Compare the language model at every stage with baselines on the same test windows.

    python -m grpo.stages.compare_models --stock AAPL --data DIR --forecasters llm,random_walk,fhs --folds 3 --seeds 3

Writes into the run's model_comparison folder: report.html, leaderboard.md and .csv, further tables as .csv, rows.csv
(one row per forecaster, seed and window), forecasts.parquet (every sample) and pictures. Without windows in the run
folder it makes them first. Forecasts are kept as they are made: a killed comparison goes on where it was, and one with
other settings asks only those forecasters that the change concerns.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from grpo.comparison.choice import Choice, choose, language_models
from grpo.comparison.contenders import Contender, ExactLaw, LanguageModel
from grpo.comparison.data_quality import data_findings, still_windows
from grpo.comparison.folds import read_folds
from grpo.comparison.forecasters import Forecasters, ask_all
from grpo.comparison.placebos import Placebos, run_placebos
from grpo.comparison.probes import run_probes
from grpo.comparison.results import Section, cutoff_section, usual_sections, usual_warnings, write_results
from grpo.comparison.trading import trading_section
from grpo.config import RunConfig, parse_run_config
from grpo.evaluation.comparison import Comparison, Fold, limit_windows, pooled_table
from grpo.evaluation.contamination import cutoff_table, cutoff_warnings, training_warnings
from grpo.evaluation.identity import key_of
from grpo.evaluation.leaderboard import OPTIMUM
from grpo.evaluation.optimum import Optimum
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import RunPaths, resolve_paths, stage_folder
from grpo.runs.log import logger, stage_entry
from grpo.runs.processes import rank
from grpo.runs.resume import StageRun, run_stage
from grpo.runs.stages import ADAPTER_STAGES
from grpo.stages.preprocess import make_run_windows
from grpo.stages.training_settings import upload
from preprocessing.command_line import plain
from preprocessing.windows import WindowSet, concatenate

OUTPUTS = ("rows.csv", "forecasts.parquet", "leaderboard.csv", "leaderboard.md", "report.html")


def main() -> None:
    """Parse the flags, make the windows where there are none, run the stage by the resume rule, print the table."""
    prog = "python -m grpo.stages.compare_models"
    config = parse_run_config(prog=prog, description=__doc__ or "")
    # One process compares; under `accelerate launch` the others have nothing to add.
    if rank() > 0:
        return
    paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
    # First of all, since a misspelt forecaster should not cost the making of windows.
    choice = choose(config, paths)
    needed = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("x", "y")]
    needed += ["full_x", "full_y"] if config.compare.folds > 1 else []
    # Windows are made only where none of the files is named or there: with some of them, the missing ones are a mistake
    # that the stage names.
    if not any(getattr(config.paths, name) or path.exists() for name, path in paths.named(*needed).items()):
        make_run_windows(config)
    adapters = {name: path for contender in choice.contenders for name, path in contender.inputs.items()}
    folder = stage_folder(config.run_folder, "compare")
    forecasters = Forecasters(folder, config.compare.num_samples, logger)
    run_stage(
        "compare",
        config.run_folder,
        seed=config.seed,
        sections={
            "forecasters": {who.name: key_of(who.identity()) for who in (*choice.contenders, ExactLaw())},
            "compare": plain(config.compare) | {"forecasters": list(choice.names)},
            "model": config.model,
            "prompt": config.prompt,
            "generation": config.generation,
            "loading": config.loading,
            "baselines": config.baselines,
            "seed": config.seed,
        },
        inputs=paths.named(*needed) | adapters,
        outputs={name: folder / name for name in OUTPUTS},
        body=lambda run: compare(run, config, paths, choice, forecasters),
        # Forecasts are kept one by one, under the identity of who made them, so making the table again loses none.
        remake=True,
    )
    if any(stage.adapter in adapters for stage in ADAPTER_STAGES):
        push_after_stage(upload(config, paths))  # the cards now have scores
    print((folder / "leaderboard.md").read_text())
    print(f"Report: {folder / 'report.html'}\nTables, forecasts and pictures: {folder}")


def compare(
    run: StageRun, config: RunConfig, paths: RunPaths, choice: Choice, forecasters: Forecasters
) -> Mapping[str, object]:
    """Forecast, score, write tables and pictures; returns the headline metrics."""
    for notice in choice.notices:
        run.logger.info(notice)
    every = read_folds(paths, config.data, config.compare.folds)
    # The trading below takes `every` itself: it needs the prices of the days between the chosen windows too.
    folds = limit_windows(every, config.compare.max_windows)
    contenders = _with_optimum(choice.contenders, concatenate([fold.test for fold in folds]))
    seeds = range(config.seed, config.seed + config.compare.seeds)
    comparison = ask_all(forecasters, contenders, folds, seeds=seeds, title="compare")
    until = {contender.name: contender.trained_until(folds) for contender in contenders}
    table = pooled_table(comparison)
    table = table.assign(trained_until=[until[name] for name in table["forecaster"]])
    models = language_models(contenders)
    still, still_warnings, headline = still_windows(comparison, table)
    found, data_warnings = data_findings(paths.test_x.parent, sorted({*comparison.stock}))
    sections = [*still, *usual_sections(comparison), *found]
    warnings = training_warnings({model.name: until[model.name] for model in models}, folds) + usual_warnings(table)
    warnings += still_warnings + data_warnings
    identities = {contender.name: key_of(contender.identity()) for contender in contenders}
    for more in (
        _by_cutoff(config, comparison, models),
        (trading_section(config, comparison, concatenate([f.test for f in every]), identities, run.logger), []),
        run_probes(forecasters, models, folds) if config.compare.probes and models else ([], []),
        _placebos(config, forecasters, choice.contenders, folds),
    ):
        sections += more[0]
        warnings += more[1]
    write_results(
        run.folder, config, comparison, table, headline=headline, sections=sections, warnings=warnings, models=models
    )
    by_name = table.set_index("forecaster")
    scores = {column: by_name[column].to_dict() for column in ("rel_crps", "skill", "coverage_80", "valid")}
    return {"verdict": headline, "warnings": warnings, **scores}


def _with_optimum(contenders: Sequence[Contender], windows: WindowSet) -> tuple[Contender, ...]:
    """The optimum stands last, wherever the law of any window is known."""
    others = tuple(contender for contender in contenders if contender.name != OPTIMUM)
    return (*others, ExactLaw()) if Optimum.known(windows.context).any() else others


def _by_cutoff(
    config: RunConfig, comparison: Comparison, models: Sequence[LanguageModel]
) -> tuple[list[Section], list[str]]:
    """Both sides of the day up to which the run's base model may have read prices, if that day is given."""
    cutoff = config.compare.base_cutoff
    if cutoff is None:
        return [], []
    table = cutoff_table(comparison, cutoff)
    # The day is of the run's own base model; one from another source has read up to a day of its own.
    concerned = [model.name for model in models if model.spec.base == config.model]
    return [cutoff_section(table, cutoff)], cutoff_warnings(table, concerned, cutoff)


def _placebos(
    config: RunConfig, forecasters: Forecasters, contenders: Sequence[Contender], folds: Sequence[Fold]
) -> tuple[list[Section], list[str]]:
    if config.compare.placebo == "none":
        return [], []
    placebos = Placebos(
        forecasters=forecasters,
        contenders=[contender for contender in contenders if contender.name != OPTIMUM],
        folds=folds,
        seed=config.seed,
        data=config.data,
        max_windows=config.compare.max_windows,
    )
    return run_placebos(placebos, config.compare.placebo)


if __name__ == "__main__":
    sys.exit(stage_entry(main))
