from __future__ import annotations

import numpy as np
import pytest

from grpo.evaluation.harness import Evaluation
from grpo.evaluation.leaderboard import (
    describe_windows,
    explain_columns,
    leaderboard,
    to_markdown,
    verdict,
)
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast

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
        "good beats the random walk at 5% (Diebold-Mariano on date-averaged CRPS, Holm over 3 forecasters). "
        "bad and worse lose to it."
    )


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


def test_markdown_table(windows):
    evaluations = [shifted("random_walk", windows, 2.0), shifted("good", windows, 1.0, invalid=0.25)]
    table = leaderboard(evaluations, windows)
    header, rule, good, walk = to_markdown(table).splitlines()
    assert len({len(line) for line in (header, rule, good, walk)}) == 1
    cells = [cell.strip() for cell in header.strip("|").split("|")]
    assert cells[:3] == ["forecaster", "rel. CRPS", "p"]  # no optimum: no column of skill
    row = dict(zip(cells, (cell.strip() for cell in good.strip("|").split("|")), strict=True))
    summary = table.set_index("forecaster").loc["good"]
    assert row["rel. CRPS"] == f"{summary['rel_crps']:.3f}"
    assert row["valid"] == f"{summary['valid']:.3f}" != "1.000"
    assert row["direction (always up)"].endswith(f"({(windows.truth.future > 100).mean():.2f})")
    assert dict(zip(cells, (cell.strip() for cell in walk.strip("|").split("|")), strict=True))["p"] == ""


def test_the_text_below_the_table(windows):
    table = leaderboard([shifted("random_walk", windows, 2.0), shifted("optimum", windows, 0.0)], windows)
    compared = "60 windows of A, 60 origins from 2020-01-01 to 2020-02-29, 1 days ahead, 50 samples each."
    assert describe_windows(windows, 50) == compared
    gap = 1 - table["rel_crps"].min()
    assert f"the gap is {gap:.1%} of the random walk's CRPS" in explain_columns(table)
    assert "skill" not in explain_columns(table[table["forecaster"] == "random_walk"])
