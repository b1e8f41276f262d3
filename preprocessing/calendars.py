"""The times of bars to come: the sessions of an exchange, every day, weeks, months, and the bars of a day.

Which exchange bars are of is told by the days on which they trade and rest, unless a name says it. Sessions are those
of the library exchange_calendars. Letters: T bars, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from preprocessing.checks.times import interval_name
from preprocessing.errors import UserError

EXCHANGES = (
    "XNYS", "XLON", "XETR", "XPAR", "XTKS", "XHKG", "XSHG", "XTSE", "XASX", "XBOM", "XSWX", "XAMS", "XMIL", "XMAD",
    "XSTO", "BVMF", "XTAI", "XSES", "CMES", "XKRX",
)  # fmt: skip
"""Those that `auto` knows, the first of equals wins; the last is slow to make."""
SHOWN = 500
"""So many of the latest days are compared with the sessions of each exchange."""
CALENDAR_DAYS = 60
"""Latest days that show whether prices come on weekdays, or every day."""
FEWEST_DAYS = 10
MOST_MISSES = 0.01
"""Share of days on which an exchange and its bars may disagree: halts and special closings."""
MOST_AHEAD = 4
"""Sessions are listed for so many calendar days per bar to come, and for a month more."""
DAY = np.timedelta64(1, "D")


class CalendarError(UserError):
    """A calendar of a name that is not known."""


def next_times(times: np.ndarray, horizon: int, calendar: str = "auto") -> np.ndarray | None:
    """The times of the next bars.

    Args:
        times: [T] datetime64, ascending.
        horizon: H.
        calendar: `auto`, `24/7`, `weekdays`, or a name of exchange_calendars: XNYS.

    Returns:
        [H] datetime64[ns]; None where the bars do not tell and no calendar was named.

    Raises:
        CalendarError: there is no calendar of this name.
    """
    times = np.asarray(times, dtype="datetime64[ns]")
    interval = interval_name(times)
    if interval is None:
        return None
    if interval.endswith(("wk", "mo")):
        return _next_periods(times, horizon, interval)
    days = np.unique(times.astype("datetime64[D]"))
    sessions = _sessions(days, horizon, calendar)
    if sessions is None:
        return None
    if len(days) == len(times):
        following = sessions[sessions > days[-1]][:horizon]
        known = calendar != "auto" or _is_daily(days, sessions)
        return following.astype("datetime64[ns]") if known else None
    return _next_within_days(times, horizon, sessions)


def _is_daily(days: np.ndarray, sessions: np.ndarray) -> bool:
    """Whether the latest bars stand on most sessions, not on every second one."""
    latest = days[-CALENDAR_DAYS:]
    return len(latest) > 0.8 * ((sessions >= latest[0]) & (sessions <= latest[-1])).sum()


def _next_periods(times: np.ndarray, horizon: int, interval: str) -> np.ndarray | None:
    """Weeks later on the same day; or the same day of the months to come, as the latest bars have it."""
    ahead = np.arange(1, horizon + 1)
    if interval == "1wk":
        usual = np.diff(times[-FEWEST_DAYS:].astype("datetime64[D]"))
        return times[-1] + ahead * 7 * DAY if len(usual) and np.median(usual.astype(int)) == 7 else None
    step = {"1mo": 1, "3mo": 3}[interval]
    last: list[pd.Timestamp] = pd.DatetimeIndex(times[-FEWEST_DAYS:]).tolist()
    rules: list[Callable[[pd.Period], object]] = [
        lambda month: month.start_time.normalize(),
        lambda month: month.end_time.normalize(),
        lambda month: pd.offsets.BMonthBegin().rollforward(month.start_time.normalize()),
        lambda month: pd.offsets.BMonthEnd().rollback(month.end_time.normalize()),
        lambda month: month.start_time.normalize() + pd.Timedelta(days=min(last[-1].day, month.days_in_month) - 1),
    ]
    fits = [sum(rule(time.to_period("M")) == time for time in last) for rule in rules]
    # dates that follow no rule cannot be continued without a guess
    if max(fits) <= len(last) / 2:
        return None
    rule, month = rules[fits.index(max(fits))], last[-1].to_period("M")
    following = pd.Series([rule(month + step * int(number)) for number in ahead])
    return following.to_numpy(dtype="datetime64[ns]")


def _next_within_days(times: np.ndarray, horizon: int, sessions: np.ndarray) -> np.ndarray | None:
    """The times of day that most of the latest days have, on the sessions from the last day on."""
    days = times.astype("datetime64[D]")
    latest = np.unique(days)[-FEWEST_DAYS:]
    clocks, seen = np.unique((times - days)[days >= latest[0]], return_counts=True)
    # half days and halts drop out: a time of day is usual if most of the latest days have it
    usual = clocks[2 * seen > len(latest)]
    # the last day may not be over: its remaining bars come first
    ahead = np.concatenate([[days[-1]], sessions[sessions > days[-1]]])
    following = (ahead[:, None] + usual).ravel()
    following = following[following > times[-1]][:horizon]
    return following.astype("datetime64[ns]") if len(following) == horizon else None


def _sessions(days: np.ndarray, horizon: int, calendar: str) -> np.ndarray | None:
    """Days of trading from the first of the latest days to beyond the horizon."""
    last = days[-1] + (31 + MOST_AHEAD * horizon) * DAY
    if calendar != "auto":
        return _named_sessions(calendar, days[-SHOWN:][0], last)
    latest = days[-CALENDAR_DAYS:]
    if len(latest) < FEWEST_DAYS:
        return None
    every_day = np.arange(latest[0], last)
    # prices on every day of two months: no exchange rests so little
    if (np.diff(latest) == DAY).all():
        return every_day
    # 1.25 weekdays from bar to bar leaves room for holidays, not for every second day
    if not (np.is_busday(latest).all() and np.busday_count(latest[:-1], latest[1:]).mean() < 1.25):
        return None
    shown = days[-SHOWN:]
    best, misses = None, MOST_MISSES * len(shown)
    for sessions in _exchanges(shown[0], last):
        # days that only one of the two has: bars on a holiday count as much as a session without a bar
        wrong = len(np.setxor1d(shown, sessions[sessions <= shown[-1]]))
        # the first of equals stays: exchanges with the same sessions count as the one that is listed first
        if wrong < misses or (best is None and wrong <= misses):
            best, misses = sessions, wrong
        if wrong == 0:
            break
    return every_day[np.is_busday(every_day)] if best is None else best


def _exchanges(first: np.datetime64, last: np.datetime64) -> Iterator[np.ndarray]:
    for name in EXCHANGES:
        try:
            yield _named_sessions(name, first, last)
        except CalendarError:
            continue  # it does not reach so far


def _named_sessions(name: str, first: np.datetime64, last: np.datetime64) -> np.ndarray:
    if name in ("24/7", "weekdays"):
        days = np.arange(first, last)
        return days if name == "24/7" else days[np.is_busday(days)]
    import exchange_calendars  # slow to import, and of use to a forecast alone

    known = exchange_calendars.get_calendar_names()
    if name not in known:
        raise CalendarError(
            f"data.calendar: there is no '{name}'; take auto, 24/7, weekdays or one of {', '.join(known)}"
        )
    try:
        calendar = exchange_calendars.get_calendar(name, start=str(first), end=str(last))
    except ValueError as error:
        raise CalendarError(f"data.calendar {name} does not reach from {first} to {last}: {error}") from error
    return calendar.sessions.to_numpy("datetime64[D]")
