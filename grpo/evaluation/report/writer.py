"""The report from the numbers of a comparison: what goes into each section of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from grpo.evaluation.chart_data import History
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.markdown import Row
from grpo.evaluation.report import charts, tables
from grpo.evaluation.report.charts import Rule
from grpo.evaluation.report.drawings import SKILL_LIMITS, SKILL_RULES, Drawings, draw
from grpo.evaluation.report.pictures import colour_rules, write_pictures
from grpo.evaluation.report.svg import domain, tag
from preprocessing.files import write_atomically
from preprocessing.windows import WindowSet

PAGE = "report.html"
_RATIO_LIMITS = (0.5, 1.5)
_UNFOLDED_ROWS = 30


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
        histories: training log by stage title.
        completions: example answers of language models: columns forecaster, stock, date, text, valid, and one per
            reward; None for none.
        warnings: leaks, contamination, invalid answers, too few dates; shown under the verdict.
        extra_tables: further tables by title; one without rows is left out, and its note says why.
        table_notes: what a further table means, by its title.
        optimum_note: what is known of the best possible forecast, or None.
        subject: the forecaster whose best, median and worst windows are drawn; None for the best one.
        language_models: base model and adapters, which are also drawn together.
    """

    title: str
    verdict: str
    summary: str
    facts: Mapping[str, str]
    table: pd.DataFrame
    evaluations: Sequence[Evaluation]
    windows: WindowSet
    histories: Mapping[str, History]
    completions: pd.DataFrame | None
    warnings: Sequence[str]
    extra_tables: Mapping[str, pd.DataFrame]
    optimum_note: str | None
    subject: str | None = None
    language_models: Sequence[str] = ()
    table_notes: Mapping[str, str] = field(default_factory=dict)


def write_report(inputs: ReportInputs, folder: Path) -> None:
    """Write `PAGE` and its charts as SVG files into a folder; equal inputs give equal bytes."""
    drawings = drawings_of(inputs)
    write_atomically(Path(folder) / PAGE, render(inputs, drawings))
    write_pictures(drawings, folder)


def drawings_of(inputs: ReportInputs) -> Drawings:
    """All charts of a report."""
    return draw(
        inputs.evaluations,
        inputs.windows,
        inputs.table,
        histories=inputs.histories,
        subject=inputs.subject,
        language_models=inputs.language_models,
    )


def render(inputs: ReportInputs, drawings: Drawings) -> str:
    """The page as text."""
    # strict: a name misspelt in the template raises, where an empty place in a report would go unseen
    page = Environment(
        loader=PackageLoader("grpo.evaluation.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    decisive, other = tables.decisive_columns(inputs.table), tables.other_columns(inputs.table)
    styles = drawings.styles
    return page.get_template("report.html.j2").render(
        inputs=inputs,
        drawings=drawings,
        legend=[(name, charts.swatch(style)) for name, style in styles.items()],
        leaderboard=_leaderboard(inputs.table, decisive),
        other_scores=tables.table(inputs.table, other, caption="More scores", row_class=_row_class),
        completions=_completions(inputs.completions),
        extra_tables={title: _extra_table(title, frame) for title, frame in inputs.extra_tables.items()},
        glossary=tables.glossary([*decisive, *other]),
        colours=colour_rules([*styles.values(), charts.TRAINING]),
    )


def _leaderboard(table: pd.DataFrame, columns: Sequence[str]) -> Markup:
    judged = "skill" if "skill" in columns else "rel_crps"
    limits = SKILL_LIMITS if judged == "skill" else _RATIO_LIMITS
    rules = SKILL_RULES if judged == "skill" else [Rule(1.0, "random walk")]
    parts = [table[name] for name in (judged, f"{judged}_low", f"{judged}_high") if name in table]
    low, high = domain(pd.concat(parts), include=[rule.value for rule in rules])
    # one forecaster that is far off would shrink the bars of all others to dots
    bounds = (max(low, limits[0]), min(high, limits[1]))

    def draw(record: Row) -> Markup:
        low, high = (record.get(f"{judged}{end}", math.nan) for end in ("_low", "_high"))
        return charts.whisker(record[judged], low, high, bounds, rules)

    return tables.table(
        table,
        columns,
        caption="Leaderboard",
        drawings={judged: draw},
        row_class=_row_class,
    )


def _row_class(record: Row) -> str | None:
    return "yardstick" if record["forecaster"] in (REFERENCE, OPTIMUM) else None


def _completions(completions: pd.DataFrame | None) -> list[dict[str, object]]:
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


def _extra_table(title: str, frame: pd.DataFrame) -> Markup:
    """Any table, a long one folded; an index that says something becomes columns, no rows are left to the note."""
    if frame.empty:
        return Markup()
    flat = (frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()).rename(columns=str)
    whole = tables.table(flat, tables.visible_columns(flat), caption=title)
    if len(flat) <= _UNFOLDED_ROWS:
        return whole
    return tag("details", tag("summary", f"{len(flat)} rows"), whole, class_="folded")
