"""Moves that no market makes: found, told with their day and size, and put right where that needs no guess.

    impossible move    a close IMPOSSIBLE_MOVE times the one before (or its share), or a high or low that far from its
                       bar's open and close: pounds for pence, a decimal point that slipped
    unapplied split    a split that the file's own column names, and that its prices still show as a jump

What comes back within SPIKE_BARS is put right by the power of ten that it is off by, or its row is left out where it
is off by none. A move that stays is no slip of one row: nobody but its owner knows which side is right.
Letters: T bars.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from preprocessing.bars import PRICE_COLUMNS, MarketDataError, RawBars

IMPOSSIBLE_MOVE = 5.0
SPIKE_BARS = 5
SMALLEST_SPLIT = 1.2
"""Splits nearer to 1 cannot be told from a day's move."""
POWER_TOLERANCE = 0.2
"""How far the decimal logarithm of a slipped price may lie from a whole number: the market moved too."""
SHOWN = 5
"""Moves that a report names."""


@dataclass(frozen=True)
class Outliers:
    """What looks impossible in T bars."""

    moved: np.ndarray
    """[T] whether the close, high or low is impossibly far from what is around it."""
    unapplied: np.ndarray
    """[T] whether a split of this day is named but not applied to the prices before."""
    splits: np.ndarray
    """[T] suspected splits that no column names and that do not come back."""
    texts: tuple[str, ...]
    """The first of `moved` and `unapplied`."""


def find_outliers(raw: RawBars, suspects: np.ndarray) -> Outliers:
    """What looks impossible in bars in order of time.

    Args:
        raw: their columns whole (`bar_prices.fill_missing`).
        suspects: [T] moves that may be splits; one that comes back within SPIKE_BARS is dropped here.
    """
    columns = raw.columns
    # adjusted where it is known: a split that was applied is no jump there
    close = columns.get("Adj Close", columns["Close"])
    steps = np.diff(np.log(close), prepend=np.log(close[:1]))
    unapplied = _unapplied_splits(steps, columns)
    body = columns["Open"], columns["Close"]
    reach = np.log(np.maximum(columns["High"] / np.maximum(*body), np.minimum(*body) / columns["Low"]))
    far = math.log(IMPOSSIBLE_MOVE)
    splits = suspects & ~unapplied & ~_come_back(steps)
    moved = ((np.abs(steps) >= far) & ~splits & ~unapplied) | (reach >= far)
    texts = []
    for row in np.flatnonzero(moved | unapplied)[:SHOWN].tolist():
        what = "split not applied" if unapplied[row] else _size(float(steps[row]), float(reach[row]))
        texts.append(f"{_day(raw.times[row])} {what}")
    return Outliers(moved, unapplied, splits, tuple(texts))


def _come_back(steps: np.ndarray) -> np.ndarray:
    """[T] large steps of which one the other way lies within SPIKE_BARS: a slip and its end, not two splits."""
    far = math.log(IMPOSSIBLE_MOVE)
    back = np.zeros(len(steps), bool)
    for row in np.flatnonzero(np.abs(steps) >= far).tolist():
        after = np.arange(row + 1, min(row + SPIKE_BARS + 1, len(steps)))
        ends = after[steps[after] * np.sign(steps[row]) <= -far][:1]
        back[ends] = True
        back[row] |= len(ends) > 0
    return back


def _unapplied_splits(steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """[T] splits that are named and that the log price still shows: its step is nearer to them than to none."""
    if "Stock Splits" not in columns:
        return np.zeros(len(steps), bool)
    named = np.nan_to_num(columns["Stock Splits"])
    logs = np.log(np.where(named > 0, named, 1.0))
    # an applied split leaves no step; one that is not leaves minus its own log
    return (np.abs(logs) >= math.log(SMALLEST_SPLIT)) & (np.abs(steps + logs) < np.abs(logs) / 2)


def _size(step: float, reach: float) -> str:
    factor = math.exp(max(abs(step), reach))
    return f"/{factor:.3g}" if step < -reach else f"x{factor:.3g}"


def _day(time: object) -> str:
    return str(time)[:16].removesuffix("T00:00")


def refuse_outliers(raw: RawBars, outliers: Outliers) -> None:
    """Raise for the first.

    Raises:
        MarketDataError: there is one.
    """
    for row in np.flatnonzero(outliers.moved | outliers.unapplied)[:1]:
        raise MarketDataError(
            f"{raw.at(row, 'Close')}: no market moves so ({outliers.texts[0]}); {raw.way_out}, or choose "
            "data.outliers warn or repair."
        )


def repair_outliers(raw: RawBars, outliers: Outliers) -> tuple[RawBars, int]:
    """Bars with splits applied, slipped prices put right and rows without a remedy left out; and how many.

    Raises:
        MarketDataError: prices stay where they jumped to.
    """
    columns = {name: values.copy() for name, values in raw.columns.items()}
    for row in np.flatnonzero(outliers.unapplied):
        ratio = columns["Stock Splits"][row]
        for name in columns.keys() & {*PRICE_COLUMNS}:
            columns[name][:row] /= ratio
        # twice as many shares of half the price: turnover stays what it was
        columns["Volume"][:row] *= ratio
    keep = np.ones(len(raw.times), bool)
    count, end = int(outliers.unapplied.sum()), 0
    for row in np.flatnonzero(outliers.moved):
        if row < end:
            continue
        end = _end_of_spike(raw, columns, int(row))
        closes = columns["Close"].tolist()
        # between the prices before and after, in proportion: the market may have moved under the slip
        reference = math.sqrt(closes[row - 1] * closes[end]) if end > row else closes[row]
        for slipped in range(row, max(end, row + 1)):
            keep[slipped] = _scale(columns, slipped, reference)
            count += 1
        end += 1  # the way back is no outlier of its own
    columns = {name: values[keep] for name, values in columns.items()}
    return dataclasses.replace(raw, lines=raw.lines[keep], times=raw.times[keep], columns=columns), count


def _end_of_spike(raw: RawBars, columns: dict[str, np.ndarray], row: int) -> int:
    """The first row that is back where prices were; `row` itself where only its range is off."""
    close, near = columns["Close"], IMPOSSIBLE_MOVE / 2
    before = close[row - 1] if row else close[row]
    for later in range(row, min(row + SPIKE_BARS + 1, len(close))):
        if 1 / near < close[later] / before < near:
            return later
    raise MarketDataError(
        f"{raw.at(row, 'Close')}: prices jump from {before:.10g} to {close[row]:.10g} and stay there, so which side is "
        f"right cannot be told; {raw.way_out}, choose data.start or data.end on one side, or data.outliers warn."
    )


def _scale(columns: dict[str, np.ndarray], row: int, reference: float) -> bool:
    """Put the prices of a row right by powers of ten; False where one stays impossible."""
    for name in columns.keys() & {*PRICE_COLUMNS}:
        base = reference
        if name == "Adj Close":  # far from the close by itself, where many dividends lie between
            base = reference * columns["Adj Close"][row - 1] / columns["Close"][row - 1] if row else reference
        power = math.log10(columns[name][row] / base)
        if abs(power) >= math.log10(IMPOSSIBLE_MOVE):
            # not a slipped decimal point: what the price was cannot be told, so the row goes
            if abs(power - round(power)) > POWER_TOLERANCE:
                return False
            columns[name][row] /= 10.0 ** round(power)
    return True
