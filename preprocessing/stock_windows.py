"""Bars of stocks to windows, and windows to splits and folds: of one stock, or of all of them in memory.

Letters: B windows, L window length, H horizon.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from tqdm import tqdm

from preprocessing.bars import BarsReport, MarketDataError
from preprocessing.bars_store import from_batch
from preprocessing.config import DataConfig
from preprocessing.indicators import compute_indicators
from preprocessing.market_data import MANY_STOCKS, StockFile, load_stock, require_rows
from preprocessing.scaling import StandardNorm
from preprocessing.splits import CalendarCut, assign_split, cut_calendar, cut_stock
from preprocessing.statistics import (
    ewma_volatility,
    past_statistics,
    trailing_volatility,
    window_statistics,
    yang_zhang_volatility,
)
from preprocessing.variance_memories import variance_memories
from preprocessing.windows import FEATURES, Context, Truth, WindowSet, concatenate
from preprocessing.windows_writer import EncodedRows, FileFormat, encode

SPLIT_NAMES = ("train", "val", "test")
HELD_OUT = 0.125
"""Share of the training days that validates where no windows are given for it: as in the default split."""


class EmptySplitError(MarketDataError):
    """Train, val or test has no window."""


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
    require_rows(item_id, len(closes), config)
    # the last origin still has H bars after it; the first has its window and settled indicators before it
    origins = np.arange(config.first_origin, len(closes) - config.horizon, config.stride)
    future_index = origins[:, None] + np.arange(1, config.horizon + 1)
    dates = bars.index.to_numpy(dtype="datetime64[ns]")
    return WindowSet(
        context=make_contexts(item_id, bars, config, norm, origins),
        truth=Truth(
            future=closes[future_index],
            dates=dates[future_index],
            next_open=bars["open"].to_numpy(dtype=np.float64)[origins + 1],
        ),
    )


def make_contexts(
    item_id: str, bars: pd.DataFrame, config: DataConfig, norm: StandardNorm, origins: np.ndarray
) -> Context:
    """What may be seen at each origin of one stock; an origin needs no bar after it.

    Args:
        item_id: name of the stock.
        bars: as in `make_windows`.
        config: window length and indicator periods.
        norm: fitted on the training closes.
        origins: [B] row numbers, none before `config.first_origin`.
    """
    closes = bars["close"].to_numpy(dtype=np.float64)
    # window i of the view ends at bar i + L - 1: the origin is the last bar in it
    past = sliding_window_view(closes, config.window)[origins - config.window + 1]  # [B, L]
    columns = window_statistics(past)
    columns["volatility"] = trailing_volatility(past)
    # on all closes and then picked at the origins: each value rests on the past of its own bar only
    columns["ewma_volatility"] = ewma_volatility(closes)[origins]
    ohlc = [bars[name].to_numpy(dtype=np.float64) for name in ("open", "high", "low", "close")]
    columns["yang_zhang_volatility"] = yang_zhang_volatility(
        *(sliding_window_view(prices, config.window)[origins - config.window + 1] for prices in ohlc)
    )
    indicators = compute_indicators(bars, config.indicators)
    columns |= {name: indicators[name].to_numpy()[origins] for name in indicators}
    columns |= {name: values[origins] for name, values in past_statistics(closes).items()}
    columns |= {"norm_mean": np.full(len(origins), norm.mean), "norm_std": np.full(len(origins), norm.std)}
    return Context(
        item_id=(item_id,) * len(origins),
        origin=bars.index.to_numpy(dtype="datetime64[ns]")[origins],
        # a copy: the view would hold every bar of the stock alive for as long as one window
        past=past[:, :, None].copy(),
        features=np.stack([columns[name] for name in FEATURES], axis=1),
        memories=variance_memories(*ohlc)[origins],
    )


def windows_of_stock(item_id: str, bars: pd.DataFrame, config: DataConfig, cut: CalendarCut) -> WindowSet | None:
    """All windows of one stock, scaled by its closes before the first cut; None where it has none of these."""
    # nothing from the first cut on: the scale is a feature, and would tell the level of prices to come
    train_closes = bars["close"].to_numpy()[days_of(bars) < cut.val_start]
    return make_windows(item_id, bars, config, StandardNorm.fit(train_closes)) if len(train_closes) else None


def split_windows(
    stocks: Mapping[str, pd.DataFrame], config: DataConfig
) -> tuple[dict[str, WindowSet], CalendarCut | None]:
    """Windows of every stock, by split.

    Args:
        stocks: bars by name. A stock without a bar before the first cut has nothing to be scaled by and gives
            none.
        config: windows, splits, embargo.

    Returns:
        {"train", "val", "test", "full"} and the cut, None where each stock has its own. `full` also holds the
        windows that the splits purge.

    Raises:
        EmptySplitError: a split has no window.
    """
    calendar = np.concatenate([days_of(bars) for bars in stocks.values()])
    cut = pooled_cut(calendar, config)
    parts: list[dict[str, WindowSet]] = []
    for name, bars in tqdm(stocks.items(), "windows", unit="stock", leave=False, disable=len(stocks) < MANY_STOCKS):
        # no common cut means that each stock is cut by its own rows, as `split_by: stock` asks
        own_cut = cut or cut_stock(days_of(bars), config.split, config.embargo_days)
        full = windows_of_stock(name, bars, config, own_cut)
        if full is not None:
            parts.append({split: full.take(rows) for split, rows in choose_rows(full, own_cut).items()})
    splits = {name: concatenate([part[name] for part in parts]) for name in (*SPLIT_NAMES, "full")} if parts else {}
    require_windows({name: len(splits.get(name, ())) for name in SPLIT_NAMES}, config, cut)
    return splits, cut


def fold_windows(full: WindowSet, cut: CalendarCut) -> dict[str, WindowSet]:
    """The windows of one walk-forward fold, scaled by what that fold may train on; see `rescale`.

    Args:
        full: all windows of one or many stocks, those that the splits purge included.
        cut: one of `walk_forward_cuts`.

    Returns:
        {"train", "val", "test"}, any of which may be empty.
    """
    rescaled = rescale(full, cut)
    rows = choose_rows(rescaled, cut)
    return {name: rescaled.take(rows[name]) for name in SPLIT_NAMES}


def rescale(full: WindowSet, cut: CalendarCut) -> WindowSet:
    """Windows with norm_mean and norm_std fitted again for another cut; all else stays.

    Each stock's are fitted on the closes before `cut.val_start` at the origins and targets of its windows, each
    day once. A stock without such a day has nothing to be scaled by: its windows are left out.
    """
    context, truth = full.context, full.truth
    days = np.concatenate([context.origin[:, None], truth.dates], axis=1)  # [B, 1 + H]
    closes = np.concatenate([context.last_price[:, None], truth.future], axis=1)
    _, stock = np.unique(np.array(context.item_id), return_inverse=True)
    order = np.argsort(stock, kind="stable")
    features = context.features.copy()
    scaled = np.zeros(len(full), dtype=bool)
    mean, std = (FEATURES.index(name) for name in ("norm_mean", "norm_std"))
    # one stock's rows after the other's, without a mask over all rows for each stock
    for rows in np.split(order, np.flatnonzero(np.diff(stock[order])) + 1):
        # windows overlap, so a day stands in many of them; it must count once
        shown, first = np.unique(days[rows], return_index=True)
        train_closes = closes[rows].ravel()[first[shown < cut.val_start]]
        if len(train_closes):
            norm = StandardNorm.fit(train_closes)
            features[rows, mean], features[rows, std] = norm.mean, norm.std
            scaled[rows] = True
    return WindowSet(context=dataclasses.replace(context, features=features), truth=truth).take(scaled)


def choose_rows(windows: WindowSet, cut: CalendarCut) -> dict[str, np.ndarray]:
    """[B] mask of each split's windows, and of all as `full`."""
    split = assign_split(windows.truth.dates, cut)
    return {name: split == name for name in SPLIT_NAMES} | {"full": np.ones(len(windows), dtype=bool)}


def hold_out(train: WindowSet, share: float = HELD_OUT) -> tuple[WindowSet, WindowSet]:
    """Training windows without their last part, and that part, to validate on.

    Args:
        train: windows of one or many stocks.
        share: of their days that is held out.

    Returns:
        The windows whose targets all lie before the first day held out, and those whose origin is on it or later.

    Raises:
        EmptySplitError: one of the two has no window.
    """
    days = np.unique(train.context.origin)
    first = days[min(round(len(days) * (1 - share)), len(days) - 1)]
    parts = train.take(train.truth.dates[:, -1] < first), train.take(train.context.origin >= first)
    if not all(map(len, parts)):
        raise EmptySplitError(
            f"{len(train)} training windows are too few to validate on the last of them; name validation windows by "
            "--val-x-path and --val-y-path, or give more."
        )
    return parts


def days_of(bars: pd.DataFrame) -> np.ndarray:
    """[T] datetime64[ns] of the bars."""
    return bars.index.to_numpy(dtype="datetime64[ns]")


def pooled_cut(calendar: np.ndarray, config: DataConfig) -> CalendarCut | None:
    """The cut of all stocks' days, or None where `config` cuts each stock by itself."""
    if config.split_by == "stock":
        return None
    return cut_calendar(calendar, config.split, config.embargo_days, config.cut_dates)


def require_windows(counts: Mapping[str, int], config: DataConfig, cut: CalendarCut | None, fold: str = "") -> None:
    """Refuse a split without windows.

    Args:
        counts: windows of train, val and test.
        config: what the message explains.
        cut: where the splits begin, or None where each stock has its own.
        fold: what the message calls the fold.

    Raises:
        EmptySplitError: a split has no window.
    """
    for name in SPLIT_NAMES:
        if counts[name]:
            continue
        where = "each stock is cut by its own rows"
        if cut is not None:
            val, test, end = (str(day)[:10] for day in (cut.val_start, cut.test_start, cut.test_end))
            where = f"val starts on {val}, test on {test} and ends before {end}"
        raise EmptySplitError(
            f"no window falls into {name}{fold}: {where}, {config.embargo_days} days are left out after each start, "
            f"and a window predicts {config.horizon} days. Give a longer history, another split than "
            f"{list(config.split_dates or config.split)}, a smaller embargo, or fewer folds."
        )


# One stock of many, for a worker


@dataclass(frozen=True)
class Plan:
    """What every stock's windows depend on besides its bars.

    Attributes:
        config: windows and splits.
        cut: of all stocks, or None where each has its own.
        folds: walk-forward cuts, none without folds.
        outputs: which of train, val, test and full to encode.
        file_format: of the files.
    """

    config: DataConfig
    cut: CalendarCut | None
    folds: tuple[CalendarCut, ...]
    outputs: tuple[str, ...]
    file_format: FileFormat


@dataclass(frozen=True)
class EncodedSplits:
    """The number of one stock's windows in each split, and the rows of those to write."""

    counts: dict[str, int]
    rows: dict[str, EncodedRows]


def read_stock(located: tuple[str, StockFile | None], config: DataConfig) -> tuple[pd.DataFrame, BarsReport]:
    """`load_stock` of a name and its file.

    Raises:
        MarketDataError: the file is refused.
    """
    return load_stock(*located, config)


def encode_stock(named_bars: tuple[str, pa.RecordBatch], plan: Plan) -> list[EncodedSplits]:
    """One stock's windows as rows to append: of the usual splits, then of each fold.

    Args:
        named_bars: a stock's name, and its bars as `BarsStore` gives them.
        plan: what to make of them.
    """
    name, bars = named_bars[0], from_batch(named_bars[1])
    cut = plan.cut or cut_stock(days_of(bars), plan.config.split, plan.config.embargo_days)
    full = windows_of_stock(name, bars, plan.config, cut)
    if full is None:
        return [EncodedSplits(counts=dict.fromkeys((*SPLIT_NAMES, "full"), 0), rows={})] * (1 + len(plan.folds))
    folds = [_encode_splits(rescale(full, fold), fold, plan, SPLIT_NAMES) for fold in plan.folds]
    return [_encode_splits(full, cut, plan, (*SPLIT_NAMES, "full")), *folds]


def _encode_splits(windows: WindowSet, cut: CalendarCut, plan: Plan, names: Sequence[str]) -> EncodedSplits:
    rows = choose_rows(windows, cut)
    chosen = {name: rows[name] for name in names if name in plan.outputs}
    counts = {name: int(rows[name].sum()) for name in names}
    return EncodedSplits(counts=counts, rows=encode(windows, chosen, plan.file_format))
