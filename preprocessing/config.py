"""The settings of preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal
from zoneinfo import available_timezones

from preprocessing.indicators import IndicatorPeriods
from preprocessing.splits import check_ratios, parse_split_dates
from preprocessing.statistics import MIN_WINDOW

DEFAULT_SPLIT = (0.7, 0.1, 0.2)


@dataclass(frozen=True, kw_only=True)
class BarRules:
    """Which bars of a file are used and how they are read; only those are checked."""

    start: str | None = None
    """First day, YYYY-MM-DD; None: the first there is."""
    end: str | None = None
    """Last day; None: the last there is."""
    outliers: Literal["warn", "refuse", "repair"] = "warn"
    """As `DataConfig.outliers`."""
    timezone: str | None = None
    """As `DataConfig.timezone`."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the bars come from and how they become windows."""

    data_dir: Path | None = None
    """Folder with one OHLCV CSV per stock (TICKER.csv); null: download into `cache_dir`."""
    cache_dir: Path = Path("cache")
    """Folder that keeps downloaded bars."""
    start: str | None = None
    """First day to use, YYYY-MM-DD; null: the first there is."""
    end: str | None = None
    """Last day to use, YYYY-MM-DD; null: the last there is."""
    on_bad_stock: Literal["stop", "skip"] = "stop"
    """What a stock whose file is refused does to the others: `stop` ends the run, `skip` leaves it out and says why."""
    outliers: Literal["warn", "refuse", "repair"] = "warn"
    """Moves that no market makes (x10, x100) and splits that the file names but did not apply: `warn` uses them as
    they are, `refuse` refuses the file, `repair` puts right by a power of ten or by the split what comes back, and
    refuses what does not."""
    timezone: str | None = None
    """Time zone of bars within a day whose times have no offset: America/New_York; they then become UTC. null: as
    given. Days whose times have an offset are counted in it."""
    calendar: str = "auto"
    """Days of the bars to come: `auto` (as the exchange whose days the bars share), `24/7`, `weekdays`, or an exchange
    as the library exchange_calendars calls it: XNYS."""
    window: int = 30
    """Days that a forecaster sees, L."""
    horizon: int = 10
    """Days that it predicts, H."""
    stride: int = 1
    """Days between two origins."""
    split: tuple[float, float, float] = DEFAULT_SPLIT
    """Shares of the calendar for train, validation and test, in this order of time."""
    split_by: Literal["calendar", "stock"] = "calendar"
    """`calendar` cuts all stocks on the same days; `stock` cuts each by its own rows, as published comparisons do:
    stocks of different lengths then leak what they share into each other's training."""
    split_dates: tuple[str, str] | None = None
    """First day of validation and first day of test, YYYY-MM-DD, instead of shares; null: as `split` says."""
    folds: int = 1
    """Walk-forward folds, K: the test span is cut into K consecutive blocks, each with its own train and val
    before it, written to fold_1..fold_K besides the usual files; 1 writes no folds."""
    embargo: int | None = None
    """Days left out after each cut, besides the windows that cross it; null: window - horizon, at least 0."""
    indicators: IndicatorPeriods = field(default_factory=IndicatorPeriods)

    def __post_init__(self) -> None:
        if self.window < MIN_WINDOW:
            raise ValueError(f"data.window must be at least {MIN_WINDOW} days; got {self.window}")
        if self.horizon < 1 or self.stride < 1:
            raise ValueError(f"data.horizon and data.stride must be at least 1; got {self.horizon}, {self.stride}")
        if self.embargo is not None and self.embargo < 0:
            raise ValueError(f"data.embargo must be 0 or more days; got {self.embargo}")
        check_ratios(self.split)
        if self.split_dates is not None:
            parse_split_dates(self.split_dates)
            if self.split != DEFAULT_SPLIT:
                raise ValueError(
                    f"give data.split or data.split_dates, not both; got {self.split} and {self.split_dates}"
                )
        if self.folds < 1:
            raise ValueError(f"data.folds must be at least 1; got {self.folds}")
        if self.split_by == "stock" and (self.folds > 1 or self.split_dates is not None):
            raise ValueError("data.split_by stock cuts by shares of rows alone: no data.split_dates, no data.folds")
        _check_span(self.start, self.end)
        if self.timezone is not None and self.timezone not in available_timezones():
            raise ValueError(f"data.timezone must be a name as America/New_York or UTC; got '{self.timezone}'")

    @property
    def rules(self) -> BarRules:
        """Which bars are used and how they are read."""
        return BarRules(start=self.start, end=self.end, outliers=self.outliers, timezone=self.timezone)

    @property
    def embargo_days(self) -> int:
        """Bars left out after each cut: purge and embargo together span at least a window."""
        return max(self.window - self.horizon, 0) if self.embargo is None else self.embargo

    @property
    def cut_dates(self) -> tuple[date, date] | None:
        """`split_dates` as days."""
        return None if self.split_dates is None else parse_split_dates(self.split_dates)

    @property
    def first_origin(self) -> int:
        """Row of the first origin: all indicators have warmed up and a whole window lies behind it."""
        return max(self.indicators.warm_up, self.window - 1)

    @property
    def rows_needed(self) -> int:
        """Fewest rows that give one window."""
        return self.first_origin + self.horizon + 1


def _check_span(start: str | None, end: str | None) -> None:
    for name, day in (("start", start), ("end", end)):
        try:
            date.fromisoformat(day or "2000-01-01")
        except ValueError as error:
            raise ValueError(f"data.{name} must be a day as YYYY-MM-DD; got '{day}'") from error
    if start and end and date.fromisoformat(start) > date.fromisoformat(end):
        raise ValueError(f"data.start must not lie after data.end; got {start} and {end}")
