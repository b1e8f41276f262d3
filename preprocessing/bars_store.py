"""Bars of many stocks on the disk, so that only one stock at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pandas as pd
import pyarrow as pa

COLUMNS = ("open", "high", "low", "close", "volume")
_SCHEMA = pa.schema([("date", pa.timestamp("ns")), *((name, pa.float64()) for name in COLUMNS)])


class BarsStore:
    """Bars by stock: appended once, then read in the same order, bit by bit the same.

    Args:
        file: empty, to write and read; the caller closes it.

    Attributes:
        names: of the stocks, in the order in which they were appended.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.names: list[str] = []
        self._writer = pa.ipc.new_file(pa.PythonFile(file, "w"), _SCHEMA)

    def append(self, name: str, bars: pd.DataFrame) -> None:
        """Add a stock.

        Args:
            name: of the stock.
            bars: open, high, low, close and volume, indexed by datetime64[ns].

        Raises:
            OSError: the disk is full.
        """
        self._writer.write_batch(to_batch(bars))
        self.names.append(name)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Each stock's name and bars; nothing can be appended after this."""
        # the footer that says where each batch lies is written at the close; without it nothing can be read
        self._writer.close()
        reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
        for number, name in enumerate(self.names):
            yield name, reader.get_batch(number)


def to_batch(bars: pd.DataFrame) -> pa.RecordBatch:
    """Bars as one Arrow batch."""
    columns = [bars[name].to_numpy(dtype="float64") for name in COLUMNS]
    return pa.record_batch([bars.index.to_numpy(dtype="datetime64[ns]"), *columns], schema=_SCHEMA)


def from_batch(batch: pa.RecordBatch) -> pd.DataFrame:
    """The bars of a batch."""
    columns = {name: batch.column(name).to_numpy() for name in COLUMNS}
    return pd.DataFrame(columns, index=pd.DatetimeIndex(batch.column("date").to_numpy(), name="date"))
