from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from grpo.evaluation.harness import choose_windows
from grpo.evaluation.trading import (
    Performance,
    TradingRule,
    deflated_sharpe,
    expected_best_sharpe,
    measure,
    probabilistic_sharpe,
    trade,
)
from preprocessing.config import DataConfig
from preprocessing.market_data import load_stocks
from preprocessing.stock_windows import split_windows

FREE = TradingRule(cost=0.0)


@pytest.fixture
def with_opens(make_windows):
    """Windows two days ahead from their next opens and last closes of day 2."""

    def build(opens, exits, **where):
        future = np.stack([np.full(len(opens), 77.0), np.asarray(exits, dtype=float)], axis=1)
        windows = make_windows([100.0] * len(opens), future, **where)
        return replace(windows, truth=replace(windows.truth, next_open=np.asarray(opens, dtype=float)))

    return build


def test_long_and_short_by_hand(with_opens):
    windows = with_opens([100.0, 80.0], [110.0, 60.0], days=[0, 2])
    moves, rule = np.array([1.0, -1.0]), TradingRule(cost=0.01)
    # long: +10 % - 1 % (1 + 1.1); short: +25 % - 1 % (1 + .75)
    np.testing.assert_allclose(trade(moves, windows, rule).returns, [0.079, 0])
    both = trade(moves, windows, replace(rule, short=True))
    np.testing.assert_allclose(both.returns, [0.079, 0.2325])
    assert (both.num_trades, both.hit_rate, both.fill) == (2, 1.0, "next open")
    assert both.strategy.turnover == pytest.approx((2.1 + 1.75) / (4 / 365.25))
    # one stock bought at 100: worth 1.1 - .01 after two days, .6 - .01 - .006 at the end
    np.testing.assert_allclose(both.hold_returns, [0.09, 0.584 / 1.09 - 1])
    assert both.hold.turnover == pytest.approx(1.6 / (4 / 365.25))


def test_stocks_of_a_date_share_the_money(with_opens):
    windows = with_opens([100.0, 50.0, 10.0], [120.0, 45.0, 10.0], items=["A", "B", "C"], days=[0, 0, 0])
    # A +20 %, B -10 % and C without a signal: a third each
    backtest = trade(np.array([2.0, 3.0, 0.0]), windows, FREE)
    np.testing.assert_allclose(backtest.returns, [0.1 / 3])
    np.testing.assert_allclose(backtest.trade_returns, [0.2, -0.1])
    np.testing.assert_allclose(backtest.hold_returns, [0.1 / 3])
    assert backtest.hit_rate == 0.5


def test_periods_do_not_overlap(with_opens):
    # origins on days 0, 1, 2, 5, 6, 7, two days ahead: 0, 2, 5 and 7 begin when the one before has ended
    windows = with_opens([100.0] * 6, [101.0, 150.0, 102.0, 103.0, 150.0, 104.0], days=[0, 1, 2, 5, 6, 7])
    backtest = trade(np.ones(6), windows, FREE)
    np.testing.assert_allclose(backtest.returns, [0.01, 0.02, 0.03, 0.04])
    assert ((backtest.origins - backtest.origins[0]) / np.timedelta64(1, "D")).tolist() == [0, 2, 5, 7]
    assert (backtest.exits[:-1] <= backtest.origins[1:]).all()
    assert backtest.strategy.periods_per_year == pytest.approx(4 / (9 / 365.25))
    # held from day 1 to day 9 the stock went from 100 to 104
    assert np.prod(1 + backtest.hold_returns) == pytest.approx(1.04)


def test_buy_and_hold_waits_for_a_stock_and_keeps_its_last_price(with_opens):
    windows = with_opens(
        [100.0, 110.0, 50.0, 60.0], [110.0, 120.0, 60.0, 30.0], items=["A", "A", "B", "B"], days=[0, 2, 2, 4]
    )
    backtest = trade(np.ones(4), windows, FREE)
    # A 1.1, 1.2, 1.2 and B 1, 1.2, .6 of the half that each got
    np.testing.assert_allclose(np.cumprod(1 + backtest.hold_returns), [1.05, 1.2, 0.9])


def test_buy_and_hold_is_invested_between_drawn_windows(with_opens):
    # A opens at 50 on day 1 and doubles by day 6; B opens at 10 and falls to 8; each was drawn once, two days ahead
    market = with_opens(
        [50.0, 60.0, 75.0, 10.0, 12.0, 9.0],
        [60.0, 75.0, 100.0, 12.0, 9.0, 8.0],
        items=["A"] * 3 + ["B"] * 3,
        days=[0, 2, 4, 0, 2, 4],
    )
    drawn = market.take(np.array([0, 5]))
    backtest = trade(np.ones(2), drawn, FREE, market)
    # exits on days 2 and 6: A 60/50 and 100/50, B 12/10 and 8/10 of the half that each got
    np.testing.assert_allclose(np.cumprod(1 + backtest.hold_returns), [1.2, 1.4])
    np.testing.assert_allclose(backtest.returns, [0.2, 8 / 9 - 1])
    with_costs = trade(np.ones(2), drawn, TradingRule(cost=0.01), market)
    np.testing.assert_allclose(np.cumprod(1 + with_costs.hold_returns), [1.19, 1.4 - 0.01 - 0.01 * 1.4])
    assert with_costs.hold.turnover == pytest.approx((1 + 1.4) / (6 / 365.25))


def test_buy_and_hold_of_a_drawn_comparison_earns_what_equal_money_did(stocknet):
    config = DataConfig(data_dir=stocknet)
    bars, _ = load_stocks("all", config)
    market = split_windows(bars, config)[0]["test"]
    drawn = market.take(choose_windows(market.context, 340))
    backtest = trade(np.zeros(len(drawn)), drawn, FREE, market)
    first, last = backtest.origins[0], backtest.exits[-1]
    growth = [own["close"].asof(last) / own["open"].loc[own.index > first].iloc[0] for own in bars.values()]
    assert len(growth) == 68
    np.testing.assert_allclose(np.prod(1 + backtest.hold_returns), np.mean(growth))


def test_always_long_for_one_period_is_buy_and_hold(with_opens):
    windows = with_opens([100.0, 50.0], [90.0, 61.0], items=["A", "B"], days=[0, 0])
    backtest = trade(np.ones(2), windows, TradingRule(cost=0.002))
    np.testing.assert_allclose(backtest.returns, backtest.hold_returns)
    assert backtest.strategy.turnover == pytest.approx(backtest.hold.turnover)


def test_without_opens_the_first_target_close_is_the_entry(make_windows):
    windows = make_windows([100.0], [[105.0, 126.0]])
    backtest = trade(np.ones(1), windows, FREE)
    np.testing.assert_allclose(backtest.returns, [0.2])
    assert backtest.fill == "first close"
    with pytest.raises(ValueError, match="one day ahead needs next_open"):
        trade(np.ones(1), make_windows([100.0], [[105.0]]), FREE)


def test_a_move_at_the_threshold_is_not_traded(with_opens):
    windows = with_opens([100.0] * 4, [110.0] * 4, items=list("ABCD"), days=[0] * 4)
    rule = TradingRule(cost=0.0, threshold=1.0, short=True)
    np.testing.assert_allclose(trade(np.array([1.0, 1.1, -1.0, -1.1]), windows, rule).trade_returns, [0.1, -0.1])
    with pytest.raises(ValueError, match="threshold must not be negative"):
        TradingRule(threshold=-1.0)


def test_a_short_cannot_lose_more_than_everything(with_opens):
    windows = with_opens([100.0, 100.0], [350.0, 90.0], days=[0, 2])
    backtest = trade(np.array([-1.0, 1.0]), windows, TradingRule(cost=0.0, short=True))
    np.testing.assert_allclose(backtest.returns, [-1, -0.1])
    assert (backtest.strategy.max_drawdown, backtest.strategy.annual_return) == (1.0, -1.0)


def test_no_trades_leave_the_money_alone(with_opens):
    backtest = trade(np.zeros(2), with_opens([100.0] * 2, [120.0] * 2, days=[0, 2]), TradingRule())
    assert backtest.returns.tolist() == [0, 0]
    assert np.isnan([backtest.hit_rate, backtest.strategy.sharpe, deflated_sharpe_of(backtest.strategy)]).all()


def deflated_sharpe_of(performance: Performance) -> float:
    return deflated_sharpe(performance, num_trials=10, sharpe_variance=0.5)


def test_performance_by_hand():
    # equity 1, 1.1, .88, .968, 1.21; mean .0625 over a quarter each
    performance = measure(np.array([0.1, -0.2, 0.1, 0.25]), 1.0, traded=8.0)
    deviation = np.sqrt((0.0375**2 * 2 + 0.2625**2 + 0.1875**2) / 3)
    assert performance.mean_return == pytest.approx(0.0625)
    assert performance.annual_return == pytest.approx(0.21)
    assert performance.annual_volatility == pytest.approx(2 * deviation)
    assert performance.sharpe == pytest.approx(2 * 0.0625 / deviation)
    assert performance.sharpe_error == pytest.approx(2 * np.sqrt((1 + (0.0625 / deviation) ** 2 / 2) / 4))
    assert performance.max_drawdown == pytest.approx(0.2)
    assert performance.turnover == 8
    assert performance.skewness == pytest.approx(stats.skew([0.1, -0.2, 0.1, 0.25]))
    assert performance.kurtosis == pytest.approx(stats.kurtosis([0.1, -0.2, 0.1, 0.25], fisher=False))


def test_standard_error_of_the_sharpe_ratio_is_its_spread():
    rng, periods = np.random.default_rng(0), 200
    measured = [measure(0.02 + 0.05 * rng.standard_normal(periods), 4.0, traded=0.0) for _ in range(2000)]
    spread = np.std([performance.sharpe for performance in measured])
    assert np.mean([performance.sharpe_error for performance in measured]) == pytest.approx(
        spread, rel=4 / np.sqrt(4000)
    )


# Bailey and Lopez de Prado (2014), numerical example: five years of daily returns, annualised Sharpe ratio 2.5
PAPER = Performance(
    num_periods=1250,
    periods_per_year=250.0,
    mean_return=np.nan,
    annual_return=np.nan,
    annual_volatility=np.nan,
    sharpe=2.5,
    sharpe_error=np.nan,
    skewness=-3.0,
    kurtosis=10.0,
    max_drawdown=np.nan,
    turnover=np.nan,
)


def test_deflated_sharpe_is_that_of_the_paper():
    assert expected_best_sharpe(100, 0.5) / np.sqrt(250) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(PAPER, num_trials=100, sharpe_variance=0.5) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(PAPER, num_trials=46, sharpe_variance=0.5) == pytest.approx(0.9505, abs=5e-5)


def test_a_single_trial_is_not_deflated():
    alone = deflated_sharpe(PAPER, num_trials=1, sharpe_variance=0.5)
    assert alone == probabilistic_sharpe(PAPER) > 0.99
    assert probabilistic_sharpe(PAPER, benchmark=2.5) == 0.5
    with pytest.raises(ValueError, match="at least 1; got 0"):
        expected_best_sharpe(0, 1.0)


def test_the_best_of_worthless_strategies_is_as_good_as_expected():
    sharpes = np.random.default_rng(0).standard_normal((20_000, 50)) * 0.7
    # an approximation for many trials
    assert expected_best_sharpe(50, 0.49) == pytest.approx(sharpes.max(axis=1).mean(), rel=0.015)


def test_the_deflated_sharpe_of_the_best_of_many_coins_is_no_proof():
    rng, found = np.random.default_rng(1), []
    for _ in range(200):
        trials = [measure(0.01 * rng.standard_normal(250), 1.0, traded=0.0) for _ in range(20)]
        best = max(trials, key=lambda trial: trial.sharpe)
        variance = float(np.var([trial.sharpe for trial in trials], ddof=1))
        found.append((deflated_sharpe(best, num_trials=20, sharpe_variance=variance), probabilistic_sharpe(best)))
    deflated, plain = np.mean(np.array(found) > 0.95, axis=0)
    assert deflated < 0.05
    assert plain > 0.5
