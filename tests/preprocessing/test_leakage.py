"""Nothing that comes after an origin reaches what a forecaster sees there: columns, scales, prompts, splits.

A change to one bar is a change of the future for every window whose origin lies before it. So all that windows
hold for their forecaster must stay as it was, bit by bit, whatever is changed. The scaler of training windows is
the one exception: it is fitted on the whole training span, and nothing after that.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.language.prompts import STYLES
from preprocessing import stock_windows
from preprocessing.config import DataConfig
from preprocessing.indicators import compute_indicators
from preprocessing.scaling import StandardNorm, rebase
from preprocessing.simulation import parse_simulated_stock
from preprocessing.splits import walk_forward_cuts
from preprocessing.stock_windows import days_of, fold_windows, make_contexts, make_windows, split_windows
from preprocessing.windows import FEATURES, INDICATORS, Context, WindowSet

STOCKS = {
    "OLD": parse_simulated_stock("sim:gbm?rows=420&sigma=0.02&seed=1").bars(),
    "YOUNG": parse_simulated_stock("sim:ou?rows=420&seed=4").bars().iloc[100:],
}
CALENDAR = np.unique(np.concatenate([days_of(bars) for bars in STOCKS.values()]))
SPLITS = {
    "calendar": DataConfig(split=(0.5, 0.15, 0.35), embargo=3),
    "dates": DataConfig(split_dates=("2000-08-01", "2000-11-01"), embargo=3),
    "stock": DataConfig(split=(0.5, 0.15, 0.35), split_by="stock", window=10, embargo=0),
    "folds": DataConfig(split=(0.5, 0.15, 0.35), embargo=3, folds=3),
}
SCALER = [FEATURES.index(name) for name in ("norm_mean", "norm_std")]
OTHERS = [i for i in range(len(FEATURES)) if i not in SCALER]


def all_windows(stocks: dict[str, pd.DataFrame], config: DataConfig) -> dict[str, WindowSet]:
    """The windows of every split, and of every fold's, by name."""
    sets, _ = split_windows(stocks, config)
    named = {name: sets[name] for name in ("train", "val", "test")}
    if config.folds > 1:
        cuts = walk_forward_cuts(CALENDAR, config.split, config.embargo_days, config.folds)
        for number, cut in enumerate(cuts):
            named |= {f"fold {number} {name}": part for name, part in fold_windows(sets["full"], cut).items()}
    return named


WINDOWS = {name: all_windows(STOCKS, config) for name, config in SPLITS.items()}

bar_changes = st.tuples(
    st.sampled_from([*STOCKS]),
    st.integers(0, 319),
    st.lists(st.floats(0.01, 100.0), min_size=5, max_size=5),
)


def change_bar(stocks: dict[str, pd.DataFrame], change: tuple[str, int, list[float]]) -> dict[str, pd.DataFrame]:
    """Bars with one day's prices and volume multiplied, the range widened to hold them."""
    name, row, factors = change
    bars = stocks[name].astype({"volume": float})
    values = bars.to_numpy()[row] * factors
    bars.iloc[row] = [values[0], values[:4].max(), values[:4].min(), values[3], values[4]]
    return stocks | {name: bars}


def before(context: Context, stock: str, day: np.datetime64) -> np.ndarray:
    """Rows of the windows to which the bar of a stock and day is the future or another stock's."""
    return (np.array(context.item_id) != stock) | (context.origin < day)


@settings(max_examples=15, deadline=None)
@given(change=bar_changes)
@pytest.mark.parametrize("split", [*SPLITS])
def test_no_column_of_x_sees_the_future(split: str, change: tuple[str, int, list[float]]) -> None:
    changed = change_bar(STOCKS, change)
    day = days_of(STOCKS[change[0]])[change[1]]
    for name, after in all_windows(changed, SPLITS[split]).items():
        was, now = WINDOWS[split][name].context, after.context
        assert now.item_id == was.item_id
        np.testing.assert_array_equal(now.origin, was.origin)
        earlier = before(was, change[0], day)
        columns = OTHERS if name.endswith("train") else range(len(FEATURES))
        np.testing.assert_array_equal(now.past[earlier], was.past[earlier])
        assert now.memories is not None
        assert was.memories is not None
        np.testing.assert_array_equal(now.memories[earlier], was.memories[earlier])
        for column in columns:
            np.testing.assert_array_equal(
                now.features[earlier, column], was.features[earlier, column], FEATURES[column]
            )


@settings(max_examples=15, deadline=None)
@given(change=bar_changes)
@pytest.mark.parametrize("split", [*SPLITS])
def test_no_scaler_sees_a_day_after_its_training_span(split: str, change: tuple[str, int, list[float]]) -> None:
    """Also those of training windows: their span ends before the first validation target."""
    day = days_of(STOCKS[change[0]])[change[1]]
    after = all_windows(change_bar(STOCKS, change), SPLITS[split])
    for part in (name for name in after if name.endswith("train")):
        val = WINDOWS[split][part.replace("train", "val")]
        own = np.array(val.context.item_id) == change[0]
        train_ends = val.truth.dates[own, 0].min() if own.any() else np.datetime64("2100-01-01")
        if day >= train_ends:
            features = WINDOWS[split][part].context.features
            np.testing.assert_array_equal(after[part].context.features[:, SCALER], features[:, SCALER])


@settings(max_examples=10, deadline=None)
@given(change=bar_changes)
def test_no_prompt_and_no_rebasing_sees_the_future(change: tuple[str, int, list[float]]) -> None:
    day = days_of(STOCKS[change[0]])[change[1]]
    after = all_windows(change_bar(STOCKS, change), SPLITS["calendar"])
    for name in ("train", "test"):
        was, now = WINDOWS["calendar"][name].context, after[name].context
        rows = np.flatnonzero(before(was, change[0], day))[-20:]
        was, now = was.take(rows), now.take(rows)
        for style in ("direct", "reasoning"):
            prompts = [STYLES[style].render(context, 10) for context in (was, now)]
            assert prompts[0] == prompts[1]
        for mode in ("last", "window"):
            scaled = [rebase(context.past[:, :, 0], mode).transform(context.past[:, :, 0]) for context in (was, now)]
            np.testing.assert_array_equal(scaled[0], scaled[1])


@settings(max_examples=30, deadline=None)
@given(origin=st.integers(100, 418), window=st.integers(3, 40))
def test_an_origin_needs_no_bar_after_it(origin: int, window: int) -> None:
    """The context on the last day of a shorter history is the context of that day in a longer one."""
    bars, config, norm = STOCKS["OLD"], DataConfig(window=window), StandardNorm(100.0, 10.0)
    rows = np.array([origin])
    longer = make_contexts("OLD", bars, config, norm, rows)
    shorter = make_contexts("OLD", bars.iloc[: origin + 1], config, norm, rows)
    for column, name in enumerate(FEATURES):
        assert shorter.features[0, column] == longer.features[0, column], name
    np.testing.assert_array_equal(shorter.past, longer.past)
    np.testing.assert_array_equal(shorter.memories, longer.memories)


@pytest.mark.parametrize("indicator", INDICATORS)
def test_a_planted_leak_is_caught(indicator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would be worth nothing if they did not see an indicator of tomorrow."""

    def tomorrows(bars: pd.DataFrame, periods: object) -> pd.DataFrame:
        table = compute_indicators(bars, periods)  # pyright: ignore[reportArgumentType]
        return table.assign(**{indicator: table[indicator].shift(-1).ffill()})

    monkeypatch.setattr(stock_windows, "compute_indicators", tomorrows)
    row = 300
    changed = change_bar(STOCKS, ("OLD", row, [1.3, 1.4, 1.1, 1.35, 1.0]))["OLD"]
    norm = StandardNorm(100.0, 10.0)
    was, now = (make_windows("OLD", bars, DataConfig(), norm).context for bars in (STOCKS["OLD"], changed))
    earlier = before(was, "OLD", days_of(STOCKS["OLD"])[row])
    differs = (was.features[earlier] != now.features[earlier]).any(axis=0)
    assert [FEATURES[i] for i in np.flatnonzero(differs)] == [indicator]


@pytest.mark.parametrize("split", [*SPLITS])
def test_splits_are_apart_in_time(split: str) -> None:
    """No target of an earlier split lies on or after the first target of a later one; per stock for cuts by stock."""
    parts = WINDOWS[split]
    prefixes = {name.rpartition("train")[0] for name in parts if name.endswith("train")}
    groups = [[stock] for stock in STOCKS] if split == "stock" else [[*STOCKS]]
    for prefix in prefixes:
        for stocks in groups:
            spans = []
            for name in ("train", "val", "test"):
                windows = parts[prefix + name]
                dates = windows.truth.dates[np.isin(np.array(windows.context.item_id), stocks)]
                spans.append((dates.min(), dates.max()))
            assert spans[0][1] < spans[1][0]
            assert spans[1][1] < spans[2][0]
