"""Real and generated sequences: from two text files, or from the forecasts that a comparison left behind.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.errors import UserError
from preprocessing.returns import VolatilityConfig, daily_volatility, future_log_returns
from preprocessing.sequence_files import read_sequences
from preprocessing.windows import WindowSet
from preprocessing.windows_reader import read_windows

FORECASTS = Path("model_comparison", "forecasts.parquet")
WINDOWS = "data"
SAMPLES_PER_WINDOW = 20
"""Paths taken of each window; a comparison keeps more."""


class RunFilesError(UserError):
    """A run's folder that lacks what is needed; the message names the file and the way out."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Two samples and where they come from.

    Attributes:
        real: [N, T].
        generated: [M, T].
        origin: one sentence for the report.
        unit: of the values, for the pictures.
    """

    real: np.ndarray
    generated: np.ndarray
    origin: str
    unit: str


def samples_of_files(real: Path, generated: Path) -> Samples:
    """Sequences of two files of equally long lines (`preprocessing.sequence_files`).

    Raises:
        UserError: a file is missing or malformed.
    """
    return Samples(read_sequences(real), read_sequences(generated), f"Real: {real}. Generated: {generated}.", "value")


def samples_of_run(run: Path, forecaster: str) -> Samples:
    """Realised and sampled daily log returns of a run's test windows, over the daily volatility at the origin.

    Windows whose future overlaps with that of an earlier one of their stock are left out: they would count the same
    days many times. Of each window that stays, the first 20 samples are taken, invalid answers left out.

    Args:
        run: the folder of a run; it holds model_comparison/forecasts.parquet and data/*_full_{x,y}.csv.
        forecaster: a name on its leaderboard.

    Raises:
        RunFilesError: a file is missing or damaged, the forecaster is not in it, or windows and forecasts do not fit.
        WindowsError: a windows file is malformed.
    """
    stock, origin, prices = _forecasts(Path(run) / FORECASTS, forecaster)
    windows = _windows(Path(run) / WINDOWS)
    keys = list(zip(windows.context.item_id, _days(windows.context.origin), strict=True))
    rows = {key: row for row, key in enumerate(keys)}
    # forecasts are filed by day, so bars within a day cannot be matched to them
    if len(rows) < len(keys):
        raise RunFilesError(f"{run}: several windows of a stock begin on one day, so forecasts cannot be told apart")
    asked = list(zip(stock, _days(origin), strict=True))
    unknown = next((key for key in asked if key not in rows), None)
    if unknown:
        raise RunFilesError(f"{run}: {FORECASTS} has a forecast of {unknown[0]} on {unknown[1]}, the windows have none")
    # all days of a path count once: overlapping windows would make both samples look more certain than they are
    kept = _without_overlap(windows, sorted({rows[key] for key in asked}))
    windows = windows.take(np.array(kept))
    number = {row: index for index, row in enumerate(kept)}
    taken = [(index, number[rows[key]]) for index, key in enumerate(asked) if rows[key] in number]
    from_forecast, from_window = (np.array(part) for part in zip(*taken, strict=True))
    scale, last = daily_volatility(windows.context, VolatilityConfig()), windows.context.last_price
    # over the volatility known at the origin: otherwise calm and wild years would be mixed into one fat-tailed law
    real = np.diff(future_log_returns(windows), axis=1, prepend=0) / scale[:, None]
    closes = prices[from_forecast]  # [B, S, H]
    # [B, S, 1] the last close, from which the first return starts
    start = np.broadcast_to(last[from_window, None, None], (*closes.shape[:2], 1))
    paths = np.diff(np.log(np.concatenate([start, closes], axis=2)), axis=2) / scale[from_window, None, None]
    paths = paths.reshape(-1, paths.shape[2])
    valid = np.isfinite(paths).all(axis=1)
    sentence = (
        f"Daily log returns over the daily volatility at the origin, {run}: {len(real)} test windows that do not "
        f"overlap, of {len(set(asked))}, against {valid.sum()} paths of {forecaster} on them"
        f" ({(~valid).sum()} invalid answers left out)."
    )
    return Samples(real, paths[valid], sentence, "daily log return / volatility")


def _forecasts(file: Path, forecaster: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Stock [B], origin [B] and prices [B, S, H] of one forecaster, a row per window and seed."""
    if not file.is_file():
        raise RunFilesError(f"{file} does not exist; make it with `python -m grpo.stages.compare_models`")
    try:
        names = pq.read_table(file, columns=["forecaster"])["forecaster"].unique().to_pylist()
        # filtered while reading: the file holds every sample of every forecaster
        wanted = [("forecaster", "=", forecaster), ("sample", "<", SAMPLES_PER_WINDOW)]
        table = pq.read_table(file, filters=wanted) if forecaster in names else None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RunFilesError(f"{file} is not a table of forecasts: {' '.join(str(error).split())}") from error
    if table is None:
        raise RunFilesError(f"{file} has no forecaster '{forecaster}'; there are {', '.join(sorted(names))}")
    horizon, num = (int(table[name].to_numpy().max()) for name in ("h", "sample"))
    # rows lie by window, sample, day; every window starts a stretch of S H rows
    first = np.arange(0, len(table), horizon * (num + 1))
    prices = table["price"].to_numpy().astype(np.float64).reshape(len(first), num + 1, horizon)
    return table["stock"].take(pa.array(first)).to_pylist(), table["origin"].to_numpy()[first], prices


def _windows(folder: Path) -> WindowSet:
    """All windows of a run, of whatever split."""
    found = sorted(folder.glob("*_full_x.*"))
    if len(found) != 1:
        raise RunFilesError(f"{folder} holds {len(found)} files *_full_x.csv where one is needed")
    return read_windows(found[0], found[0].with_name(found[0].name.replace("_full_x.", "_full_y.")))


def _without_overlap(windows: WindowSet, rows: list[int]) -> list[int]:
    """Rows, in order of time, whose origin is no earlier than the last day of the stock's window before."""
    until: dict[str, np.datetime64] = {}
    kept = []
    for row in sorted(rows, key=lambda row: windows.context.origin[row]):
        stock, origin = windows.context.item_id[row], windows.context.origin[row]
        if stock not in until or origin >= until[stock]:
            until[stock] = windows.truth.dates[row, -1]
            kept.append(row)
    return kept


def _days(origins: np.ndarray) -> list[str]:
    return np.datetime_as_string(origins.astype("datetime64[D]")).tolist()
