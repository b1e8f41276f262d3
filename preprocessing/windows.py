"""Windows of one or many stocks: what a forecaster may see, what it must predict, and their CSV form.

Letters: B windows, L window length, C channels, H horizon, F features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

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

    Sequences are JSON lists whose numbers read back to the same float64. Both files appear whole or not at all.
    """
    context, truth = windows.context, windows.truth
    date = np.datetime_as_string(context.origin, unit="D")
    x = pd.DataFrame({"date": date, "stock": context.item_id})
    x["sequence"] = [json.dumps(row) for row in context.past[:, :, 0].tolist()]
    x = pd.concat([x, pd.DataFrame(context.features, columns=list(FEATURES))], axis=1)
    y = pd.DataFrame({"date": date, "stock": context.item_id})
    y["sequence"] = [json.dumps(row) for row in truth.future.tolist()]
    y["dates"] = [json.dumps(row) for row in np.datetime_as_string(truth.dates, unit="D").tolist()]
    write_atomically(x_path, x.to_csv(index=False))
    write_atomically(y_path, y.to_csv(index=False))


def read_windows(x_path: Path, y_path: Path) -> WindowSet:
    """Read and check the CSV form written by `write_windows`, or by anyone.

    Raises:
        WindowsError: a file, column, row or value is missing or malformed; the message says which.
    """
    x, y = _read_table(x_path), _read_table(y_path)
    _require_columns(x, x_path, ("date", "stock", "sequence", *FEATURES))
    _require_columns(y, y_path, ("date", "stock", "sequence", "dates"))
    if len(x) != len(y):
        raise WindowsError(f"{x_path} has {len(x)} rows but {y_path} has {len(y)}; make both with one command.")
    if len(x) == 0:
        raise WindowsError(f"{x_path} has no rows: no window fits this split. Give more data or shorter windows.")
    differs = (x["date"] != y["date"]) | (x["stock"] != y["stock"])
    if differs.any():
        row = int(np.flatnonzero(differs)[0]) + 2
        raise WindowsError(f"{x_path} and {y_path} disagree on date or stock in line {row}.")
    past = _parse_sequences(x["sequence"], x_path)
    future = _parse_sequences(y["sequence"], y_path)
    dates = [json.loads(cell) for cell in y["dates"]]
    if any(len(row) != future.shape[1] for row in dates):
        raise WindowsError(f"{y_path}: column 'dates' must hold one date per value of 'sequence'.")
    features = x[list(FEATURES)].to_numpy(dtype=np.float64)
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise WindowsError(f"{x_path}: line {row + 2}, column '{FEATURES[column]}' is not a finite number.")
    return WindowSet(
        context=Context(
            item_id=tuple(x["stock"].astype(str)),
            origin=_parse_dates(x["date"], x_path),
            past=past[:, :, None],
            features=features,
        ),
        truth=Truth(future=future, dates=np.array(dates, dtype="datetime64[ns]")),
    )


def _read_table(path: Path) -> pd.DataFrame:
    if not Path(path).is_file():
        raise WindowsError(
            f"{path} does not exist. Make it with `python -m preprocessing.combined_preprocessor`, or correct the path."
        )
    try:
        return pd.read_csv(path, dtype={"date": str, "stock": str, "sequence": str, "dates": str}, keep_default_na=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise WindowsError(f"{path} is not a readable CSV file: {error}") from error


def _require_columns(table: pd.DataFrame, path: Path, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise WindowsError(f"{path} lacks the column(s) {', '.join(missing)}.")


def _parse_dates(column: pd.Series, path: Path) -> np.ndarray:
    try:
        return column.to_numpy(dtype="datetime64[ns]")
    except ValueError as error:
        raise WindowsError(f"{path}: column 'date' must hold dates as YYYY-MM-DD: {error}") from error


def _parse_sequences(column: pd.Series, path: Path) -> np.ndarray:
    rows = []
    for line, cell in enumerate(column, start=2):
        try:
            row = np.array(json.loads(cell), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise WindowsError(f"{path}: line {line}, column 'sequence' is not a JSON list of numbers.") from error
        if row.ndim != 1 or not np.isfinite(row).all() or (row <= 0).any():
            raise WindowsError(f"{path}: line {line}, column 'sequence' must hold finite positive prices.")
        rows.append(row)
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise WindowsError(f"{path}: sequences have different lengths {sorted(lengths)}; all must be equal.")
    return np.stack(rows)
