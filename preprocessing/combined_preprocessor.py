"""Raw OHLCV bars to windows with indicators and statistics: the whole step, readable top to bottom.

    python -m preprocessing.combined_preprocessor --root_path DIR --output_dir DIR --stock AAPL,MSFT

For each stock: read and check the bars, put O/H/L/C on the basis of the adjusted close, compute the indicators
on the whole past, cut windows, assign each to train, val or test by one calendar cut for all stocks, and write
{STOCK}_{train,val,test,full}_{x,y}.csv.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from preprocessing.indicators import IndicatorPeriods, compute_indicators
from preprocessing.scaling import StandardNorm
from preprocessing.splits import CalendarCut, assign_split, cut_calendar
from preprocessing.statistics import MAX_LAG, past_statistics, trailing_volatility, window_statistics
from preprocessing.windows import FEATURES, Context, Truth, WindowSet, concatenate


class TooFewRowsError(ValueError):
    """A stock is shorter than one window with its warm-up."""


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
    window: int = 30
    """Days that a forecaster sees, L."""
    horizon: int = 10
    """Days that it predicts, H."""
    stride: int = 1
    """Days between two origins."""
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of the calendar for train, validation and test, in this order of time."""
    embargo: int | None = None
    """Days left out after each cut, on top of purging windows that cross it; null: window - horizon, at least 0."""
    indicators: IndicatorPeriods = field(default_factory=IndicatorPeriods)

    def __post_init__(self) -> None:
        if self.window <= MAX_LAG + 1:
            raise ValueError(f"data.window must be at least {MAX_LAG + 2} days; got {self.window}")
        if self.horizon < 1 or self.stride < 1:
            raise ValueError(f"data.horizon and data.stride must be at least 1; got {self.horizon}, {self.stride}")
        if self.embargo is not None and self.embargo < 0:
            raise ValueError(f"data.embargo must be 0 or more days; got {self.embargo}")

    @property
    def embargo_days(self) -> int:
        """Bars left out after each cut: purge and embargo together span at least a window."""
        return max(self.window - self.horizon, 0) if self.embargo is None else self.embargo


def make_windows(item_id: str, bars: pd.DataFrame, config: DataConfig, norm: StandardNorm) -> WindowSet:
    """All windows of one stock whose indicators have warmed up and whose future is known.

    Args:
        item_id: name of the stock.
        bars: open, high, low, close on one adjusted basis, indexed by ascending unique dates.
        config: window length, horizon, stride, indicator periods.
        norm: fitted on the training closes.

    Raises:
        TooFewRowsError: not one window fits.
    """
    closes = bars["close"].to_numpy(dtype=np.float64)
    length, horizon = config.window, config.horizon
    first_origin = max(config.indicators.warm_up, length - 1)
    origins = np.arange(first_origin, len(closes) - horizon, config.stride)
    if len(origins) == 0:
        needed = first_origin + horizon + 1
        raise TooFewRowsError(
            f"stock {item_id} has {len(closes)} rows, but one window needs {needed} "
            f"(indicator warm-up {config.indicators.warm_up}, window {length}, horizon {horizon}). "
            "Give a longer history, or a shorter data.window."
        )
    past = sliding_window_view(closes, length)[origins - length + 1]  # [B, L]
    columns = window_statistics(past)
    columns["volatility"] = trailing_volatility(past)
    indicators = compute_indicators(bars, config.indicators)
    columns |= {name: indicators[name].to_numpy()[origins] for name in indicators}
    columns |= {name: values[origins] for name, values in past_statistics(closes).items()}
    columns |= {"norm_mean": np.full(len(origins), norm.mean), "norm_std": np.full(len(origins), norm.std)}
    dates = bars.index.to_numpy(dtype="datetime64[ns]")
    future_index = origins[:, None] + np.arange(1, horizon + 1)
    return WindowSet(
        context=Context(
            item_id=(item_id,) * len(origins),
            origin=dates[origins],
            past=past[:, :, None].copy(),
            features=np.stack([columns[name] for name in FEATURES], axis=1),
        ),
        truth=Truth(future=closes[future_index], dates=dates[future_index]),
    )


def split_windows(stocks: Mapping[str, pd.DataFrame], config: DataConfig) -> tuple[dict[str, WindowSet], CalendarCut]:
    """Windows of every stock, cut once by calendar date: {"train", "val", "test", "full"} and the cut."""
    calendar = np.concatenate([bars.index.to_numpy(dtype="datetime64[ns]") for bars in stocks.values()])
    cut = cut_calendar(calendar, config.split, config.embargo_days)
    sets = []
    for item_id, bars in stocks.items():
        train_closes = bars["close"].to_numpy()[bars.index.to_numpy(dtype="datetime64[ns]") < cut.val_start]
        sets.append(make_windows(item_id, bars, config, StandardNorm.fit(train_closes)))
    full = concatenate(sets)
    split = assign_split(full.truth.dates, cut)
    return {name: full.take(split == name) for name in ("train", "val", "test")} | {"full": full}, cut
