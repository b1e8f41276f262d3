"""Forecasts on disk: one .npz per forecaster for going on after a kill, one parquet table for everybody else.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grpo.evaluation.harness import Evaluation
from grpo.evaluation.protocol import Forecast
from preprocessing.files import write_atomically
from preprocessing.windows import Context


def forecast_key(identity: Mapping[str, Any], context: Context) -> str:
    """Hash of all that a forecast depends on: who was asked (plain JSON values) and about which windows."""
    digest = hashlib.sha256(json.dumps([identity, context.item_id], sort_keys=True).encode())
    for array in (context.origin.astype("datetime64[ns]"), context.past, context.features):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def save_forecast(forecast: Forecast, seconds: float, path: Path) -> None:
    """Write one forecast, exact to the bit, whole or not at all."""
    buffer = io.BytesIO()
    texts = json.dumps(forecast.texts)
    np.savez(buffer, samples=forecast.samples, valid=forecast.valid, seconds=seconds, texts=texts)
    write_atomically(path, buffer.getvalue())


def load_forecast(path: Path) -> tuple[Forecast, float]:
    """Read what `save_forecast` wrote."""
    with np.load(path) as file:
        texts = json.loads(str(file["texts"]))
        forecast = Forecast(
            samples=file["samples"],
            valid=file["valid"],
            texts=None if texts is None else tuple(tuple(row) for row in texts),
        )
        return forecast, float(file["seconds"])


def write_forecasts_table(evaluations: Sequence[Evaluation], context: Context, path: Path) -> None:
    """Write every sample of every forecaster in long form: forecaster, stock, origin, sample, h, price.

    One row group per forecaster, so that memory holds one at a time. `sample` counts from 0, `h` from 1 day
    ahead; `price` is float32 and null where the sample was invalid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder, path.name)
        names = [evaluation.name for evaluation in evaluations]
        stocks = sorted(set(context.item_id))
        with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
            for number, evaluation in enumerate(evaluations):
                writer.write_table(_long_form(evaluation.forecast, context, names, number, stocks))
        os.replace(temporary, path)


_SCHEMA = pa.schema(
    {
        "forecaster": pa.dictionary(pa.int16(), pa.string()),
        "stock": pa.dictionary(pa.int32(), pa.string()),
        "origin": pa.date32(),
        "sample": pa.int16(),
        "h": pa.int16(),
        "price": pa.float32(),
    }
)


def _long_form(forecast: Forecast, context: Context, names: list[str], number: int, stocks: list[str]) -> pa.Table:
    num_windows, num_samples, horizon = forecast.samples.shape
    per_window = num_samples * horizon
    stock = np.searchsorted(stocks, np.array(context.item_id)).astype(np.int32)
    columns = [
        pa.DictionaryArray.from_arrays(np.full(num_windows * per_window, number, dtype=np.int16), names),
        pa.DictionaryArray.from_arrays(np.repeat(stock, per_window), stocks),
        pa.array(np.repeat(context.origin.astype("datetime64[D]"), per_window)),
        pa.array(np.tile(np.repeat(np.arange(num_samples, dtype=np.int16), horizon), num_windows)),
        pa.array(np.tile(np.arange(1, horizon + 1, dtype=np.int16), num_windows * num_samples)),
        pa.array(forecast.samples.astype(np.float32).ravel(), from_pandas=True),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
