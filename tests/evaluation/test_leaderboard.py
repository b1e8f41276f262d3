from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from grpo.evaluation.bootstrap import bootstrap_interval, ratio
from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import describe_windows, leaderboard, optimum_note, verdict
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.significance import diebold_mariano
from preprocessing.windows import concatenate

NUM_WINDOWS = 60


@pytest.fixture
def windows(make_windows):
    """One step ahead; the truth is a Gaussian move of 2 %."""
    moves = np.random.default_rng(0).standard_normal((NUM_WINDOWS, 1))
    return make_windows([100.0] * NUM_WINDOWS, 100 * np.exp(0.02 * moves))


def shifted(name, windows, shift, *, invalid=0.0):
    """Samples around the truth moved by `shift` percent of the last close: the larger, the worse."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((len(windows), 50, 1))
    samples = windows.truth.future[:, None] + shift + 0.5 * noise
    samples[rng.random(samples.shape[:2]) < invalid] = np.nan
    forecast = Forecast(samples=samples, valid=np.isfinite(samples).all(-1))
    return Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=1.5)


def test_skill_is_the_share_of_the_gap_that_is_closed(windows):
    names_and_shifts = [("bad", 3.0), ("random_walk", 2.0), ("good", 1.0), ("optimum", 0.0)]
    evaluations = [shifted(name, windows, shift) for name, shift in names_and_shifts]
    table = leaderboard(evaluations, windows)
    assert table["forecaster"].tolist() == ["optimum", "good", "random_walk", "bad"]
    rows = table.set_index("forecaster")
    crps = {evaluation.name: evaluation.scores.crps.mean() for evaluation in evaluations}
    gap = crps["random_walk"] - crps["optimum"]
    assert rows.loc["optimum", "skill"] == pytest.approx(1)
    assert rows.loc["random_walk", "skill"] == pytest.approx(0)
    assert rows.loc["good", "skill"] == pytest.approx((crps["random_walk"] - crps["good"]) / gap)
    assert rows.loc["bad", "skill"] < 0
    assert rows["p_value"].isna().to_dict() == {"optimum": True, "good": False, "random_walk": True, "bad": False}
    assert rows.loc["good", "rel_crps"] == pytest.approx(crps["good"] / crps["random_walk"])
    assert rows.loc["good", "rel_mae"] == pytest.approx(rows.loc["good", "mae"] / rows.loc["random_walk", "mae"])


def test_verdict_names_winners_and_losers(windows):
    shifts = [("good", 1.0), ("random_walk", 2.0), ("bad", 3.0), ("worse", 4.0), ("optimum", 0.0)]
    table = leaderboard([shifted(name, windows, shift) for name, shift in shifts], windows)
    assert verdict(table) == (
        "good beats the random walk at 5% (Diebold-Mariano on date-averaged CRPS, Holm over 3 rivals). "
        "bad and worse lose to it."
    )


def test_verdict_counts_the_rivals_that_the_correction_is_over(windows):
    shifts = [("good", 1.0), ("random_walk", 2.0), ("bad", 3.0)]
    same = replace(shifted("random_walk", windows, 2.0), name="same")  # no difference, so no test
    table = leaderboard([*(shifted(name, windows, shift) for name, shift in shifts), same], windows)
    assert verdict(table) == (
        "good beats the random walk at 5% (Diebold-Mariano on date-averaged CRPS, Holm over 2 rivals). "
        "bad loses to it. same could not be tested: too few dates, or no difference at all."
    )
    rows = table.set_index("forecaster")
    assert rows.loc["good", "p_holm"] <= 2 * rows.loc["good", "p_value"]


def test_verdict_without_a_winner(windows):
    pure_noise = shifted("other", windows, 0.0)
    walk = shifted("random_walk", windows, 0.0)
    samples = walk.forecast.samples + 0.01 * np.random.default_rng(2).standard_normal((NUM_WINDOWS, 1, 1))
    forecast = Forecast(samples=samples, valid=walk.forecast.valid)
    other = Evaluation(name="other", forecast=forecast, scores=score_windows(forecast, windows), seconds=0.0)
    sentence = "No forecaster beats the random walk at 5% (Diebold-Mariano on date-averaged CRPS)."
    assert verdict(leaderboard([walk, other], windows)) == sentence
    untested = " other could not be tested: too few dates, or no difference at all."
    assert verdict(leaderboard([walk, pure_noise], windows)) == sentence + untested
    assert verdict(leaderboard([walk], windows)) == "Nothing was compared with the random walk."


def test_a_forecaster_that_answers_nonsense_does_not_win(windows):
    walk = shifted("random_walk", windows, 2.0)
    silent = shifted("silent", windows, 0.0, invalid=2.0)
    huge = Forecast(samples=np.full((NUM_WINDOWS, 2, 1), 1e308), valid=np.ones((NUM_WINDOWS, 2), dtype=bool))
    huge = Evaluation(name="huge", forecast=huge, scores=score_windows(huge, windows), seconds=0.0)
    last_close = Forecast(samples=np.full((NUM_WINDOWS, 2, 1), 100.0), valid=np.ones((NUM_WINDOWS, 2), dtype=bool))
    table = leaderboard([silent, huge, walk], windows).set_index("forecaster")
    assert table.loc["silent", "valid"] == 0
    assert table.loc["silent", "crps"] == pytest.approx(score_windows(last_close, windows).crps.mean())
    assert table.index[-1] == "huge"
    assert np.isinf(table.loc["huge", "crps"])
    assert "huge beat" not in verdict(table.reset_index())
    assert "huge could not be tested" in verdict(table.reset_index())


def test_the_random_walk_must_be_there(windows):
    with pytest.raises(ValueError, match="needs random_walk"):
        leaderboard([shifted("good", windows, 1.0)], windows)


def test_intervals_hold_the_estimate_and_narrow_for_a_sure_difference(windows):
    shifts = [("random_walk", 2.0), ("good", 1.0), ("optimum", 0.0)]
    rows = leaderboard([shifted(name, windows, shift) for name, shift in shifts], windows).set_index("forecaster")
    for name in ("good", "optimum"):
        assert rows.loc[name, "rel_crps_low"] < rows.loc[name, "rel_crps"] < rows.loc[name, "rel_crps_high"] < 1
    assert rows.loc["good", "skill_low"] < rows.loc["good", "skill"] < rows.loc["good", "skill_high"]
    assert np.isnan(rows.loc["random_walk", "rel_crps_low"])
    assert np.isnan(rows.loc["optimum", "skill_low"])


def test_intervals_and_tests_are_those_of_the_modules_on_date_averages(make_windows):
    days = np.repeat(np.arange(40), 2)  # two stocks a day, one step ahead
    moves = np.random.default_rng(3).standard_normal((80, 1))
    windows = make_windows([100.0] * 80, 100 * np.exp(0.02 * moves), items=["A", "B"] * 40, days=days)
    walk, good = shifted("random_walk", windows, 2.0), shifted("good", windows, 1.0)
    row = leaderboard([walk, good], windows).set_index("forecaster").loc["good"]
    crps = [e.scores.crps[:, 0].reshape(40, 2).sum(axis=1) for e in (good, walk)]
    interval = bootstrap_interval(np.stack(crps, axis=1), ratio, horizon=1)
    assert [row["rel_crps_low"], row["rel_crps_high"]] == pytest.approx([interval.low, interval.high])
    test = diebold_mariano((crps[0] - crps[1]) / 2, horizon=1)
    assert row["p_value"] == pytest.approx(test.p_value)
    assert row["num_dates"] == 40


def test_tests_count_the_dates_that_overlap_not_the_steps(make_windows):
    """Origins every ten days, ten days ahead: no overlap, so the test is the one of independent losses."""
    moves = np.random.default_rng(3).standard_normal((30, 10)).cumsum(axis=1)
    windows = make_windows([100.0] * 30, 100 * np.exp(0.01 * moves), days=10 * np.arange(30))
    walk, good = shifted("random_walk", windows, 2.0), shifted("good", windows, 1.0)
    row = leaderboard([walk, good], windows).set_index("forecaster").loc["good"]
    difference = (good.scores.crps - walk.scores.crps).mean(axis=1)
    assert row["p_value"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)


def test_the_confidence_set_keeps_the_best_and_drops_the_hopeless(windows):
    shifts = [("random_walk", 2.0), ("good", 0.5), ("bad", 4.0), ("optimum", 0.0)]
    rows = leaderboard([shifted(name, windows, shift) for name, shift in shifts], windows).set_index("forecaster")
    assert rows["mcs"].to_dict() == {"optimum": None, "good": True, "random_walk": False, "bad": False}


def test_a_mean_that_follows_the_price_adds_to_the_walk_and_times_the_market(windows):
    walk, good = shifted("random_walk", windows, 0.0), shifted("good", windows, 0.5)
    noise = np.random.default_rng(5).standard_normal((NUM_WINDOWS, 50, 1))
    blind = Forecast(samples=100 + noise, valid=np.ones((NUM_WINDOWS, 50), dtype=bool))
    blind = Evaluation(name="blind", forecast=blind, scores=score_windows(blind, windows), seconds=0.0)
    rows = leaderboard([walk, good, blind], windows).set_index("forecaster")
    assert rows.loc["good", ["clark_west_p", "direction_p"]].max() < 1e-3
    assert rows.loc["blind", ["clark_west_p", "direction_p"]].min() > 0.05
    assert rows.loc["random_walk", ["clark_west_p", "direction_p"]].isna().all()


def test_the_text_below_the_table(windows):
    shifts = [("random_walk", 2.0), ("good", 1.0), ("optimum", 0.0)]
    table = leaderboard([shifted(name, windows, shift) for name, shift in shifts], windows)
    compared = "60 windows of A, 60 origins from 2020-01-01 to 2020-02-29, 1 days ahead, 50 samples each."
    assert describe_windows(windows, 50) == compared
    two_seeds = describe_windows(concatenate([windows, windows]), 50, 2)
    assert two_seeds == f"{compared} Means over 2 seeds, ± their standard deviation."
    gap, rows = 1 - table["rel_crps"].min(), table.set_index("forecaster")
    note = optimum_note(table)
    assert note is not None
    assert f"the gap is {gap:.1%} of the random walk's CRPS" in note
    assert note.endswith(f"good has learnt {rows.loc['good', 'skill']:.0%} of what can be learnt.")
    assert optimum_note(table[table["forecaster"] != "optimum"]) is None
