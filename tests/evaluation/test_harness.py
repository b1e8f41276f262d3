from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from grpo.evaluation.harness import (
    Evaluation,
    ForecastError,
    choose_windows,
    evaluate,
    on_common_valid,
    rows_table,
)
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast
from preprocessing.windows import Truth


class Noise:
    """Lognormal noise around the last close, from nothing but context and seed."""

    name = "noise"

    def predict(self, context, *, horizon, num_samples, seed):
        noise = np.random.default_rng(seed).standard_normal((len(context), num_samples, horizon))
        samples = context.last_price[:, None, None] * np.exp(0.01 * noise)
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    def save(self, path): ...


class Spy(Noise):
    """Keeps what it was handed, then spoils it."""

    name = "spy"

    def predict(self, context, **settings):
        self.context, self.settings = context, settings
        answer = super().predict(context, **settings)
        self.past = context.past.copy()
        context.past[:] = -1
        context.features[:] = -1
        return answer


@pytest.fixture
def windows(make_windows):
    rng = np.random.default_rng(0)
    return make_windows([100.0] * 6, 100 * np.exp(0.02 * rng.standard_normal((6, 3))))


def evaluation_of(name, samples, windows):
    samples = np.asarray(samples, dtype=float)
    forecast = Forecast(samples=samples, valid=np.isfinite(samples).all(-1))
    return Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=0.0)


def test_a_forecaster_gets_the_context_and_nothing_of_the_truth(windows):
    spy = Spy()
    evaluate(spy, windows, num_samples=4, seed=7)
    assert spy.settings == {"horizon": 3, "num_samples": 4, "seed": 7}
    fields = {field.name for field in dataclasses.fields(spy.context)}
    assert fields == {"item_id", "origin", "past", "features", "memories"}
    np.testing.assert_array_equal(spy.past, windows.context.past)
    for array in (spy.context.past, spy.context.features, spy.context.origin):
        assert array.base is None  # a view would reach into the memory of the whole series


def test_a_forecaster_cannot_spoil_the_windows_for_the_others(windows):
    before = windows.context.past.copy(), windows.context.features.copy()
    evaluate(Spy(), windows, num_samples=4, seed=0)
    np.testing.assert_array_equal(windows.context.past, before[0])
    np.testing.assert_array_equal(windows.context.features, before[1])


def test_forecasts_are_the_same_whatever_the_truth_and_scores_are_not(windows):
    other = dataclasses.replace(windows, truth=Truth(future=windows.truth.future * 2, dates=windows.truth.dates))
    one, two = (evaluate(Noise(), w, num_samples=4, seed=0) for w in (windows, other))
    np.testing.assert_array_equal(one.forecast.samples, two.forecast.samples)
    assert (two.scores.crps > one.scores.crps).all()


def test_an_answer_of_another_shape_is_refused(windows):
    class Short(Noise):
        name = "short"

        def predict(self, context, *, horizon, num_samples, seed):
            return super().predict(context, horizon=horizon, num_samples=num_samples - 1, seed=seed)

    with pytest.raises(ForecastError, match=r"short returned samples \(6, 3, 3\); asked for \(6, 4, 3\)"):
        evaluate(Short(), windows, num_samples=4, seed=0)


def test_windows_are_chosen_evenly_over_dates(make_windows):
    one = make_windows([1.0] * 10, [[1.0]] * 10, days=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    # the middle of each half, in rows of the input: days 2 and 7
    assert choose_windows(one.context, 2).tolist() == [2, 7]
    assert choose_windows(one.context, 0).tolist() == list(range(10))
    assert choose_windows(one.context, 10).tolist() == list(range(10))


def test_windows_are_chosen_equally_per_stock_with_shifted_dates(make_windows):
    items, days = ["A", "B"] * 8, np.repeat(np.arange(8), 2)
    context = make_windows([1.0] * 16, [[1.0]] * 16, items=items, days=days).context
    chosen = context.take(choose_windows(context, 4))
    day = (chosen.origin - context.origin[0]) // np.timedelta64(1, "D")
    assert list(zip(chosen.item_id, day.tolist(), strict=True)) == [("A", 1), ("B", 3), ("A", 5), ("B", 7)]


def test_every_stock_keeps_a_window(make_windows):
    context = make_windows([1.0] * 6, [[1.0]] * 6, items=list("AABBCC")).context
    assert set(context.take(choose_windows(context, 2)).item_id) == {"A", "B", "C"}


def test_common_subset_takes_as_many_valid_samples_of_each(make_windows):
    windows = make_windows([100.0] * 3, [[101.0], [102.0], [103.0]])
    nan = np.nan
    full = evaluation_of("full", [[[97], [98], [99]], [[90], [91], [95]], [[99], [103], [104]]], windows)
    holes = evaluation_of("holes", [[[97], [98], [95]], [[nan], [nan], [7]], [[nan], [100], [105]]], windows)
    common, subset = on_common_valid([full, holes], windows)
    assert subset.truth.future[:, 0].tolist() == [101, 103]  # one valid sample is not enough
    expected_full = evaluation_of("full", [[[99], [103]]], windows.take(np.array([2])))
    expected_holes = evaluation_of("holes", [[[100], [105]]], windows.take(np.array([2])))
    np.testing.assert_allclose(common[0].scores.crps[1], expected_full.scores.crps[0])
    np.testing.assert_allclose(common[1].scores.crps[1], expected_holes.scores.crps[0])
    np.testing.assert_allclose(common[1].scores.crps[0], holes.scores.crps[0])
    assert [evaluation.scores.valid.tolist() for evaluation in common] == [[1, 1], [1, 1]]


def test_common_subset_may_be_empty(make_windows):
    windows = make_windows([100.0], [[101.0]])
    silent = evaluation_of("silent", [[[np.nan], [np.nan]]], windows)
    common, subset = on_common_valid([silent], windows)
    assert common == []
    assert len(subset) == 0


def test_rows_hold_what_identifies_a_window_and_its_scores(make_windows):
    windows = make_windows([100.0, 50.0], [[101.0, 103.0], [50.0, 48.0]], items=["A", "B"])
    spread = evaluation_of("spread", [[[100, 102], [102, 104]], [[51, 51], [np.nan, np.nan]]], windows)
    rows = rows_table([spread, spread], windows)
    assert rows["forecaster"].tolist() == ["spread"] * 4
    assert rows["date"].tolist() == ["2020-01-01", "2020-01-02"] * 2
    assert rows["stock"].tolist() == ["A", "B"] * 2
    assert rows["last_close"].tolist() == [100, 50] * 2
    assert rows["realised_close"].tolist() == [103, 48] * 2
    assert rows["valid"].tolist() == [1, 0.5] * 2
    # medians 1 3 against 1 3, and 1 1 against 0 -4
    np.testing.assert_allclose(rows["mae"], [0, 3] * 2, atol=1e-12)
    np.testing.assert_allclose(rows["mse"], [0, (1 + 25) / 2] * 2, atol=1e-12)
