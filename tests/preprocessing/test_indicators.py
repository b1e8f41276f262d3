"""Indicators against hand-computed values, loops written from their definitions, and TA-Lib."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.indicators import IndicatorPeriods, compute_indicators
from preprocessing.simulation import parse_simulated_stock
from preprocessing.windows import INDICATORS


def bars_of(high: list[float], low: list[float], close: list[float]) -> pd.DataFrame:
    days = pd.bdate_range("2020-01-01", periods=len(close))
    return pd.DataFrame({"open": close, "high": high, "low": low, "close": close}, index=days, dtype=float)


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return parse_simulated_stock("sim:gbm?rows=300&sigma=0.02&seed=3").bars()


# Loops from the definitions; each gives a list with None where the indicator is not defined yet


def loop_sma(bars: pd.DataFrame, n: int) -> list[float | None]:
    c = bars["close"].tolist()
    return [sum(c[t - n + 1 : t + 1]) / n if t >= n - 1 else None for t in range(len(c))]


def loop_ema(values: list[float], span: int) -> list[float | None]:
    """Average of values[0:span], placed at span - 1, then 2 / (span + 1) of the way to each value."""
    out: list[float | None] = [None] * (span - 1)
    average = sum(values[:span]) / span
    out.append(average)
    for value in values[span:]:
        average += 2 / (span + 1) * (value - average)
        out.append(average)
    return out


def loop_wilder(values: list[float], n: int) -> list[float | None]:
    """Average of values[0:n], placed at n - 1, then (previous * (n - 1) + value) / n."""
    out: list[float | None] = [None] * (n - 1)
    average = sum(values[:n]) / n
    out.append(average)
    for value in values[n:]:
        average = (average * (n - 1) + value) / n
        out.append(average)
    return out


def loop_rsi(bars: pd.DataFrame, n: int) -> list[float | None]:
    c = bars["close"].tolist()
    changes = [b - a for a, b in itertools.pairwise(c)]
    rise = loop_wilder([max(x, 0) for x in changes], n)
    fall = loop_wilder([max(-x, 0) for x in changes], n)
    return [None] + [
        None if up is None or down is None else 100 - 100 / (1 + up / down) for up, down in zip(rise, fall, strict=True)
    ]


def loop_willr(bars: pd.DataFrame, n: int) -> list[float | None]:
    h, l, c = (bars[name].tolist() for name in ("high", "low", "close"))  # noqa: E741
    out: list[float | None] = [None] * (n - 1)
    for t in range(n - 1, len(c)):
        top, bottom = max(h[t - n + 1 : t + 1]), min(l[t - n + 1 : t + 1])
        out.append(-100 * (top - c[t]) / (top - bottom))
    return out


def loop_cci(bars: pd.DataFrame, n: int) -> list[float | None]:
    typical = ((bars["high"] + bars["low"] + bars["close"]) / 3).tolist()
    out: list[float | None] = [None] * (n - 1)
    for t in range(n - 1, len(typical)):
        window = typical[t - n + 1 : t + 1]
        mean = sum(window) / n
        out.append((typical[t] - mean) / (0.015 * sum(abs(x - mean) for x in window) / n))
    return out


def loop_adx(bars: pd.DataFrame, n: int) -> list[float | None]:
    h, l, c = (bars[name].tolist() for name in ("high", "low", "close"))  # noqa: E741
    ranges, rises, falls = [0.0], [0.0], [0.0]  # the first bar has no change
    for t in range(1, len(c)):
        ranges.append(max(h[t] - l[t], abs(h[t] - c[t - 1]), abs(l[t] - c[t - 1])))
        up, down = h[t] - h[t - 1], l[t - 1] - l[t]
        rises.append(up if up > down and up > 0 else 0.0)
        falls.append(down if down > up and down > 0 else 0.0)
    directional = []
    smoothed = (loop_wilder(values, n)[n:] for values in (ranges, rises, falls))
    for r, u, d in zip(*smoothed, strict=True):
        if r is not None and u is not None and d is not None:
            plus, minus = 100 * u / r, 100 * d / r
            directional.append(100 * abs(plus - minus) / (plus + minus))
    return [None] * n + loop_wilder(directional, n)


def loop_bands(bars: pd.DataFrame, n: int, side: int) -> list[float | None]:
    c = bars["close"].tolist()
    out: list[float | None] = [None] * (n - 1)
    for t in range(n - 1, len(c)):
        window = c[t - n + 1 : t + 1]
        mean = sum(window) / n
        out.append(mean + side * 2 * (sum((x - mean) ** 2 for x in window) / n) ** 0.5)
    return out


def loop_stochastic(bars: pd.DataFrame, n: int) -> list[float | None]:
    return [None if value is None else 100 + value for value in loop_willr(bars, n)]


def loop_stochastic_d(bars: pd.DataFrame, n: int, smooth: int) -> list[float | None]:
    k = loop_stochastic(bars, n)
    return [
        None if t < n + smooth - 2 else sum(x for x in k[t - smooth + 1 : t + 1] if x is not None) / smooth
        for t in range(len(k))
    ]


def loop_macd(bars: pd.DataFrame, fast: int, slow: int) -> list[float | None]:
    c = bars["close"].tolist()
    quick = [None] * (slow - fast) + loop_ema(c[slow - fast :], fast)
    return [None if a is None or b is None else a - b for a, b in zip(quick, loop_ema(c, slow), strict=True)]


def loop_macd_signal(bars: pd.DataFrame, fast: int, slow: int, signal: int) -> list[float | None]:
    line = loop_macd(bars, fast, slow)
    return [None] * (slow - 1) + loop_ema([value for value in line if value is not None], signal)


def loop_macd_histogram(bars: pd.DataFrame, fast: int, slow: int, signal: int) -> list[float | None]:
    both = zip(loop_macd(bars, fast, slow), loop_macd_signal(bars, fast, slow, signal), strict=True)
    return [None if a is None or b is None else a - b for a, b in both]


LOOPS = {
    "sma": lambda bars: loop_sma(bars, 20),
    "ema": lambda bars: loop_ema(bars["close"].tolist(), 20),
    "mom": lambda bars: [None] * 10 + [b - a for a, b in zip(bars["close"], bars["close"][10:], strict=False)],
    "rsi": lambda bars: loop_rsi(bars, 14),
    "macd": lambda bars: loop_macd(bars, 12, 26),
    "macd_signal": lambda bars: loop_macd_signal(bars, 12, 26, 9),
    "macd_histogram": lambda bars: loop_macd_histogram(bars, 12, 26, 9),
    "willr": lambda bars: loop_willr(bars, 14),
    "cci": lambda bars: loop_cci(bars, 20),
    "adx": lambda bars: loop_adx(bars, 14),
    "bbands_upper": lambda bars: loop_bands(bars, 20, 1),
    "bbands_middle": lambda bars: loop_bands(bars, 20, 0),
    "bbands_lower": lambda bars: loop_bands(bars, 20, -1),
    "stoch_k": lambda bars: loop_stochastic(bars, 14),
    "stoch_d": lambda bars: loop_stochastic_d(bars, 14, 3),
}


@pytest.mark.parametrize("name", INDICATORS)
def test_indicator_equals_a_loop_from_its_definition(name: str, bars: pd.DataFrame) -> None:
    table = compute_indicators(bars)
    warm_up = IndicatorPeriods().warm_up
    assert warm_up == 84
    assert table[name].iloc[:warm_up].isna().all()
    np.testing.assert_allclose(table[name].iloc[warm_up:], LOOPS[name](bars)[warm_up:], rtol=1e-9, atol=1e-9)


def test_small_case_by_hand() -> None:
    """Periods of 2 on closes 1..: warm-up is 3 * 2 * 2 = 12 bars, so the values are those of the bars 12 and 13."""
    close = [10.0] * 11 + [12.0, 11.0, 14.0]
    bars = bars_of([c + 1 for c in close], [c - 1 for c in close], close)
    periods = IndicatorPeriods(
        sma=2, ema=3, mom=2, rsi=2, macd_fast=2, macd_slow=3, macd_signal=2, willr=2, cci=2, adx=2, bbands=2,
        stoch=2, stoch_d=2,
    )  # fmt: skip
    assert periods.warm_up == 12
    got = compute_indicators(bars, periods).iloc[12:]
    assert got["sma"].tolist() == [11.5, 12.5]
    assert got["ema"].tolist() == [11.0, 12.5]  # half way: 10, 11, 11, 12.5
    assert got["mom"].tolist() == [1.0, 2.0]
    # rises 2, 0, 3 and falls 0, 1, 0 halved into the average: rises 1, .5, 1.75; falls 0, .5, .25
    assert got["rsi"].tolist() == pytest.approx([50.0, 87.5])
    # EMA(2) moves by two thirds: 11.3333, 11.1111, 13.0370; minus EMA(3)
    assert got["macd"].tolist() == pytest.approx([11 + 1 / 9 - 11, 13 + 1 / 27 - 12.5])
    # the line has been 0 up to bar 10, then 1/3 (11.3333 - 11), of which the signal takes two thirds, 2/9
    signal = 2 / 9 + 2 / 3 * (1 / 9 - 2 / 9)
    signals = [signal, signal + 2 / 3 * (13 + 1 / 27 - 12.5 - signal)]
    assert got["macd_signal"].tolist() == pytest.approx(signals)
    assert got["macd_histogram"].tolist() == pytest.approx([1 / 9 - signals[0], 13 + 1 / 27 - 12.5 - signals[1]])
    # highs 13, 12 and lows 11, 10 | highs 12, 15 and lows 10, 13
    assert got["willr"].tolist() == pytest.approx([-100 * 2 / 3, -20.0])
    assert got["stoch_k"].tolist() == pytest.approx([100 / 3, 80.0])
    # the bar before: close 12, highs 11, 13, lows 9, 11 -> 75
    assert got["stoch_d"].tolist() == pytest.approx([(75 + 100 / 3) / 2, (100 / 3 + 80) / 2])
    # of two values one deviation away from their mean: 1 / .015
    assert got["cci"].tolist() == pytest.approx([-1 / 0.015, 1 / 0.015])
    assert got["bbands_upper"].tolist() == pytest.approx([12.5, 15.5])
    assert got["bbands_lower"].tolist() == pytest.approx([10.5, 9.5])
    # rises 1, .5, 1.75 and falls 0, .5, .25 of the average: DX 100, 0, 75; ADX halves the way: 50, 25, 50
    assert got["adx"].tolist() == pytest.approx([25.0, 50.0])


def test_a_market_that_never_moves_gives_neutral_values() -> None:
    table = compute_indicators(bars_of([0.3] * 100, [0.3] * 100, [0.3] * 100)).iloc[84:]
    neutral = {"rsi": 50, "stoch_k": 50, "stoch_d": 50, "willr": -50, "cci": 0, "adx": 0, "mom": 0, "macd": 0}
    for name, value in neutral.items():
        np.testing.assert_allclose(table[name], value, atol=1e-12)
    for name in ("sma", "ema", "bbands_upper", "bbands_middle", "bbands_lower"):
        np.testing.assert_allclose(table[name], 0.3, atol=1e-7)


def test_a_quiet_start_leaves_no_trace(bars: pd.DataFrame) -> None:
    quiet = bars.copy()
    quiet.iloc[:60] = bars["close"].iloc[60]
    table = compute_indicators(quiet).iloc[84:]
    assert np.isfinite(table.to_numpy()).all()
    np.testing.assert_allclose(table["adx"], loop_adx_quiet(quiet)[84:], rtol=1e-9)


def loop_adx_quiet(bars: pd.DataFrame) -> list[float | None]:
    """As `loop_adx`, with 0 where there is no movement."""
    moving = bars.iloc[59:]  # the last quiet bar gives the first change; before it every average is 0
    h, l, c = (moving[name].tolist() for name in ("high", "low", "close"))  # noqa: E741
    adx, rises, falls, out = 0.0, 0.0, 0.0, [None] * 60
    for t in range(1, len(c)):
        up, down = h[t] - h[t - 1], l[t - 1] - l[t]
        rises += ((up if up > down and up > 0 else 0.0) - rises) / 14
        falls += ((down if down > up and down > 0 else 0.0) - falls) / 14
        adx += (100 * abs(rises - falls) / (rises + falls) - adx) / 14 if rises + falls else -adx / 14
        out.append(adx)
    return out


def test_only_rises_give_an_rsi_of_100() -> None:
    close = list(np.linspace(10, 20, 100))
    table = compute_indicators(bars_of(close, close, close))
    assert (table["rsi"].iloc[84:] == 100).all()


@pytest.mark.parametrize("name", ["sma", "rsi", "stoch_d"])
def test_a_period_below_two_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"indicators.{name} must be at least 2 bars; got 1"):
        IndicatorPeriods(**{name: 1})


def test_a_fast_average_must_be_shorter_than_the_slow_one() -> None:
    with pytest.raises(ValueError, match=r"indicators\.macd_fast must be shorter than macd_slow; got 26 and 26"):
        IndicatorPeriods(macd_fast=26)


# TA-Lib

PRICE_LIKE = ("sma", "ema", "mom", "macd", "macd_signal", "macd_histogram", "bbands_upper", "bbands_middle")
PRICE_LIKE += ("bbands_lower",)


def talib_indicators(bars: pd.DataFrame, p: IndicatorPeriods) -> dict[str, np.ndarray]:
    talib = pytest.importorskip("talib")
    h, l, c = (bars[name].to_numpy() for name in ("high", "low", "close"))  # noqa: E741
    macd, signal, histogram = talib.MACD(c, p.macd_fast, p.macd_slow, p.macd_signal)
    upper, middle, lower = talib.BBANDS(c, p.bbands, 2, 2)
    stoch_k, stoch_d = talib.STOCHF(h, l, c, p.stoch, p.stoch_d)
    return {
        "sma": talib.SMA(c, p.sma),
        "ema": talib.EMA(c, p.ema),
        "mom": talib.MOM(c, p.mom),
        "rsi": talib.RSI(c, p.rsi),
        "macd": macd,
        "willr": talib.WILLR(h, l, c, p.willr),
        "cci": talib.CCI(h, l, c, p.cci),
        "adx": talib.ADX(h, l, c, p.adx),
        "bbands_upper": upper,
        "bbands_middle": middle,
        "bbands_lower": lower,
        "stoch_k": stoch_k,
        "stoch_d": stoch_d,
        "macd_signal": signal,
        "macd_histogram": histogram,
    }


def assert_equals_talib(bars: pd.DataFrame, periods: IndicatorPeriods) -> None:
    """To 1e-6 of the price, or of an oscillator's range of 100."""
    got, want = compute_indicators(bars, periods), talib_indicators(bars, periods)
    close = bars["close"].to_numpy()
    for name in INDICATORS:
        error = (got[name].to_numpy() - want[name])[periods.warm_up :]
        size = close[periods.warm_up :] if name in PRICE_LIKE else 100.0
        assert len(error) > 50
        assert np.abs(error / size).max() < 1e-6, name


@pytest.mark.parametrize("name", ["sim:gbm?rows=400&sigma=0.03", "sim:ou?rows=400", "sim:stochvol?rows=400&tail=4"])
def test_simulated_stocks_have_the_indicators_of_talib(name: str) -> None:
    assert_equals_talib(parse_simulated_stock(name).bars(), IndicatorPeriods())


def draw_periods(longest: int) -> st.SearchStrategy[IndicatorPeriods]:
    names = [name for name in vars(IndicatorPeriods()) if not name.startswith("macd")]
    free = {name: st.integers(2, longest) for name in names}
    return st.builds(
        lambda macd, signal, **rest: IndicatorPeriods(
            macd_fast=min(macd), macd_slow=max(macd), macd_signal=signal, **rest
        ),
        macd=st.sets(st.integers(2, longest), min_size=2, max_size=2),
        signal=st.integers(2, longest),
        **free,
    )


@settings(max_examples=40, deadline=None)
@given(periods=draw_periods(40), seed=st.integers(0, 99))
def test_any_periods_give_the_indicators_of_talib(periods: IndicatorPeriods, seed: int) -> None:
    assert_equals_talib(parse_simulated_stock(f"sim:gbm?rows=400&seed={seed}").bars(), periods)


def adjusted_bars(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path).dropna()
    factor = table["Adj Close"] / table["Close"]
    return pd.DataFrame({name.lower(): table[name] * factor for name in ("Open", "High", "Low", "Close")})


def test_real_stocks_have_the_indicators_of_talib(stocknet: Path) -> None:
    files = sorted(stocknet.glob("*.csv"))
    assert len(files) > 60
    rng = np.random.default_rng(0)
    for path in files:
        drawn = {name: int(rng.integers(3, 60)) for name in vars(IndicatorPeriods())}
        drawn |= {"macd_slow": drawn["macd_fast"] + drawn["macd_slow"]}
        for periods in (IndicatorPeriods(), IndicatorPeriods(**drawn)):
            assert_equals_talib(adjusted_bars(path), periods)
