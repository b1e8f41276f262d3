"""What a comparison leaves behind: leaderboard.md and .csv, further tables, pictures and report.html.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from grpo.comparison.contenders import LanguageModel
from grpo.config import RunConfig
from grpo.evaluation import chart_data
from grpo.evaluation.comparison import Comparison, table_by, table_by_step, tally_table
from grpo.evaluation.forecast_files import write_forecasts_table
from grpo.evaluation.harness import Evaluation, on_common_valid, rows_table
from grpo.evaluation.intervals import interval_table
from grpo.evaluation.leaderboard import (
    OPTIMUM,
    REFERENCE,
    describe_windows,
    leaderboard,
    optimum_note,
    score_table,
    verdict,
)
from grpo.evaluation.markdown import details_markdown, frame_markdown, leaderboard_markdown
from grpo.evaluation.report import ReportInputs, write_report
from grpo.language.answers import parse_all
from grpo.language.prompts import style_of
from grpo.language.rewards import REWARDS, group_rewards
from grpo.language.scale import scale_paths, true_paths
from grpo.runs.folder import stage_folder
from grpo.runs.manifest import git_commit, versions
from grpo.runs.stages import ADAPTER_STAGES
from preprocessing.files import slug, write_atomically

FEWEST_DATES = 30
"""Below this many dates a comparison warns that it can hardly tell anything."""
FEWEST_VALID = 0.95
"""Share of valid answers below which a comparison warns."""
SMALL_CHANGE = 0.005
"""Change of rel. CRPS by filled-in answers that is not worth a table of its own."""
_EXAMPLES = 4
"""Answers shown of each of a language model's best, median and worst window."""
_EXPLANATION = (
    "rel.: ratio to the random walk, below 1 is better; 95 % intervals by a block bootstrap over dates; p (Holm): "
    "Diebold-Mariano on date-averaged CRPS, adjusted for the number of forecasters; MCS: in the 90 % model confidence "
    "set; R2: of the mean against no change; direction: hits of the median, and of always up. Errors in percent of the "
    "last close; MAE is that of the samples' median. Clark-West p: the mean of the last day adds to no change; "
    "direction p: Pesaran-Timmermann. An invalid answer counts as the last close; valid is the share that was not."
)


@dataclass(frozen=True)
class Section:
    """A further table under the leaderboard.

    Attributes:
        title: its heading.
        table: what is shown of it; without rows the note says why.
        note: what it means; may be empty.
        full: all columns, written to {TITLE}.csv; None: those of `table`.
        long: too long for leaderboard.md; the page and the CSV have it.
    """

    title: str
    table: pd.DataFrame
    note: str = ""
    full: pd.DataFrame | None = None
    long: bool = False


def write_results(
    folder: Path,
    config: RunConfig,
    comparison: Comparison,
    table: pd.DataFrame,
    *,
    headline: str,
    sections: Sequence[Section],
    warnings: Sequence[str],
    models: Sequence[LanguageModel],
) -> None:
    """Write every table, picture and the page.

    Args:
        folder: the stage's folder.
        config: the run.
        comparison: all forecasts.
        table: the leaderboard of all windows.
        headline: the verdict.
        sections: what stands below it.
        warnings: what a reader must know before the numbers.
        models: those that answer in text.
    """
    for former in folder.glob("*.csv"):
        former.unlink()  # a table that these settings do not make would be taken for theirs
    evaluations, windows = comparison.ranked, comparison.windows
    # also the optimum where it is known on some windows only: `rows.csv` has no means that this would distort
    rows = rows_table(comparison.evaluations, windows)
    for column, values in (("fold", comparison.fold), ("seed", comparison.seed)):
        rows.insert(3, column, np.tile(values, len(comparison.evaluations)))
    write_atomically(folder / "rows.csv", rows.to_csv(index=False))
    write_forecasts_table(comparison.evaluations, windows.context, folder / "forecasts.parquet", seeds=comparison.seed)
    write_atomically(folder / "leaderboard.csv", table.to_csv(index=False))
    for section in filter(lambda section: len(section.table), sections):
        full = section.table if section.full is None else section.full
        write_atomically(folder / f"{slug(section.title.lower())}.csv", full.to_csv(index=False))
    title = f"Test windows of {config.stock}"
    summary = describe_windows(windows, config.compare.num_samples, len(np.unique(comparison.seed)))
    write_atomically(folder / "leaderboard.md", _markdown(title, summary, table, headline, sections, warnings))
    inputs = ReportInputs(
        title=title,
        verdict=headline,
        summary=summary,
        facts=facts(config, comparison, models),
        table=table,
        evaluations=evaluations,
        windows=windows,
        histories=training_histories(config),
        completions=example_completions(comparison, models),
        warnings=warnings,
        extra_tables={section.title: section.table for section in sections},
        table_notes={section.title: section.note for section in sections if section.note},
        optimum_note=optimum_note(table),
        subject=_subject(evaluations, models).name,
        language_models=[model.name for model in models],
    )
    write_report(inputs, folder)


def usual_sections(comparison: Comparison) -> list[Section]:
    """What follows from the windows: common answers, folds, stocks, simulated stocks, days ahead, and intervals."""
    sections = [*_common_valid(comparison)]
    if len(np.unique(comparison.fold)) > 1:
        sections += _folds(table_by(comparison, "fold", comparison.fold))
    stocks = np.unique(comparison.stock)
    if len(stocks) > 1:
        by_stock = table_by(comparison, "stock", comparison.stock)
        note = f"Windows of {len(stocks)} stocks; significance at 5 %, adjusted over the stocks (Holm)."
        sections.append(Section("By stock", tally_table(by_stock), note, by_stock))
    known = comparison.optimum_known
    # simulated and real stocks together: skill has a meaning on the simulated ones alone
    if known.any() and not known.all():
        part = comparison.take(known)
        note = f"The {len(np.unique(part.stock))} stocks whose exact law is known; the others have no optimum."
        sections.append(Section("Simulated stocks alone", _short(leaderboard(part.ranked, part.windows)), note))
    by_step = table_by_step(comparison)
    shown = _columns(by_step, "step", "forecaster", "rel_crps", "skill", "rel_mae", "coverage_80")
    sections.append(Section("By day ahead", shown, full=by_step, long=True))
    intervals = interval_table(comparison)
    pooled = _columns(intervals.query("scope == 'pooled'"), "forecaster", "score", "estimate", "low", "high")
    note = "95 %, block bootstrap over dates; the CSV also has each day ahead and each stock."
    return [*sections, Section("Intervals", pooled.reset_index(drop=True), note, intervals, long=True)]


def cutoff_section(by_cutoff: pd.DataFrame, cutoff: str) -> Section:
    """What each forecaster reaches on both sides of the base model's cut-off."""
    shown = _columns(
        by_cutoff, "targets", "forecaster", "num_windows", "num_dates", "skill", "rel_crps", "p_value", "p_holm"
    )
    note = f"Windows with a target up to {cutoff} may have been read by the base model; p_holm is over the two spans."
    return Section("Before and after the cut-off of the base model", shown, note, by_cutoff)


def usual_warnings(table: pd.DataFrame) -> list[str]:
    """Invalid answers, and dates too few to tell anything."""
    lines = [
        f"{1 - row['valid']:.0%} of the answers of {row['forecaster']} are invalid; each counts as the last close."
        for row in table.to_dict("records")
        if row["valid"] < FEWEST_VALID and row["forecaster"] != OPTIMUM
    ]
    dates = int(table["num_dates"].to_numpy().max())
    if dates < FEWEST_DATES:
        lines.append(f"Only {dates} dates: differences that are there may well go unnoticed.")
    return lines


def facts(config: RunConfig, comparison: Comparison, models: Sequence[LanguageModel]) -> dict[str, str]:
    """What was run, for the page."""
    windows = comparison.windows
    first, last = (
        np.datetime_as_string(day, unit="D") for day in (windows.context.origin.min(), windows.truth.dates.max())
    )
    installed = {name: version for name, version in versions().items() if version}
    seeds = np.unique(comparison.seed)
    return {
        "stock": config.stock,
        "test span": f"{first} to {last}",
        "windows": f"{comparison.num_windows} ({windows.context.past.shape[1]} days seen, {windows.horizon} ahead)",
        "folds": str(len(np.unique(comparison.fold))),
        "samples": f"{config.compare.num_samples} paths per window",
        "seeds": ", ".join(map(str, seeds)),
        "language model": ", ".join(dict.fromkeys(model.spec.base for model in models)) or config.model,
        "commit": git_commit() or "not a checkout",
        "versions": ", ".join(f"{name} {version}" for name, version in installed.items()),
        "command": f"python -m grpo.stages.compare_models {shlex.join(sys.argv[1:])}",
    }


def training_histories(config: RunConfig) -> dict[str, chart_data.History]:
    """The training logs of the run's stages, by title."""
    logs = {stage.title: stage_folder(config.run_folder, stage.key) / "log_history.json" for stage in ADAPTER_STAGES}
    return {title: json.loads(log.read_text()) for title, log in logs.items() if log.exists()}


def example_completions(comparison: Comparison, models: Sequence[LanguageModel]) -> pd.DataFrame | None:
    """Answers of each language model to its best, median and worst window, with every reward they would earn.

    Rewards are those of the answer within all answers to the window. None without any text.
    """
    windows, rows = comparison.windows, []
    forms = {model.name: style_of(model.prompt).form for model in models}
    truth = true_paths(windows)
    for evaluation in comparison.evaluations:
        texts = evaluation.forecast.texts
        if evaluation.name not in forms or texts is None:
            continue
        for place, row in chart_data.best_median_worst(evaluation).items():
            form = forms[evaluation.name]
            # all answers to the window together: rewards of a group are relative to each other
            paths = scale_paths(parse_all(texts[row], horizon=windows.horizon, form=form))  # [S, H]
            volatility = float(windows.context.feature("volatility")[row])
            rewards = {name: group_rewards(reward, paths, truth[row], volatility) for name, reward in REWARDS.items()}
            for sample in range(min(_EXAMPLES, len(paths))):
                rows.append(
                    {
                        "forecaster": evaluation.name,
                        "stock": f"{windows.context.item_id[row]} ({place} window)",
                        "date": str(np.datetime_as_string(windows.context.origin[row], unit="D")),
                        "text": texts[row][sample],
                        "valid": bool(evaluation.forecast.valid[row, sample]),
                        **{name: float(values[sample]) for name, values in rewards.items()},
                    }
                )
    return pd.DataFrame(rows) if rows else None


def _markdown(
    title: str,
    summary: str,
    table: pd.DataFrame,
    headline: str,
    sections: Sequence[Section],
    warnings: Sequence[str],
) -> str:
    parts = [f"# {title}", leaderboard_markdown(table), f"**{headline}**"]
    parts += [f"**Warning:** {warning}" for warning in warnings]
    parts += [summary, " ".join(filter(None, (_EXPLANATION, optimum_note(table))))]
    parts += ["## Details", details_markdown(table)]
    for section in sections:
        if section.long:
            continue
        parts += [f"## {section.title}", *([section.note] if section.note else [])]
        parts += [frame_markdown(section.table)] if len(section.table) else []
    return "\n\n".join(parts) + "\n"


def _folds(by_fold: pd.DataFrame) -> list[Section]:
    spans = by_fold.drop_duplicates("fold")
    note = "; ".join(
        f"fold {row['fold']}: {row['num_windows']} windows from {row['first']} to {row['last']}"
        for row in spans.to_dict("records")
    )
    order = by_fold["forecaster"].drop_duplicates()
    sections = []
    for column, title in (("rel_crps", "Walk-forward folds"), ("skill", "Walk-forward folds, skill")):
        if by_fold[column].notna().to_numpy().any():
            wide = by_fold.pivot_table(index="forecaster", columns="fold", values=column, dropna=False).loc[order]
            wide.columns = [f"fold {fold}" for fold in wide.columns]
            what = "CRPS relative to the random walk" if column == "rel_crps" else "Skill"
            sections.append(Section(title, wide.reset_index(), f"{what} by block of the test span. {note}.", by_fold))
    return sections


def _common_valid(comparison: Comparison) -> list[Section]:
    """The leaderboard without filled-in samples, where that changes a figure of it."""
    evaluations = comparison.ranked
    if all(evaluation.forecast.valid.all() for evaluation in evaluations):
        return []
    title = "Where every forecaster answered"
    common, subset = on_common_valid(evaluations, comparison.windows)
    if not common:
        return [Section(title, pd.DataFrame(), "No window has two valid samples of every forecaster.")]
    table = leaderboard(common, subset)
    full = score_table(evaluations, comparison.windows)
    change = table.set_index("forecaster")["rel_crps"] - full.set_index("forecaster")["rel_crps"]
    same_order = table["forecaster"].tolist() == full["forecaster"].tolist()
    # a second table that says the same would only be read twice
    if same_order and verdict(table) == verdict(full) and np.abs(change.to_numpy()).max() < SMALL_CHANGE:
        return []
    return [Section(title, _short(table), f"{describe_windows(subset, None)} {verdict(table)}", table)]


def _short(table: pd.DataFrame) -> pd.DataFrame:
    return _columns(table, "forecaster", "skill", "rel_crps", "p_holm", "rel_mae", "coverage_80")


def _columns(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Some columns of a table, in this order, without those that are empty."""
    return table.filter(items=list(names)).dropna(axis="columns", how="all")


def _subject(evaluations: Sequence[Evaluation], models: Sequence[LanguageModel]) -> Evaluation:
    """Whose windows are drawn: the best trained adapter; without any the base model, else the best of the others."""
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    tiers = (
        [model.name for model in models if model.spec.adapter],
        [model.name for model in models],
        [name for name in by_name if name not in (REFERENCE, OPTIMUM)],
        [REFERENCE],
    )
    # the first tier with anybody in it; the random walk is always there
    found = next(found for tier in tiers if (found := [by_name[name] for name in tier if name in by_name]))
    return min(found, key=lambda evaluation: evaluation.scores.crps.mean())
