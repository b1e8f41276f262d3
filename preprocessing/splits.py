"""The only place that cuts time: cuts with purge and embargo, for one split or for walk-forward folds.

A window belongs to `train` if its last target day lies before the first cut; to `val` if its first target day
is at least `embargo` calendar bars after the first cut and its last before the second; to `test` likewise
after the second and before the end of the test span. Windows whose targets cross a cut are purged. Contexts
may reach back over a cut: the past is known.

Walk-forward: the test share is divided into K consecutive blocks; fold k tests on block k, validates on the
days right before it and trains on all days before those.

    one cut    train train train train val test test test
    fold 1     train train train train val test
    fold 2     train train train train train val test
    fold 3     train train train train train train val test
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np

from preprocessing.errors import UserError


@dataclass(frozen=True)
class CalendarCut:
    """Where train ends and where test begins and ends.

    Attributes:
        val_start: first calendar day of the validation span.
        test_start: first calendar day of the test span.
        val_first: first day on which a validation target may fall (val_start plus the embargo).
        test_first: first day on which a test target may fall (test_start plus the embargo).
        test_end: first day after the test span; without folds it lies beyond the last day.
    """

    val_start: np.datetime64
    test_start: np.datetime64
    val_first: np.datetime64
    test_first: np.datetime64
    test_end: np.datetime64


class SplitError(UserError):
    """A split that this calendar does not allow; the message says what it does."""


def check_ratios(ratios: tuple[float, float, float]) -> None:
    """Refuse ratios that do not divide a calendar.

    Raises:
        ValueError: they are not three non-negative numbers that sum to 1 with the first above 0.
    """
    if len(ratios) != 3 or not min(ratios) >= 0 or ratios[0] <= 0 or not abs(sum(ratios) - 1) <= 1e-9:
        raise ValueError(f"split must be three non-negative ratios that sum to 1 with train > 0; got {ratios}.")


def cut_calendar(
    calendar: np.ndarray,
    ratios: tuple[float, float, float],
    embargo: int,
    dates: tuple[date, date] | None = None,
) -> CalendarCut:
    """Cut the union of all stocks' trading days by ratios (train, val, test), or where dates say.

    Args:
        calendar: datetime64 days, in any order, repeats allowed.
        ratios: three non-negative numbers that sum to 1; train must be positive.
        embargo: bars left out after each cut.
        dates: first days of the validation and of the test span, instead of the ratios.

    Raises:
        ValueError: the ratios are not such numbers, the embargo is negative, or the calendar is empty.
        SplitError: no day of the calendar lies before, between or after the dates.
    """
    days, (val, test) = _days_and_cuts(calendar, ratios, embargo, dates)
    return _cut(days, val, test, len(days), embargo)


def cut_stock(days: np.ndarray, ratios: tuple[float, float, float], embargo: int) -> CalendarCut:
    """Cut one stock's own days by ratios, as published comparisons do.

    The first int(n * train) days train, the last int(n * test) test, those between validate. Stocks of different
    lengths are cut on different days: a model of several then trains on days on which others are tested, and
    what stocks share reaches it from the future. Only for comparison with figures made this way.

    Args:
        days: [T] datetime64, ascending.
        ratios: as in `cut_calendar`.
        embargo: bars left out after each cut.
    """
    check_ratios(ratios)
    return _cut(days, int(len(days) * ratios[0]), len(days) - int(len(days) * ratios[2]), len(days), embargo)


def walk_forward_cuts(
    calendar: np.ndarray,
    ratios: tuple[float, float, float],
    embargo: int,
    folds: int,
    dates: tuple[date, date] | None = None,
) -> list[CalendarCut]:
    """Cuts of `folds` consecutive test blocks, equal in days to within one, each with all its past to train on.

    Block k of the test span is tested by fold k, which validates on as many days right before it as the
    validation share has, and trains on the days before those. One fold is the cut of `cut_calendar`.

    Args:
        calendar: as in `cut_calendar`.
        ratios: as in `cut_calendar`.
        embargo: bars left out after each cut, in every fold.
        folds: number of blocks, K.
        dates: as in `cut_calendar`.

    Raises:
        ValueError: as in `cut_calendar`.
        SplitError: as in `cut_calendar`, or the test span has fewer days than folds.
    """
    days, (val, test) = _days_and_cuts(calendar, ratios, embargo, dates)
    if not 1 <= folds <= max(len(days) - test, 1):
        raise SplitError(f"data.folds must be from 1 to {len(days) - test}, the days of the test span; got {folds}.")
    # integer division of the running product: block lengths differ by one day at most, and none is lost
    bounds = [test + (len(days) - test) * k // folds for k in range(folds + 1)]
    # validation slides along right before its block, so a fold never selects on older days than it must
    return [_cut(days, start - (test - val), start, end, embargo) for start, end in pairwise(bounds)]


def _days_and_cuts(
    calendar: np.ndarray, ratios: tuple[float, float, float], embargo: int, dates: tuple[date, date] | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """The sorted days, and the numbers of the first validation and the first test day."""
    check_ratios(ratios)
    if embargo < 0:
        raise ValueError(f"embargo must be 0 or more bars; got {embargo}.")
    if len(calendar) == 0:
        raise ValueError("there is no day to cut.")
    # one calendar for all stocks: a day that trains one stock must not test another
    days = np.unique(np.asarray(calendar, dtype="datetime64[ns]"))
    if dates is None:
        return days, (round(len(days) * ratios[0]), round(len(days) * (ratios[0] + ratios[1])))
    val, test = (int(np.searchsorted(days, np.datetime64(day, "ns"))) for day in dates)
    if not 0 < val < test < len(days):
        raise SplitError(
            f"data.split_dates {dates[0]} and {dates[1]} must leave days before, between and after them; the bars "
            f"run from {str(days[0])[:10]} to {str(days[-1])[:10]}."
        )
    return days, (val, test)


def _cut(days: np.ndarray, val: int, test: int, end: int, embargo: int) -> CalendarCut:
    # an embargo may reach past the last day: then no target can follow it
    beyond = days[-1] + np.timedelta64(1, "D")

    def day(index: int) -> np.datetime64:
        return days[index] if index < len(days) else beyond

    return CalendarCut(day(val), day(test), day(val + embargo), day(test + embargo), day(end))


def assign_split(target_dates: np.ndarray, cut: CalendarCut) -> np.ndarray:
    """Split of each window: [B] of "train", "val", "test" or "" (purged or embargoed).

    Args:
        target_dates: [B, H] datetime64, the days to predict.
        cut: the calendar cut.
    """
    first, last = target_dates[:, 0], target_dates[:, -1]
    split = np.full(len(target_dates), "", dtype="<U5")
    # a path that crosses a cut belongs to neither side: in training its end would show prices of the span that comes
    # next
    split[last < cut.val_start] = "train"
    split[(first >= cut.val_first) & (last < cut.test_start)] = "val"
    split[(first >= cut.test_first) & (last < cut.test_end)] = "test"
    return split


def parse_split_dates(dates: Sequence[str]) -> tuple[date, date]:
    """Two days as YYYY-MM-DD, the second after the first.

    Raises:
        ValueError: they are not.
    """
    try:
        val_start, test_start = map(date.fromisoformat, dates)
    except ValueError as error:
        raise ValueError(f"data.split_dates must be two days as YYYY-MM-DD; got {', '.join(dates)}") from error
    if not val_start < test_start:
        raise ValueError(f"data.split_dates must ascend; got {val_start} and {test_start}")
    return val_start, test_start
