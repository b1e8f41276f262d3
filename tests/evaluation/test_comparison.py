from __future__ import annotations

import numpy as np
import pytest

from grpo.evaluation.comparison import (
    Comparison,
    Fold,
    limit_windows,
    pooled_table,
    table_by,
    table_by_step,
    tally_table,
)
from grpo.evaluation.harness import Evaluation, evaluate
from grpo.evaluation.leaderboard import leaderboard, score_table
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.protocol import Forecast, concatenate_forecasts
from grpo.evaluation.significance import diebold_mariano, holm
from preprocessing.windows import concatenate
from tests.evaluation.noise import NoiseAround

SHIFTS = {"random_walk": 2.0, "good": 1.0, "optimum": 0.0}


@pytest.fixture
def windows(make_windows):
    """Two stocks on 30 days each, two steps ahead."""
    moves = np.random.default_rng(0).standard_normal((60, 2)).cumsum(axis=1)
    days = np.repeat(np.arange(30), 2)
    return make_windows([100.0] * 60, 100 * np.exp(0.02 * moves), items=["A", "B"] * 30, days=days)


def compare(windows, seeds=(0,), known=None) -> Comparison:
    """Every forecaster of SHIFTS with every seed; the optimum answers the `known` windows alone."""
    repeated = concatenate([windows] * len(seeds))
    evaluations = []
    for name, shift in SHIFTS.items():
        forecaster = NoiseAround(name, windows, shift)
        parts = [evaluate(forecaster, windows, num_samples=10, seed=seed).forecast for seed in seeds]
        forecast = concatenate_forecasts(parts)
        if name == "optimum" and known is not None:
            samples = np.where(known[:, None, None], forecast.samples, np.nan)
            forecast = Forecast(samples=samples, valid=np.isfinite(samples).all(-1))
        scores = score_windows(forecast, repeated)
        evaluations.append(Evaluation(name=name, forecast=forecast, scores=scores, seconds=0.0))
    return Comparison(
        windows=repeated,
        evaluations=tuple(evaluations),
        seed=np.repeat(seeds, len(windows)),
        fold=np.tile(np.repeat([1, 2], len(windows) // 2), len(seeds)),
    )


def test_several_seeds_give_means_and_their_spread(windows):
    seeds = (3, 4, 5)
    table = pooled_table(compare(windows, seeds)).set_index("forecaster")
    single = [pooled_table(compare(windows, (seed,))).set_index("forecaster") for seed in seeds]
    crps = np.array([one.loc["good", "crps"] for one in single])
    assert table.loc["good", "crps"] == pytest.approx(crps.mean())
    for column in ("rel_crps", "skill"):
        values = np.array([one.loc["good", column] for one in single])
        assert table.loc["good", f"{column}_sd"] == pytest.approx(values.std(ddof=1))
        assert np.isnan(table.loc["random_walk", f"{column}_sd"])
    assert table.loc["good", "num_windows"] == len(windows)
    assert "rel_crps_sd" not in single[0]


def test_the_test_sees_the_loss_averaged_over_seeds_and_stocks(windows):
    comparison = compare(windows, (3, 4))
    good, walk = comparison.evaluations[1], comparison.evaluations[0]
    difference = (good.scores.crps - walk.scores.crps).mean(axis=1).reshape(2, 30, 2).mean(axis=(0, 2))  # [date]
    row = pooled_table(comparison).set_index("forecaster").loc["good"]
    test = diebold_mariano(difference, horizon=2)
    assert (row["num_dates"], row["p_value"]) == (30, pytest.approx(test.p_value))


def test_a_table_per_stock_is_the_table_of_its_windows(windows):
    comparison = compare(windows)
    table = table_by(comparison, "stock", comparison.stock)
    assert table["stock"].tolist() == ["A"] * 3 + ["B"] * 3
    for stock in "AB":
        rows = np.array(windows.context.item_id) == stock
        alone = score_table([evaluation.take(rows) for evaluation in comparison.evaluations], windows.take(rows))
        part = table[table["stock"] == stock].reset_index()
        assert part["forecaster"].tolist() == alone["forecaster"].tolist()
        np.testing.assert_allclose(part[["crps", "skill", "p_value"]], alone[["crps", "skill", "p_value"]])
        assert set(part["num_windows"]) == {30}
        assert (part["first"][0], part["last"][0]) == ("2020-01-01", "2020-01-30")
    good = table[table["forecaster"] == "good"]
    np.testing.assert_allclose(good["p_holm"], holm(good["p_value"].tolist()))
    assert good["p_holm"].max() <= 2 * good["p_value"].max()


def test_folds_with_several_seeds_count_each_window_once(windows):
    comparison = compare(windows, (3, 4))
    table = table_by(comparison, "fold", comparison.fold)
    assert set(table["num_windows"]) == {30}
    first = comparison.take(comparison.fold == 1)
    assert first.num_windows == 30
    assert set(first.windows.context.origin) == set(windows.context.origin[:30])


def test_the_optimum_ranks_only_where_it_is_known(windows):
    comparison = compare(windows, known=np.array(windows.context.item_id) == "A")
    assert set(pooled_table(comparison)["forecaster"]) == {"random_walk", "good"}
    table = table_by(comparison, "stock", comparison.stock).set_index(["stock", "forecaster"])
    assert table.loc[("A", "optimum"), "skill"] == pytest.approx(1)
    assert 0 < table.loc[("A", "good"), "skill"] < 1
    assert ("B", "optimum") not in table.index
    assert np.isnan(table.loc[("B", "good"), "skill"])


def test_each_day_ahead_has_its_own_optimum_and_skill(windows):
    comparison = compare(windows)
    table = table_by_step(comparison).set_index(["step", "forecaster"])
    for step in (1, 2):
        crps = {e.name: e.scores.crps[:, step - 1].mean() for e in comparison.evaluations}
        assert table.loc[(step, "good"), "rel_crps"] == pytest.approx(crps["good"] / crps["random_walk"])
        gap = crps["random_walk"] - crps["optimum"]
        assert table.loc[(step, "good"), "skill"] == pytest.approx((crps["random_walk"] - crps["good"]) / gap)


def test_a_tally_counts_stocks(windows):
    comparison = compare(windows)
    tally = tally_table(table_by(comparison, "stock", comparison.stock))
    by_stock = [
        leaderboard([e.take(rows) for e in comparison.evaluations], windows.take(rows))
        .set_index("forecaster")
        .loc["good", "rel_crps"]
        for rows in (comparison.stock == "A", comparison.stock == "B")
    ]
    [row] = tally.to_dict("records")
    assert row["forecaster"] == "good"
    assert (row["tested"], row["better"], row["significantly better"], row["significantly worse"]) == (2, 2, 2, 0)
    assert [row["smallest"], row["largest"]] == pytest.approx(sorted(by_stock))
    assert row["median rel. CRPS"] == pytest.approx(np.mean(by_stock))


def test_windows_are_limited_over_all_folds_together(windows):
    halves = [Fold(n, windows, windows, windows.take(rows)) for n, rows in enumerate((slice(0, 40), slice(40, 60)), 1)]
    limited = limit_windows(halves, 12)
    assert [len(fold.test) for fold in limited] == [8, 4]
    assert sum(len(fold.test) for fold in limit_windows(halves, 0)) == 60
    chosen = np.concatenate([fold.test.context.origin for fold in limited])
    assert len(np.unique(chosen)) == 12  # the stocks' grids are shifted against each other


def test_the_training_hash_of_a_fold_sees_train_and_val(windows):
    one, other = windows.take(slice(0, 20)), windows.take(slice(20, 40))
    hashes = {Fold(1, *parts, windows).training_hash for parts in ((one, other), (other, one), (one, one))}
    assert len(hashes) == 3
    assert Fold(2, one, other, one).training_hash == Fold(1, one, other, windows).training_hash
