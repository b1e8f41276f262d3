"""Estimates are those of the tables; intervals are those of the bootstrap, which its own tests prove."""

from __future__ import annotations

import numpy as np
import pytest

from grpo.evaluation.bootstrap import bootstrap_interval, ratio, skill
from grpo.evaluation.dates import sum_by_date
from grpo.evaluation.intervals import NUM_RESAMPLES, interval_table
from grpo.evaluation.leaderboard import date_horizon, score_table
from grpo.evaluation.metrics import summarise
from tests.evaluation.test_comparison import compare, windows  # noqa: F401, a fixture


@pytest.fixture
def comparison(windows):  # noqa: F811
    return compare(windows)


@pytest.fixture
def table(comparison):
    return interval_table(comparison).set_index(["scope", "forecaster", "score"]).sort_index()


def test_estimates_are_the_scores_pooled_by_day_and_by_stock(comparison, table):
    parts = {"pooled": comparison, "day 1": comparison.at_step(1), "day 2": comparison.at_step(2)}
    parts |= {stock: comparison.take(comparison.stock == stock) for stock in "AB"}
    assert set(table.index.get_level_values("scope")) == set(parts)
    for scope, part in parts.items():
        for evaluation in part.ranked:
            expected = summarise(evaluation.scores)
            expected.pop("always_up_hit")  # of the prices, not of a forecaster
            found = table.loc[(scope, evaluation.name), "estimate"]
            for score, value in expected.items():
                assert found[score] == pytest.approx(value, nan_ok=True), (scope, score)
        relative = score_table(part.ranked, part.windows).set_index("forecaster")
        for score in ("rel_crps", "rel_mae", "skill"):
            assert table.loc[(scope, "good", score), "estimate"] == pytest.approx(relative.loc["good", score])


def test_intervals_are_those_of_the_bootstrap_over_dates(comparison, table):
    scores = {one.name: one.scores for one in comparison.evaluations}
    dates, horizon = comparison.windows.context.origin, date_horizon(comparison.windows)
    crps = [scores[name].crps.mean(axis=1) for name in ("good", "random_walk", "optimum")]
    cases = {
        "crps": (np.stack([crps[0], np.ones(60)], axis=1), ratio),
        "skill": (np.stack(crps, axis=1), skill),
        "r2": (
            np.stack([scores["good"].squared_error.mean(1), (scores["good"].realised_move ** 2).mean(1)], axis=1),
            lambda means: 1 - means[..., 0] / means[..., 1],
        ),
    }
    for score, (columns, statistic) in cases.items():
        expected = bootstrap_interval(
            sum_by_date(columns, dates), statistic, horizon=horizon, num_resamples=NUM_RESAMPLES
        )
        row = table.loc[("pooled", "good", score)]
        assert row["low"] == pytest.approx(expected.low)
        assert row["high"] == pytest.approx(expected.high)
        assert row["low"] < row["estimate"] < row["high"]
        assert row["num_dates"] == 30


def test_the_walk_and_the_optimum_have_no_score_against_themselves(table):
    assert {"rel_crps", "rel_mae", "skill"}.isdisjoint(table.loc[("pooled", "random_walk")].index)
    assert "skill" not in table.loc[("pooled", "optimum")].index
    assert "rel_crps" in table.loc[("pooled", "optimum")].index


def test_a_score_that_never_varies_has_no_interval(table):
    row = table.loc[("pooled", "good", "valid")]
    assert row["estimate"] == 1
    assert np.isnan(row["low"]) or row["low"] == row["high"] == 1
