"""Windows files to windows, every column and row checked.

Letters: B windows, L window length, C channels, H horizon, F features.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

from preprocessing.variance_memories import MEMORIES
from preprocessing.windows import FEATURES, X_COLUMNS, Y_COLUMNS, Context, Truth, WindowsError, WindowSet
from preprocessing.windows_contract import (
    EXTREMES,
    ORIGIN,
    THIRTEEN,
    as_json,
    complete,
    is_foreign,
    names_of,
    our_names,
    said,
    stock_of,
)

logger = logging.getLogger(__name__)

_DATE = r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,9})?)?"
_DATE_LIST = re.compile(rf'\s*\[\s*"{_DATE}"(?:\s*,\s*"{_DATE}")*\s*\]\s*')


def read_windows(x_path: Path, y_path: Path) -> WindowSet:
    """Read and check windows files, CSV or Parquet (.parquet), written by `windows_writer` or by anyone.

    Raises:
        WindowsError: a file, column, row or value is missing or malformed; the message says which.
    """
    names = names_of(Path(x_path))
    # by the columns, not by a flag: a file of somebody else's must not need one
    if is_foreign(names):
        return _read_foreign(Path(x_path), Path(y_path), names)
    x, y = _read_table(x_path, X_COLUMNS, optional=MEMORIES), _read_table(y_path, Y_COLUMNS, optional=("next_open",))
    if len(x) != len(y):
        raise WindowsError(f"{x_path} has {len(x)} rows but {y_path} has {len(y)}; make both with one command.")
    disagree = (x.columns["date"] != y.columns["date"]) | (x.columns["stock"] != y.columns["stock"])
    for row in np.flatnonzero(disagree)[:1]:
        raise WindowsError(f"{x_path} and {y_path} disagree on date or stock in {y.place(row)}.")
    past, future = _parse_sequences(x), _parse_sequences(y)
    origin = _parse_dates(x)
    return WindowSet(
        context=Context(
            item_id=tuple(x.columns["stock"]),
            origin=origin,
            past=past[:, :, None],
            features=_parse_features(x, FEATURES),
            memories=_parse_memories(x),
        ),
        truth=Truth(
            future=future, dates=_parse_target_dates(y, origin, future.shape[1]), next_open=_parse_next_open(y)
        ),
    )


def _read_foreign(x_path: Path, y_path: Path, names: Sequence[str]) -> WindowSet:
    """Windows files without date and stock; see `windows_contract`."""
    x, y = _foreign_table(x_path, names), _foreign_table(y_path, names_of(y_path))
    missing = [name for name in THIRTEEN if name not in x.columns]
    if missing:
        raise WindowsError(f"{x_path} lacks the column(s) {', '.join(missing)}.")
    if len(x) != len(y):
        raise WindowsError(f"{x_path} has {len(x)} rows but {y_path} has {len(y)}; make both with one command.")
    past, future = _parse_sequences(x), _parse_sequences(y)
    given = {name: _parse_numbers(x.columns[name]) for name in (*THIRTEEN, *EXTREMES) if name in x.columns}
    for name, values in given.items():
        for row in np.flatnonzero(~np.isfinite(values))[:1]:
            raise x.refuse(row, f"column '{name}' is not a finite number.")
    features = complete(past, given)
    day = np.timedelta64(1, "D")
    origin = ORIGIN + np.arange(len(x)) * day
    logger.warning(said(x_path))
    return WindowSet(
        context=Context(
            item_id=(stock_of(x_path),) * len(x),
            origin=origin,
            past=past[:, :, None],
            features=np.stack([features[name] for name in FEATURES], axis=1),
        ),
        truth=Truth(future=future, dates=origin[:, None] + np.arange(1, future.shape[1] + 1) * day),
    )


def _foreign_table(path: Path, names: Sequence[str]) -> _Table:
    ours = our_names(names)
    if "sequence" not in ours:
        raise WindowsError(f"{path} lacks the column(s) sequence.")
    table = _read_table(path, tuple(ours.values()))
    columns = {name: table.columns[theirs] for name, theirs in ours.items()}
    columns["sequence"] = np.array([as_json(cell) for cell in columns["sequence"]], dtype=object)
    return _Table(path, columns)


@dataclass(frozen=True)
class _Table:
    """A file's columns as they stand in it: texts from CSV, typed values from Parquet."""

    path: Path
    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def place(self, row: int) -> str:
        return f"row {row + 1}" if self.path.suffix == ".parquet" else f"line {row + 2}"

    def refuse(self, row: int, problem: str) -> WindowsError:
        return WindowsError(f"{self.path}: {self.place(row)}, {problem}")


def _read_table(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> _Table:
    path = Path(path)
    if not path.is_file():
        raise WindowsError(
            f"{path} does not exist. Make it with `python -m preprocessing.combined_preprocessor`, or correct the path."
        )
    # as texts: NA and NAN are tickers, and numbers must not lose their last bit
    texts = csv.ConvertOptions(column_types=dict.fromkeys((*columns, *optional), pa.string()))
    kind = "Parquet" if path.suffix == ".parquet" else "CSV"
    try:
        table = parquet.read_table(path) if kind == "Parquet" else csv.read_csv(path, convert_options=texts)
        missing = [column for column in columns if column not in table.column_names]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise WindowsError(f"{path} is not a readable {kind} file: {' '.join(str(error).split())}") from error
    if missing:
        raise WindowsError(f"{path} lacks the column(s) {', '.join(missing)}.")
    if table.num_rows == 0:
        raise WindowsError(f"{path} has no rows: no window fits this split. Give more data or shorter windows.")
    present = [name for name in (*columns, *optional) if name in table.column_names]
    return _Table(path, {name: table[name].to_numpy() for name in present})


def _parse_features(table: _Table, names: Sequence[str]) -> np.ndarray:
    features = np.stack([_parse_numbers(table.columns[name]) for name in names], axis=1)
    for row, column in np.argwhere(~np.isfinite(features))[:1]:
        raise table.refuse(row, f"column '{names[column]}' is not a finite number.")
    return features


def _parse_memories(table: _Table) -> np.ndarray | None:
    missing = [name for name in MEMORIES if name not in table.columns]
    if len(missing) == len(MEMORIES):
        return None
    if missing:
        raise WindowsError(
            f"{table.path} has only some of the columns {', '.join(MEMORIES)}: it lacks {', '.join(missing)}. "
            "Give all of them or none."
        )
    return _parse_features(table, MEMORIES)


def _parse_next_open(table: _Table) -> np.ndarray | None:
    if "next_open" not in table.columns:
        return None
    opens = _parse_numbers(table.columns["next_open"])
    for row in np.flatnonzero(~(np.isfinite(opens) & (opens > 0)))[:1]:
        raise table.refuse(row, "column 'next_open' is not a positive price.")
    return opens


def _parse_numbers(column: np.ndarray) -> np.ndarray:
    """The numbers that the texts stand for; NaN for what is none."""
    try:
        # the whole column at once; cell by cell only to find which one is no number
        return column.astype(np.float64)
    except (TypeError, ValueError):
        return np.array([float(cell) if _is_number(cell) else np.nan for cell in column])


def _is_number(cell: object) -> bool:
    try:
        float(cell)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return False
    return True


def _parse_dates(table: _Table) -> np.ndarray:
    column = table.columns["date"]
    if column.dtype.kind != "M":
        column = np.array([cell if re.fullmatch(_DATE, str(cell)) else "" for cell in column])
    dates = np.asarray(pd.to_datetime(column, format="ISO8601", errors="coerce"), "datetime64[ns]")
    for row in np.flatnonzero(np.isnat(dates))[:1]:
        raise table.refuse(row, "column 'date' must hold a day as YYYY-MM-DD or a time as YYYY-MM-DDTHH:MM:SS.")
    return dates


def _parse_target_dates(table: _Table, origin: np.ndarray, horizon: int) -> np.ndarray:
    dates = np.empty((len(table), horizon), dtype="datetime64[ns]")
    for row, cell in enumerate(table.columns["dates"]):
        if isinstance(cell, str) and not _DATE_LIST.fullmatch(cell):
            raise table.refuse(row, "column 'dates' is not a JSON list of YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS.")
        try:
            days = np.array(json.loads(cell) if isinstance(cell, str) else cell, dtype="datetime64[ns]")
        except (TypeError, ValueError) as error:
            raise table.refuse(row, "column 'dates' does not hold dates.") from error
        if days.shape != (horizon,):
            raise table.refuse(row, "column 'dates' must hold one date per value of 'sequence'.")
        dates[row] = days
    # NaT compares as False, so a null date is refused too
    ascending = np.diff(dates, axis=1, prepend=origin[:, None]) > np.timedelta64(0)
    for row in np.flatnonzero(~ascending.all(1))[:1]:
        raise table.refuse(row, "column 'dates' must ascend and lie after 'date'.")
    return dates


def _parse_sequences(table: _Table) -> np.ndarray:
    rows = []
    for number, cell in enumerate(table.columns["sequence"]):
        try:
            row = np.array(json.loads(cell) if isinstance(cell, str) else cell, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise table.refuse(number, "column 'sequence' is not a JSON list of numbers.") from error
        if row.ndim != 1 or len(row) == 0:
            raise table.refuse(number, "column 'sequence' must hold finite positive prices.")
        if rows and len(row) != len(rows[0]):
            raise table.refuse(number, f"column 'sequence' has {len(row)} values, the rows before have {len(rows[0])}.")
        rows.append(row)
    prices = np.stack(rows)
    for number in np.flatnonzero(~(np.isfinite(prices) & (prices > 0)).all(1))[:1]:
        raise table.refuse(int(number), "column 'sequence' must hold finite positive prices.")
    return prices
