"""From a trader's files to the rows that a Decision Transformer is trained on.

    python -m baselines.decision_transformer pipeline --data-dir downloads/merged_trades \
        --output data/processed_trader_data.parquet

The six steps, a module each:

    ingestion, positions    trade files -> 15-minute bars; position, entry price and profit at each close
    features                volatility, fractional difference, RSI, MACD, Bollinger bands, moving averages
    labels                  triple barriers at the trader's own exits
    states                  17 features at each close
    actions                 what the trader did in the next bar, one of five
    dataset                 reward and return-to-go; windows are cut when the file is loaded

Whole markets go to train, val or test in order of time; one that lies across a cut, or within `embargo` bars after it,
is left out. Whatever has to be fitted (order of differentiation, capital, barriers, thresholds, scaling) is fitted on
train. Beside the output stands data_report.json, which names every file, market and event that was not used, and why.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from baselines.trader.actions import Action, fit_thresholds, label_actions
from baselines.trader.dataset import METADATA_KEY, SPLITS, WINDOW
from baselines.trader.features import (
    TAU,
    WARM_UP,
    fit_order,
    fracdiff_weights,
    fractional_difference,
    market_features,
)
from baselines.trader.ingestion import (
    Bars,
    FileReport,
    MalformedTrades,
    TraderDataError,
    find_files,
    make_bars,
    read_events,
)
from baselines.trader.labels import Barriers, find_exits, fit_barriers, label_bars
from baselines.trader.positions import Books, bar_rewards, fit_capital, keep_books, returns_to_go
from baselines.trader.states import STATE_NAMES, StateScaling, market_states
from preprocessing.command_line import parse_config
from preprocessing.files import AtomicFiles, JsonObject
from preprocessing.parallel import open_workers
from preprocessing.splits import check_ratios, cut_calendar

REPORT_FILE = "data_report.json"
SHORTEST = WARM_UP + 2
"""Bars of a market with one row: the state after the warm-up, and the bar in which it was acted upon."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Where the trade files are and how they become rows."""

    data_dir: Path = Path("downloads/merged_trades")
    """Folder with one folder per trader, each with one *_prices.json per market."""
    output: Path = Path("data/processed_trader_data.parquet")
    """Parquet file to write; data_report.json goes beside it."""
    bar_seconds: int = 900
    """Length of a bar; markets of a few minutes need seconds."""
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of the time line for train, validation and test, in this order."""
    embargo: int = WINDOW
    """Bars after each cut in which no market of the next split may begin."""
    strong_quantile: float = 0.5
    """Share of a side's train trades that are not strong, between 0 and 1."""
    profit_barrier: float = 2.0
    """Volatilities of a bar from the entry to the profit barrier, where the trader's exits do not tell."""
    stop_barrier: float = 2.0
    """Volatilities of a bar from the entry to the stop, where the trader's exits do not tell."""
    limit_bars: int = 16
    """Bars until a position ends, where the trader's exits do not tell."""
    malformed_trades: MalformedTrades = "exclude"
    """A market with a malformed trade is left out (exclude), or used without that trade (skip)."""
    num_workers: int = 1
    """Processes that read files."""

    def __post_init__(self) -> None:
        check_ratios(self.split)
        for name, low in (("bar_seconds", 1), ("embargo", 0), ("limit_bars", 1), ("num_workers", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}; got {getattr(self, name)}")
        if not 0 < self.strong_quantile < 1:
            raise ValueError(f"strong_quantile must lie between 0 and 1; got {self.strong_quantile}")
        if not (self.profit_barrier > 0 and self.stop_barrier > 0):
            raise ValueError(f"barriers must be above 0; got {self.profit_barrier} and {self.stop_barrier}")


@dataclass(frozen=True, kw_only=True)
class Market:
    """One market, before anything that is fitted.

    Attributes:
        name: trader/slug.
        bars: its bars, at least SHORTEST.
        books: the trader's books at their closes.
        features: of the bars.
    """

    name: str
    bars: Bars
    books: Books
    features: pd.DataFrame


def run_pipeline(config: PipelineConfig) -> JsonObject:
    """Read the files, write the rows and the report; gives the report.

    Raises:
        TraderDataError: the files give no rows for one of the splits.
        OSError: a file cannot be written; none is left behind.
    """
    files, others = find_files(config.data_dir)
    read = partial(read_market, config=config)
    with open_workers(config.num_workers) as map_files:
        results = list(tqdm(map_files(read, files), "read", len(files), unit="file", leave=False))
    reports = [report for _, report in results]
    markets = unique_markets(results)
    if not markets:
        raise TraderDataError(f"none of the {len(files)} files under {config.data_dir} can be used: {_why(reports)}")
    splits, left_out, cuts = split_markets(markets, config)
    table, fitted = make_rows(splits, config)
    fitted |= {"bar_seconds": config.bar_seconds, "cuts": cuts}
    report = describe(reports, others, left_out, table, fitted)
    # Written to memory first: both files then appear together, or neither.
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(fitted)}), buffer, compression="zstd")
    with AtomicFiles() as output:
        output.open(config.output.parent / REPORT_FILE).write((json.dumps(report, indent=2) + "\n").encode())
        output.open(config.output).write(buffer.getbuffer())
    return report


def read_market(path: Path, config: PipelineConfig) -> tuple[Market | None, FileReport]:
    """Steps 1 and 2 for one file; where the report refuses it there is no market."""
    events, report = read_events(path, config.data_dir, config.malformed_trades)
    if events is None:
        return None, report
    try:
        bars = make_bars(events, config.bar_seconds)
    except TraderDataError as error:
        report.refused = str(error)
        return None, report
    if len(bars) < SHORTEST:
        seconds = int(events.time[-1] - events.time[0]) // 1000
        report.refused = (
            f"spans {seconds} s, {len(bars)} bars of {config.bar_seconds} s, but one row needs {SHORTEST} "
            f"(a full window {SHORTEST + WINDOW - 1}): give --bar-seconds {max(seconds // (SHORTEST + WINDOW), 1)}"
        )
        return None, report
    books = keep_books(events, bars)
    return Market(name=events.market, bars=bars, books=books, features=market_features(bars)), report


def unique_markets(results: Iterable[tuple[Market | None, FileReport]]) -> list[Market]:
    """The markets in order of time; a second file of the same market is refused in its report."""
    found: dict[str, str] = {}
    markets = []
    for market, report in results:
        if market is None:
            continue
        if market.name in found:
            report.refused = f"is of the same market as {found[market.name]}"
            continue
        found[market.name] = report.path
        markets.append(market)
    return sorted(markets, key=lambda market: (market.bars.close_time[0], market.name))


def split_markets(
    markets: list[Market], config: PipelineConfig
) -> tuple[dict[str, list[Market]], list[str], dict[str, str]]:
    """Markets by split, the names of those left out, and where the time line is cut.

    Raises:
        TraderDataError: a split has no market.
    """
    times = np.unique(np.concatenate([market.bars.close_time for market in markets]))
    cut = cut_calendar(times.astype("datetime64[ms]"), config.split, config.embargo)
    spans = {"train": (None, cut.val_start), "val": (cut.val_first, cut.test_start), "test": (cut.test_first, None)}
    splits: dict[str, list[Market]] = {name: [] for name in SPLITS}
    left_out = []
    for market in markets:
        first, last = market.bars.close_time[[0, -1]].astype("datetime64[ms]")
        # A market is in one split whole or in none; `else` is reached where no span holds it.
        for name, (begin, end) in spans.items():
            if (begin is None or first >= begin) and (end is None or last < end):
                splits[name].append(market)
                break
        else:
            left_out.append(market.name)
    for name in SPLITS:
        if not splits[name]:
            raise TraderDataError(
                f"no market lies wholly within {name}: {len(markets)} markets, {len(left_out)} across a cut or within "
                f"{config.embargo} bars after it; give more markets, another --split or a smaller --embargo."
            )
    return splits, left_out, {"val_start": str(cut.val_start)[:19], "test_start": str(cut.test_start)[:19]}


def make_rows(splits: dict[str, list[Market]], config: PipelineConfig) -> tuple[pa.Table, JsonObject]:
    """Steps 3 to 6: fit on train, then the rows of every market; gives what was fitted too."""
    train = splits["train"]
    # Of train markets alone, here and down to the scaling: what is fitted must not see later dates.
    order, p_value = fit_order([market.bars.close for market in train])
    capital = fit_capital([market.books for market in train])
    exits = [find_exits(one.bars, one.books, _volatility(one)) for one in train]
    default = Barriers(profit=config.profit_barrier, stop=config.stop_barrier, limit=config.limit_bars)
    barriers = fit_barriers(exits, default)
    # Of the rows that will be learnt from: bars of the warm-up make none.
    thresholds = fit_thresholds(
        np.concatenate([_next_sizes(market)[WARM_UP:] for market in train]), config.strong_quantile
    )

    weights = fracdiff_weights(order)
    frames = []
    for split, markets in splits.items():
        for market in tqdm(markets, split, unit="market", leave=False):
            fracdiff = fractional_difference(np.log(market.bars.close), weights)
            states = market_states(market.features, fracdiff, market.bars, market.books, capital)
            actions = label_actions(_next_sizes(market), thresholds)
            frames.append(_market_rows(market, states, actions, barriers, capital).assign(split=split))
    rows = pd.concat(frames, ignore_index=True)
    scaling = StateScaling.fit(rows.loc[rows["split"] == "train", list(STATE_NAMES)].to_numpy())
    fitted = {
        "states": list(STATE_NAMES),
        "scaling": {"mean": scaling.mean.tolist(), "std": scaling.std.tolist()},
        "thresholds": dataclasses.asdict(thresholds),
        "fracdiff": {"order": order, "p_value": p_value, "tau": TAU},
        "barriers": dataclasses.asdict(barriers),
        "capital": capital,
    }
    table = pa.Table.from_pandas(rows, preserve_index=False)
    for name in ("market", "split"):
        # Names repeat on every row; as a dictionary each is stored once.
        table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
    return table, fitted


def _market_rows(
    market: Market, states: pd.DataFrame, actions: np.ndarray, barriers: Barriers, capital: float
) -> pd.DataFrame:
    """Rows of one market: its bars after the warm-up, but the last, which nothing follows."""
    bars, books = market.bars, market.books
    rows = slice(WARM_UP, len(bars) - 1)
    rewards = bar_rewards(books, capital)[WARM_UP:]
    # The last bar has no next one in which to sell.
    selling = np.append(actions >= Action.SELL, False)
    label, settled = label_bars(bars, _volatility(market), selling, barriers)
    columns = {"market": market.name, "time": pd.to_datetime(bars.close_time[rows], unit="ms", utc=True).as_unit("ms")}
    columns |= {name: getattr(bars, name)[rows] for name in ("open", "high", "low", "close", "volume")}
    columns |= {name: market.features[name].to_numpy()[rows] for name in ("sma", "ema")}
    columns |= {name: states[name].to_numpy()[rows] for name in STATE_NAMES}
    columns |= {
        "entry_price": books.entry_price[rows],
        "realised_pnl": books.realised_pnl[rows],
        "net_size": _next_sizes(market)[WARM_UP:],
        "action": actions[WARM_UP:].astype(np.int8),
        "reward": rewards,
        "return_to_go": returns_to_go(rewards),
        "barrier_label": label[rows].astype(np.int8),
        "barrier_time": pd.to_datetime(bars.close_time[settled[rows]], unit="ms", utc=True).as_unit("ms"),
    }
    return pd.DataFrame(columns)


def _next_sizes(market: Market) -> np.ndarray:
    """[T - 1] net size traded in the bar after each."""
    return market.bars.net_size[1:]


def _volatility(market: Market) -> np.ndarray:
    return market.features["yang_zhang_volatility"].to_numpy()


# What happened


def describe(
    reports: list[FileReport], others: list[str], left_out: list[str], table: pa.Table, fitted: JsonObject
) -> JsonObject:
    """The content of data_report.json."""
    malformed = Counter()
    for report in reports:
        malformed.update({reason: len(positions) for reason, positions in report.malformed.items()})
    rows = table.select(["market", "split", "action"]).to_pandas()
    return {
        "files": {
            "found": len(reports),
            "used": sum(report.refused is None for report in reports),
            "refused": {report.path: report.refused for report in reports if report.refused is not None},
            "not_trade_files": others,
        },
        "events": {
            "read": sum(report.events for report in reports),
            "trades": sum(report.trades for report in reports),
            "malformed": dict(malformed),
            "malformed_positions": {report.path: report.malformed for report in reports if report.malformed},
            "usdc_differs_positions": {report.path: report.usdc_differs for report in reports if report.usdc_differs},
            "out_of_order": {report.path: report.out_of_order for report in reports if report.out_of_order},
        },
        "markets_across_a_cut": left_out,
        "splits": {
            split: {
                "markets": int(part["market"].nunique()),
                "rows": len(part),
                "actions": {action.name: int((part["action"] == action).sum()) for action in Action},
            }
            for split in SPLITS
            for part in [rows[rows["split"] == split]]
        },
        "fitted_on_train": fitted,
    }


def notices(report: JsonObject) -> list[str]:
    """What someone should know who reads no report: one line each, nothing if all is well."""
    files, events, fitted = report["files"], report["events"], report["fitted_on_train"]
    lines = []
    if files["refused"]:
        path, reason = next(iter(files["refused"].items()))
        lines.append(f"{len(files['refused'])} of {files['found']} files not used; {path} {reason}")
    if events["malformed"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in events["malformed"].items())
        lines.append(f"malformed events left out: {reasons}")
    if report["markets_across_a_cut"]:
        lines.append(f"{len(report['markets_across_a_cut'])} markets across a cut left out")
    missing = [name for name in ("profit", "stop", "limit") if name not in fitted["barriers"]["fitted"]]
    if missing:
        lines.append(f"too few exits on train to fit the barriers' {', '.join(missing)}: the settings' value is used")
    fracdiff = fitted["fracdiff"]
    if fracdiff["p_value"] is None:
        lines.append("no train market is long enough to test for stationarity: order of differentiation 1")
    return lines


def _why(reports: list[FileReport]) -> str:
    """The commonest kind of reason, by its first file."""
    reasons = Counter(str(report.refused).split(" ")[0] for report in reports)
    kind = reasons.most_common(1)[0][0]
    first = next(report for report in reports if str(report.refused).startswith(kind))
    return f"{first.path} {first.refused}"


def run(flags: Sequence[str], program: str) -> None:
    """The command `pipeline`."""
    about = "Turn a trader's files into the rows that a Decision Transformer is trained on."
    config = parse_config(PipelineConfig, flags, prog=program, description=about)
    report = run_pipeline(config)
    for line in notices(report):
        print(f"warning: {line} (see {config.output.parent / REPORT_FILE})", file=sys.stderr)
    counts = ", ".join(f"{name} {part['rows']} ({part['markets']} markets)" for name, part in report["splits"].items())
    print(f"{config.output}: rows {counts}")
