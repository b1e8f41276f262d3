"""Step 6: from the rows that the pipeline wrote to windows of bars, the arrays of a training.

The parquet file holds one row per bar, in order of market and time, of the markets of the three splits:

    market, time        the market's name (trader/slug) and the close of the bar, UTC
    split               train, val or test: whole markets, in order of time
    open .. volume      the bar: prices, and tokens traded
    17 columns          the state at the close of the bar, in the order of STATE_NAMES, unscaled
    net_size, action    what the trader did in the next bar: tokens bought minus sold, and the action 0..4
    reward              profit of the next bar over the trader's capital
    return_to_go        sum of the rewards from this bar to the end of the market
    entry_price ..      more of the books, moving averages and the triple-barrier label, see README.md

Its metadata hold, as JSON, all that was fitted on train: the scaling of the states, the thresholds of the actions,
the order of differentiation, the barriers, the capital.

Letters: N windows, T bars of a window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from baselines.trader.actions import Action
from baselines.trader.ingestion import TraderDataError
from baselines.trader.states import STATE_NAMES, StateScaling
from preprocessing.files import JsonObject

WINDOW = 128
"""Bars of a window."""
SPLITS = ("train", "val", "test")
METADATA_KEY = b"trader_data"
NEEDED_COLUMNS = ("market", "time", "split", *STATE_NAMES, "action", "reward", "return_to_go")


@dataclass(frozen=True, kw_only=True)
class TraderDataset:
    """Windows of bars of one split.

    A window that begins less than T bars before its market ends is filled up at its end with zeros and HOLD.

    Attributes:
        states: [N, T, 17] float32, scaled by train's mean and deviation, at the close of each bar.
        actions: [N, T] int64 in 0..4 (`Action`), what the trader did in the bar after it.
        rewards: [N, T] float32, profit of the bar after it over the trader's capital.
        returns_to_go: [N, T] float32, sum of the rewards from that bar to the end of the market, not of the window.
        mask: [N, T] bool, where there is a bar.
        market: [N] str, the market of each window.
        start: [N] datetime64[ms], close of the first bar, UTC.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    returns_to_go: np.ndarray
    mask: np.ndarray
    market: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.states)


def load_dataset(parquet: Path, *, window: int = WINDOW, train_stride: int | None = None) -> dict[str, TraderDataset]:
    """The windows of train, val and test.

    Args:
        parquet: what `python -m baselines.decision_transformer pipeline` wrote.
        window: bars of a window, T.
        train_stride: bars between two windows of a train market; null: half a window. Windows of val and test do
            not overlap, so that every bar is judged once.

    Raises:
        TraderDataError: the file is not there or was not written by the pipeline; the message names it.
    """
    if window < 1 or (train_stride is not None and train_stride < 1):
        raise TraderDataError(f"window and train_stride must be at least 1 bar; got {window} and {train_stride}.")
    table, fitted = _read(Path(parquet))
    split = np.asarray(table["split"].to_numpy(zero_copy_only=False), str)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in NEEDED_COLUMNS if name != "split"}
    columns["states"] = scaling_of(fitted).apply(np.stack([columns.pop(name) for name in STATE_NAMES], axis=1))
    # Train windows overlap by half, so that almost every bar stands in the second half of one and has a long past
    # there; those of val and test do not, so that every bar is judged once.
    strides = {"train": train_stride or max(window // 2, 1), "val": window, "test": window}
    return {
        name: cut_windows({key: values[split == name] for key, values in columns.items()}, window, strides[name])
        for name in SPLITS
    }


def load_fitted(parquet: Path) -> JsonObject:
    """All that the pipeline fitted on train and kept in the file, as `pipeline.FittedData` describes it.

    Raises:
        TraderDataError: the file is not there or was not written by the pipeline.
    """
    return _read(Path(parquet), columns=())[1]


def scaling_of(fitted: JsonObject) -> StateScaling:
    """The scaling of the states among what was fitted."""
    return StateScaling(**{name: np.array(fitted["scaling"][name]) for name in ("mean", "std")})


def cut_windows(columns: dict[str, np.ndarray], window: int, stride: int) -> TraderDataset:
    """Windows of the rows of one split.

    Args:
        columns: market, time, states [rows, 17], action, reward and return_to_go by row, in order of market and time.
        window: bars of a window.
        stride: bars between the starts of two windows of a market; the last one reaches the market's end.
    """
    starts, ends = _bounds(columns["market"])
    firsts = [  # row of a window's first bar, and row after its last
        (first, min(first + window, end))
        for start, end in zip(starts, ends, strict=True)
        for first in _window_starts(start, end, window, stride)
    ]
    first = np.array([row for row, _ in firsts], np.int64)
    length = np.array([end - row for row, end in firsts], np.int64)
    steps = np.arange(window)
    mask = steps < length[:, None]  # [N, T]
    # [N, T]: past a market's end the last bar's row stands in, so that no row of another market is read; the mask then
    # blanks it.
    rows = first[:, None] + np.minimum(steps, length[:, None] - 1)  # [N, T], the last bar where there is none
    return TraderDataset(
        states=np.where(mask[..., None], columns["states"][rows], 0).astype(np.float32),
        actions=np.where(mask, columns["action"][rows], Action.HOLD).astype(np.int64),
        rewards=np.where(mask, columns["reward"][rows], 0).astype(np.float32),
        returns_to_go=np.where(mask, columns["return_to_go"][rows], 0).astype(np.float32),
        mask=mask,
        market=np.asarray(columns["market"][first], str),
        start=columns["time"][first].astype("datetime64[ms]"),
    )


def _bounds(market: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each market, and the row after its last."""
    changes = np.flatnonzero(market[1:] != market[:-1]) + 1
    bounds = np.concatenate([[0], changes, [len(market)]]) if len(market) else np.zeros(1, np.int64)
    return bounds[:-1].astype(np.int64), bounds[1:].astype(np.int64)


def _window_starts(start: int, end: int, window: int, stride: int) -> Iterator[int]:
    for first in range(start, end, stride):
        yield first
        if first + window >= end:
            return


def _read(path: Path, columns: Sequence[str] = NEEDED_COLUMNS) -> tuple[pa.Table, JsonObject]:
    way_out = "write it with python -m baselines.decision_transformer pipeline"
    if not path.is_file():
        raise TraderDataError(f"{path} is not there; {way_out}.")
    try:
        schema = pq.read_schema(path)
        fitted = json.loads((schema.metadata or {})[METADATA_KEY])
        missing = [name for name in NEEDED_COLUMNS if name not in schema.names]
        if missing:
            raise TraderDataError(f"{path} lacks the column(s) {', '.join(missing)}; {way_out}.")
        return pq.read_table(path, columns=list(columns)), fitted
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0][:150].rstrip(" .")
        raise TraderDataError(f"{path} cannot be read ({reason}); {way_out}.") from error
    except (KeyError, json.JSONDecodeError) as error:
        raise TraderDataError(f"{path} is a parquet file, but not the pipeline's; {way_out}.") from error
