"""The optimum samples each window from the law of its own stock, and says when there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from grpo.evaluation.metrics import score_windows
from grpo.evaluation.optimum import Optimum
from preprocessing.combined_preprocessor import make_windows
from preprocessing.config import DataConfig
from preprocessing.laws import LAWS, conditional_law
from preprocessing.scaling import StandardNorm
from preprocessing.simulation import PROCESSES, parse_simulated_stock
from preprocessing.windows import WindowSet, concatenate


def simulated(name: str, *, stride: int = 10, horizon: int = 5, start: int = 0) -> WindowSet:
    bars = parse_simulated_stock(name).bars().iloc[start:]
    config = DataConfig(horizon=horizon, stride=stride)
    return make_windows(name, bars, config, StandardNorm.fit(bars["close"].to_numpy()))


CALM, WILD = "sim:ou?rows=200&sigma=0.01", "sim:regime?rows=200&sigma=0.03&seed=1"


def test_samples_follow_each_stocks_own_law():
    windows = concatenate([simulated(CALM), simulated(WILD)])
    rows = [0, 20, 3]  # calm, wild, calm
    chosen = windows.take(np.array(rows)).context
    assert chosen.item_id == (CALM, WILD, CALM)
    samples = np.log(Optimum().predict(chosen, horizon=5, num_samples=20_000, seed=0).samples)
    for window, item in enumerate(chosen.item_id):
        stock = parse_simulated_stock(item)
        law = conditional_law(stock, stock.rows_of(chosen.origin[[window]]), 5)
        assert law is not None
        sd = samples[window].std(axis=0)
        # four standard errors of 20,000 draws
        assert (np.abs(samples[window].mean(axis=0) - law.mean[0]) < 4 * sd / np.sqrt(20_000)).all()
        for probability in (0.1, 0.9):
            below = (samples[window] < law.quantile(probability)[0]).mean(axis=0)
            assert np.abs(below - probability).max() < 4 * 0.3 / np.sqrt(20_000)


def test_a_window_is_sampled_alike_in_any_company():
    context = concatenate([simulated(CALM), simulated(WILD)]).context
    chosen = np.array([14, 3, 20])
    together = Optimum().predict(context.take(chosen), horizon=2, num_samples=5, seed=3).samples
    again = Optimum().predict(context.take(chosen[::-1]), horizon=2, num_samples=5, seed=3).samples
    np.testing.assert_array_equal(again, together[::-1])
    other_seed = Optimum().predict(context.take(chosen), horizon=2, num_samples=5, seed=4).samples
    assert (other_seed != together).all()


@pytest.mark.parametrize("process", PROCESSES)
def test_the_optimum_is_known_where_prices_determine_the_law(process):
    windows = simulated(f"sim:{process}?rows=150")
    assert Optimum.knows(windows.context) == (process in LAWS)
    assert (process in LAWS) == (process not in ("stochvol", "heston"))


def test_the_optimum_is_known_only_if_every_law_is():
    calm, hidden = simulated(CALM), simulated("sim:stochvol?rows=150")
    assert Optimum.knows(calm.context)
    assert not Optimum.knows(concatenate([calm, hidden]).context)
    real = dataclasses.replace(calm.context, item_id=("AAPL",) * len(calm))
    assert not Optimum.knows(real)


def test_prices_of_another_stock_under_its_name_are_not_taken_for_it():
    context = simulated(CALM).context
    scaled = dataclasses.replace(context, past=context.past * 1.001)
    later = dataclasses.replace(context, origin=context.origin + np.timedelta64(7, "D"))
    beyond = dataclasses.replace(context, origin=context.origin + np.timedelta64(7000, "D"))
    # a day that the stock does not have, at the price of its last
    last = parse_simulated_stock(CALM).bars()["close"].iloc[-1]
    at_last_price = dataclasses.replace(beyond, past=beyond.past * (last / beyond.last_price)[:, None, None])
    for wrong in (scaled, later, beyond, at_last_price):
        assert not Optimum.knows(wrong)
        assert not Optimum().predict(wrong, horizon=1, num_samples=2, seed=0).valid.any()


def test_a_stock_that_is_used_from_a_later_day_on_is_still_known():
    """The law is that given the whole past, also what lies before the first day used."""
    whole, later = simulated(WILD), simulated(WILD, start=20)
    assert Optimum.knows(later.context)
    first = Optimum().predict(whole.context.take(np.array([2])), horizon=3, num_samples=4, seed=0).samples
    assert whole.context.origin[2] == later.context.origin[0]
    again = Optimum().predict(later.context.take(np.array([0])), horizon=3, num_samples=4, seed=0).samples
    np.testing.assert_array_equal(first, again)


def test_it_answers_the_windows_whose_law_is_known_as_if_there_were_no_others():
    calm, hidden = simulated(CALM), simulated("sim:heston?rows=150")
    both = concatenate([hidden, calm]).context
    known = Optimum.known(both)
    assert known.tolist() == [False] * len(hidden) + [True] * len(calm)
    forecast = Optimum().predict(both, horizon=2, num_samples=3, seed=0)
    assert (forecast.valid == known[:, None]).all()
    alone = Optimum().predict(calm.context, horizon=2, num_samples=3, seed=0)
    np.testing.assert_array_equal(forecast.samples[known], alone.samples)


@pytest.mark.parametrize("process", ["ou", "jump", "regime"])
def test_its_score_is_the_best_that_the_law_allows(process):
    """CRPS in percent of the last close, of prices, beside 100 times that of log prices: equal to first order."""
    name = f"sim:{process}?rows=20000&sigma=0.002"
    windows = simulated(name, stride=7, horizon=5)
    stock = parse_simulated_stock(name)
    law = conditional_law(stock, stock.rows_of(windows.context.origin), 5)
    assert law is not None
    forecast = Optimum().predict(windows.context, horizon=5, num_samples=100, seed=0)
    crps = score_windows(forecast, windows).crps
    error = 4 * crps.std(axis=0) / np.sqrt(len(windows))
    assert (np.abs(crps.mean(axis=0) - 100 * law.best_crps.mean(axis=0)) < error).all()
