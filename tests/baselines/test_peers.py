"""The noise that benchmarks/peers.py prints, against exact variances of resampled panels."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peers import STOCKS, Figure, ratio_with_noise
from grpo.evaluation.bootstrap import politis_white_block_length
from preprocessing.windows import FEATURES, Context, Truth, WindowSet

NUM_STOCKS, NUM_DAYS = 22, 40
NORMAL_95 = 2 * 1.959964
"""Width of a 95 % interval of a Gaussian law in standard deviations."""


def panel(num_stocks: int = NUM_STOCKS, num_days: int = NUM_DAYS) -> WindowSet:
    """One window of each stock on each day, ten days apart."""
    days = np.datetime64("2001-01-01", "ns") + 10 * np.arange(num_days).astype("timedelta64[D]")
    items = tuple(f"S{number:03}" for number in range(num_stocks) for _ in range(num_days))
    origin = np.tile(days, num_stocks)
    count = len(items)
    context = Context(
        item_id=items, origin=origin, past=np.ones((count, 30, 1)), features=np.ones((count, len(FEATURES)))
    )
    future = origin[:, None] + np.arange(1, 11).astype("timedelta64[D]")
    return WindowSet(context=context, truth=Truth(future=np.ones((count, 10)), dates=future))


def width(ends: tuple[float, float]) -> float:
    return ends[1] - ends[0]


def effects(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An effect of each stock and one of each day, of a seed that shows no dependence between days."""
    rng = np.random.default_rng(seed)
    of_stock, of_day = rng.standard_normal(NUM_STOCKS), rng.standard_normal(NUM_DAYS)
    assert politis_white_block_length(of_day) == 1
    return of_stock, of_day


def test_the_noise_of_effects_that_add_up_is_that_of_stocks_and_that_of_days():
    """a_k + b_d, both drawn with replacement: the mean has variance s_a^2 / K + s_b^2 / D, s^2 with divisors K, D."""
    of_stock, of_day = effects(seed=1)
    values = (5 + of_stock[:, None] + of_day).ravel()
    figure = ratio_with_noise(np.stack([values, np.ones(len(values))], axis=1), panel(), horizon=1)
    assert figure.value == pytest.approx(5 + of_stock.mean() + of_day.mean())
    both = np.sqrt(of_stock.var() / NUM_STOCKS + of_day.var() / NUM_DAYS)
    assert width(figure.anywhere) == pytest.approx(NORMAL_95 * both, rel=0.1)
    left_out = np.sqrt(of_stock.var() / NUM_STOCKS * (1 - NUM_STOCKS / STOCKS))
    assert width(figure.same_origins) == pytest.approx(NORMAL_95 * left_out, rel=0.1)


def test_a_ratio_has_the_noise_of_the_linearised_ratio():
    """(3 + a_k + 5 b_d) / (2 + 2 b_d): the influence of a stock is a / 2, that of a day (5 b - 1.5 * 2 b) / 2."""
    of_stock, of_day = (0.05 * effect for effect in effects(seed=2))
    of_stock, of_day = of_stock - of_stock.mean(), of_day - of_day.mean()
    top = 3 + of_stock[:, None] + 5 * of_day
    bottom = np.broadcast_to(2 + 2 * of_day, top.shape)
    figure = ratio_with_noise(np.stack([top, bottom], axis=-1).reshape(-1, 2), panel(), horizon=1)
    assert figure.value == pytest.approx(1.5)
    expected = np.sqrt((of_stock / 2).var() / NUM_STOCKS + of_day.var() / NUM_DAYS)
    assert width(figure.anywhere) == pytest.approx(NORMAL_95 * expected, rel=0.1)


def test_days_that_hang_together_are_drawn_together():
    """A level that holds for ten days says less than one of alternating days, whose blocks have length 1."""
    stretches, alternating = np.repeat([1.0, -1.0, 1.0, -1.0], NUM_DAYS // 4), np.tile([1.0, -1.0], NUM_DAYS // 2)
    alone = NORMAL_95 / np.sqrt(NUM_DAYS)
    for of_day, least, most in ((stretches, 1.5, np.inf), (alternating, 0.0, 1.1)):
        values = np.tile(of_day, NUM_STOCKS)
        figure = ratio_with_noise(np.stack([values, np.ones(len(values))], axis=1), panel(), horizon=1)
        assert least * alone < width(figure.anywhere) < most * alone


def test_the_blocks_are_those_of_the_ratio_not_of_its_parts():
    """Both parts hold their level for ten days, their ratio changes every day: blocks of one day suffice."""
    level = 2 + np.repeat([1.0, -1.0, 1.0, -1.0], NUM_DAYS // 4)
    noise = 0.1 * np.random.default_rng(2).standard_normal(NUM_DAYS)
    values = np.stack([np.tile(level + noise, NUM_STOCKS), np.tile(level, NUM_STOCKS)], axis=1)
    figure = ratio_with_noise(values, panel(), horizon=1)
    influence = level + noise - figure.value * level
    assert width(figure.anywhere) == pytest.approx(NORMAL_95 * influence.std() / 2 / np.sqrt(NUM_DAYS), rel=0.1)


def test_all_stocks_on_the_same_origins_leave_no_noise():
    values = np.random.default_rng(0).standard_normal(STOCKS * 3)
    figure = ratio_with_noise(np.stack([values, np.ones(len(values))], axis=1), panel(STOCKS, 3), horizon=1)
    assert figure.same_origins == pytest.approx((values.mean(), values.mean()))
    assert width(figure.anywhere) > 0


@pytest.mark.parametrize(
    "reference, mark",
    [("0.990", "="), ("0.9946", "="), ("0.9948", "~"), ("0.995", "="), ("0.98", "~"), ("1.0203", "!"), ("1.02", "~")],
)
def test_half_a_unit_of_the_last_digit_is_allowed(reference, mark):
    assert Figure(value=0.99, anywhere=(0.97, 1.02), same_origins=(0.9855, 0.9946)).mark(reference) == mark


def test_every_reference_has_one_figure_per_column():
    for name, peer in peers.PEERS.items():
        assert len(peer.on_88) in (0, len(peers.FIGURES)), name


@pytest.fixture
def stocks(tmp_path):
    """Two stocks whose closes count up from 101, the second of which is listed 300 days later."""
    days = np.arange("2012-09-04", "2017-09-02", dtype="datetime64[D]")
    days = days[np.is_busday(days)]
    for name, begin in (("LONG", 0), ("LATE", 300)):
        rows = ["Date,Open,High,Low,Close,Adj Close,Volume"]
        for number, day in enumerate(days[begin:]):
            close = 101 + number
            rows.append(f"{day},{close},{close},{close},{close},{close},1000")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return peers.Stocks(tmp_path, stride=10)


def test_a_longer_window_ends_on_the_last_close_and_begins_where_the_stock_does(stocks):
    seen = {}
    for rows, batch in stocks.batches(stocks.test, 900):
        for row, item, past in zip(rows, batch.context.item_id, batch.context.past[:, :, 0], strict=True):
            seen[int(row)] = (item, past)
    assert sorted(seen) == list(range(len(stocks.test)))
    for row, (item, past) in seen.items():
        last = stocks.test.context.last_price[row]
        assert item == stocks.test.context.item_id[row]
        first = max(101, last - 899)  # 900 closes, or all from the first on
        np.testing.assert_array_equal(past, np.arange(first, last + 1))
    assert {len(past) for item, past in seen.values() if item == "LONG"} == {900}
    assert max(len(past) for item, past in seen.values() if item == "LATE") == 900
    assert min(len(past) for item, past in seen.values() if item == "LATE") < 900


def test_batches_hold_all_rows_once_and_keep_the_truth(stocks, monkeypatch):
    monkeypatch.setattr(peers, "BATCH", 3)
    batches = list(stocks.batches(stocks.test, 30))
    assert max(len(batch) for _, batch in batches) == 3
    rows = np.concatenate([rows for rows, _ in batches])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(stocks.test)))
    for rows, batch in batches:
        np.testing.assert_array_equal(batch.context.past, stocks.test.context.past[rows])
        np.testing.assert_array_equal(batch.truth.future, stocks.test.truth.future[rows])
