"""The report from the numbers of a comparison: what goes into each section of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from grpo.evaluation import chart_data
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.palette import DARK, LIGHT, Style, forecaster_styles
from grpo.evaluation.report import charts, tables
from grpo.evaluation.report.charts import Dot, Rule
from grpo.evaluation.report.svg import domain
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet

_SKILL_LIMITS = (-1.0, 1.5)
_RATIO_LIMITS = (0.5, 1.5)
_PIT_TOP = 3.0
_SKILL_RULES = (Rule(0.0, "random walk"), Rule(1.0, "optimum", "rule optimum"))


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """What a report shows.

    Attributes:
        title: heading of the page, as "Test windows of AAPL".
        verdict: the one honest sentence, first thing on the page.
        summary: which windows were compared, as `describe_windows` words it.
        facts: what was run: stock, model, seed, samples, span, commit, versions, commands.
        table: what `leaderboard` gives; `X_low` and `X_high` beside a column X are its 95 % interval, `X_sd` its
            standard deviation over seeds.
        evaluations: forecasts and scores of the same windows, the random walk among them.
        windows: the windows they answered.
        histories: training log by stage title, as `plots.training_curves` takes it.
        completions: example answers of language models: columns forecaster, stock, date, text, valid, and one per
            reward; None for none.
        warnings: leaks, contamination, invalid answers, too few dates; shown under the verdict.
        extra_tables: further tables by title.
        table_notes: what a further table means, by its title.
        optimum_note: what is known of the best possible forecast, or None.
        subject: the forecaster whose best, median and worst windows are drawn; None for the best one.
    """

    title: str
    verdict: str
    summary: str
    facts: Mapping[str, str]
    table: pd.DataFrame
    evaluations: Sequence[Evaluation]
    windows: WindowSet
    histories: Mapping[str, list[dict[str, Any]]]
    completions: pd.DataFrame | None
    warnings: Sequence[str]
    extra_tables: Mapping[str, pd.DataFrame]
    optimum_note: str | None
    subject: str | None = None
    table_notes: Mapping[str, str] = field(default_factory=dict)


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Write the page; equal inputs give equal bytes."""
    write_atomically(path, render(inputs))


def render(inputs: ReportInputs) -> str:
    """The page as text."""
    page = Environment(
        loader=PackageLoader("grpo.evaluation.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evaluations = {evaluation.name: evaluation for evaluation in inputs.evaluations}
    styles = forecaster_styles(list(evaluations))
    decisive, other = tables.decisive_columns(inputs.table), tables.other_columns(inputs.table)
    return page.get_template("report.html.j2").render(
        inputs=inputs,
        legend=[(name, charts.swatch(style)) for name, style in styles.items()],
        leaderboard=_leaderboard(inputs.table, decisive),
        other_scores=tables.table(inputs.table, other, caption="More scores", row_class=_row_class),
        learnt=_learnt(inputs.table, styles),
        coverage=charts.coverage(
            {name: evaluation.scores.covered.mean(axis=(0, 2)) for name, evaluation in evaluations.items()}, styles
        ),
        histograms=_histograms(inputs, styles),
        by_horizon=_by_horizon(inputs.evaluations, styles),
        by_stock=_by_stock(inputs, styles),
        by_date=_by_date(inputs, styles),
        fans=_fans(inputs, styles),
        training=_training(inputs.histories, forecaster_styles(["training"])["training"]),
        completions=_completions(inputs.completions),
        extra_tables={
            title: tables.table(frame, tables.visible_columns(frame), caption=title)
            for title, frame in ((title, _flat(frame)) for title, frame in inputs.extra_tables.items())
        },
        glossary=tables.glossary([*decisive, *other]),
        colours=list(zip(LIGHT, DARK, strict=True)),
        horizon=inputs.windows.horizon,
    )


def _leaderboard(table: pd.DataFrame, columns: Sequence[str]) -> Markup:
    judged = "skill" if "skill" in columns else "rel_crps"
    limits = _SKILL_LIMITS if judged == "skill" else _RATIO_LIMITS
    rules = _SKILL_RULES if judged == "skill" else [Rule(1.0, "random walk")]
    parts = [table[name] for name in (judged, f"{judged}_low", f"{judged}_high") if name in table]
    low, high = domain(pd.concat(parts), include=[rule.value for rule in rules])
    bounds = (max(low, limits[0]), min(high, limits[1]))

    def draw(record: Mapping[str, Any]) -> Markup:
        low, high = (record.get(f"{judged}{end}", math.nan) for end in ("_low", "_high"))
        return charts.whisker(record[judged], low, high, bounds, rules)

    return tables.table(
        table,
        columns,
        caption="Leaderboard",
        drawings={judged: draw},
        row_class=_row_class,
    )


def _row_class(record: Mapping[str, Any]) -> str | None:
    return "yardstick" if record["forecaster"] in (REFERENCE, OPTIMUM) else None


def _learnt(table: pd.DataFrame, styles: Mapping[str, Style]) -> Markup | None:
    """Skill per forecaster; None where the optimum is unknown."""
    rivals = [row for row in table.to_dict("records") if row["forecaster"] not in (REFERENCE, OPTIMUM)]
    if not rivals or all(math.isnan(row["skill"]) for row in rivals):
        return None
    dots = [
        Dot(
            label=row["forecaster"],
            value=row["skill"],
            low=row.get("skill_low", math.nan),
            high=row.get("skill_high", math.nan),
            style=styles[row["forecaster"]],
        )
        for row in rivals
    ]
    return charts.dot_plot(
        dots,
        _SKILL_RULES,
        name="share of what can be learnt",
        description="Skill of each forecaster between random walk and optimum.",
        limits=_SKILL_LIMITS,
    )


def _histograms(inputs: ReportInputs, styles: Mapping[str, Style]) -> list[tuple[str, str, Markup]]:
    """Name, p value of uniformity and PIT histogram of each forecaster, on one scale."""
    found = {one.name: chart_data.pit_histogram(one, inputs.windows) for one in inputs.evaluations}
    highest = max(max(histogram.shares) for histogram in found.values()) * chart_data.PIT_BINS
    top = min(_PIT_TOP, max(highest, 2.0))
    return [
        (
            name,
            tables.DASH if math.isnan(histogram.p_value) else tables.number(histogram.p_value, 3),
            charts.pit_histogram(name, histogram, styles[name], top),
        )
        for name, histogram in found.items()
    ]


def _by_horizon(evaluations: Sequence[Evaluation], styles: Mapping[str, Style]) -> Markup:
    reference = chart_data.reference_of(evaluations)
    ratios = {evaluation.name: chart_data.crps_by_step(evaluation, reference) for evaluation in evaluations}
    return charts.by_horizon(ratios, styles)


def _by_stock(inputs: ReportInputs, styles: Mapping[str, Style]) -> list[tuple[str, Markup]]:
    """A chart per forecaster; none for a single stock, where it would repeat the leaderboard."""
    if len(set(inputs.windows.context.item_id)) == 1:
        return []
    reference = chart_data.reference_of(inputs.evaluations)
    rows = {
        evaluation.name: chart_data.crps_by_stock(evaluation, reference, inputs.windows)
        for evaluation in inputs.evaluations
        if evaluation.name != REFERENCE
    }
    rules = [Rule(1.0, "random walk")]
    if OPTIMUM in rows:
        mean = np.mean([row.ratio for row in rows[OPTIMUM]])
        rules.append(Rule(float(mean), "optimum, mean", "rule optimum"))
    return [
        (
            name,
            charts.dot_plot(
                [Dot(label=r.stock, value=r.ratio, low=r.low, high=r.high, style=styles[name]) for r in rows[name]],
                rules[:1] if name == OPTIMUM else rules,
                name="CRPS relative to the random walk",
                description=f"CRPS of {name} relative to the random walk by stock.",
                limits=(0.0, 2.0),
            ),
        )
        for name in _subject_first(inputs, rows)
    ]


def _by_date(inputs: ReportInputs, styles: Mapping[str, Style]) -> Markup | None:
    reference = chart_data.reference_of(inputs.evaluations)
    lines, dates = {}, np.unique(inputs.windows.context.origin)
    for evaluation in inputs.evaluations:
        if evaluation.name != REFERENCE:
            _, lines[evaluation.name] = chart_data.accumulated_difference(evaluation, reference, inputs.windows)
    return charts.by_date(dates, lines, styles) if lines and len(dates) > 1 else None


def _subject(inputs: ReportInputs) -> Evaluation:
    named = [evaluation for evaluation in inputs.evaluations if evaluation.name == inputs.subject]
    return named[0] if named else chart_data.best_rival(inputs.evaluations)


def _subject_first(inputs: ReportInputs, names: Mapping[str, object]) -> list[str]:
    subject = _subject(inputs).name
    return sorted(names, key=lambda name: name != subject)


def _fans(inputs: ReportInputs, styles: Mapping[str, Style]) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Per forecaster the subject's best, median and worst windows, each with its caption and chart."""
    subject, reference = _subject(inputs), chart_data.reference_of(inputs.evaluations)
    chosen = chart_data.best_median_worst(subject)
    by_name = {evaluation.name: evaluation for evaluation in inputs.evaluations}
    fans = []
    for name in _subject_first(inputs, by_name):
        evaluation, panels = by_name[name], []
        for label, window in chosen.items():
            title = f"{label} window of {subject.name}: {_describe(inputs.windows, window)}"
            crps = [tables.number(one.scores.crps[window].mean(), 2) for one in (evaluation, reference)]
            walk = f", random walk {crps[1]}\N{NO-BREAK SPACE}%" if name != REFERENCE else ""
            caption = f"{title}. CRPS {crps[0]}\N{NO-BREAK SPACE}%{walk}."
            panels.append((caption, _fan(evaluation, reference, inputs.windows, window, styles[name])))
        fans.append((name, panels))
    return fans


def _fan(evaluation: Evaluation, reference: Evaluation, windows: WindowSet, window: int, style: Style) -> Markup:
    """The axis holds all lines, and a band as far as twice their range."""
    shown, walk = chart_data.fan(evaluation, windows, window), chart_data.fan(reference, windows, window)
    low, high = domain([*shown.past, *shown.realised, *walk.lower[1], *walk.upper[1]])
    ends = np.clip([shown.lower[-1].min(), shown.upper[-1].max()], 2 * low - high, 2 * high - low)
    description = f"Forecast of {evaluation.name} for {_describe(windows, window)}."
    return charts.fan_chart(shown, walk, style, (min(low, ends[0]), max(high, ends[1])), description)


def _describe(windows: WindowSet, window: int) -> str:
    return f"{windows.context.item_id[window]}, {np.datetime_as_string(windows.context.origin[window], unit='D')}"


def _training(histories: Mapping[str, list[dict[str, Any]]], style: Style) -> list[tuple[str, list[Markup]]]:
    stages = []
    for stage, history in histories.items():
        aim = chart_data.objective(history)
        panels = []
        for key, name in ((aim, f"training {aim}"), ("eval_crps", "validation CRPS, % of the last close")):
            points = chart_data.logged(history, key)
            if any(math.isfinite(value) for _, value in points):
                panels.append(charts.training_curve(points, name, style, f"{stage}: {name} by step."))
        stages.append((stage, panels))
    return stages


def _completions(completions: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Heading, rewards and text of each example answer."""
    if completions is None:
        return []
    fixed = ("forecaster", "stock", "date", "text", "valid")
    rewards = [name for name in completions if name not in fixed]
    return [
        {
            **{name: record[name] for name in ("forecaster", "stock", "text", "valid")},
            "date": str(record["date"])[:10],
            "rewards": [(str(name).replace("_", " "), _reward(record[name])) for name in rewards],
        }
        for record in completions.to_dict("records")
    ]


def _reward(value: float) -> str:
    return tables.DASH if pd.isna(value) else tables.number(float(value), 3)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """An index that says something becomes columns; all columns are named by text."""
    return (frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()).rename(columns=str)
