"""Raw OHLCV bars to windows with indicators and statistics: the whole step, readable top to bottom.

    python -m preprocessing.combined_preprocessor --root_path DIR --output_dir DIR --stock AAPL,MSFT

For each stock: read and check the bars, put O/H/L/C on the basis of the adjusted close, compute the
indicators on the whole past, cut windows, assign each to train, val or test by one calendar cut for all
stocks, and write {STOCK}_{train,val,test,full}_{x,y}.csv; with walk-forward folds also fold_1..fold_K.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from tqdm import tqdm

from preprocessing.command_line import parse_config
from preprocessing.config import DataConfig
from preprocessing.files import slug, write_atomically
from preprocessing.indicators import compute_indicators
from preprocessing.market_data import (
    MANY_STOCKS,
    REPAIRS,
    BarsReport,
    MarketDataError,
    load_stocks,
    require_rows,
)
from preprocessing.scaling import StandardNorm
from preprocessing.simulation import SimulationError
from preprocessing.splits import CalendarCut, SplitError, assign_split, cut_calendar, walk_forward_cuts
from preprocessing.statistics import (
    ewma_volatility,
    past_statistics,
    trailing_volatility,
    window_statistics,
    yang_zhang_volatility,
)
from preprocessing.windows import FEATURES, Context, Truth, WindowSet, concatenate
from preprocessing.windows_writer import write_windows

REPORT_FILE = "data_report.json"


class EmptySplitError(MarketDataError):
    """Train, val or test has no window."""


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DataConfig):
    """One run of the preprocessing command."""

    stock: str
    """A ticker, several (AAPL,MSFT), `all` (every CSV of the data folder), or a simulated stock (sim:ou)."""
    output_dir: Path
    """Folder for the windows, {STOCK}_{train,val,test,full}_{x,y}.csv, fold_1..fold_K and data_report.json."""


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
    past = sliding_window_view(closes, config.window)[origins - config.window + 1]  # [B, L]
    columns = window_statistics(past)
    columns["volatility"] = trailing_volatility(past)
    columns["ewma_volatility"] = ewma_volatility(closes)[origins]
    ohlc = (bars[name].to_numpy(dtype=np.float64) for name in ("open", "high", "low", "close"))
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
        past=past[:, :, None].copy(),
        features=np.stack([columns[name] for name in FEATURES], axis=1),
    )


def split_windows(stocks: Mapping[str, pd.DataFrame], config: DataConfig) -> tuple[dict[str, WindowSet], CalendarCut]:
    """Windows of every stock, cut once by calendar date.

    Args:
        stocks: bars by name. A stock without a bar before the first cut has nothing to be scaled by and gives
            none.
        config: windows, shares of the splits, embargo.

    Returns:
        {"train", "val", "test", "full"} and the cut. `full` also holds the windows that the splits purge.

    Raises:
        EmptySplitError: a split has no window.
    """
    days = {name: bars.index.to_numpy(dtype="datetime64[ns]") for name, bars in stocks.items()}
    cut = cut_calendar(_calendar(stocks), config.split, config.embargo_days, config.cut_dates)
    sets = []
    for name, bars in tqdm(stocks.items(), "windows", unit="stock", leave=False, disable=len(stocks) < MANY_STOCKS):
        train_closes = bars["close"].to_numpy()[days[name] < cut.val_start]
        if len(train_closes):
            sets.append(make_windows(name, bars, config, StandardNorm.fit(train_closes)))
    if not sets:
        raise _empty_split("train", cut, config)
    full = concatenate(sets)
    splits = _by_split(full, cut) | {"full": full}
    for name, windows in splits.items():
        if len(windows) == 0:
            raise _empty_split(name, cut, config)
    return splits, cut


def fold_windows(full: WindowSet, cut: CalendarCut) -> dict[str, WindowSet]:
    """The windows of one walk-forward fold, scaled by what that fold may train on.

    norm_mean and norm_std of each stock are fitted again, on the closes before `cut.val_start` at the origins
    and targets of its windows, each day once; all else is as in `full`. A stock without such a day has nothing
    to be scaled by and gives no window.

    Args:
        full: all windows of one or many stocks, those that the splits purge included.
        cut: one of `walk_forward_cuts`.

    Returns:
        {"train", "val", "test"}, any of which may be empty.
    """
    context, truth = full.context, full.truth
    days = np.concatenate([context.origin[:, None], truth.dates], axis=1)  # [B, 1 + H]
    closes = np.concatenate([context.last_price[:, None], truth.future], axis=1)
    _, stock = np.unique(np.array(context.item_id), return_inverse=True)
    features = context.features.copy()
    scaled = np.zeros(len(full), dtype=bool)
    mean, std = (FEATURES.index(name) for name in ("norm_mean", "norm_std"))
    order = np.argsort(stock, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(stock[order])) + 1):
        shown, first = np.unique(days[rows], return_index=True)
        train_closes = closes[rows].ravel()[first[shown < cut.val_start]]
        if len(train_closes):
            norm = StandardNorm.fit(train_closes)
            features[rows, mean], features[rows, std] = norm.mean, norm.std
            scaled[rows] = True
    rescaled = WindowSet(context=dataclasses.replace(context, features=features), truth=truth)
    return _by_split(rescaled.take(scaled), cut)


def _by_split(windows: WindowSet, cut: CalendarCut) -> dict[str, WindowSet]:
    split = assign_split(windows.truth.dates, cut)
    return {name: windows.take(split == name) for name in ("train", "val", "test")}


def _empty_split(name: str, cut: CalendarCut, config: DataConfig) -> EmptySplitError:
    return EmptySplitError(
        f"no window falls into {name}: val starts on {str(cut.val_start)[:10]}, test on "
        f"{str(cut.test_start)[:10]} and ends before {str(cut.test_end)[:10]}, {config.embargo_days} days are left "
        f"out after each start, and a window predicts {config.horizon} days. Give a longer history, another split "
        f"than {list(config.split_dates or config.split)}, a smaller embargo, or fewer folds."
    )


def preprocess(stock: str, config: DataConfig, output_dir: Path) -> dict[str, Any]:
    """The whole step: bars to windows files and data_report.json, which is written last.

    Args:
        stock: as in `PreprocessConfig.stock`.
        config: where the bars come from and how they become windows.
        output_dir: folder for the files; they are named by `slug(stock)`.

    Returns:
        What data_report.json holds: the cut, the number of windows of each split, and for each stock its
        source, its repairs and its windows.

    Raises:
        MarketDataError: the bars cannot be used, or a split has no window.
        SimulationError: a simulated stock's name is wrong.
    """
    bars, reports = load_stocks(stock, config)
    splits, cut = split_windows(bars, config)
    folds = _folds(splits["full"], _calendar(bars), config)
    for name, windows in splits.items():
        write_windows(windows, *windows_files(stock, output_dir, name))
    for number, (_, fold) in enumerate(folds, start=1):
        for name, windows in fold.items():
            write_windows(windows, *windows_files(stock, fold_folder(output_dir, number), name))
    report = _report(stock, config, reports, splits, cut)
    report["folds"] = [{"cut": _as_days(fold_cut), "windows": _counts(fold)} for fold_cut, fold in folds]
    write_atomically(Path(output_dir) / REPORT_FILE, json.dumps(report, indent=2) + "\n")
    return report


def windows_files(stock: str, output_dir: Path, split: str) -> tuple[Path, Path]:
    """Where `preprocess` writes X and Y of a split."""
    x, y = (Path(output_dir) / f"{slug(stock)}_{split}_{part}.csv" for part in ("x", "y"))
    return x, y


def fold_folder(output_dir: Path, number: int) -> Path:
    """Where `preprocess` writes the windows of walk-forward fold 1, 2, .."""
    return Path(output_dir) / f"fold_{number}"


def _folds(full: WindowSet, calendar: np.ndarray, config: DataConfig) -> list[tuple[CalendarCut, dict[str, WindowSet]]]:
    if config.folds == 1:
        return []
    folds = []
    cuts = walk_forward_cuts(calendar, config.split, config.embargo_days, config.folds, config.cut_dates)
    for number, cut in enumerate(cuts, start=1):
        fold = fold_windows(full, cut)
        for name, windows in fold.items():
            if len(windows) == 0:
                raise _empty_split(f"{name} of fold {number}", cut, config)
        folds.append((cut, fold))
    return folds


def _counts(splits: Mapping[str, WindowSet]) -> dict[str, int]:
    return {name: len(windows) for name, windows in splits.items()}


def _calendar(stocks: Mapping[str, pd.DataFrame]) -> np.ndarray:
    return np.concatenate([bars.index.to_numpy(dtype="datetime64[ns]") for bars in stocks.values()])


def _as_days(cut: CalendarCut) -> dict[str, str]:
    return {name: str(day)[:10] for name, day in vars(cut).items()}


def _report(
    stock: str,
    config: DataConfig,
    reports: Mapping[str, BarsReport],
    splits: Mapping[str, WindowSet],
    cut: CalendarCut,
) -> dict[str, Any]:
    counts = {split: Counter(windows.context.item_id) for split, windows in splits.items()}
    stocks = {}
    for name, bars_report in reports.items():
        late = None if counts["full"][name] else "it has no day before the first cut"
        entry = dataclasses.asdict(bars_report) | {"skipped": bars_report.skipped or late}
        stocks[name] = entry | {"windows": {split: count[name] for split, count in counts.items()}}
    return {
        "stock": stock,
        "window": config.window,
        "horizon": config.horizon,
        "stride": config.stride,
        "split": list(config.split),
        "embargo": config.embargo_days,
        "cut": _as_days(cut),
        "windows": _counts(splits),
        "stocks": stocks,
    }


def notices(report: Mapping[str, Any]) -> list[str]:
    """One line per stock that was repaired or left out, from what `preprocess` returns."""
    lines = []
    for name, entry in report["stocks"].items():
        repairs = [f"{key.replace('_', ' ')} {entry[key]}" for key in REPAIRS if entry[key]]
        if repairs:
            lines.append(f"stock {name} was repaired: {', '.join(repairs)}")
        if entry["skipped"]:
            lines.append(f"stock {name} is left out: {entry['skipped']}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    config = parse_config(
        PreprocessConfig,
        argv,
        prog="python -m preprocessing.combined_preprocessor",
        description="Turn daily OHLCV bars into windows with indicators, split by date.",
        aliases={"root_path": "data_dir"},
    )
    try:
        report = preprocess(config.stock, config, config.output_dir)
    except (MarketDataError, SimulationError, SplitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in notices(report):
        print(f"warning: {line}", file=sys.stderr)
    counts = ", ".join(f"{split} {count}" for split, count in report["windows"].items())
    print(f"windows: {counts}; written to {config.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
