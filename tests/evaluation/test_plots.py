from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from grpo.evaluation import chart_data, palette, plots
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast


@pytest.fixture
def figures(monkeypatch):
    """The figures as they were drawn, for a look at what is in them."""
    drawn = []
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn


@pytest.fixture
def evaluations(make_windows):
    windows = make_windows([100.0] * 3, [[105.0, 105.0], [101.0, 101.0], [120.0, 120.0]])
    samples = 100 + np.random.default_rng(0).standard_normal((3, 9, 2))
    samples[1, 0] = np.nan
    forecast = Forecast(samples=samples, valid=np.isfinite(samples).all(-1))
    scores = score_windows(forecast, windows)
    names = ("random_walk", "sft", "optimum")
    return windows, [Evaluation(name=name, forecast=forecast, scores=scores, seconds=0.0) for name in names]


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_fan_chart_shows_best_median_and_worst_window(tmp_path, figures, evaluations):
    windows, (walk, sft, _) = evaluations
    plots.fan_chart(sft, walk, windows, tmp_path / "fan.png")
    assert is_png(tmp_path / "fan.png")
    axes = figures[0].axes
    assert [axis.get_ylabel().split("\n")[:2] for axis in axes[::2]] == [
        ["best window of sft", "A, 2020-01-02"],
        ["median window of sft", "A, 2020-01-01"],
        ["worst window of sft", "A, 2020-01-03"],
    ]
    lines = {line.get_label(): line.get_ydata() for line in axes[4].lines}
    assert list(lines["realised"]) == [100, 120, 120]
    assert list(lines["past closes"]) == [100] * 5
    assert np.isfinite(axes[0].lines[1].get_ydata()).all()  # the median of a window with an invalid sample


def test_error_by_horizon_is_relative_to_the_random_walk(tmp_path, figures, evaluations):
    plots.error_by_horizon(evaluations[1], tmp_path / "error.png")
    assert is_png(tmp_path / "error.png")
    absolute, relative = figures[0].axes
    assert [line.get_label() for line in absolute.lines] == ["random_walk", "sft", "optimum"]
    expected = evaluations[1][0].scores.crps.mean(axis=0)
    np.testing.assert_allclose(absolute.lines[0].get_ydata(), expected)
    np.testing.assert_allclose(relative.lines[1].get_ydata(), [1, 1])


def test_coverage_marks_each_interval(tmp_path, figures, evaluations):
    plots.coverage(evaluations[1], tmp_path / "coverage.png")
    assert is_png(tmp_path / "coverage.png")
    marks = {line.get_label(): line.get_xdata() for line in figures[0].axes[0].lines}
    expected = evaluations[1][0].scores.covered[:, 1].mean()
    np.testing.assert_allclose(marks["80% interval"], [expected] * 3)


def test_training_curves_take_reward_or_loss_and_say_what_is_missing(tmp_path, figures):
    grpo = [
        {"step": 1, "reward": -2.0, "loss": 9.0},
        {"step": 2, "eval_crps": 1.5},
        {"step": 2, "reward": -1.0},
    ]
    sft = [{"step": 5, "loss": 0.5}]
    plots.training_curves({"stage 1": grpo, "stage 2": sft}, tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")
    reward, loss, crps, nothing = figures[0].axes
    assert reward.lines[0].get_xydata().tolist() == [[1, -2], [2, -1]]
    assert loss.lines[0].get_xydata().tolist() == [[5, 0.5]]
    assert crps.lines[0].get_xydata().tolist() == [[2, 1.5]]
    assert not nothing.lines
    assert nothing.texts[0].get_text() == "not logged"


def test_pit_draws_the_shares_as_densities_with_their_band(tmp_path, figures, evaluations):
    windows, (walk, sft, optimum) = evaluations
    plots.pit([walk, sft, optimum], windows, tmp_path / "pit.png")
    assert is_png(tmp_path / "pit.png")
    axis = figures[0].axes[1]
    assert axis.get_title() == "sft"  # three dates are too few for a p value
    histogram = chart_data.pit_histogram(sft, windows)
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches[10:]], 10 * histogram.shares)


def test_pit_draws_the_band_of_a_calibrated_forecast(tmp_path, figures, make_windows):
    windows = make_windows([100.0] * 30, [[100.0 + i % 3] for i in range(30)])
    walk = point([101.0] * 30, windows, "random_walk")
    plots.pit([walk], windows, tmp_path / "pit.png")
    (axis,) = figures[0].axes
    histogram = chart_data.pit_histogram(walk, windows)
    assert axis.get_title() == f"random_walk: p {histogram.p_value:.3f}"
    drawn = [(bar.get_y(), bar.get_height()) for bar in axis.patches[:10]]
    np.testing.assert_allclose(drawn, np.stack([1 - 10 * histogram.band, 20 * histogram.band], axis=1))


def test_skill_by_stock_has_a_panel_for_each_rival_sorted_by_its_ratios(tmp_path, figures, make_windows):
    windows = make_windows([100.0] * 4, [[102.0]] * 4, items=["A", "B"] * 2, days=[0, 0, 1, 1])
    walk, sft = (
        point(prices, windows, name) for prices, name in (([100.0] * 4, "random_walk"), ([99, 101, 97, 102], "sft"))
    )
    plots.skill_by_stock([walk, sft], windows, tmp_path / "stock.png")
    assert is_png(tmp_path / "stock.png")
    (axis,) = figures[0].axes
    assert axis.get_title() == "sft"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["B", "A"]
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[1 / 4, 1], [8 / 4, 0]])  # best on top


def test_skill_by_date_accumulates_the_difference_to_the_walk(tmp_path, figures, make_windows):
    windows = make_windows([100.0] * 2, [[102.0]] * 2)
    walk, sft = point([100.0, 100.0], windows, "random_walk"), point([101.0, 104.0], windows, "sft")
    plots.skill_by_date([walk, sft], windows, tmp_path / "date.png")
    assert is_png(tmp_path / "date.png")
    lines = {line.get_label(): line.get_ydata() for line in figures[0].axes[0].lines}
    np.testing.assert_allclose(lines["random_walk"], [0, 0])
    np.testing.assert_allclose(lines["sft"], [-1 / 2, -1 / 2])


def point(prices, windows, name):
    """Two equal samples per window: the CRPS is the absolute error."""
    samples = np.repeat(np.asarray(prices, dtype=float)[:, None, None], 2, axis=1)
    forecast = Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))
    return Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=0.0)


def test_a_forecaster_looks_the_same_in_every_picture(tmp_path, figures, evaluations):
    windows, made = evaluations
    plots.error_by_horizon(made, tmp_path / "a.png")
    plots.skill_by_date(made, windows, tmp_path / "b.png")
    colours = [{line.get_label(): line.get_color() for line in figure.axes[0].lines} for figure in figures]
    assert colours[0] == colours[1]
    assert len(set(colours[0].values())) == 3


def test_styles_are_distinct_up_to_twenty_four_and_leave_yardsticks_alone():
    names = ["random_walk", *(f"model {i}" for i in range(24)), "optimum"]
    styles = palette.forecaster_styles(names)
    assert list(styles) == names
    assert len({(style.slot, style.dash) for style in styles.values()}) == 26
    assert styles["model 0"] == palette.forecaster_styles(["model 0"])["model 0"]


def linear_rgb(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as an eye without one kind of cone sees it
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb):
    """CIE 1976 L*a*b* of linear sRGB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_colours_are_told_apart_with_any_colour_vision(colours, vision):
    """A difference of 2.3 is just noticeable in CIE76; six times that is told apart at a glance."""
    seen = [lab(np.asarray(VISION[vision]) @ linear_rgb(colour)) for colour in colours]
    assert min(np.linalg.norm(first - second) for first, second in combinations(seen, 2)) > 6 * 2.3


@pytest.mark.parametrize(("colours", "page"), [(palette.LIGHT, "#ffffff"), (palette.DARK, "#15181c")])
def test_colours_stand_out_from_the_page(colours, page):
    """WCAG 2.1 asks for a contrast of 3 for graphics."""
    for colour in colours:
        low, high = sorted(float(linear_rgb(one) @ [0.2126, 0.7152, 0.0722]) for one in (colour, page))
        assert (high + 0.05) / (low + 0.05) > 3, colour
