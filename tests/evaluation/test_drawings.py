"""Each chart is drawn once, and shows the numbers that it stands for."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from grpo.evaluation import chart_data
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import leaderboard
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.palette import forecaster_styles
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.report import charts
from grpo.evaluation.report.drawings import draw
from grpo.evaluation.report.pictures import write_pictures
from grpo.evaluation.report.svg import Picture
from tests.evaluation.report_inputs import build_windows, evaluate_law

SVG = "{http://www.w3.org/2000/svg}"
MODELS = ("base", "grpo_1st", "sft")


@pytest.fixture
def evaluations(make_windows):
    windows = build_windows(make_windows, stocks=2, dates=40)
    return windows, [evaluate_law(name, windows) for name in (*MODELS, "random_walk", "optimum")]


def drawn(windows, evaluations, **changes):
    settings = {"histories": {}, "subject": "sft", "language_models": MODELS}
    return draw(evaluations, windows, leaderboard(evaluations, windows), **settings | changes)


def titles(picture: Picture) -> list[str]:
    """What the marks say when pointed at."""
    return [title.text or "" for title in ElementTree.fromstring(picture.__html__()).iter("title")]


def circles(picture: Picture) -> list[float]:
    return [float(circle.get("cx")) for circle in ElementTree.fromstring(picture.__html__()).iter("circle")]


def test_windows_shown_are_the_best_median_and_worst_of_the_subject(evaluations):
    windows, made = evaluations
    fans = {fan.title: fan for fan in drawn(windows, made).fans}
    sft = made[2].scores.crps.mean(axis=1)
    order = np.argsort(sft)
    for fan in fans.values():
        for panel, place, row in zip(
            fan.panels, ("best", "median", "worst"), order[[0, len(order) // 2, -1]], strict=True
        ):
            stock, day = windows.context.item_id[row], np.datetime_as_string(windows.context.origin[row], unit="D")
            assert panel.caption.startswith(f"{place} window of sft: {stock}, {day}. CRPS of ")
    walk = made[3].scores.crps.mean(axis=1)[order[-1]]
    said = f"CRPS of sft {sft[order[-1]]:.2f}\N{NO-BREAK SPACE}%, random_walk {walk:.2f}\N{NO-BREAK SPACE}%."
    assert fans["sft"].panels[2].caption.endswith(said)


def test_base_and_adapters_stand_together_in_one_picture(evaluations):
    windows, made = evaluations
    first, second, *_ = drawn(windows, made).fans
    assert (first.title, first.names) == ("base, grpo_1st, sft together", MODELS)
    assert second.title == "sft"
    for panel in first.panels:
        assert [title for title in titles(panel.picture) if "median" in title] == [
            f"median of {name}" for name in MODELS
        ]
    alone = drawn(windows, made, language_models=("base",)).fans
    assert [fan.names for fan in alone] == [()] * 5


def test_the_walk_lies_on_the_line_of_one(evaluations):
    windows, made = evaluations
    picture = drawn(windows, made).by_horizon
    assert picture is not None
    root = ElementTree.fromstring(picture.__html__())
    [rule] = [path for path in root.iter("path") if path.get("class") == "rule"]
    [walk] = [group for group in root.iter("g") if group.get("data-series") == "random_walk"]
    level = re.match(r"M[\d.]+ ([\d.]+)H", rule.get("d") or "")
    assert level is not None
    drawn_at = set(re.findall(r"[ML][\d.]+ ([\d.]+)", next(walk.iter("path")).get("d") or ""))
    assert drawn_at == {level[1]}
    ratios = chart_data.crps_by_step(made[2], made[3])
    assert [title for title in titles(picture) if title.startswith("sft, day")] == [
        f"sft, day {day}: {ratio:.3f}" for day, ratio in enumerate(ratios, start=1)
    ]


def test_coverage_and_histograms_say_what_was_seen(evaluations):
    windows, made = evaluations
    drawings = drawn(windows, made)
    shares = made[0].scores.covered.mean(axis=(0, 2))
    said = ", ".join(
        f"{level} interval held {share:.1%}" for level, share in zip(("50%", "80%", "95%"), shares, strict=True)
    )
    assert f"base: {said}" in titles(drawings.coverage)
    histogram = chart_data.pit_histogram(made[0], windows)
    panel = drawings.histograms[0]
    assert panel.caption == f"base: p {histogram.p_value:.3f}"
    for said, share in zip(titles(panel.picture), histogram.shares, strict=True):
        assert f": {share:.1%} (calibrated" in said


def test_stocks_are_ordered_by_their_ratio_with_the_subject_first(make_windows):
    windows = make_windows([100.0] * 4, [[102.0]] * 4, items=["A", "B"] * 2, days=[0, 0, 1, 1])
    prices = {"random_walk": [100.0] * 4, "other": [100.5] * 4, "sft": [99, 101, 97, 102]}
    made = [point(values, windows, name) for name, values in prices.items()]
    panels = drawn(windows, made, language_models=()).by_stock
    assert [panel.caption for panel in panels] == ["sft", "other"]
    assert titles(panels[0].picture) == ["B: 0.250", "A: 2.000"]
    left, right = circles(panels[0].picture)
    assert left < right


def test_dates_accumulate_the_difference_to_the_walk(make_windows):
    windows = make_windows([100.0] * 2, [[102.0]] * 2)
    made = [point([100.0, 100.0], windows, "random_walk"), point([101.0, 104.0], windows, "sft")]
    picture = drawn(windows, made, language_models=()).by_date
    assert picture is not None
    assert titles(picture) == ["sft: -0.5000 % of the last close"]


def test_a_stage_that_logged_nothing_has_no_panel(evaluations):
    grpo = [{"step": 1, "reward": -2.0, "loss": 9.0}, {"step": 2, "eval_crps": 1.5}, {"step": 2, "reward": -1.0}]
    histories = {
        "stage 1": grpo,
        "stage 2": [{"step": 5, "loss": 0.5}],
        "stage 3": [],
        "stage 4": [{"step": 1, "loss": np.nan}],
    }
    training = drawn(*evaluations, histories=histories).training
    assert {stage: [titles(picture) for picture in pictures] for stage, pictures in training.items()} == {
        "stage 1": [["step 1: -2", "step 2: -1"], ["step 2: 1.5"]],
        "stage 2": [["step 5: 0.5"]],
    }


def test_charts_without_anything_to_draw_are_left_out(make_windows):
    windows = make_windows([100.0] * 2, [[100.0]] * 2, days=[0, 0])
    walk = point([100.0, 100.0], windows, "random_walk")  # its CRPS is zero: nothing can be relative to it
    drawings = drawn(windows, [walk, point([101.0, 104.0], windows, "sft")], language_models=())
    assert (drawings.learnt, drawings.by_horizon, drawings.by_date, list(drawings.by_stock)) == (None, None, None, [])
    assert drawings.training == {}


def test_every_chart_of_the_page_is_a_file_of_its_own(tmp_path, evaluations):
    drawings = drawn(*evaluations, histories={"stage 1": [{"step": 1, "reward": -2.0}]})
    (tmp_path / "former.svg").write_text("of other settings")
    write_pictures(drawings, tmp_path)
    names = (
        "coverage",
        "error_by_horizon",
        "fan_chart",
        "learnt",
        "pit",
        "skill_by_date",
        "skill_by_stock",
        "training_curves",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.svg" for name in names]
    for file in tmp_path.iterdir():
        text = file.read_text()
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert not re.search(r"var\(|light-dark|\bnan\b", text)
        width, height = (float(root.get(side) or 0) for side in ("width", "height"))
        for part in root.iter(f"{SVG}svg"):
            right = float(part.get("x") or 0) + float(part.get("width") or 0)
            assert right <= width + 0.1
            assert float(part.get("y") or 0) + float(part.get("height") or 0) <= height + 0.1
    legend = ElementTree.fromstring((tmp_path / "fan_chart.svg").read_text()).iter(f"{SVG}text")
    assert set(MODELS) <= {text.text for text in legend}


def test_a_forecaster_has_its_colour_everywhere(tmp_path, evaluations):
    windows, made = evaluations
    drawings = drawn(windows, made)
    write_pictures(drawings, tmp_path)
    for name, style in drawings.styles.items():
        assert f".s-{style.slot} {{ color: {style.colour}; }}" in (tmp_path / "coverage.svg").read_text()
        assert f'class="series s-{style.slot}"' in charts.swatch(style), name
    assert drawings.styles == forecaster_styles([evaluation.name for evaluation in made])


def point(prices, windows, name):
    """Two equal samples per window: the CRPS is the absolute error."""
    samples = np.repeat(np.asarray(prices, dtype=float)[:, None, None], 2, axis=1)
    forecast = Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))
    return Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=0.0)
