"""Windows of one or many stocks: what a forecaster may see, what it must predict, and their CSV form.

Letters: B windows, L window length, C channels, H horizon, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from preprocessing.files import write_atomically

INDICATORS = (
    "sma",
    "ema",
    "mom",
    "rsi",
    "macd",
    "willr",
    "cci",
    "adx",
    "bbands_upper",
    "bbands_middle",
    "bbands_lower",
    "stoch_k",
    "stoch_d",
    "macd_signal",
    "macd_histogram",
)
WINDOW_STATISTICS = (
    "min",
    "min_timestep",
    "max",
    "max_timestep",
    "mean",
    "median",
    "median_timestep",
    "trend",
    "top_lag_1",
    "top_lag_1_correlation",
    "top_lag_2",
    "top_lag_2_correlation",
    "top_lag_3",
    "top_lag_3_correlation",
    "trend_r2",
    "trend_direction",
)
SCALES = (
    "norm_mean",
    "norm_std",
    "volatility",
    "past_mean",
    "past_std",
    "past_ar1",
    "past_volatility",
    "past_drift",
    "ewma_volatility",
    "yang_zhang_volatility",
)
FEATURES = INDICATORS + WINDOW_STATISTICS + SCALES
"""Names of the feature columns, in the order of `Context.features`."""
SPLITS = ("train", "val", "test", "full")


class WindowsError(ValueError):
    """A windows file that cannot be used; the message names the file and the row or column."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a forecaster may see of B windows.

    Attributes:
        item_id: [B] stock of each window.
        origin: [B] datetime64[ns], last observed day.
        past: [B, L, C] float64; channel 0 is the adjusted close in price units, oldest first.
        features: [B, F] indicators, statistics and scales at the origin, named by `FEATURES`.
    """

    item_id: tuple[str, ...]
    origin: np.ndarray
    past: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def last_price(self) -> np.ndarray:
        """[B] the close at the origin, in price units."""
        return self.past[:, -1, 0]

    def feature(self, name: str) -> np.ndarray:
        """[B] one feature by its name in `FEATURES`."""
        return self.features[:, FEATURES.index(name)]

    def take(self, rows: np.ndarray) -> Context:
        """The windows at the given row numbers (or boolean mask), in that order."""
        rows = np.arange(len(self))[rows]
        return Context(
            item_id=tuple(self.item_id[i] for i in rows),
            origin=self.origin[rows],
            past=self.past[rows],
            features=self.features[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What came after B windows; only the harness and the rewards hold it.

    Attributes:
        future: [B, H] adjusted closes of the H days after the origin, price units.
        dates: [B, H] datetime64[ns] of those days.
    """

    future: np.ndarray
    dates: np.ndarray


@dataclass(frozen=True, kw_only=True)
class WindowSet:
    """Windows with their future: one split of one or many stocks."""

    context: Context
    truth: Truth

    def __len__(self) -> int:
        return len(self.context)

    @property
    def horizon(self) -> int:
        """Number of days to predict."""
        return self.truth.future.shape[1]

    def take(self, rows: np.ndarray) -> WindowSet:
        """The windows at the given row numbers (or boolean mask), in that order."""
        return WindowSet(
            context=self.context.take(rows),
            truth=Truth(future=self.truth.future[rows], dates=self.truth.dates[rows]),
        )


def concatenate(sets: list[WindowSet]) -> WindowSet:
    """Join window sets of equal window length and horizon, in the order given."""
    return WindowSet(
        context=Context(
            item_id=tuple(item for windows in sets for item in windows.context.item_id),
            origin=np.concatenate([windows.context.origin for windows in sets]),
            past=np.concatenate([windows.context.past for windows in sets]),
            features=np.concatenate([windows.context.features for windows in sets]),
        ),
        truth=Truth(
            future=np.concatenate([windows.truth.future for windows in sets]),
            dates=np.concatenate([windows.truth.dates for windows in sets]),
        ),
    )


def write_windows(windows: WindowSet, x_path: Path, y_path: Path) -> None:
    """Write the public CSV form: X (date, stock, sequence, features) and Y (date, stock, sequence, dates).

    Sequences are JSON lists; every number reads back to the same float64. Each file appears whole or not at
    all.
    """
    context, truth = windows.context, windows.truth
    key = {"date": np.datetime_as_string(context.origin, unit="D"), "stock": context.item_id}
    features = dict(zip(FEATURES, context.features.T, strict=True))
    dates = np.char.add(np.char.add('"', np.datetime_as_string(truth.dates, unit="D")), '"')
    _write_table(x_path, key | {"sequence": _json_lists(context.past[:, :, 0])} | features)
    _write_table(y_path, key | {"sequence": _json_lists(truth.future), "dates": _json_lists(dates)})


def _write_table(path: Path, columns: Mapping[str, Any]) -> None:
    # Arrow writes round-trip decimals six times as fast as pandas, but would quote the names in the header
    buffer = pa.BufferOutputStream()
    buffer.write((",".join(columns) + "\n").encode())
    csv.write_csv(pa.table({**columns}), buffer, csv.WriteOptions(include_header=False))
    write_atomically(path, buffer.getvalue().to_pybytes())


def _json_lists(rows: np.ndarray) -> pa.Array:
    """Each row of numbers, or of texts that are JSON already, as the text of a JSON list."""
    texts = pc.cast(pa.array(rows.ravel()), pa.string())
    ends = pa.array(np.arange(len(rows) + 1) * rows.shape[1], pa.int32())
    lists = pa.ListArray.from_arrays(ends, texts)
    # pyarrow.compute makes its functions when it is imported, out of a type checker's sight
    joined = pc.binary_join(lists, ", ")  # pyright: ignore[reportAttributeAccessIssue]
    return pc.binary_join_element_wise("[", joined, "]", "")  # pyright: ignore[reportAttributeAccessIssue]


def read_windows(x_path: Path, y_path: Path) -> WindowSet:
    """Read and check the CSV form written by `write_windows`, or by anyone.

    Raises:
        WindowsError: a file, column, row or value is missing or malformed; the message says which.
    """
    x = _read_table(x_path, ("date", "stock", "sequence", *FEATURES))
    y = _read_table(y_path, ("date", "stock", "sequence", "dates"))
    if len(x["date"]) != len(y["date"]):
        raise WindowsError(
            f"{x_path} has {len(x['date'])} rows but {y_path} has {len(y['date'])}; make both with one command."
        )
    for row in np.flatnonzero((x["date"] != y["date"]) | (x["stock"] != y["stock"]))[:1]:
        raise WindowsError(f"{x_path} and {y_path} disagree on date or stock in line {row + 2}.")
    past = _parse_sequences(x["sequence"], x_path)
    future = _parse_sequences(y["sequence"], y_path)
    origin = _parse_dates(x["date"], x_path)
    return WindowSet(
        context=Context(
            item_id=tuple(x["stock"]),
            origin=origin,
            past=past[:, :, None],
            features=_parse_features(x, x_path),
        ),
        truth=Truth(future=future, dates=_parse_target_dates(y["dates"], origin, future.shape[1], y_path)),
    )


def _read_table(path: Path, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise WindowsError(
            f"{path} does not exist. Make it with `python -m preprocessing.combined_preprocessor`, or correct the path."
        )
    # as texts: NA and NAN are tickers, and numbers must not lose their last bit
    texts = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    try:
        table = csv.read_csv(path, convert_options=texts)
        missing = [column for column in columns if column not in table.column_names]
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise WindowsError(f"{path} is not a readable CSV file: {' '.join(str(error).split())}") from error
    if missing:
        raise WindowsError(f"{path} lacks the column(s) {', '.join(missing)}.")
    if table.num_rows == 0:
        raise WindowsError(f"{path} has no rows: no window fits this split. Give more data or shorter windows.")
    return {name: table[name].to_numpy() for name in columns}


def _parse_features(table: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    features = np.stack([_parse_numbers(table[name]) for name in FEATURES], axis=1)
    for row, column in np.argwhere(~np.isfinite(features))[:1]:
        raise WindowsError(f"{path}: line {row + 2}, column '{FEATURES[column]}' is not a finite number.")
    return features


def _parse_numbers(column: np.ndarray) -> np.ndarray:
    """The numbers that the texts stand for; NaN for what is none."""
    try:
        return column.astype(np.float64)
    except ValueError:
        return np.array([float(cell) if _is_number(cell) else np.nan for cell in column])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parse_dates(column: np.ndarray, path: Path) -> np.ndarray:
    dates = np.asarray(pd.to_datetime(column, format="%Y-%m-%d", errors="coerce"), "datetime64[ns]")
    for row in np.flatnonzero(np.isnat(dates))[:1]:
        raise WindowsError(f"{path}: line {row + 2}, column 'date' must hold a day as YYYY-MM-DD.")
    return dates


def _parse_target_dates(column: np.ndarray, origin: np.ndarray, horizon: int, path: Path) -> np.ndarray:
    dates = np.empty((len(column), horizon), dtype="datetime64[ns]")
    for row, cell in enumerate(column):
        try:
            days = np.array(json.loads(cell), dtype="datetime64[D]")
        except (TypeError, ValueError) as error:
            raise WindowsError(f"{path}: line {row + 2}, column 'dates' is not a JSON list of YYYY-MM-DD.") from error
        if days.shape != (horizon,):
            raise WindowsError(f"{path}: line {row + 2}, column 'dates' must hold one date per value of 'sequence'.")
        dates[row] = days
    # NaT compares as False, so a null date is refused too
    ascending = np.diff(dates, axis=1, prepend=origin[:, None]) > np.timedelta64(0)
    for row in np.flatnonzero(~ascending.all(1))[:1]:
        raise WindowsError(f"{path}: line {row + 2}, column 'dates' must ascend and lie after 'date'.")
    return dates


def _parse_sequences(column: np.ndarray, path: Path) -> np.ndarray:
    rows = []
    for line, cell in enumerate(column, start=2):
        try:
            row = np.array(json.loads(cell), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise WindowsError(f"{path}: line {line}, column 'sequence' is not a JSON list of numbers.") from error
        if row.ndim != 1 or len(row) == 0 or not np.isfinite(row).all() or (row <= 0).any():
            raise WindowsError(f"{path}: line {line}, column 'sequence' must hold finite positive prices.")
        if rows and len(row) != len(rows[0]):
            raise WindowsError(
                f"{path}: line {line}, column 'sequence' has {len(row)} values, the lines before have {len(rows[0])}."
            )
        rows.append(row)
    return np.stack(rows)
