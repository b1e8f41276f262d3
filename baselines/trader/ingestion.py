"""Step 1: from trade files to bars.

A file holds the events of one market as the trader saw and made them:

    {"slug": "btc-updown-15m-1768904100",
     "prices": [{"t": 1768904163000, "type": "trade", "price": 0.77, "side": "BUY", "size": 20, "usdc": 15.4},
                {"t": 1768904170000, "type": "price", "price": 0.78}]}

`trade` is a fill of the trader: `side` and `size` (tokens) move the position, `price` the bars. `price` is a price of
the market without the trader: it moves the bars alone; its `size` is optional and counts as volume. `t` is in
milliseconds, UTC. Where `usdc` is not price times size to within USDC_TOLERANCE, it is counted; price and size hold.

Nothing is dropped in silence: each malformed event is counted and named by its position in the file. A market that
lost a trade has a wrong position from there on and is left out, unless `malformed_trades` is "skip".

Letters: E events, T bars.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from preprocessing.errors import UserError

MalformedTrades = Literal["exclude", "skip"]
FILE_PATTERN = "*_prices.json"
USDC_TOLERANCE = 0.01
"""Share by which `usdc` may differ from price times size; a cent is always allowed."""
TIMES = range(10**11, 10**13)
"""Milliseconds from 1973 to 2286: what lies outside was written in another unit."""
LARGEST = 1e12
"""Prices and sizes at or above it are none."""
MAX_BARS = 1_000_000
"""Bars of one market; more come from a wrong time."""
SIDES = {"BUY": 1.0, "SELL": -1.0}


class TraderDataError(UserError):
    """Trade files, or a file made of them, that cannot be used; the message is one line with a way out."""


@dataclass(frozen=True, kw_only=True)
class MarketEvents:
    """The events of one market, in order of time; those of one millisecond in the order of the file.

    Attributes:
        market: trader/slug.
        time: [E] int64 milliseconds, UTC.
        price: [E] per token.
        volume: [E] tokens that changed hands; 0 where the event does not say.
        traded: [E] tokens that the trader bought, negative where he sold; 0 for a price.
    """

    market: str
    time: np.ndarray
    price: np.ndarray
    volume: np.ndarray
    traded: np.ndarray


@dataclass(kw_only=True)
class FileReport:
    """What a file held.

    Attributes:
        path: relative to the data folder.
        events: number of events, malformed ones too.
        trades: number of sound trades.
        malformed: positions in `prices` (from 0) of malformed events, by reason.
        lost_trades: malformed events that were, or may have been, trades.
        usdc_differs: positions of trades whose usdc is not price times size.
        out_of_order: events earlier than the one before them; they were put in order.
        refused: why the whole file is not used, or None.
    """

    path: str
    events: int = 0
    trades: int = 0
    malformed: dict[str, list[int]] = field(default_factory=dict)
    lost_trades: int = 0
    usdc_differs: list[int] = field(default_factory=list)
    out_of_order: int = 0
    refused: str | None = None


def find_files(data_dir: Path) -> tuple[list[Path], list[str]]:
    """The trade files under a folder, sorted, and the names of its other files.

    Raises:
        TraderDataError: the folder is not there or holds no trade file.
    """
    if not data_dir.is_dir():
        raise TraderDataError(f"--data-dir {data_dir} is no folder; get files with the download or simulate command.")
    every = sorted(path for path in data_dir.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = [path for path in every if path.match(FILE_PATTERN)]
    if not files:
        raise TraderDataError(f"--data-dir {data_dir} holds no trade file ({{trader}}/{FILE_PATTERN}).")
    return files, [str(path.relative_to(data_dir)) for path in every if not path.match(FILE_PATTERN)]


def read_events(
    path: Path, data_dir: Path, malformed_trades: MalformedTrades
) -> tuple[MarketEvents | None, FileReport]:
    """The events of a file, or None where the report says why it is refused."""
    report = FileReport(path=str(path.relative_to(data_dir)))
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        report.refused = f"is not readable as JSON ({str(error)[:100]})"
        return None, report
    report.refused = _refuse_content(content)
    if report.refused is not None:
        return None, report
    rows = _check_events(content["prices"], report)
    if report.lost_trades and malformed_trades == "exclude":
        report.refused = (
            f"lost {report.lost_trades} malformed trade(s), so that its position is unknown; "
            "--malformed-trades skip uses it all the same"
        )
    elif not rows:
        report.refused = "holds no sound event"
    if report.refused is not None:
        return None, report
    time, price, volume, traded = (np.array(column) for column in zip(*rows, strict=True))
    report.out_of_order = int((np.diff(time) < 0).sum())
    # Stable: events of one millisecond stay in the order of the file.
    order = np.argsort(time, kind="stable")
    market = (path.parent.relative_to(data_dir) / content["slug"]).as_posix()
    events = MarketEvents(
        market=market, time=time[order], price=price[order], volume=volume[order], traded=traded[order]
    )
    return events, report


def _refuse_content(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "is not a JSON object"
    if not isinstance(content.get("slug"), str) or not content["slug"]:
        return "has no slug"
    if not isinstance(content.get("prices"), list):
        return "has no list of prices"
    return None


def _check_events(events: list[Any], report: FileReport) -> list[tuple[int, float, float, float]]:
    """Time, price, volume and signed traded size of each sound event; the others go into the report."""
    rows = []
    report.events = len(events)
    for position, event in enumerate(events):
        reason = _refuse_event(event)
        if reason is not None:
            report.malformed.setdefault(reason, []).append(position)
            # What is not certainly a price may have been a trade, and a lost trade makes every later position wrong.
            report.lost_trades += not (isinstance(event, dict) and event.get("type") == "price")
            continue
        price, size = float(event["price"]), float(event.get("size", 0.0))
        side = SIDES[event["side"]] if event["type"] == "trade" else 0.0
        rows.append((event["t"], price, size, side * size))
        if side:
            report.trades += 1
            usdc = event.get("usdc")
            if usdc is not None and not _agrees(usdc, price * size):
                report.usdc_differs.append(position)
    return rows


def _refuse_event(event: Any) -> str | None:
    """Why an event is malformed, or None."""
    if not isinstance(event, dict):
        return "is not an object"
    kind, time, size = event.get("type"), event.get("t"), event.get("size")
    if kind not in ("trade", "price"):
        return "type is neither trade nor price"
    # `type` and not `isinstance`: to Python True is an int as well.
    if type(time) is not int or time not in TIMES:
        return "t is no time in milliseconds"
    if not _is_amount(event.get("price")):
        return "price is no number above 0"
    if (kind == "trade" or size is not None) and not _is_amount(size):
        return "size is no number above 0"
    if kind == "trade" and not (isinstance(event.get("side"), str) and event["side"] in SIDES):
        return "side is neither BUY nor SELL"
    return None


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < LARGEST  # NaN is neither above nor below


def _agrees(usdc: Any, value: float) -> bool:
    # A cent is always allowed, as small amounts are rounded to it.
    return type(usdc) in (int, float) and abs(usdc - value) <= max(USDC_TOLERANCE * value, 0.01)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars of one market without gaps: from its first event's to its last event's.

    A bar holds the events from its beginning up to, but not at, its close. A bar without events repeats the last
    close, with volume 0.

    Attributes:
        close_time: [T] int64 milliseconds, UTC.
        open: [T] price of its first event.
        high: [T] highest price.
        low: [T] lowest price.
        close: [T] price of its last event.
        volume: [T] tokens.
        net_size: [T] tokens that the trader bought minus those he sold.
    """

    close_time: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    net_size: np.ndarray

    def __len__(self) -> int:
        return len(self.close_time)


def make_bars(events: MarketEvents, bar_seconds: int) -> Bars:
    """Bars on multiples of `bar_seconds` since 1970.

    Raises:
        TraderDataError: there would be more than MAX_BARS.
    """
    length = 1000 * bar_seconds
    # Counted from 1970 and not from the first event, so that the bars of all markets lie on one grid.
    number = events.time // length
    bar = number - number[0]  # [E]
    count = int(bar[-1]) + 1
    if count > MAX_BARS:
        raise TraderDataError(f"spans {count} bars of {bar_seconds} s, more than {MAX_BARS}: one of its times is wrong")
    starts = np.flatnonzero(np.diff(bar, prepend=-1))  # first event of each bar that has some
    ends = np.append(starts[1:], len(bar)) - 1
    # The last bar with events at or before each one: bars without events repeat its close.
    close = events.price[ends][np.searchsorted(bar[starts], np.arange(count), side="right") - 1]

    def filled(values: np.ndarray) -> np.ndarray:
        column = close.copy()
        column[bar[starts]] = values
        return column

    net, gross = (np.bincount(bar, weights, count) for weights in (events.traded, np.abs(events.traded)))
    return Bars(
        close_time=(number[0] + 1 + np.arange(count)) * length,
        open=filled(events.price[starts]),
        high=filled(np.maximum.reduceat(events.price, starts)),
        low=filled(np.minimum.reduceat(events.price, starts)),
        close=close,
        volume=np.bincount(bar, events.volume, count),
        net_size=np.where(np.abs(net) <= 1e-9 * gross, 0.0, net),  # what rounding leaves of .1 + .2 - .3
    )
