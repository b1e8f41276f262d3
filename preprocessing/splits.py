"""The only place that cuts time: one calendar cut for all stocks, with purge and embargo.

A window belongs to `train` if its last target day lies before the first cut; to `val` if its first target day
is at least `embargo` calendar bars after the first cut and its last before the second; to `test` likewise
after the second. Windows whose targets cross a cut are purged. Contexts may reach back over a cut: the past
is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CalendarCut:
    """Where train ends and test begins.

    Attributes:
        val_start: first calendar day of the validation span.
        test_start: first calendar day of the test span.
        val_first: first day on which a validation target may fall (val_start plus the embargo).
        test_first: first day on which a test target may fall (test_start plus the embargo).
    """

    val_start: np.datetime64
    test_start: np.datetime64
    val_first: np.datetime64
    test_first: np.datetime64


def check_ratios(ratios: tuple[float, float, float]) -> None:
    """Refuse ratios that do not divide a calendar.

    Raises:
        ValueError: they are not three non-negative numbers that sum to 1 with the first above 0.
    """
    if len(ratios) != 3 or not min(ratios) >= 0 or ratios[0] <= 0 or not abs(sum(ratios) - 1) <= 1e-9:
        raise ValueError(f"split must be three non-negative ratios that sum to 1 with train > 0; got {ratios}.")


def cut_calendar(calendar: np.ndarray, ratios: tuple[float, float, float], embargo: int) -> CalendarCut:
    """Cut the union of all stocks' trading days by ratios (train, val, test).

    Args:
        calendar: datetime64 days, in any order, repeats allowed.
        ratios: three non-negative numbers that sum to 1; train must be positive.
        embargo: bars left out after each cut.

    Raises:
        ValueError: the ratios are not such numbers, or the calendar is too short for them.
    """
    check_ratios(ratios)
    if embargo < 0:
        raise ValueError(f"embargo must be 0 or more bars; got {embargo}.")
    days = np.unique(np.asarray(calendar, dtype="datetime64[ns]"))
    val, test = round(len(days) * ratios[0]), round(len(days) * (ratios[0] + ratios[1]))
    beyond = days[-1] + np.timedelta64(1, "D")

    def day(index: int) -> np.datetime64:
        return days[index] if index < len(days) else beyond

    return CalendarCut(day(val), day(test), day(val + embargo), day(test + embargo))


def assign_split(target_dates: np.ndarray, cut: CalendarCut) -> np.ndarray:
    """Split of each window: [B] of "train", "val", "test" or "" (purged or embargoed).

    Args:
        target_dates: [B, H] datetime64, the days to predict.
        cut: the calendar cut.
    """
    first, last = target_dates[:, 0], target_dates[:, -1]
    split = np.full(len(target_dates), "", dtype="<U5")
    split[last < cut.val_start] = "train"
    split[(first >= cut.val_first) & (last < cut.test_start)] = "val"
    split[first >= cut.test_first] = "test"
    return split
