"""Features, states, actions and labels of the trader's bars, against closed forms and loops."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
import talib
from scipy.special import gamma

from baselines.trader.actions import Action, ActionThresholds, fit_thresholds, label_actions
from baselines.trader.features import (
    GRID,
    LONGEST_WEIGHTS,
    TAU,
    VOLATILITY_BARS,
    WARM_UP,
    cyclic_times,
    fit_order,
    fracdiff_weights,
    fractional_difference,
    market_features,
)
from baselines.trader.ingestion import Bars, TraderDataError
from baselines.trader.labels import Barriers, Exits, find_exits, fit_barriers, label_bars
from baselines.trader.positions import Books
from baselines.trader.states import CYCLIC, STATE_NAMES, StateScaling, market_states
from preprocessing.statistics import yang_zhang_volatility

QUARTER = 900_000


def make(opens, highs, lows, closes, volume=None) -> Bars:
    count = len(closes)
    return Bars(
        close_time=1_768_904_100_000 + QUARTER * np.arange(1, count + 1),
        open=np.array(opens, float),
        high=np.array(highs, float),
        low=np.array(lows, float),
        close=np.array(closes, float),
        volume=np.ones(count) if volume is None else np.array(volume, float),
        net_size=np.zeros(count),
    )


def random_bars(seed: int, count: int = 200) -> Bars:
    random = np.random.default_rng(seed)
    paths = 0.5 * np.exp(np.cumsum(0.01 * random.standard_normal((count, 4)).ravel())).reshape(count, 4)
    return make(paths[:, 0], paths.max(1), paths.min(1), paths[:, 3], random.exponential(10, count))


# Features


def test_yang_zhang_on_three_bars_by_hand():
    o, h, l, c = (  # noqa: E741
        np.array(prices) for prices in ([0.50, 0.52, 0.55], [0.53, 0.58, 0.57], [0.49, 0.51, 0.50], [0.51, 0.56, 0.52])
    )
    gaps = [math.log(0.52 / 0.51), math.log(0.55 / 0.56)]
    moves = [math.log(0.56 / 0.52), math.log(0.52 / 0.55)]
    overnight = (gaps[0] - gaps[1]) ** 2 / 2  # sample variance of two
    intraday = (moves[0] - moves[1]) ** 2 / 2
    first = math.log(0.58 / 0.56) * math.log(0.58 / 0.52) + math.log(0.51 / 0.56) * math.log(0.51 / 0.52)
    second = math.log(0.57 / 0.52) * math.log(0.57 / 0.55) + math.log(0.50 / 0.52) * math.log(0.50 / 0.55)
    k = 0.34 / (1.34 + 3 / 1)
    expected = math.sqrt(overnight + k * intraday + (1 - k) * (first + second) / 2)
    assert yang_zhang_volatility(o[None], h[None], l[None], c[None]) == pytest.approx([expected], rel=1e-12)


def test_the_volatility_of_a_bar_is_of_the_bars_up_to_it():
    bars = random_bars(0)
    column = market_features(bars)["yang_zhang_volatility"].to_numpy()
    assert np.isnan(column[:VOLATILITY_BARS]).all()
    n = VOLATILITY_BARS
    for t in (n, 77, 199):
        gaps, moves, within = [], [], []
        for i in range(t - n + 1, t + 1):
            o, h, l, c = bars.open[i], bars.high[i], bars.low[i], bars.close[i]  # noqa: E741
            gaps.append(math.log(o / bars.close[i - 1]))
            moves.append(math.log(c / o))
            within.append(math.log(h / c) * math.log(h / o) + math.log(l / c) * math.log(l / o))
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        variance = np.var(gaps, ddof=1) + k * np.var(moves, ddof=1) + (1 - k) * np.mean(within)
        assert column[t] == pytest.approx(math.sqrt(variance), rel=1e-10)


def test_indicators_equal_talib():
    bars = random_bars(1)
    features = market_features(bars).iloc[WARM_UP:]
    close = bars.close
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    expected = {
        "rsi": talib.RSI(close, 14),
        "macd_histogram": talib.MACD(close, 12, 26, 9)[2] / close,
        "bollinger_width": (upper - lower) / middle,
        "sma": talib.SMA(close, 20),
        "ema": talib.EMA(close, 20),
    }
    for name, values in expected.items():
        assert features[name].to_numpy() == pytest.approx(values[WARM_UP:], rel=1e-8, abs=1e-12), name


def test_volume_score_by_hand():
    volume = np.append(np.arange(1.0, 21), 30)  # 2..20 and 30: mean 12, variance 40.9
    rest = 190
    bars = make(*[np.linspace(0.4, 0.6, 21 + rest)] * 4, volume=np.append(volume, np.full(rest, 3)))
    score = market_features(bars)["volume_zscore"].to_numpy()
    assert np.isnan(score[:19]).all()
    assert score[20] == pytest.approx(
        (30 - 11.95) / math.sqrt(np.mean((np.append(np.arange(2.0, 21), 30) - 11.95) ** 2))
    )
    assert (score[-100:] == 0).all()  # no volume stands out where all are the same


def test_times_by_hand():
    time = datetime(2026, 1, 21, 6, 15, tzinfo=UTC)  # a Wednesday
    columns = cyclic_times(np.array([1000 * time.timestamp()]))
    for name, turn in (("time_of_day", 6.25 / 24), ("hour", 0.25), ("day_of_week", (2 + 6.25 / 24) / 7)):
        assert columns[f"{name}_sin"][0] == pytest.approx(math.sin(2 * math.pi * turn), abs=1e-9), name
        assert columns[f"{name}_cos"][0] == pytest.approx(math.cos(2 * math.pi * turn), abs=1e-9), name


# Fractional differentiation


@pytest.mark.parametrize("order", [0.5, 0.3, 0.75])
def test_weights_have_the_closed_form(order):
    weights = fracdiff_weights(order, 1e-3)
    k = np.arange(len(weights))
    # (-1)^k binomial(d, k) = gamma(k - d) / (gamma(-d) k!)
    assert weights == pytest.approx(gamma(k - order) / (gamma(-order) * gamma(k + 1)), rel=1e-9)
    following = abs(gamma(len(k) - order) / (gamma(-order) * gamma(len(k) + 1.0)))
    assert np.abs(weights).min() >= 1e-3 > following


def test_first_weights_of_one_half_by_hand():
    assert fracdiff_weights(0.5, 0.03) == pytest.approx([1, -1 / 2, -1 / 8, -1 / 16, -5 / 128])


def test_order_one_is_the_difference_and_order_zero_the_series():
    values = np.random.default_rng(0).standard_normal(50).cumsum()
    assert fractional_difference(values, fracdiff_weights(1.0))[1:] == pytest.approx(np.diff(values), abs=1e-12)
    assert np.isnan(fractional_difference(values, fracdiff_weights(1.0))[0])
    assert fractional_difference(values, fracdiff_weights(0.0)).tolist() == values.tolist()


def test_half_differences_twice_are_one():
    values = np.random.default_rng(1).standard_normal(3000).cumsum()
    weights = fracdiff_weights(0.5, 1e-5)
    twice = fractional_difference(fractional_difference(values, weights), weights)
    assert twice[2 * len(weights) :] == pytest.approx(np.diff(values)[2 * len(weights) - 1 :], abs=0.2)
    whole = np.convolve(fracdiff_weights(0.5, 1e-6), fracdiff_weights(0.5, 1e-6))[:200]
    assert whole == pytest.approx(fracdiff_weights(1.0).tolist() + [0.0] * 198, abs=1e-9)


def test_a_difference_equals_a_loop_and_is_short_where_the_past_is():
    values, weights = np.random.default_rng(2).standard_normal(100), fracdiff_weights(0.4)
    loop = [sum(w * values[t - k] for k, w in enumerate(weights)) for t in range(len(weights) - 1, 100)]
    assert fractional_difference(values, weights)[len(weights) - 1 :] == pytest.approx(loop)
    assert np.isnan(fractional_difference(values[:5], weights)).all()


def test_the_longest_weights_settle_within_the_warm_up():
    assert max(len(fracdiff_weights(order, TAU)) for order in GRID) == LONGEST_WEIGHTS <= WARM_UP + 1


def test_the_order_is_0_for_noise_and_lies_between_for_random_walks():
    random = np.random.default_rng(0)
    noise = [np.exp(0.1 * random.standard_normal(400)) for _ in range(9)]
    assert fit_order(noise) == (0.0, pytest.approx(0.0, abs=1e-6))
    walks = [np.exp(0.02 * random.standard_normal(400).cumsum()) for _ in range(9)]
    order, value = fit_order(walks)
    assert 0 < order < 1
    assert value is not None
    assert value < 0.05
    # the one before it on the grid does not pass
    from statsmodels.tsa.stattools import adfuller

    weights = fracdiff_weights(round(order - 0.05, 2))
    series = [fractional_difference(np.log(walk), weights)[len(weights) - 1 :] for walk in walks]
    values = [adfuller(s, maxlag=1, regression="c", autolag=None, result_object=True).pvalue for s in series]
    assert np.median(values) >= 0.05


def test_the_order_is_1_where_nothing_can_be_tested():
    assert fit_order([np.full(500, 0.5), np.linspace(0.4, 0.6, 50)]) == (1.0, None)


# States


def test_states_by_hand():
    closes = np.full(90, 0.5)
    closes[-3:] = [0.6, 0.4, 0.5]
    bars = make(closes, closes, closes, closes)
    flat = np.zeros(87)
    opened = bars.close_time[86] + QUARTER // 3
    books = Books(
        inventory=np.append(flat, [10, -20, 0]),
        entry_price=np.append(flat, [0.5, 0.5, 0]),
        realised_pnl=np.zeros(90),
        unrealised_pnl=np.append(flat, [1, 2, 0]),
        opened=np.append(flat, [opened, opened, 0]).astype(np.int64),
        exit_return=np.zeros(0),
        exit_opened=np.zeros(0, np.int64),
        exit_time=np.zeros(0, np.int64),
    )
    states = market_states(market_features(bars), np.arange(90.0), bars, books, capital=16.0)
    assert list(states) == list(STATE_NAMES)
    assert len(STATE_NAMES) == 17
    last = states.iloc[-3:]
    assert last["fracdiff_price"].tolist() == [87, 88, 89]
    assert last["unrealised_pnl"].tolist() == [1, 2, 0]
    assert last["pnl_percent"].tolist() == [20, 20, 0]
    assert last["inventory"].tolist() == [10, -20, 0]
    assert last["position_size_ratio"].tolist() == [6 / 16, 8 / 16, 0]
    assert last["time_since_entry"].tolist() == pytest.approx([2 / 3, 5 / 3, 0])


def test_scaling_leaves_sines_and_what_never_changes():
    random = np.random.default_rng(0)
    train = random.normal(5, 3, (1000, 17))
    train[:, 14] = 7.0
    scores = StateScaling.fit(train).apply(train)
    assert scores.dtype == np.float32
    cyclic = np.array(CYCLIC)
    assert cyclic.sum() == 6
    assert scores[:, cyclic] == pytest.approx(train[:, cyclic].astype(np.float32))
    assert (scores[:, 14] == 0).all()
    others = ~cyclic & (np.arange(17) != 14)
    assert scores[:, others].mean(0) == pytest.approx(np.zeros(10), abs=1e-5)
    assert scores[:, others].std(0) == pytest.approx(np.ones(10), abs=1e-5)


# Actions


def test_actions_by_hand():
    net = np.array([5, 10, 10.5, 0, -1, -3, -3.5])
    actions = label_actions(net, ActionThresholds(strong_buy=10, strong_sell=3))
    assert [Action(a).name for a in actions] == ["BUY", "BUY", "STRONG_BUY", "HOLD", "SELL", "SELL", "STRONG_SELL"]
    assert list(Action) == [0, 1, 2, 3, 4]


def test_thresholds_are_quantiles_of_each_side():
    net = np.array([0, 0, 1, 2, 3, 4, -10, -20, 0])
    assert fit_thresholds(net, 0.5) == ActionThresholds(strong_buy=2, strong_sell=10)
    assert fit_thresholds(net, 0.75) == ActionThresholds(strong_buy=3, strong_sell=20)
    with pytest.raises(TraderDataError, match="does not sell"):
        fit_thresholds(np.array([1.0, 0]), 0.5)


# Labels

UP2 = Barriers(profit=2, stop=1, limit=3)
"""With a volatility of .1 and an entry at 1: profit at 1.2, stop at .9 (short: .8 and 1.1)."""


def settle(highs, lows, *, short=False):
    """Label and last bar of the position entered after bar 0; each bar opens at 1."""
    bars = make(np.ones(len(highs)), highs, lows, np.ones(len(highs)))
    label, settled = label_bars(bars, np.full(len(highs), 0.1), np.full(len(highs), short), UP2)
    return label[0], settled[0]


@pytest.mark.parametrize(
    ("highs", "lows", "short", "expected"),
    [
        ([9, 1.1, 1.2, 1.0, 1.0], [0, 1.0, 1.0, 0.5, 1.0], False, (1, 2)),  # bar 0 itself does not count
        ([1, 1.1, 1.1, 1.0, 1.0], [1, 1.0, 0.9, 1.0, 1.0], False, (-1, 2)),
        ([1, 1.3, 1.0, 1.0, 1.0], [1, 0.8, 1.0, 1.0, 1.0], False, (-1, 1)),  # both in one bar
        ([1, 1.1, 1.1, 1.1, 1.3], [1, 1.0, 1.0, 1.0, 1.0], False, (0, 3)),  # the limit comes first
        ([1, 1.1, 1.1], [1, 1.0, 1.0], False, (0, 2)),  # the market ends
        ([1, 1.0, 1.0, 1.0, 1.0], [1, 0.9, 0.8, 1.0, 1.0], True, (1, 2)),
        ([1, 1.0, 1.1, 1.0, 1.0], [1, 0.9, 1.0, 1.0, 1.0], True, (-1, 2)),
        ([1, 1.1, 1.0, 1.0, 1.0], [1, 0.8, 1.0, 1.0, 1.0], True, (-1, 1)),  # both in one bar
    ],
)
def test_labels_by_hand(highs, lows, short, expected):
    assert settle(highs, lows, short=short) == expected


def test_labels_equal_a_loop():
    bars, random = random_bars(3, 120), np.random.default_rng(0)
    volatility, short = np.full(120, 0.02), random.random(120) < 0.5
    barriers = Barriers(profit=1.3, stop=0.9, limit=6)
    label, settled = label_bars(bars, volatility, short, barriers)
    for t in range(119):
        entry, side = bars.open[t + 1], -1 if short[t] else 1
        expected = (0, min(t + 6, 119))
        for u in range(t + 1, min(t + 6, 119) + 1):
            worst, best = (bars.low[u], bars.high[u]) if side > 0 else (bars.high[u], bars.low[u])
            if side * (worst / entry - 1) <= -0.9 * 0.02:
                expected = (-1, u)
                break
            if side * (best / entry - 1) >= 1.3 * 0.02:
                expected = (1, u)
                break
        assert (label[t], settled[t]) == expected
    assert set(label.tolist()) == {-1, 0, 1}


def test_barriers_are_the_medians_of_the_exits():
    moves = np.array([1.0, 2, 3, 4, 5, -1, -2, -6, -3, -4])
    default = Barriers(profit=9, stop=8, limit=7)
    fitted = fit_barriers(
        [Exits(moves=moves[:6], bars=np.full(6, 2.0)), Exits(moves=moves[6:], bars=np.full(4, 9.5))], default
    )
    assert fitted == Barriers(profit=3, stop=3, limit=2, fitted=("profit", "stop", "limit"))
    few = fit_barriers([Exits(moves=moves[:6], bars=np.full(6, 2.4))], default)
    assert few == Barriers(profit=3, stop=8, limit=3, fitted=("profit", "limit"))


def test_an_exit_is_measured_in_the_volatility_before_its_entry():
    bars = make(*[np.full(10, 0.5)] * 4)
    volatility = np.append([np.nan, np.nan], np.arange(2, 10) / 100)
    begin = bars.close_time[0] - QUARTER
    opened = begin + np.array([QUARTER // 2, 3 * QUARTER, 3 * QUARTER + 1, 4 * QUARTER - 1])
    books = Books(
        **{name: np.zeros(10) for name in ("inventory", "entry_price", "realised_pnl", "unrealised_pnl", "opened")},
        exit_return=np.array([0.5, 0.06, 0.06, -0.03]),
        exit_opened=opened,
        exit_time=opened + 2 * QUARTER,
    )
    exits = find_exits(bars, books, volatility)  # the first has no volatility before it
    assert exits.moves == pytest.approx([3, 3, -1.5])  # bar 2 is the last one closed: .02
    assert exits.bars.tolist() == [2, 2, 2]
