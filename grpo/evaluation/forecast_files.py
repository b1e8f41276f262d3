"""Forecasts on disk: one .npz per forecaster for going on after a kill, one parquet table for everybody else.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grpo.evaluation.harness import Evaluation
from grpo.evaluation.protocol import Forecast
from preprocessing.errors import UserError
from preprocessing.files import write_atomically
from preprocessing.windows import Context


class ForecastFileError(UserError):
    """A forecast file that cannot be read whole; it has to be made again."""


def save_forecast(forecast: Forecast, seconds: float, path: Path) -> None:
    """Write one forecast, exact to the bit, whole or not at all."""
    buffer = io.BytesIO()
    # as JSON, not as an object array: reading that would need pickle, which runs whatever a file holds
    texts = json.dumps(forecast.texts)
    np.savez(buffer, samples=forecast.samples, valid=forecast.valid, seconds=seconds, texts=texts)
    write_atomically(path, buffer.getvalue())


def load_forecast(path: Path) -> tuple[Forecast, float]:
    """Read what `save_forecast` wrote.

    Raises:
        ForecastFileError: the file is damaged or holds something else.
    """
    try:
        with np.load(path) as file:
            texts = json.loads(str(file["texts"]))
            forecast = Forecast(
                samples=file["samples"],
                valid=file["valid"],
                texts=None if texts is None else tuple(tuple(row) for row in texts),
            )
            return forecast, float(file["seconds"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ForecastFileError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def write_forecasts_table(
    evaluations: Sequence[Evaluation], context: Context, path: Path, *, seeds: np.ndarray | None = None
) -> None:
    """Write every sample of every forecaster in long form: forecaster, seed, stock, origin, sample, h, price.

    One row group per forecaster, so that memory holds one at a time. `sample` counts from 0, `h` from 1 day
    ahead; `price` is float32 and null where the sample was invalid.

    Args:
        evaluations: the forecasters.
        context: B windows.
        path: the file.
        seeds: [B] seed of each window's forecasts; without it 0.
    """
    seeds = np.zeros(len(context), dtype=np.int64) if seeds is None else seeds
    path.parent.mkdir(parents=True, exist_ok=True)
    # a folder beside the target: a rename is atomic only within one file system
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder, path.name)
        names = [evaluation.name for evaluation in evaluations]
        stocks = sorted(set(context.item_id))
        with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
            for number, evaluation in enumerate(evaluations):
                writer.write_table(_long_form(evaluation.forecast, context, seeds, names, number, stocks))
        os.replace(temporary, path)


_SCHEMA = pa.schema(
    {
        "forecaster": pa.dictionary(pa.int16(), pa.string()),
        "seed": pa.int64(),
        "stock": pa.dictionary(pa.int32(), pa.string()),
        "origin": pa.date32(),
        "sample": pa.int16(),
        "h": pa.int16(),
        "price": pa.float32(),
    }
)


def _long_form(
    forecast: Forecast, context: Context, seeds: np.ndarray, names: list[str], number: int, stocks: list[str]
) -> pa.Table:
    num_windows, num_samples, horizon = forecast.samples.shape
    per_window = num_samples * horizon
    # one list of names for all row groups, so that a code means the same in each
    stock = np.searchsorted(stocks, np.array(context.item_id)).astype(np.int32)
    columns = [
        pa.DictionaryArray.from_arrays(np.full(num_windows * per_window, number, dtype=np.int16), names),
        pa.array(np.repeat(seeds, per_window)),
        pa.DictionaryArray.from_arrays(np.repeat(stock, per_window), stocks),
        pa.array(np.repeat(context.origin.astype("datetime64[D]"), per_window)),
        pa.array(np.tile(np.repeat(np.arange(num_samples, dtype=np.int16), horizon), num_windows)),
        pa.array(np.tile(np.arange(1, horizon + 1, dtype=np.int16), num_windows * num_samples)),
        # NaN of an invalid sample becomes null: other tools would average NaN into their means
        pa.array(forecast.samples.astype(np.float32).ravel(), from_pandas=True),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
