"""Every chart of a comparison, drawn once: for the page and as files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from grpo.evaluation import chart_data
from grpo.evaluation.chart_data import History
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.palette import Style, forecaster_styles
from grpo.evaluation.report import charts
from grpo.evaluation.report.charts import Dot, Rule
from grpo.evaluation.report.svg import Picture, domain
from grpo.evaluation.report.tables import DASH, number
from preprocessing.windows import WindowSet

SKILL_LIMITS = (-1.0, 1.5)
SKILL_RULES = (Rule(0.0, "random walk"), Rule(1.0, "optimum", "rule optimum"))
_PIT_TOP = 3.0


@dataclass(frozen=True)
class Panel:
    """A chart with what stands above it."""

    caption: str
    picture: Picture


@dataclass(frozen=True)
class Fans:
    """The same three windows for one forecaster, or for several of them together.

    Attributes:
        title: whose.
        panels: best, median and worst window.
        names: forecasters to tell apart by a legend; empty for one alone.
    """

    title: str
    panels: tuple[Panel, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """The charts; None or empty where there is nothing to show.

    Attributes:
        styles: look of each forecaster.
        learnt: skill per forecaster, where the optimum is known.
        by_horizon: CRPS relative to the random walk by days ahead.
        coverage: of the central intervals.
        histograms: of PIT values, one per forecaster.
        by_stock: one chart per forecaster, where there are several stocks.
        by_date: accumulated difference to the random walk, where there are several dates.
        fans: best, median and worst window, first the language models together.
        training: charts of each stage that logged something, by its title.
    """

    styles: Mapping[str, Style]
    learnt: Picture | None
    by_horizon: Picture | None
    coverage: Picture
    histograms: Sequence[Panel]
    by_stock: Sequence[Panel]
    by_date: Picture | None
    fans: Sequence[Fans]
    training: Mapping[str, Sequence[Picture]]


def draw(
    evaluations: Sequence[Evaluation],
    windows: WindowSet,
    table: pd.DataFrame,
    *,
    histories: Mapping[str, History],
    subject: str | None,
    language_models: Sequence[str],
) -> Drawings:
    """Draw all charts.

    Args:
        evaluations: forecasts and scores of the same windows, the random walk among them.
        windows: the windows they answered.
        table: their leaderboard.
        histories: training log by stage title.
        subject: the forecaster whose best, median and worst windows are drawn; None for the best one.
        language_models: base model and adapters, which are also drawn together.
    """
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    styles = forecaster_styles(list(by_name))
    chosen = by_name.get(subject or "") or chart_data.best_rival(evaluations)
    shares = {name: evaluation.scores.covered.mean(axis=(0, 2)) for name, evaluation in by_name.items()}
    together = [by_name[name] for name in language_models if name in by_name]
    return Drawings(
        styles=styles,
        learnt=_learnt(table, styles),
        by_horizon=_by_horizon(evaluations, styles),
        coverage=charts.coverage(shares, styles),
        histograms=_histograms(evaluations, windows, styles),
        by_stock=_by_stock(evaluations, windows, styles, chosen.name),
        by_date=_by_date(evaluations, windows, styles),
        fans=[*_fans_together(together, windows, styles, chosen), *_fans(evaluations, windows, styles, chosen)],
        training=_training(histories),
    )


def _learnt(table: pd.DataFrame, styles: Mapping[str, Style]) -> Picture | None:
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
        SKILL_RULES,
        name="share of what can be learnt",
        description="Skill of each forecaster between random walk and optimum.",
        limits=SKILL_LIMITS,
    )


def _by_horizon(evaluations: Sequence[Evaluation], styles: Mapping[str, Style]) -> Picture | None:
    reference = chart_data.reference_of(evaluations)
    ratios = {evaluation.name: chart_data.crps_by_step(evaluation, reference) for evaluation in evaluations}
    drawable = any(np.isfinite(ratio).any() for ratio in ratios.values())
    return charts.by_horizon(ratios, styles) if drawable else None


def _histograms(evaluations: Sequence[Evaluation], windows: WindowSet, styles: Mapping[str, Style]) -> list[Panel]:
    """PIT histogram of each forecaster on one scale, with the p value of uniformity."""
    found = {one.name: chart_data.pit_histogram(one, windows) for one in evaluations}
    # one scale for all, or a flat and a steep histogram would look alike; the cap keeps a single spike from flattening
    # the rest
    highest = max(max(histogram.shares) for histogram in found.values()) * chart_data.PIT_BINS
    top = min(_PIT_TOP, max(highest, 2.0))
    panels = []
    for name, histogram in found.items():
        p_value = DASH if math.isnan(histogram.p_value) else number(histogram.p_value, 3)
        panels.append(Panel(f"{name}: p {p_value}", charts.pit_histogram(name, histogram, styles[name], top)))
    return panels


def _by_stock(
    evaluations: Sequence[Evaluation], windows: WindowSet, styles: Mapping[str, Style], subject: str
) -> list[Panel]:
    """A chart per forecaster, the subject's first; none for a single stock, where it would repeat the leaderboard."""
    if len(set(windows.context.item_id)) == 1:
        return []
    reference = chart_data.reference_of(evaluations)
    rows = {
        evaluation.name: chart_data.crps_by_stock(evaluation, reference, windows)
        for evaluation in evaluations
        if evaluation.name != REFERENCE
    }
    rules = [Rule(1.0, "random walk")]
    if OPTIMUM in rows:
        # each stock has an optimum of its own: one line can only show their mean
        mean = np.mean([row.ratio for row in rows[OPTIMUM]])
        rules.append(Rule(float(mean), "optimum, mean", "rule optimum"))
    return [
        Panel(
            name,
            charts.dot_plot(
                [Dot(label=r.stock, value=r.ratio, low=r.low, high=r.high, style=styles[name]) for r in rows[name]],
                rules[:1] if name == OPTIMUM else rules,
                name="CRPS relative to the random walk",
                description=f"CRPS of {name} relative to the random walk by stock.",
                limits=(0.0, 2.0),
            ),
        )
        for name in sorted(rows, key=lambda name: name != subject)
    ]


def _by_date(evaluations: Sequence[Evaluation], windows: WindowSet, styles: Mapping[str, Style]) -> Picture | None:
    reference, dates = chart_data.reference_of(evaluations), np.unique(windows.context.origin)
    lines = {
        evaluation.name: chart_data.accumulated_difference(evaluation, reference, windows)[1]
        for evaluation in evaluations
        if evaluation.name != REFERENCE
    }
    drawable = len(dates) > 1 and any(np.isfinite(values).all() for values in lines.values())
    return charts.by_date(dates, lines, styles) if drawable else None


def _fans(
    evaluations: Sequence[Evaluation], windows: WindowSet, styles: Mapping[str, Style], subject: Evaluation
) -> list[Fans]:
    """Per forecaster the subject's best, median and worst windows, the subject's own first."""
    reference, fans = chart_data.reference_of(evaluations), []
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.name != subject.name):
        compared = [evaluation] if evaluation.name == REFERENCE else [evaluation, reference]
        panels = [
            Panel(
                _caption(place, window, subject, compared, windows),
                _fan(evaluation, reference, windows, window, styles[evaluation.name]),
            )
            for place, window in chart_data.best_median_worst(subject).items()
        ]
        fans.append(Fans(evaluation.name, tuple(panels)))
    return fans


def _fans_together(
    evaluations: Sequence[Evaluation], windows: WindowSet, styles: Mapping[str, Style], subject: Evaluation
) -> list[Fans]:
    """Base model and adapters in one picture per window; none where there are fewer than two."""
    if len(evaluations) < 2:
        return []
    panels = []
    for place, window in chart_data.best_median_worst(subject).items():
        shown = {evaluation.name: chart_data.fan(evaluation, windows, window) for evaluation in evaluations}
        edges = [(fan.lower[1], fan.upper[1]) for fan in shown.values()]
        description = f"Forecasts of {', '.join(shown)} for {_describe(windows, window)}."
        # axis by all of them: a wide band of one forecaster must not fall off the picture that the others set
        prices = _prices(next(iter(shown.values())), edges, edges)
        picture = charts.fans_together(shown, styles, prices, description)
        panels.append(Panel(_caption(place, window, subject, evaluations, windows), picture))
    names = tuple(evaluation.name for evaluation in evaluations)
    return [Fans(f"{', '.join(names)} together", tuple(panels), names)]


def _fan(evaluation: Evaluation, reference: Evaluation, windows: WindowSet, window: int, style: Style) -> Picture:
    shown, walk = chart_data.fan(evaluation, windows, window), chart_data.fan(reference, windows, window)
    prices = _prices(shown, [(walk.lower[1], walk.upper[1])], [(shown.lower[-1], shown.upper[-1])])
    description = f"Forecast of {evaluation.name} for {_describe(windows, window)}."
    return charts.fan_chart(shown, walk, style, prices, description)


def _prices(
    fan: chart_data.Fan,
    held: Sequence[tuple[np.ndarray, np.ndarray]],
    wanted: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float]:
    """An axis that holds all lines and the first bands, and further bands as far as twice that range."""
    low, high = domain([*fan.past, *fan.realised, *(end for band in held for edge in band for end in edge)])
    ends = [end for band in wanted for end in (band[0].min(), band[1].max())]
    # a forecast that explodes would press the realised path flat
    ends = np.clip(ends, 2 * low - high, 2 * high - low)
    return min(low, *ends), max(high, *ends)


def _caption(place: str, window: int, subject: Evaluation, compared: Sequence[Evaluation], windows: WindowSet) -> str:
    crps = [f"{number(one.scores.crps[window].mean(), 2)}\N{NO-BREAK SPACE}%" for one in compared]
    named = [f"{one.name} {value}" for one, value in zip(compared, crps, strict=True)]
    return f"{place} window of {subject.name}: {_describe(windows, window)}. CRPS of {', '.join(named)}."


def _describe(windows: WindowSet, window: int) -> str:
    return f"{windows.context.item_id[window]}, {np.datetime_as_string(windows.context.origin[window], unit='D')}"


def _training(histories: Mapping[str, History]) -> dict[str, list[Picture]]:
    stages = {}
    for stage, history in histories.items():
        aim = chart_data.objective(history)
        pictures = []
        for key, name in ((aim, f"training {aim}"), ("eval_crps", "validation CRPS, % of the last close")):
            points = chart_data.logged(history, key)
            if any(math.isfinite(value) for _, value in points):
                pictures.append(charts.training_curve(points, name, f"{stage}: {name} by step."))
        if pictures:
            stages[stage] = pictures
    return stages
