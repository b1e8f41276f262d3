from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from grpo.evaluation import plots
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
