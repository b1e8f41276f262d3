from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from grpo.evaluation.comparison import Comparison
from grpo.evaluation.harness import Evaluation, evaluate
from grpo.evaluation.metrics import score_windows
from grpo.evaluation.optimum import Optimum
from grpo.evaluation.placebo import (
    PlaceboError,
    draw_future,
    exact_law_table,
    exchange,
    gbm_windows,
    placebo_table,
    placebo_warnings,
    rank_table,
    with_future,
)
from grpo.evaluation.protocol import Forecast
from preprocessing.config import DataConfig
from preprocessing.windows import FEATURES, WindowSet
from tests.windows_factory import simulated_windows

PLANTED = FEATURES.index("trend")


class Walk:
    """A Gaussian random walk of the window's volatility, moved by `centre(context)` log return per day."""

    def __init__(self, name, centre=None):
        self.name, self.centre = name, centre

    def predict(self, context, *, horizon, num_samples, seed):
        rng = np.random.default_rng([seed, len(self.name)])
        steps = context.feature("volatility")[:, None, None] * rng.standard_normal((len(context), num_samples, horizon))
        if self.centre is not None:
            steps += self.centre(context)[:, None, None]
        samples = context.last_price[:, None, None] * np.exp(steps.cumsum(-1))
        return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool))

    def save(self, path): ...


HONEST = Walk("reverting", lambda context: 0.07 * np.log(100 / context.last_price))
PEEKING = Walk("peeking", lambda context: context.features[:, PLANTED])


def plant(windows: WindowSet) -> WindowSet:
    """The windows with half of the log return to come, per day, in a feature."""
    features = windows.context.features.copy()
    features[:, PLANTED] = 0.5 * np.log(windows.truth.future[:, -1] / windows.context.last_price) / windows.horizon
    return replace(windows, context=replace(windows.context, features=features))


def compare(windows: WindowSet, *forecasters, num_samples=20) -> Comparison:
    evaluations = [evaluate(one, windows, num_samples=num_samples, seed=1) for one in forecasters]
    numbers = np.zeros(len(windows), dtype=int)
    return Comparison(windows=windows, evaluations=tuple(evaluations), seed=numbers, fold=numbers)


@pytest.fixture(scope="module")
def test_windows() -> WindowSet:
    """A stock that truly reverts, so that honest skill is there to be lost."""
    return simulated_windows("sim:ou?rows=900&seed=4&half_life=4")["test"]


@pytest.fixture
def two_stocks(make_windows) -> WindowSet:
    """Origins on 12 days, three days ahead; both stocks every day."""
    steps = np.random.default_rng(0).standard_normal((24, 3))
    last = np.repeat([100.0, 7.0], 12)
    days = np.tile(np.arange(12), 2)
    return make_windows(last, last[:, None] * np.exp(0.02 * steps.cumsum(1)), ["A"] * 12 + ["B"] * 12, days)


def test_an_exchange_stays_within_the_stock_and_shares_no_day(two_stocks):
    seen = set()
    for seed in range(200):
        partner = exchange(two_stocks, np.random.default_rng(seed))
        assert sorted(partner) == list(range(24))
        assert (partner // 12 == np.arange(24) // 12).all()
        assert (np.abs(partner % 12 - np.arange(24) % 12) >= 3).all()
        seen.add(tuple(partner))
    assert len(seen) == 200


def test_windows_that_all_overlap_cannot_be_exchanged(make_windows):
    windows = make_windows([100.0] * 3, [[101.0] * 5] * 3)
    with pytest.raises(PlaceboError, match="the 3 windows of A lie too close together"):
        exchange(windows, np.random.default_rng(0))


def test_a_shuffled_future_is_the_return_path_of_another_window(two_stocks):
    partner = exchange(two_stocks, np.random.default_rng((7, 0)))
    drawn = draw_future("shuffle", two_stocks, (7, 0))
    last, future = two_stocks.context.last_price, two_stocks.truth.future
    for row in range(24):
        np.testing.assert_allclose(drawn[row], last[row] * future[partner[row]] / last[partner[row]])


def test_flipped_returns_keep_their_size_and_share_one_sign_per_date(two_stocks):
    drawn = draw_future("sign_flip", two_stocks, (7, 0))
    last = np.log(two_stocks.context.last_price)[:, None]
    before = np.diff(np.log(two_stocks.truth.future), axis=1, prepend=last)
    after = np.diff(np.log(drawn), axis=1, prepend=last)
    np.testing.assert_allclose(np.abs(after), np.abs(before))
    ratio = (after / before).round(9)
    by_date = {day: set(ratio[two_stocks.truth.dates == day]) for day in np.unique(two_stocks.truth.dates)}
    assert all(len(signs) == 1 for signs in by_date.values())
    assert {-1.0, 1.0} == set().union(*by_date.values())


@pytest.mark.parametrize("kind", ["shuffle", "sign_flip"])
def test_who_knows_the_draw_is_caught_and_honest_skill_is_not(kind, test_windows):
    """`reverting` has real skill on these windows, and none on the placebo; `peeking` was told the draw."""
    real = compare(test_windows, Walk("random_walk"), HONEST)
    crps = [evaluation.scores.crps.mean() for evaluation in real.evaluations]
    assert crps[1] < 0.97 * crps[0]
    drawn = plant(with_future(test_windows, draw_future(kind, test_windows, (3, 0))))
    comparison = compare(drawn, Walk("random_walk"), HONEST, PEEKING)
    table = placebo_table([rank_table(kind, comparison, test_windows, 3, num_draws=99)])
    rows = table.set_index("forecaster")
    assert rows.loc["peeking", "p_value"] == 1 / 100
    assert rows.loc["peeking", "rel_crps"] < 0.9
    assert rows.loc["reverting", "p_value"] > 0.05
    assert rows["p_holm"].to_dict() == {"reverting": rows.loc["reverting", "p_value"], "peeking": 0.02}
    [line] = placebo_warnings(table)
    assert line.startswith(f"peeking (p = 0.02) shows skill on the placebo {kind}, which holds nothing to learn")


@pytest.mark.parametrize("kind", ["shuffle", "sign_flip"])
def test_an_honest_forecaster_is_accused_at_the_nominal_rate(kind, test_windows):
    windows = test_windows.take(np.arange(0, len(test_windows), 4))
    p_values = []
    for seed in range(200):
        drawn = with_future(windows, draw_future(kind, windows, (seed, 0)))
        comparison = compare(drawn, Walk("random_walk"), HONEST, num_samples=5)
        p_values.append(rank_table(kind, comparison, windows, seed, num_draws=19)["p_value"][0])
    counts = np.bincount(np.rint(20 * np.array(p_values)).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3  # uniform on 1/20, 2/20, .. 1
    assert stats.binomtest(int(counts[0]), 200, 0.05).pvalue > 1e-3


def test_random_walks_take_the_place_of_the_stocks(test_windows):
    full = simulated_windows("sim:ou?rows=900&seed=4&half_life=4")
    config = DataConfig()
    splits = gbm_windows(full["full"], full["train"], config, seed=5)
    assert len(splits["full"]) == len(full["full"])
    [name] = set(splits["test"].context.item_id)
    assert name.startswith("sim:gbm?sigma=")
    moves = np.log(full["train"].truth.future[:, 0] / full["train"].context.last_price)
    assert f"sigma={np.sqrt((moves**2).mean()):.6f}&" in name
    assert Optimum.knows(splits["test"].context)
    other = gbm_windows(full["full"], full["train"], config, seed=6)
    assert set(other["test"].context.item_id) != {name}


def test_a_feature_that_looks_ahead_is_caught_on_random_walks_and_honest_ones_are_not():
    full = simulated_windows("sim:ou?rows=900&seed=4&half_life=4")
    test = plant(gbm_windows(full["full"], full["train"], DataConfig(), seed=5)["test"])
    comparison = compare(test, Walk("random_walk"), HONEST, PEEKING, Optimum())
    table = placebo_table([exact_law_table(comparison)]).set_index("forecaster")
    assert set(table.index) == {"random_walk", "reverting", "peeking"}
    assert table.loc["peeking", "p_holm"] < 0.001
    assert table.loc["peeking", "rel_crps"] < 0.9
    assert table.loc["reverting", "rel_crps"] > 1
    assert table.loc[["random_walk", "reverting"], "p_holm"].min() > 0.05
    [line] = placebo_warnings(table.reset_index())
    assert line.startswith("peeking (p = ")


def test_the_exact_law_is_beaten_at_the_nominal_rate_at_most():
    """The worst honest case is the exact law itself with other random numbers: the test is then exact at best."""
    full = simulated_windows("sim:ou?rows=600&seed=4")
    p_values = []
    for seed in range(60):
        test = gbm_windows(full["full"], full["train"], DataConfig(), seed=seed)["test"]
        test = test.take(np.arange(0, len(test), 10))
        law = evaluate(Optimum(), test, num_samples=20, seed=1)
        again = replace(evaluate(Optimum(), test, num_samples=20, seed=2), name="random_walk")
        numbers = np.zeros(len(test), dtype=int)
        comparison = Comparison(windows=test, evaluations=(law, again), seed=numbers, fold=numbers)
        p_values.append(exact_law_table(comparison)["p_value"][0])
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_p_values_are_adjusted_for_all_placebos_together():
    parts = [pd.DataFrame({"placebo": [kind], "p_value": [p]}) for kind, p in (("shuffle", 0.02), ("gbm", 0.5))]
    assert placebo_table(parts)["p_holm"].tolist() == [0.04, 0.5]


def test_no_skill_no_warning():
    rows = [
        {"placebo": "gbm", "forecaster": "fhs", "p_holm": 0.2},
        {"placebo": "shuffle", "forecaster": "fhs", "p_holm": 1.0},
    ]
    assert placebo_warnings(pd.DataFrame(rows)) == []


def test_an_invalid_answer_counts_as_the_last_close(test_windows):
    windows = test_windows.take(np.arange(0, len(test_windows), 8))
    walk = evaluate(Walk("random_walk"), windows, num_samples=4, seed=1)
    silent = Forecast(
        samples=np.full_like(walk.forecast.samples, np.nan), valid=np.zeros((len(windows), 4), dtype=bool)
    )
    still = np.broadcast_to(windows.context.last_price[:, None, None], walk.forecast.samples.shape)
    still = Forecast(samples=still, valid=np.ones((len(windows), 4), dtype=bool))
    evaluations = [
        Evaluation(name=name, forecast=forecast, scores=score_windows(forecast, windows), seconds=0.0)
        for name, forecast in (("silent", silent), ("still", still))
    ]
    numbers = np.zeros(len(windows), dtype=int)
    comparison = Comparison(windows=windows, evaluations=(walk, *evaluations), seed=numbers, fold=numbers)
    table = rank_table("sign_flip", comparison, windows, 0, num_draws=19)
    assert table["p_value"][0] == table["p_value"][1]
