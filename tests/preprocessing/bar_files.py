"""Small files of bars for the tests of their reading."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"
PLAIN = "Date,Open,High,Low,Close,Volume"
ROWS = (
    "2020-01-01,10,12,9,11,5.5,100",
    "2020-01-02,11,13,10,12,6,200",
    "2020-01-03,12,14,11,13,6.5,300",
)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def counts(report: object, names: tuple[str, ...]) -> dict[str, int]:
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def bars_at(times: list[str], close: float | list[float] = 10.0, volume: float | list[float] = 5.0) -> list[str]:
    """Plain rows with O = H = L = C."""
    closes = [close] * len(times) if isinstance(close, float) else close
    volumes = [volume] * len(times) if isinstance(volume, float) else volume
    return [f"{t},{c},{c},{c},{c},{v}" for t, c, v in zip(times, closes, volumes, strict=True)]


def moving(rows: int) -> list[float]:
    return [100.0 + step % 2 for step in range(rows)]


def days(first: str, periods: int, frequency: str = "B") -> list[str]:
    return [f"{day:%Y-%m-%d}" for day in pd.date_range(first, periods=periods, freq=frequency)]
