"""Speed of preprocessing: ratios to two plain ways of doing it, growth with rows, and workers.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/preprocess.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/preprocess.py --data-dir DIR     (real stocks, not simulated ones)

All ways run in turn in one process, several rounds; printed is the median over rounds of CPU time, and ratios of
those medians. What the plain ways do, with `ta` and pandas as most code does:

    sliced     indicators of the stock once; then a loop over windows, each sliced, described and kept as a row
    per past   a loop over windows; for each, indicators of the whole past up to its origin, of which the last is kept
    per window a loop over windows; for each, indicators (period 5) of the window alone, as VTA's published code does

The last two are timed on some windows, spread evenly, and scaled to all. The growth with rows and the comparison of
workers time the whole step, from CSV (or simulation) to files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from ta.momentum import ROCIndicator, RSIIndicator, StochasticOscillator, WilliamsRIndicator
from ta.trend import MACD, ADXIndicator, CCIIndicator, EMAIndicator, SMAIndicator
from ta.volatility import BollingerBands

from preprocessing.combined_preprocessor import preprocess
from preprocessing.config import DataConfig
from preprocessing.market_data import load_stocks
from preprocessing.parallel import open_workers
from preprocessing.scaling import StandardNorm
from preprocessing.stock_windows import make_windows


def ta_indicators(bars: pd.DataFrame, period: int | None = None) -> pd.DataFrame:
    """The indicators by `ta`, with standard periods or with one for all."""
    high, low, close = bars["high"], bars["low"], bars["close"]
    bands = BollingerBands(close, period or 20)
    stochastic = StochasticOscillator(high, low, close, period or 14, 3)
    macd = MACD(close, (period or 24) + 2, (period or 12), 3 if period else 9)
    return pd.DataFrame(
        {
            "sma": SMAIndicator(close, period or 20).sma_indicator(),
            "ema": EMAIndicator(close, period or 20).ema_indicator(),
            "mom": ROCIndicator(close, period or 10).roc(),
            "rsi": RSIIndicator(close, period or 14).rsi(),
            "macd": macd.macd(),
            "macd_signal": macd.macd_signal(),
            "macd_histogram": macd.macd_diff(),
            "willr": WilliamsRIndicator(high, low, close, period or 14).williams_r(),
            "cci": CCIIndicator(high, low, close, period or 20).cci(),
            "adx": ADXIndicator(high, low, close, period or 14).adx(),
            "bbands_upper": bands.bollinger_hband(),
            "bbands_middle": bands.bollinger_mavg(),
            "bbands_lower": bands.bollinger_lband(),
            "stoch_k": stochastic.stoch(),
            "stoch_d": stochastic.stoch_signal(),
        }
    )


def describe(window: pd.Series, past: pd.Series) -> dict[str, float]:
    """The statistics of a window, one by one."""
    lags = {lag: window.autocorr(lag) for lag in range(1, 11)}
    top = sorted(lags, key=lambda lag: -abs(lags[lag]))[:3]
    returns = np.log(window).diff()
    log_past = np.log(past)
    return {
        "min": window.min(),
        "min_timestep": float(window.to_numpy().argmin()),
        "max": window.max(),
        "max_timestep": float(window.to_numpy().argmax()),
        "mean": window.mean(),
        "median": window.median(),
        "trend": np.polyfit(np.arange(len(window)), window.to_numpy(), 1)[0],
        **{f"top_lag_{rank}": float(lag) for rank, lag in enumerate(top, 1)},
        **{f"top_lag_{rank}_correlation": lags[lag] for rank, lag in enumerate(top, 1)},
        "volatility": float(np.sqrt((returns**2).mean())),
        "past_mean": float(np.exp(log_past.mean())),
        "past_std": log_past.std(),
        "past_drift": log_past.diff().mean(),
    }


def sliced(bars: pd.DataFrame, config: DataConfig, origins: np.ndarray) -> pd.DataFrame:
    table = ta_indicators(bars)
    return _rows(bars, config, origins, lambda origin: table.iloc[origin].to_dict())


def per_past(bars: pd.DataFrame, config: DataConfig, origins: np.ndarray) -> pd.DataFrame:
    return _rows(bars, config, origins, lambda origin: ta_indicators(bars.iloc[: origin + 1]).iloc[-1].to_dict())


def per_window(bars: pd.DataFrame, config: DataConfig, origins: np.ndarray) -> pd.DataFrame:
    def indicators(origin: int) -> dict[str, float]:
        return ta_indicators(bars.iloc[origin - config.window + 1 : origin + 1], period=5).iloc[-1].to_dict()

    return _rows(bars, config, origins, indicators)


def _rows(
    bars: pd.DataFrame, config: DataConfig, origins: np.ndarray, indicators: Callable[[int], dict[str, float]]
) -> pd.DataFrame:
    rows = []
    for origin in origins:
        window = bars["close"].iloc[origin - config.window + 1 : origin + 1]
        row = {"date": bars.index[origin], "sequence": window.to_list()}
        row |= indicators(origin) | describe(window, bars["close"].iloc[: origin + 1])
        row["future"] = bars["close"].iloc[origin + 1 : origin + 1 + config.horizon].to_list()
        rows.append(row)
    return pd.DataFrame(rows)


def ours(bars: pd.DataFrame, config: DataConfig) -> None:
    make_windows("A", bars, config, StandardNorm(1.0, 1.0))


def compare_ways(bars: pd.DataFrame, rounds: int, some: int) -> None:
    """Seconds of CPU for one stock's windows, each way in turn."""
    config = DataConfig()
    origins = np.arange(config.first_origin, len(bars) - config.horizon)
    few = origins[np.linspace(0, len(origins) - 1, some).astype(int)]
    ways: dict[str, tuple[Callable[[], object], float]] = {
        "ours": (lambda: ours(bars, config), 1.0),
        "sliced": (lambda: sliced(bars, config, origins), 1.0),
        "per past": (lambda: per_past(bars, config, few), len(origins) / some),
        "per window": (lambda: per_window(bars, config, few), len(origins) / some),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ours(bars, config)  # the first call imports
    for _ in range(rounds):
        for name, (way, scale) in ways.items():
            began = time.process_time()
            way()
            seconds[name].append((time.process_time() - began) * scale)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"windows of one stock, {len(bars)} rows, {len(origins)} windows, median of {rounds} rounds")
    for name, value in medians.items():
        scaled = f"  ({some} windows, scaled)" if ways[name][1] != 1 else ""
        print(f"  {name:11} {1e3 * value:9.1f} ms  {value / medians['ours']:7.1f} x ours{scaled}")


def compare_rows(rounds: int) -> None:
    """Seconds of CPU from simulated bars to files, for longer and longer histories."""
    lengths = (1_250, 2_500, 5_000, 10_000, 20_000)
    bars = {rows: load_stocks(f"sim:gbm?rows={rows}", DataConfig())[0] for rows in lengths}
    seconds: dict[int, list[float]] = {rows: [] for rows in lengths}
    for _ in range(rounds):
        for rows in lengths:
            with tempfile.TemporaryDirectory() as folder:
                csv = Path(folder) / "data"
                csv.mkdir()
                for name, table in bars[rows].items():
                    named = table.rename(columns=str.capitalize).assign(**{"Adj Close": table["close"]})
                    named.to_csv(csv / f"{name[:3]}.csv", index_label="Date")
                began = time.process_time()
                preprocess("all", DataConfig(data_dir=csv), Path(folder) / "out")
                seconds[rows].append(time.process_time() - began)
    print(f"CSV to the four splits, one stock, median of {rounds} rounds")
    for rows, values in seconds.items():
        value = statistics.median(values)
        print(f"  {rows:6} rows {1e3 * value:8.1f} ms  {1e6 * value / rows:6.1f} us per row")


def compare_workers(stock: str, config: DataConfig, rounds: int) -> None:
    """Wall clock of the whole step with one and two processes, in turn; the start of the processes is in it."""
    wall: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for number, values in wall.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                with open_workers(number) as map_stocks:
                    preprocess(stock, config, Path(folder), map_stocks=map_stocks)
                values.append(time.perf_counter() - began)
    one, two = (statistics.median(wall[number]) for number in (1, 2))
    load = os.getloadavg()[0]
    print(f"workers, median of {rounds} rounds: 1 {one:.1f} s, 2 {two:.1f} s, ratio {one / two:.2f}")
    print(f"  ({os.cpu_count()} cores, load {load:.1f}: the ratio says something only where two cores are free)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of stocks; without it they are simulated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--some", type=int, default=30, help="windows on which the slow ways are timed")
    arguments = parser.parse_args()
    stock = "all" if arguments.data_dir else ",".join(f"sim:gbm?rows=1258&seed={seed}" for seed in range(68))
    config = DataConfig(data_dir=arguments.data_dir)
    bars = next(iter(load_stocks(stock.split(",")[0], config)[0].values()))
    compare_ways(bars, arguments.rounds, arguments.some)
    compare_rows(arguments.rounds)
    compare_workers(stock, config, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
