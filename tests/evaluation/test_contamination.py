from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from grpo.evaluation.comparison import Comparison, Fold
from grpo.evaluation.contamination import (
    Recital,
    after_cutoff,
    cutoff_table,
    cutoff_warnings,
    probe_warnings,
    recital_row,
    ticker_row,
    training_end,
    training_warnings,
)
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast


@pytest.fixture
def windows(make_windows):
    """Origins on the first 80 days of 2020, two days ahead."""
    moves = np.random.default_rng(0).standard_normal((80, 2)).cumsum(axis=1)
    return make_windows([100.0] * 80, 100 * np.exp(0.02 * moves))


@pytest.fixture
def fold(windows):
    return Fold(1, windows.take(slice(0, 20)), windows.take(slice(25, 30)), windows.take(slice(40, 60)))


def test_the_end_of_training_is_the_last_target_of_train_or_val(fold):
    # day 29 is 2020-01-30, and its second target two days later
    assert training_end(fold) == np.datetime64("2020-02-01")


def test_training_that_reaches_the_test_span_is_named(fold, windows):
    until = {"base": "simulated data", "sft": "unknown", "grpo_1st": "2020-02-10", "grpo_2nd": "2020-02-11"}
    [line] = training_warnings(until, [fold])  # the first test target is day 41, 2020-02-11
    assert "test span, which starts on 2020-02-11: grpo_2nd (2020-02-11)." in line
    assert training_warnings({"grpo_1st": "2020-02-10"}, [fold]) == []
    late = Fold(2, windows.take(slice(0, 45)), windows.take(slice(0, 1)), windows.take(slice(40, 60)))
    [line] = training_warnings({}, [fold, late])
    assert "every plugin of fold 2 (2020-02-16)" in line


def test_windows_with_any_target_up_to_the_cutoff_may_have_been_read(windows):
    # day 0 has targets on days 1 and 2: 2020-01-02 and -03
    assert after_cutoff(windows, "2020-01-02")[:3].tolist() == [False, True, True]
    assert after_cutoff(windows, "2020-01-01")[:3].tolist() == [True, True, True]


def remembering(windows, days_known):
    """A random walk, and a model that knows the truth of the first days and is a random walk after them."""
    noise = np.random.default_rng(1).standard_normal((len(windows), 30, 2)).cumsum(axis=-1)
    walk = 100 * np.exp(0.02 * noise)
    other = 100 * np.exp(0.02 * np.random.default_rng(2).standard_normal(walk.shape).cumsum(axis=-1))
    other[:days_known] = windows.truth.future[:days_known, None] * np.exp(0.2 * 0.02 * noise[:days_known])
    evaluations = []
    for name, samples in (("random_walk", walk), ("base", other)):
        forecast = Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))
        scores = score_windows(forecast, windows)
        evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=0.0))
    numbers = np.zeros(len(windows), dtype=int)
    return Comparison(windows=windows, evaluations=tuple(evaluations), seed=numbers, fold=numbers)


def test_skill_that_ends_at_the_cutoff_is_named(windows):
    cutoff = "2020-02-10"  # day 40
    table = cutoff_table(remembering(windows, 40), cutoff)
    assert table.groupby("targets")["num_windows"].first().to_dict() == {f"after {cutoff}": 40, f"up to {cutoff}": 40}
    [line] = cutoff_warnings(table, ["base"], cutoff)
    assert line.startswith(f"base beats the random walk only on days up to {cutoff}")
    assert cutoff_warnings(table, [], cutoff) == []


def test_skill_on_both_sides_or_on_none_is_no_warning(windows):
    for days_known in (80, 0):
        table = cutoff_table(remembering(windows, days_known), "2020-02-10")
        assert cutoff_warnings(table, ["base"], "2020-02-10") == []


def test_a_cutoff_after_all_windows_is_said(windows):
    table = cutoff_table(remembering(windows, 0), "2021-01-01")
    [line] = cutoff_warnings(table, ["base"], "2021-01-01")
    assert line.startswith("Every test window lies before 2021-01-01")
    assert cutoff_warnings(cutoff_table(remembering(windows, 0), "2019-01-01"), ["base"], "2019-01-01") == []


def test_a_recital_is_tested_on_means_per_date():
    dates = np.repeat(np.arange(4), 2)
    preference = np.array([0.1, 0.3, 0.2, 0.4, 0.5, -0.1, 0.3, 0.3])
    row = recital_row("base", "test", Recital(exact=np.arange(8) < 2, preference=preference), dates)
    by_date = np.array([0.2, 0.3, 0.2, 0.3])
    statistic = by_date.mean() / (by_date.std(ddof=1) / 2)
    assert row["p_value"] == pytest.approx(stats.t.sf(statistic, 3))
    assert (row["found"], row["preference"], row["windows"]) == (0.25, pytest.approx(0.25), 8)


def test_a_name_is_guessed_after_its_own_mean_is_taken_off():
    truth = np.array([0, 1, 0, 1])
    log_probs = np.array([[-1.0, -9.0], [-2.0, -8.0], [-1.1, -9.1], [-2.1, -8.1]])  # stock 0 is likely after anything
    row = ticker_row("base", log_probs, truth)
    assert (row["found"], row["by chance"]) == (1.0, 0.5)
    assert row["p_value"] == pytest.approx(1 / 16)
    assert ticker_row("base", log_probs[::-1], truth)["found"] == 0


def test_chance_is_naming_the_most_frequent_stock():
    row = ticker_row("base", np.zeros((4, 3)), np.array([2, 2, 2, 0]))
    assert row["by chance"] == 0.75


def test_probes_warn_at_a_level_for_all_of_them():
    rows = [{"forecaster": "base", "probe": f"probe {i}", "p_value": p} for i, p in enumerate((0.02, 0.001, np.nan))]
    [line] = probe_warnings(pd.DataFrame(rows))
    assert line.startswith("base knows more than it is shown (probe 1: p = 0.001)")
