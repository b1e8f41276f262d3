"""Speed and memory of the trader's pipeline, from trade files to the parquet file.

    python -m benchmarks.trader_ingestion [--events 1000000] [--markets 500] [--rounds 3]

Writes files of random trades and prices (half and half) to a temporary folder and runs the whole pipeline on them, in
a process of its own so that its memory is its own. In the same rounds, in turn:

    json.loads alone        the least that reading them takes
    half of the events      whether seconds and memory grow with their number
    one market              all events in a single file: the most memory that a number of events can take
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BARS = 300
BAR_SECONDS = 900
START = 1_767_225_600_000


def write_files(folder: Path, events: int, markets: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    (folder / "trader").mkdir(parents=True)
    span = BARS * BAR_SECONDS * 1000
    each = events // markets
    for number in range(markets):
        times = START + number * span + np.sort(random.integers(0, span, each))
        prices = np.round(1 / (1 + np.exp(-0.02 * random.standard_normal(each).cumsum())), 4).clip(0.01, 0.99)
        rows = []
        kinds, sizes = random.integers(0, 4, each), random.integers(1, 50, each)
        for t, price, kind, size in zip(*(column.tolist() for column in (times, prices, kinds, sizes)), strict=True):
            row = {"t": t, "type": "trade" if kind < 2 else "price", "price": price}
            if kind < 2:
                row |= {"side": ("BUY", "SELL")[kind], "size": size, "usdc": round(price * size, 4)}
            rows.append(row)
        slug = f"btc-random-{number:05}"
        (folder / "trader" / f"{slug}_prices.json").write_text(json.dumps({"slug": slug, "prices": rows}))


def process(folder: Path, split: tuple[float, float, float], embargo: int) -> None:
    from baselines.trader.pipeline import PipelineConfig, run_pipeline

    run_pipeline(PipelineConfig(data_dir=folder, output=folder / "out" / "p.parquet", split=split, embargo=embargo))


def read_market_alone(folder: Path) -> None:
    from baselines.trader.pipeline import PipelineConfig, read_market

    (path,) = folder.rglob("*_prices.json")
    read_market(path, PipelineConfig(data_dir=folder))


def parse(folder: Path) -> None:
    for path in folder.rglob("*_prices.json"):
        json.loads(path.read_bytes())


def start_up(folder: Path) -> None:
    from baselines.trader import pipeline

    assert pipeline.__doc__
    assert folder


def _measured(way, arguments, pipe) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    way(*arguments)
    seconds = time.perf_counter() - wall, time.process_time() - processor
    pipe.send((*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(way, *arguments) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and the most MiB that the process held."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measured, args=(way, arguments, there))
    process.start()
    answer = here.recv()
    process.join()
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--markets", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    events, markets = arguments.events, arguments.markets
    with tempfile.TemporaryDirectory() as name:
        many, half, one = (Path(name) / part for part in ("many", "half", "one"))
        # a process inherits the peak of the one that starts it, so that this one must stay small
        measure(write_files, many, events, markets, 0)
        measure(write_files, half, events // 2, markets // 2, 1)
        measure(write_files, one, events, 1, 2)
        split = (0.7, 0.1, 0.2)
        ways = {
            f"pipeline, {events} events in {markets} files": (process, many, split, 128),
            f"pipeline, {events // 2} events in {markets // 2} files": (process, half, split, 128),
            f"json.loads alone of {events} events": (parse, many),
            f"steps 1 and 2, {events} events in one file": (read_market_alone, one),
            "imports alone": (start_up, many),
        }
        results: dict[str, list[tuple[float, float, float]]] = {title: [] for title in ways}
        for _ in range(arguments.rounds):
            for title, (way, *rest) in ways.items():
                results[title].append(measure(way, *rest))
    medians = {
        title: [statistics.median(column) for column in zip(*values, strict=True)] for title, values in results.items()
    }
    (_, first, _) = next(iter(medians.values()))
    print(f"median of {arguments.rounds} rounds; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"  {'':60} {'clock':>7} {'processor':>10} {'ratio':>6} {'peak':>9}")
    for title, (wall, processor, memory) in medians.items():
        print(f"  {title:60} {wall:5.1f} s {processor:8.1f} s {processor / first:6.2f} {memory:5.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
