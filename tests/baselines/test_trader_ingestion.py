"""Trade files to bars and books."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from baselines.trader.ingestion import (
    MarketEvents,
    TraderDataError,
    find_files,
    make_bars,
    read_events,
)
from baselines.trader.positions import Position, bar_rewards, fit_capital, keep_books, returns_to_go

START = 1_768_904_100_000
"""Milliseconds; a multiple of 15 minutes."""
MINUTE = 60_000


def trade(minutes: float, side: str, size: float, price: float) -> dict:
    time = START + round(minutes * MINUTE)
    return {"t": time, "type": "trade", "price": price, "side": side, "size": size, "usdc": price * size}


def quote(minutes: float, price: float) -> dict:
    return {"t": START + round(minutes * MINUTE), "type": "price", "price": price}


def write(folder: Path, events: object, slug: object = "btc-updown-15m-1768904100") -> Path:
    path = folder / "0xabc" / "btc-updown-15m-1768904100_prices.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"slug": slug, "prices": events}))
    return path


def events_of(*events: dict) -> MarketEvents:
    columns = np.array(
        [
            (e["t"], e["price"], e.get("size", 0), e.get("size", 0) * {"BUY": 1, "SELL": -1}.get(e.get("side"), 0))
            for e in events
        ],
        float,
    ).T
    time, price, volume, traded = columns
    return MarketEvents(market="m", time=time.astype(np.int64), price=price, volume=volume, traded=traded)


# Files


def test_reads_the_documented_format(tmp_path):
    path = write(
        tmp_path, [{"t": 1768904163000, "type": "trade", "price": 0.77, "side": "BUY", "size": 20, "usdc": 15.4}]
    )
    events, report = read_events(path, tmp_path, "exclude")
    assert events is not None
    assert events.market == "0xabc/btc-updown-15m-1768904100"
    assert (events.time[0], events.price[0], events.volume[0], events.traded[0]) == (1768904163000, 0.77, 20, 20)
    assert (report.events, report.trades, report.malformed, report.usdc_differs) == (1, 1, {}, [])


def test_puts_events_in_order_and_keeps_the_order_within_a_millisecond(tmp_path):
    path = write(tmp_path, [quote(3, 0.3), quote(1, 0.1), quote(2, 0.2), quote(1, 0.15)])
    events, report = read_events(path, tmp_path, "exclude")
    assert events is not None
    assert events.price.tolist() == [0.1, 0.15, 0.2, 0.3]
    assert report.out_of_order == 2
    tied = [quote(2 - i % 2, (i + 1) / 100) for i in range(60)]
    events, _ = read_events(write(tmp_path, tied), tmp_path, "exclude")
    assert events is not None
    assert events.price.tolist() == [(i + 1) / 100 for i in (*range(1, 60, 2), *range(0, 60, 2))]


MALFORMED = {
    "is not an object": [1, None, "trade", []],
    "type is neither trade nor price": [{"t": START, "price": 0.5}, quote(1, 0.5) | {"type": "redeem"}],
    "t is no time in milliseconds": [
        quote(1, 0.5) | {"t": t} for t in (START // 1000, "1", None, True, 1.5e12, 10**20)
    ],
    "price is no number above 0": [quote(1, price) for price in (0, -1, "0.5", None, float("nan"), float("inf"), True)],
    "size is no number above 0": [trade(1, "BUY", 1, 0.5) | {"size": s} for s in (0, -2, None, "3", float("nan"))]
    + [quote(1, 0.5) | {"size": -1}],
    "side is neither BUY nor SELL": [trade(1, "BUY", 1, 0.5) | {"side": side} for side in ("buy", None, 1, ["BUY"])],
}


@pytest.mark.parametrize("reason", MALFORMED)
def test_names_every_malformed_event(tmp_path, reason):
    bad = MALFORMED[reason]
    events, report = read_events(write(tmp_path, [quote(0, 0.4), *bad, quote(2, 0.6)]), tmp_path, "skip")
    assert report.malformed == {reason: list(range(1, 1 + len(bad)))}
    assert report.events == 2 + len(bad)
    assert events is not None
    assert events.price.tolist() == [0.4, 0.6]


def test_a_market_that_lost_a_trade_is_left_out_and_one_that_lost_a_price_is_not(tmp_path):
    path = write(tmp_path, [quote(0, 0.4), quote(1, -1)])
    assert read_events(path, tmp_path, "exclude")[0] is not None
    path = write(tmp_path, [quote(0, 0.4), trade(1, "HOLD", 1, 0.5)])
    events, report = read_events(path, tmp_path, "exclude")
    assert events is None
    assert "lost 1 malformed trade(s)" in str(report.refused)
    assert read_events(path, tmp_path, "skip")[0] is not None


def test_counts_a_usdc_that_is_not_price_times_size(tmp_path):
    sound, wrong = trade(0, "BUY", 100, 0.5), trade(1, "BUY", 100, 0.5) | {"usdc": 51.0}
    _, report = read_events(write(tmp_path, [sound, wrong, sound | {"usdc": 50.4}]), tmp_path, "exclude")
    assert report.usdc_differs == [1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"slug": "a", "prices": [', "is not readable as JSON"),
        (b"\xff\xfe", "is not readable as JSON"),
        (b"[" * 100_000, "is not readable as JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"prices": []}', "has no slug"),
        (b'{"slug": 3, "prices": []}', "has no slug"),
        (b'{"slug": "a"}', "has no list of prices"),
        (b'{"slug": "a", "prices": {}}', "has no list of prices"),
        (b'{"slug": "a", "prices": []}', "holds no sound event"),
    ],
)
def test_refuses_a_malformed_file(tmp_path, content, told):
    path = tmp_path / "a_prices.json"
    path.write_bytes(content)
    events, report = read_events(path, tmp_path, "exclude")
    assert events is None
    assert report.refused is not None
    assert report.refused.startswith(told)


def test_finds_trade_files_and_names_the_others(tmp_path):
    path = write(tmp_path, [])
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".btc_prices.json.abc.part").write_text("")
    assert find_files(tmp_path) == ([path], ["notes.txt"])
    with pytest.raises(TraderDataError, match="no folder"):
        find_files(tmp_path / "nowhere")
    path.unlink()
    with pytest.raises(TraderDataError, match="no trade file"):
        find_files(tmp_path)


# Bars


def test_bars_by_hand():
    events = events_of(
        quote(1, 0.5), trade(2, "BUY", 4, 0.7), quote(14.999, 0.6),  # bar 0
        trade(15, "SELL", 1, 0.4),  # bar 1: at the close of bar 0, which does not see it
        trade(46, "BUY", 2, 0.3), trade(50, "SELL", 5, 0.35),  # bar 3
    )  # fmt: skip
    bars = make_bars(events, 900)
    assert ((bars.close_time - START) / MINUTE).tolist() == [15, 30, 45, 60]
    assert bars.open.tolist() == [0.5, 0.4, 0.4, 0.3]
    assert bars.high.tolist() == [0.7, 0.4, 0.4, 0.35]
    assert bars.low.tolist() == [0.5, 0.4, 0.4, 0.3]
    assert bars.close.tolist() == [0.6, 0.4, 0.4, 0.35]
    assert bars.volume.tolist() == [4, 1, 0, 7]
    assert bars.net_size.tolist() == [4, -1, 0, -3]


def test_bars_equal_a_loop_over_events():
    random = np.random.default_rng(0)
    times = np.sort(random.integers(0, 60 * 24 * MINUTE, 500))
    events = events_of(
        *(trade(t / MINUTE, "BUY", 1, p) for t, p in zip(times, random.uniform(0.1, 0.9, 500), strict=True))
    )
    bars = make_bars(events, 300)
    for i, close_time in enumerate(bars.close_time):
        inside = (events.time >= close_time - 300_000) & (events.time < close_time)
        prices = events.price[inside]
        expected = [prices[0], prices.max(), prices.min(), prices[-1]] if len(prices) else [bars.close[i - 1]] * 4
        assert [bars.open[i], bars.high[i], bars.low[i], bars.close[i]] == expected
        assert bars.volume[i] == inside.sum()
    assert bars.volume.sum() == 500


def test_rounding_is_no_trade():
    events = events_of(trade(0, "BUY", 0.1, 0.5), trade(1, "BUY", 0.2, 0.5), trade(2, "SELL", 0.3, 0.5))
    bars = make_bars(events, 900)
    assert 0.1 + 0.2 - 0.3 != 0
    assert bars.net_size.tolist() == [0]
    assert keep_books(events, bars).inventory.tolist() == [0]


def test_a_wrong_time_does_not_fill_the_memory():
    with pytest.raises(TraderDataError, match="one of its times is wrong"):
        make_bars(events_of(quote(0, 0.5), quote(60 * 24 * 365 * 40, 0.5)), 900)


# Books


def test_position_by_hand_through_zero_and_back():
    steps = [  # bought, price -> inventory, entry price, realised, opened
        (10, 0.40, 10, 0.40, 0.0, 1),
        (30, 0.60, 40, 0.55, 0.0, 1),  # (10 x .4 + 30 x .6) / 40
        (-20, 0.70, 20, 0.55, 3.0, 1),  # 20 x .15
        (-50, 0.50, -30, 0.50, 2.0, 4),  # closes 20 at a loss of 1, opens -30
        (-10, 0.90, -40, 0.60, 2.0, 4),  # (30 x .5 + 10 x .9) / 40
        (15, 0.40, -25, 0.60, 5.0, 4),  # 15 x .2
        (25, 0.80, 0, 0.00, 0.0, 0),  # 25 x -.2
        (5, 0.20, 5, 0.20, 0.0, 8),
    ]
    position = Position()
    for time, (traded, price, inventory, entry, realised, opened) in enumerate(steps, 1):
        position = position.trade(traded, price, time)
        assert position.inventory == pytest.approx(inventory, abs=1e-12)
        assert position.entry_price == pytest.approx(entry, abs=1e-12)
        assert position.realised_pnl == pytest.approx(realised, abs=1e-12)
        assert position.opened == opened
    assert position.unrealised_pnl(0.5) == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(5))
def test_profit_is_cash_plus_what_the_inventory_is_worth(seed):
    random = np.random.default_rng(seed)
    trades, held = [], 0.0
    for i in range(300):
        side = "SELL" if random.random() < (0.8 if held > 0 else 0.2) else "BUY"
        size, price = float(random.integers(1, 50)), float(random.uniform(0.05, 0.95))
        held += size if side == "BUY" else -size
        trades.append(trade(7 * i, side, size, price))
    events = events_of(*trades)
    bars = make_bars(events, 900)
    books = keep_books(events, bars)
    assert (np.diff(np.sign(books.inventory)) != 0).sum() > 30  # it goes through zero
    for i, close_time in enumerate(bars.close_time):
        before = events.time < close_time
        inventory = events.traded[before].sum()
        cash = -(events.traded * events.price)[before].sum()
        assert books.inventory[i] == pytest.approx(inventory, abs=1e-9)
        assert books.equity[i] == pytest.approx(cash + inventory * bars.close[i], abs=1e-9)


def test_a_trade_at_the_close_of_a_bar_is_not_seen_by_it():
    events = events_of(quote(0, 0.5), trade(15, "BUY", 10, 0.5), quote(31, 0.6))
    bars = make_bars(events, 900)
    books = keep_books(events, bars)
    assert books.inventory.tolist() == [0, 10, 10]
    assert books.opened.tolist() == [0, START + 15 * MINUTE, START + 15 * MINUTE]
    assert bars.net_size.tolist() == [0, 10, 0]


def test_exits_by_hand():
    events = events_of(
        trade(1, "BUY", 10, 0.5), trade(5, "SELL", 4, 0.6), trade(9, "SELL", 16, 0.4), trade(20, "BUY", 10, 0.3)
    )
    books = keep_books(events, make_bars(events, 900))
    assert books.exit_return == pytest.approx([0.2, -0.2, 0.25])  # the last: short from .4, bought at .3
    assert ((books.exit_opened - START) / MINUTE).tolist() == [1, 1, 9]
    assert ((books.exit_time - START) / MINUTE).tolist() == [5, 9, 20]


def test_rewards_and_what_is_left_of_them_by_hand():
    events = events_of(trade(1, "BUY", 10, 0.5), quote(16, 0.6), quote(31, 0.4), trade(46, "SELL", 10, 0.7))
    books = keep_books(events, make_bars(events, 900))
    assert books.equity == pytest.approx([0, 1, -1, 2])
    capital = fit_capital([books])
    assert capital == pytest.approx(5)
    rewards = bar_rewards(books, capital)
    assert rewards == pytest.approx([0.2, -0.4, 0.6])
    assert returns_to_go(rewards) == pytest.approx([0.4, 0.2, 0.6])


def test_capital_is_the_median_stake_of_the_markets_with_a_position():
    def market(size: float) -> tuple:
        return (trade(1, "BUY", size, 0.5), quote(40, 0.5))

    markets = [market(10), market(90), market(20), (quote(1, 0.5), quote(40, 0.5))]
    books = [keep_books(events_of(*m), make_bars(events_of(*m), 900)) for m in markets]
    assert fit_capital(books) == 10.0
    with pytest.raises(TraderDataError, match="holds nothing"):
        fit_capital(books[3:])
