"""The prices of bars: what is no price, what is missing, ranges, adjustment, events, stale quotes and splits.

Letters: T bars.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from preprocessing.bars import PRICE_COLUMNS, MarketDataError, RawBars

RANGE_COLUMNS = ("Open", "High", "Low")
RANGE_TOLERANCE = 0.01
"""Share of the price by which open or close may leave the range: some vendors mix venues."""
STALE_BARS = 10
"""From this many equal closes in a row on, they are counted as stale."""
SPLIT_RATIOS = np.array([3 / 2, 2, 3, 4, 5, 7, 10, 20])
SPLIT_TOLERANCE = 0.02
SPLIT_TURNOVER = 4.0
"""A split leaves turnover as it was; a crash multiplies it. Above this many medians it is no split."""
TURNOVER_BARS = 20
"""Bars before the suspected split whose median turnover is the usual one."""
DIVIDEND_JUMP = 2e-5
"""Smallest jump of Adj Close / Close that is a dividend, besides what rounding of the two can make."""


def check_values(raw: RawBars) -> None:
    """Refuse a price that is not a positive number, but for opens and whole ranges of 0, which are missing.

    Raises:
        MarketDataError: there is one, or a volume, dividend or split below 0.
    """
    no_range = missing_ranges(raw.columns)
    for name, values in raw.columns.items():
        if name in PRICE_COLUMNS:
            missing = no_range | (values == 0) if name == "Open" else no_range & (name in RANGE_COLUMNS)
            bad, what = ~(values > 0) & ~missing, "is not a positive price"
        else:
            bad, what = values < 0, f"is not a {name.lower()} of 0 or more"
        rows = np.flatnonzero(bad | np.isinf(values))
        if len(rows):
            raise raw.refuse(rows, name, f"{values[rows[0]]:.10g}", what)


def missing_ranges(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """[T] whether all of open, high and low that are there are 0."""
    given = [columns[name] == 0 for name in RANGE_COLUMNS if name in columns]
    return np.logical_and.reduce(given) if len(given) > 1 else np.zeros(len(columns["Close"]), bool)


def fill_missing(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns with Open, High, Low and Volume whole, oldest first.

    The close stands in for a column that is not there and for a range of 0; the last close, as far as the bar's
    range allows, for an open of 0; 0 for a volume.
    """
    close, filled = columns["Close"], dict(columns)
    if missing_ranges(columns).any():
        for name in RANGE_COLUMNS:
            filled[name] = np.where(missing_ranges(columns), close, columns.get(name, close))
    opening = filled.setdefault("Open", close)
    filled.setdefault("High", np.maximum(opening, close))
    filled.setdefault("Low", np.minimum(np.where(opening == 0, close, opening), close))
    if (opening == 0).any():
        before = np.concatenate([close[:1], close[:-1]])
        filled["Open"] = np.where(opening == 0, np.clip(before, filled["Low"], filled["High"]), opening)
    filled["Volume"] = np.nan_to_num(columns["Volume"]) if "Volume" in columns else np.zeros(len(close))
    return filled


def count_narrow_ranges(raw: RawBars) -> int:
    """How many ranges open or close leave a little, for `adjust` to widen; more than a little is refused."""
    columns = raw.columns
    four = np.stack([columns[name] for name in ("Open", "High", "Low", "Close")])
    # [4, T] to [T]
    top, bottom = four.max(0), four.min(0)
    excess = {"High": top / columns["High"] - 1, "Low": 1 - bottom / columns["Low"]}
    for name, values in excess.items():
        rows = np.flatnonzero(values > RANGE_TOLERANCE)
        if len(rows):
            many = f" in {len(rows)} of {len(values)} {raw.place}s" if 2 * len(rows) > len(values) > 2 else ""
            way_out = "are the columns named rightly?" if many else f"{raw.way_out}."
            raise MarketDataError(
                f"{raw.at(rows[0], name)}: {columns[name][rows[0]]:.10g} leaves the bar's prices "
                f"{bottom[rows[0]]:.10g} to {top[rows[0]]:.10g} by more than {RANGE_TOLERANCE:.0%}{many}; {way_out}"
            )
    return int(((excess["High"] > 0) | (excess["Low"] > 0)).sum())


def adjust(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[T] open, high, low and close on the basis of the adjusted close, and volume."""
    close = columns.get("Adj Close", columns["Close"])
    # one factor for all four prices of a day: candles keep their shape
    factor = close / columns["Close"]
    opening = columns["Open"] * factor
    return {
        "open": opening,
        # widens a narrow range, and one whose product rounds to just inside the open or close that it equals
        "high": np.maximum.reduce([columns["High"] * factor, opening, close]),
        "low": np.minimum.reduce([columns["Low"] * factor, opening, close]),
        "close": close,
        "volume": columns["Volume"],
    }


def count_stale(close: np.ndarray) -> int:
    """Rows in runs of at least STALE_BARS equal closes."""
    # a new run begins wherever the close differs from the one before
    starts = np.flatnonzero(np.concatenate([[True], close[1:] != close[:-1]]))
    lengths = np.diff(np.append(starts, len(close)))
    return int(lengths[lengths >= STALE_BARS].sum())


def count_events(columns: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Dividends and splits: from their columns, else from jumps of Adj Close / Close.

    A split ratio is a split; any other jump upwards beyond rounding is a dividend. Adjusted prices without both
    columns say nothing of either: 0, 0.
    """
    if "Dividends" in columns and "Stock Splits" in columns:
        splits = np.nan_to_num(columns["Stock Splits"])
        return int((np.nan_to_num(columns["Dividends"]) > 0).sum()), int(((splits > 0) & (splits != 1)).sum())
    if "Adj Close" not in columns:
        return 0, 0
    adjusted, close = columns["Adj Close"], columns["Close"]
    ratio = adjusted / close
    jump = ratio[1:] / ratio[:-1]
    # two prices written with few decimals make their ratio jump without any event
    rounding = _rounding(adjusted) / adjusted + _rounding(close) / close
    split = _near_split_ratio(jump)
    dividend = ~split & (jump - 1 > DIVIDEND_JUMP + rounding[1:] + rounding[:-1])
    return int(dividend.sum()), int(split.sum())


def _rounding(prices: np.ndarray) -> float:
    """Half a unit of the last decimal that the prices are written with, between 2 and 6."""
    decimals = next((d for d in range(2, 6) if np.array_equal(np.round(prices, d), prices)), 6)
    return 0.5 * 10.0**-decimals


def _near_split_ratio(ratio: np.ndarray) -> np.ndarray:
    either_way = np.maximum(ratio, 1 / ratio)
    return np.any(np.abs(either_way[:, None] / SPLIT_RATIOS - 1) <= SPLIT_TOLERANCE, axis=1)


def suspect_splits(times: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """[T] overnight moves by a split ratio where no adjusted close tells, unless turnover says that it was a move."""
    suspects = np.zeros(len(times), bool)
    if "Adj Close" in columns:
        return suspects
    days = times.astype("datetime64[D]")
    # overnight alone: a split takes effect before the open
    ratio = columns["Open"][1:] / columns["Close"][:-1]
    turnover = columns["Close"] * columns["Volume"]
    for row in np.flatnonzero(_near_split_ratio(ratio) & (days[1:] != days[:-1])) + 1:
        usual = np.median(turnover[max(row - TURNOVER_BARS, 0) : row])
        # without any volume nothing speaks against a split, so it stays suspected
        suspects[row] = usual == 0 or turnover[row] <= SPLIT_TURNOVER * usual
    return suspects
