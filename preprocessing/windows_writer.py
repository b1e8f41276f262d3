"""Windows to files, X and Y, as CSV or Parquet, at once or stock by stock.

X has date, stock, sequence (the past closes), the features and, where they are known, the memories; Y has date, stock,
sequence (the closes to predict), their dates and, where it is known, next_open. In CSV, sequences and dates are JSON
lists and every number reads back to the same float64; daily bars have days as YYYY-MM-DD, others times as
YYYY-MM-DDTHH:MM:SS.

Letters: B windows, L window length, H horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from preprocessing.files import AtomicFiles
from preprocessing.variance_memories import MEMORIES
from preprocessing.windows import X_COLUMNS, Y_COLUMNS, WindowSet

FileFormat = Literal["csv", "parquet"]
ROWS_PER_GROUP = 50_000
"""Rows of a Parquet row group: many stocks, so that thousands of them do not make thousands of groups."""


@dataclass(frozen=True)
class EncodedRows:
    """Rows to append to an X and a Y file: CSV lines without a header, or an Arrow table; and their columns."""

    columns: tuple[list[str], ...]
    rows: tuple[bytes | pa.Table, ...]


def write_windows(windows: WindowSet, x_path: Path, y_path: Path) -> None:
    """Write X and Y, as Parquet where the paths end in .parquet, else as CSV; both appear whole or neither.

    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    file_format: FileFormat = "parquet" if Path(x_path).suffix == ".parquet" else "csv"
    with AtomicFiles() as files, WindowsWriter(files.open(x_path), files.open(y_path)) as writer:
        writer.append(encode(windows, {"all": np.ones(len(windows), dtype=bool)}, file_format)["all"])


def encode(windows: WindowSet, choices: Mapping[str, np.ndarray], file_format: FileFormat) -> dict[str, EncodedRows]:
    """Some choices of the same windows, to append to one file each; every window is encoded once.

    Args:
        windows: B windows.
        choices: [B] boolean mask by name.
        file_format: of the files.
    """
    # every window goes into text once, and each choice picks its lines: full and train share theirs
    tables = _x_table(windows, file_format), _y_table(windows, file_format)
    columns = (tables[0].column_names, tables[1].column_names)
    if file_format == "parquet":
        return {
            name: EncodedRows(columns, tuple(t.filter(pa.array(rows)) for t in tables))
            for name, rows in choices.items()
        }
    lines = [_csv_lines(table) for table in tables]
    return {
        name: EncodedRows(columns, tuple(b"".join([part[i] for i in np.flatnonzero(rows)]) for part in lines))
        for name, rows in choices.items()
    }


class WindowsWriter:
    """An X and a Y file that grow by what `encode` gives; in a `with` block, which ends the files."""

    def __init__(self, x_file: BinaryIO, y_file: BinaryIO) -> None:
        self._files = (x_file, y_file)
        self._writers: list[_CsvWriter | _ParquetWriter] = []

    def append(self, encoded: EncodedRows) -> None:
        """Add rows below those that are there.

        Raises:
            OSError: the disk is full.
        """
        if not self._writers:
            writer_class = _CsvWriter if isinstance(encoded.rows[0], bytes) else _ParquetWriter
            self._writers = [
                writer_class(file, names) for file, names in zip(self._files, encoded.columns, strict=True)
            ]
        for writer, rows in zip(self._writers, encoded.rows, strict=True):
            writer.append(rows)

    def __enter__(self) -> WindowsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for writer in self._writers if error is None else ():
            writer.close()


class _CsvWriter:
    def __init__(self, file: BinaryIO, columns: list[str]) -> None:
        self._file = file
        file.write((",".join(columns) + "\n").encode())

    def append(self, lines: bytes) -> None:
        self._file.write(lines)

    def close(self) -> None:
        pass


class _ParquetWriter:
    """Groups of ROWS_PER_GROUP rows, however many are appended at once."""

    def __init__(self, file: BinaryIO, columns: list[str]) -> None:
        self._file = file
        self._waiting: list[pa.Table] = []
        self._writer: parquet.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROWS_PER_GROUP:
            self._write(whole_groups=True)

    def _write(self, *, whole_groups: bool) -> None:
        table = pa.concat_tables(self._waiting)
        # the rest waits for the next stock, so that the groups do not depend on how many rows come at once
        end = len(table) - len(table) % ROWS_PER_GROUP if whole_groups else len(table)
        if self._writer is None:
            # prices hardly repeat or compress: without either, writing is several times as fast
            self._writer = parquet.ParquetWriter(self._file, table.schema, compression="none", use_dictionary=False)
        self._writer.write_table(table.slice(0, end), row_group_size=ROWS_PER_GROUP)
        self._waiting = [table.slice(end)]

    def close(self) -> None:
        self._write(whole_groups=False)
        assert self._writer is not None
        self._writer.close()


def _x_table(windows: WindowSet, file_format: FileFormat) -> pa.Table:
    context = windows.context
    lists = _json_lists if file_format == "csv" else _lists
    # transposed once: Arrow wants each column in one stretch of memory
    features = [pa.array(column) for column in np.ascontiguousarray(context.features.T)]
    known = pa.table([*_key(windows, file_format), lists(context.past[:, :, 0]), *features], names=[*X_COLUMNS])
    for name, column in zip(MEMORIES, () if context.memories is None else context.memories.T, strict=False):
        known = known.append_column(name, pa.array(np.ascontiguousarray(column)))
    return known


def _y_table(windows: WindowSet, file_format: FileFormat) -> pa.Table:
    truth = windows.truth
    if file_format == "csv":
        sequences = [_json_lists(truth.future), _json_lists(truth.dates)]
    else:
        sequences = [_lists(truth.future), _lists(truth.dates)]
    opens = {} if truth.next_open is None else {"next_open": pa.array(truth.next_open)}
    return pa.table(dict(zip(Y_COLUMNS, [*_key(windows, file_format), *sequences], strict=True)) | opens)


def _key(windows: WindowSet, file_format: FileFormat) -> list[pa.Array]:
    origin = windows.context.origin
    dates = pa.array(_date_texts(origin) if file_format == "csv" else origin)
    return [dates, pa.array(windows.context.item_id, pa.string())]


def _csv_lines(table: pa.Table) -> list[bytes]:
    # Arrow writes round-trip decimals six times as fast as pandas, but would quote the names in the header
    buffer = pa.BufferOutputStream()
    csv.write_csv(table, buffer, csv.WriteOptions(include_header=False))
    lines = buffer.getvalue().to_pybytes().splitlines(keepends=True)
    if len(lines) != len(table):
        raise ValueError(f"stock {table['stock'][0].as_py()!r} has a line break in its name; rename its file")
    return lines


def _date_texts(dates: np.ndarray) -> np.ndarray:
    """Days where all are at midnight, else times to the second, or to the nanosecond where they need it."""
    if (dates.astype("datetime64[D]") == dates).all():
        return np.datetime_as_string(dates, unit="D")
    return np.datetime_as_string(dates, unit="s" if (dates.astype("datetime64[s]") == dates).all() else "ns")


def _json_lists(rows: np.ndarray) -> pa.Array:
    """Each row of numbers or of dates as the text of a JSON list."""
    # windows overlap: a value is put into text once, not once for each window that holds it
    if rows.dtype.kind == "M":
        values, codes = np.unique(rows, return_inverse=True)
        texts, codes = pa.array(np.char.add(np.char.add('"', _date_texts(values)), '"')), pa.array(codes.ravel())
    else:
        encoded = pa.array(rows.ravel()).dictionary_encode()
        texts, codes = pc.cast(encoded.dictionary, pa.string()), encoded.indices
    # pyarrow.compute makes its functions when it is imported, out of a type checker's sight
    joined = pc.binary_join(_lists_of(texts.take(codes), *rows.shape), ", ")  # pyright: ignore[reportAttributeAccessIssue]
    return pc.binary_join_element_wise("[", joined, "]", "")  # pyright: ignore[reportAttributeAccessIssue]


def _lists(rows: np.ndarray) -> pa.Array:
    return _lists_of(pa.array(rows.ravel()), *rows.shape)


def _lists_of(values: pa.Array, rows: int, length: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * length, pa.int32()), values)
