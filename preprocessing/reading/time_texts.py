"""Dates and times as texts and numbers write them.

A day is YYYY-MM-DD (also with / or . between, or nothing), DD/MM/YYYY or MM/DD/YYYY where the file itself decides
which, or one whose month is a name. A time of day and an offset may follow, or stand in a column of its own. A number
is seconds, milliseconds, microseconds or nanoseconds since 1970 by its size, or YYYYMMDD. Letters: T rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import numpy as np

FIRST_YEAR, LAST_YEAR = 1700, 2261
"""Years that datetime64[ns] holds whole."""
MOST_OFFSET = 14 * 60
"""Minutes: Kiribati is the furthest ahead of UTC."""

Order = Literal["day first", "month first"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"
YEAR_FIRST = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})(?!\d)|(\d{2})(\d{2})(?!\d(?!\d{3}(?:\d\d)?$)))")
YEAR_LAST = re.compile(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4})(?!\d)")
SHORT_YEAR = re.compile(r"\d{1,2}([-/. ])(?:\d{1,2}|[A-Za-z]{3,9})\1\d{2}(?!\d)")
NAMED_MONTH = re.compile(
    rf"(?:[A-Za-z]{{3,9}},? )?(?:(?P<day>\d{{1,2}})[-/. ]?{_MONTH}[-/. ,]+|{_MONTH.replace('month', 'first')}[-/. ]"
    r"(?P<second>\d{1,2})(?:,? |[-/])\s*)(?P<year>\d{4})(?!\d)"
)
CLOCK = re.compile(r"(\d{1,2}):?(\d{2})(?::?(\d{2})(?:\.(\d{1,6})\d*)?)?(?: ?([AaPp])\.?[Mm]\.?(?![A-Za-z]))?(?![\d:])")
OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})?")
WRITE_ISO = "write all dates as YYYY-MM-DD"

_EPOCHS = {"s": (1e8, 2e10), "ms": (1e11, 2e13), "us": (1e14, 2e16), "ns": (1e17, 9.2e18)}
"""Sizes of the times from 1973 on in each unit: they do not meet."""


def parse_time(cell: str, order: Order | None = None) -> tuple[datetime, float]:
    """A time as written, and its offset from UTC in minutes, NaN if it has none.

    Args:
        cell: the text.
        order: of day and month where the year comes last; None: not known.

    Raises:
        ValueError: it is none; the message says what it is not.
    """
    (year, month, day), end = _parse_day(cell, order)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"is not a day of the years {FIRST_YEAR} to {LAST_YEAR}")
    rest, clock, offset = cell[end:], (0, 0, 0, 0), float("nan")
    if rest:
        time = CLOCK.match(rest.lstrip(" Tt,"))
        if not time or not (rest[0] in " Tt," or (rest.isdigit() and "-" not in cell)):
            raise ValueError("is not a day as YYYY-MM-DD, nor one with a time as HH:MM:SS")
        zone = rest.lstrip(" Tt,")[time.end() :].strip()
        clock = _clock_of(time)
        offset = offset_minutes(zone) if zone else offset
    try:
        return datetime(year, month, day, *clock), offset
    except ValueError as error:
        raise ValueError("is not a day as YYYY-MM-DD") from error


def _parse_day(cell: str, order: Order | None) -> tuple[tuple[int, int, int], int]:
    """Year, month and day, and where they end."""
    if match := YEAR_FIRST.match(cell):
        year, _, month, day, plain_month, plain_day = match.groups()
        return (int(year), int(month or plain_month), int(day or plain_day)), match.end()
    if match := YEAR_LAST.match(cell):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        if order is None:
            raise ValueError(f"does not say which number is the month; {WRITE_ISO}")
        month, day = (second, first) if order == "day first" else (first, second)
        return (year, month, day), match.end()
    match = NAMED_MONTH.match(cell)
    name = (match["month"] or match["first"]).lower()[:3] if match else ""
    if match and name in _MONTHS:
        return (int(match["year"]), _MONTHS.index(name) + 1, int(match["day"] or match["second"])), match.end()
    if SHORT_YEAR.match(cell):
        raise ValueError(f"does not say which number is the month and which the year; {WRITE_ISO}")
    raise ValueError("is not a day as YYYY-MM-DD")


def _clock_of(match: re.Match[str]) -> tuple[int, int, int, int]:
    """Hour, minute, second and microsecond."""
    hour, minute, second, fraction, half = match.groups()
    hours = int(hour)
    if half:
        # 12 am is midnight and 12 pm is noon
        hours = hours % 12 + (12 if half in "Pp" else 0)
    return hours, int(minute), int(second or 0), int((fraction or "0").ljust(6, "0"))


def offset_minutes(zone: str) -> float:
    """Minutes ahead of UTC of Z, +HH:MM or -HHMM.

    Raises:
        ValueError: it is none of these.
    """
    if zone.upper() in ("Z", "UTC", "GMT"):
        return 0.0
    match = OFFSET.fullmatch(zone)
    if not match:
        raise ValueError(f"ends with '{zone}', which is not an offset as +HH:MM")
    minutes = 60 * int(match[2]) + int(match[3] or 0)
    if minutes > MOST_OFFSET:
        raise ValueError(f"ends with '{zone}', which is further from UTC than any place")
    return float(-minutes if match[1] == "-" else minutes)


def order_of(cells: Sequence[str]) -> Order | None:
    """Which of day and month comes first in dates whose year comes last, by all of a file's.

    A number above 12 is a day. Without one, the order in which the rows go up or down may tell.

    Raises:
        ValueError: some have the day first and others the month.
    """
    dates = [(int(m[1]), int(m[3]), int(m[4])) for m in map(YEAR_LAST.match, cells) if m]
    day_first, month_first = (any(date[place] > 12 for date in dates) for place in (0, 1))
    if day_first and month_first:
        raise ValueError(f"in some dates the first number is above 12, in others the second; {WRITE_ISO}")
    if day_first or month_first:
        return "day first" if day_first else "month first"
    numbers = np.array(dates, dtype=np.int64).reshape(-1, 3)
    # weights larger than any day and month, so that these numbers sort as dates do
    steps_day, steps_month = (np.diff(numbers @ weights) for weights in ([1, 40, 1000], [40, 1, 1000]))
    sorted_day, sorted_month = ((steps >= 0).all() or (steps <= 0).all() for steps in (steps_day, steps_month))
    # both or neither in order: nothing tells, and a guess would swap months for days
    if sorted_day == sorted_month:
        return None
    return "day first" if sorted_day else "month first"


def clock_texts(cells: Sequence[str]) -> list[str]:
    """Times of day as `parse_time` reads them: 930 and 93000 are filled up with zeros, in one way for all.

    They are hours, minutes and seconds where one is above 2359 or has six digits, else hours and minutes.
    """
    bare = [cell.removesuffix(".0") for cell in cells]
    digits = [cell for cell in bare if cell.isascii() and cell.isdigit()]
    if not digits:
        return bare
    width = 6 if max(map(int, digits)) > 2359 or max(map(len, digits)) >= 6 else 4
    return [cell.zfill(width) if cell.isdigit() else cell for cell in bare]


def times_of_numbers(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times that are numbers: since 1970 in a unit that their size tells, or YYYYMMDD.

    Args:
        numbers: [T], integers or floats without a fraction; T > 0.

    Returns:
        [T] datetime64[ns], and [T] offsets in minutes: 0 for those since 1970, which are UTC, NaN for days.

    Raises:
        ValueError: they are neither.
    """
    size = np.abs(numbers.astype(np.float64))
    largest = size.max(initial=0.0)
    if (size >= FIRST_YEAR * 10_000).all() and (largest < (LAST_YEAR + 1) * 10_000 or _look_like_dates(numbers)):
        times = [parse_time(str(int(number)))[0] for number in numbers]
        return np.array(times, "datetime64[ns]"), np.full(len(times), np.nan)
    for unit, (low, high) in _EPOCHS.items():
        if low <= largest < high:
            return numbers.astype(np.int64).astype(f"datetime64[{unit}]").astype("datetime64[ns]"), np.zeros(len(size))
    raise ValueError(
        "is a number that is no time: neither YYYYMMDD nor seconds, ms, us or ns since 1970 (from 1973 on); "
        f"{WRITE_ISO}"
    )


def _look_like_dates(numbers: np.ndarray) -> bool:
    """Whether all are YYYYMMDDHHMM or YYYYMMDDHHMMSS of the years 1900 to 2100."""
    texts = [str(int(number)) for number in numbers]
    if {len(text) for text in texts} - {12, 14} or not all("1900" <= text[:4] <= "2100" for text in texts):
        return False
    try:
        return all(parse_time(text) for text in texts)
    except ValueError:
        return False
