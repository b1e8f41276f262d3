"""Raw OHLCV bars to windows with indicators and statistics: the whole step, readable top to bottom.

    python -m preprocessing.combined_preprocessor --root_path DIR --output_dir DIR --stock AAPL,MSFT
    python -m preprocessing.combined_preprocessor --root_path DIR --output_dir DIR    (each stock into files of its own)

For each stock: read and check the bars, put O/H/L/C on the basis of the adjusted close, compute the
indicators on the whole past, cut windows, assign each to train, val or test by one calendar cut for all
stocks, and write {STOCK}_{train,val,test,full}_{x,y}.csv; with walk-forward folds also fold_1..fold_K.

Stocks go through one at a time, twice: once to read and check all of them, which gives the calendar, then to
make and write their windows. Memory does not grow with their number, and several workers may share them.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from preprocessing.bars import BarsReport, MarketDataError
from preprocessing.bars_store import BarsStore
from preprocessing.command_line import expand_switches, parse_config
from preprocessing.config import DataConfig
from preprocessing.files import AtomicFiles, JsonObject, slug
from preprocessing.market_data import MANY_STOCKS, StockFile, locate_stocks, none_long_enough
from preprocessing.notices import notices_of
from preprocessing.parallel import Map, WorkerError, open_workers
from preprocessing.presets import PresetName, expand_preset
from preprocessing.simulation import SimulationError
from preprocessing.splits import CalendarCut, SplitError, walk_forward_cuts
from preprocessing.stock_windows import (
    SPLIT_NAMES,
    EmptySplitError,
    Plan,
    days_of,
    encode_stock,
    fold_windows,
    make_contexts,
    make_windows,
    pooled_cut,
    read_stock,
    require_windows,
    split_windows,
)
from preprocessing.windows import SPLITS
from preprocessing.windows_writer import FileFormat, WindowsWriter

__all__ = [
    "REPORT_FILE",
    "DataConfig",
    "EmptySplitError",
    "PreprocessConfig",
    "fold_folder",
    "fold_windows",
    "main",
    "make_contexts",
    "make_windows",
    "notices",
    "preprocess",
    "split_windows",
    "windows_files",
]

T = TypeVar("T")

REPORT_FILE = "data_report.json"


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig(DataConfig):
    """One run of the preprocessing command."""

    stock: str | None = None
    """A ticker, several (AAPL,MSFT), `all` (every file of the data folder), or a simulated stock (sim:ou); several go
    into one set of files. null: every stock of the data folder, each into files of its own."""
    pooled: bool = False
    """Without --stock: write all_{train,val,test,full}_{x,y}.csv too, with the windows of every stock."""
    output_dir: Path
    """Folder for the windows, {STOCK}_{train,val,test,full}_{x,y}.csv, fold_1..fold_K and data_report.json."""
    preset: PresetName | None = None
    """A published protocol, whose settings are taken where no other flag gives them: `vta-10`."""
    outputs: str = ",".join(SPLITS)
    """Which of train, val, test and full to write, with commas between; full repeats the others."""
    file_format: FileFormat = "csv"
    """`csv`, or `parquet` for many stocks: smaller, and faster to write and to read."""
    num_workers: int = 1
    """Processes that share the stocks; the files are the same for any number."""
    dask: str | None = None
    """Dask scheduler to share the stocks over (tcp://host:8786), or `local` for one with `num_workers` processes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.chosen_outputs) - set(SPLITS))
        if unknown:
            raise ValueError(f"outputs: there is no '{unknown[0]}'; there are {', '.join(SPLITS)}")
        if self.stock is None and self.data_dir is None:
            raise ValueError("give --root_path DIR for every stock of a folder, or --stock for one that is downloaded")
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1; got {self.num_workers}")

    @property
    def chosen_outputs(self) -> tuple[str, ...]:
        """`outputs` as names."""
        return tuple(name.strip() for name in self.outputs.split(","))


def preprocess(
    stock: str,
    config: DataConfig,
    output_dir: Path,
    *,
    outputs: Sequence[str] = SPLITS,
    file_format: FileFormat = "csv",
    map_stocks: Map = map,
    pooled: bool = True,
    by_stock: bool = False,
) -> JsonObject:
    """The whole step: bars to windows files and data_report.json. All of them appear at the end, or none.

    Args:
        stock: as in `PreprocessConfig.stock`.
        config: where the bars come from and how they become windows.
        output_dir: folder for the files; they are named by `slug(stock)`.
        outputs: which of train, val, test and full to write.
        file_format: of the windows.
        map_stocks: how the work is shared; see `open_workers`. It does not change a byte.
        pooled: write one set of files with the windows of all stocks.
        by_stock: write a set of files for each stock that has windows, named by it.

    Returns:
        What data_report.json holds: the cut, the number of windows of each split and fold, and for each stock
        its source, its repairs and its windows.

    Raises:
        MarketDataError: the bars cannot be used, or a split has no window.
        SimulationError: a simulated stock's name is wrong.
        SplitError: the calendar cannot be cut where `config` says.
        OSError: the disk is full or the folder is not writable.
    """
    located = locate_stocks(stock, config)
    with AtomicFiles() as files:
        store = BarsStore(files.open_scratch(Path(output_dir)))
        reports, calendar = _read_stocks(located, config, store, map_stocks)
        # all stocks are read before the first window is made: the cut is of the union of their days
        plan = Plan(config, pooled_cut(calendar, config), _fold_cuts(calendar, config), tuple(outputs), file_format)
        output = _Output(Path(output_dir), plan, files, stock if pooled else None, by_stock)
        counts = _write_stocks(output, store, map_stocks)
        report = _report(stock, plan, reports, counts)
        files.open(Path(output_dir) / REPORT_FILE).write((json.dumps(report, indent=2) + "\n").encode())
    return report


def windows_files(stock: str, output_dir: Path, split: str, file_format: FileFormat = "csv") -> tuple[Path, Path]:
    """Where `preprocess` writes X and Y of a split."""
    x, y = (Path(output_dir) / f"{slug(stock)}_{split}_{part}.{file_format}" for part in ("x", "y"))
    return x, y


def fold_folder(output_dir: Path, number: int) -> Path:
    """Where `preprocess` writes the windows of walk-forward fold 1, 2, .."""
    return Path(output_dir) / f"fold_{number}"


def _read_stocks(
    located: Mapping[str, StockFile | None], config: DataConfig, store: BarsStore, map_stocks: Map
) -> tuple[dict[str, BarsReport], np.ndarray]:
    """Read every stock, keep those that are long enough, and give their reports and the union of their days."""
    reports: dict[str, BarsReport] = {}
    calendar = np.empty(0, dtype="datetime64[ns]")
    loaded = map_stocks(partial(read_stock, config=config), located.items())
    for name, (bars, reports[name]) in zip(located, _progress(loaded, "read", len(located)), strict=True):
        if reports[name].skipped is None:
            store.append(name, bars)
            calendar = np.union1d(calendar, days_of(bars))
    if not len(store):
        raise none_long_enough(reports)
    return reports, calendar


def _fold_cuts(calendar: np.ndarray, config: DataConfig) -> tuple[CalendarCut, ...]:
    # a single fold is the usual cut itself
    if config.folds == 1:
        return ()
    cuts = walk_forward_cuts(calendar, config.split, config.embargo_days, config.folds, config.cut_dates)
    return tuple(cuts)


@dataclass(frozen=True)
class _Output:
    """Where windows go: `pooled` names one set of files for all stocks, `by_stock` asks for one of each."""

    folder: Path
    plan: Plan
    files: AtomicFiles
    pooled: str | None
    by_stock: bool

    def open(self, name: str, stack: ExitStack) -> list[dict[str, WindowsWriter]]:
        """Writers of one set of files by split: of the usual splits, then of each fold."""
        folders = [self.folder, *(fold_folder(self.folder, number + 1) for number in range(len(self.plan.folds)))]
        return [
            {
                split: stack.enter_context(
                    self._writer(windows_files(name, folder, split, self.plan.file_format), stack)
                )
                for split in self.plan.outputs
                if split in SPLIT_NAMES or folder == self.folder
            }
            for folder in folders
        ]

    def _writer(self, paths: tuple[Path, Path], stack: ExitStack) -> WindowsWriter:
        handles = [self.files.open(path) for path in paths]
        # closed as soon as its stock is done: thousands of stocks would run out of open files
        for handle in handles:
            stack.callback(self.files.finish, handle)
        return WindowsWriter(*handles)


def _write_stocks(output: _Output, store: BarsStore, map_stocks: Map) -> dict[str, list[dict[str, int]]]:
    """Write every stock's windows; give by stock the number in each split, then those in each fold's."""
    counts, plan = {}, output.plan
    if output.by_stock and len({slug(name) for name in store.names} | {slug(output.pooled or "")}) <= len(store.names):
        raise MarketDataError("two stocks would write the same files; rename one, or name the stocks by --stock.")
    with ExitStack() as stack:
        pooled = [] if output.pooled is None else [output.open(output.pooled, stack)]
        encoded = map_stocks(partial(encode_stock, plan=plan), store)
        for name, parts in zip(store.names, _progress(encoded, "windows", len(store)), strict=True):
            counts[name] = [part.counts for part in parts]
            with ExitStack() as own:
                alone = [output.open(name, own)] if output.by_stock and parts[0].counts["full"] else []
                for by_split, part in (
                    (w, p) for writers in pooled + alone for w, p in zip(writers, parts, strict=True)
                ):
                    for split, rows in part.rows.items():
                        by_split[split].append(rows)
        for number, cut in enumerate([plan.cut, *plan.folds]):
            # over all stocks: one alone may well have no window in a fold
            total = _total([parts[number] for parts in counts.values()])
            require_windows(total, plan.config, cut, f" of fold {number}" if number else "")
    return counts


def _progress(results: Iterable[T], title: str, total: int) -> Iterable[T]:
    return tqdm(results, title, total, unit="stock", leave=False, disable=total < MANY_STOCKS)


def _total(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(part[name] for part in counts) for name in counts[0]}


def _report(
    stock: str, plan: Plan, reports: Mapping[str, BarsReport], counts: Mapping[str, list[dict[str, int]]]
) -> JsonObject:
    config = plan.config
    none = dict.fromkeys((*SPLIT_NAMES, "full"), 0)
    stocks = {}
    for name, bars_report in reports.items():
        windows = counts[name][0] if name in counts else none
        late = None if windows["full"] else "it has no day before the first cut"
        entry = dataclasses.asdict(bars_report) | {"skipped": bars_report.skipped or late}
        stocks[name] = entry | {"windows": windows}
    totals = [_total(parts) for parts in zip(*counts.values(), strict=True)]
    return {
        "stock": stock,
        "window": config.window,
        "horizon": config.horizon,
        "stride": config.stride,
        "split": list(config.split_dates or config.split),
        "split_by": config.split_by,
        "embargo": config.embargo_days,
        "cut": plan.cut and _as_texts(plan.cut),
        "windows": totals[0],
        "folds": [{"cut": _as_texts(cut), "windows": total} for cut, total in zip(plan.folds, totals[1:], strict=True)],
        "stocks": stocks,
    }


def _as_texts(cut: CalendarCut) -> dict[str, str]:
    return {name: str(day.astype("datetime64[s]")).removesuffix("T00:00:00") for name, day in vars(cut).items()}


def notices(report: Mapping[str, Any]) -> list[str]:
    """One line per stock that was repaired, looks odd or is left out, from what `preprocess` returns."""
    return [line for name, entry in report["stocks"].items() for line in notices_of(name, entry)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    arguments = expand_switches(expand_preset(sys.argv[1:] if argv is None else argv), "--pooled")
    config = parse_config(
        PreprocessConfig,
        arguments,
        prog="python -m preprocessing.combined_preprocessor",
        description="Turn OHLCV bars into windows with indicators, split by date.",
        aliases={"root_path": "data_dir"},
    )
    if config.preset and len(arguments) == len(sys.argv[1:] if argv is None else argv):
        print("error: give --preset as a flag; a config file cannot hold it", file=sys.stderr)
        return 2
    # a kill by a batch system shall clean up as Ctrl-C does
    signal.signal(signal.SIGTERM, _stop)
    try:
        with open_workers(config.num_workers, config.dask) as map_stocks:
            report = preprocess(
                config.stock or "all",
                config,
                config.output_dir,
                outputs=config.chosen_outputs,
                file_format=config.file_format,
                map_stocks=map_stocks,
                pooled=config.pooled or config.stock is not None,
                by_stock=config.stock is None,
            )
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    except (MarketDataError, SimulationError, SplitError, WorkerError, OSError) as error:
        print(f"error: {_explain(error, config)}", file=sys.stderr)
        return 1
    for line in notices(report):
        print(f"warning: {line}", file=sys.stderr)
    counts = ", ".join(f"{split} {count}" for split, count in report["windows"].items())
    print(f"windows: {counts}; written to {config.output_dir}")
    return 0


def _explain(error: Exception, config: PreprocessConfig) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"there is no room for the files in {config.output_dir} ({error.strerror}); nothing was written. Free "
            "space, or write less: a longer --stride, --outputs train,val,test, --file_format parquet"
        )
    return str(error)


def _stop(number: int, frame: object) -> None:
    """End at a kill as at Ctrl-C: temporary files are removed on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
