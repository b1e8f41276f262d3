"""Seconds and memory of scoring all windows with all metrics, and how CRPS and energy score compare with others.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 .venv/bin/python benchmarks/scoring.py
    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 .venv/bin/python benchmarks/scoring.py --windows 5000 --rounds 3

The first table is `score_windows`, `summarise`, ranks, their histogram and reliability in a fresh process: CPU seconds
of one thread, and the peak of its memory (the samples themselves included). The second times CRPS and energy score on
fewer windows, all methods in alternation, after one round that warms up and checks that the values are equal; a ratio
is the median over the rounds of a method's seconds over ours in the same round. `loop` is one NumPy call per window.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import scoringrules

from grpo.evaluation.calibration import pit_values, rank_histogram, reliability
from grpo.evaluation.metrics import fair_crps, fair_energy_score, score_windows, summarise
from grpo.evaluation.protocol import Forecast
from preprocessing.windows import FEATURES, Context, Truth, WindowSet

Method = Callable[[np.ndarray, np.ndarray], Any]
Backend = Literal["numpy", "numba"]


def make_forecast(num_windows: int, num_samples: int, horizon: int) -> tuple[Forecast, WindowSet]:
    """Random walks, and a truth that is one too."""
    rng = np.random.default_rng(0)
    paths = rng.standard_normal((num_windows, num_samples + 1, horizon))
    np.cumsum(paths, axis=2, out=paths)
    np.exp(0.02 * paths, out=paths)
    paths *= 100
    origin = np.datetime64("2020-01-01", "ns") + np.arange(num_windows).astype("timedelta64[D]")
    context = Context(
        item_id=("A",) * num_windows,
        origin=origin,
        past=np.full((num_windows, 2, 1), 100.0),
        features=np.zeros((num_windows, len(FEATURES))),
    )
    dates = origin[:, None] + np.arange(1, horizon + 1).astype("timedelta64[D]")
    windows = WindowSet(context=context, truth=Truth(future=paths[:, -1].copy(), dates=dates))
    samples = paths[:, :-1].copy()
    return Forecast(samples=samples, valid=np.ones(samples.shape[:2], dtype=bool)), windows


def report_all_metrics(num_windows: int, num_samples: int, horizon: int) -> None:
    """Score everything once and print seconds and MiB as JSON."""
    forecast, windows = make_forecast(num_windows, num_samples, horizon)
    began = time.process_time()
    scores = score_windows(forecast, windows)
    scored = time.process_time()
    summarise(scores)
    pit = pit_values(forecast, windows)
    rank_histogram(pit)
    reliability(pit)
    finished = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"scores": scored - began, "calibration": finished - scored, "peak": peak}))


def all_metrics(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """The same in fresh processes."""
    command = [sys.executable, __file__, "--report-all-metrics"]
    command += ["--windows", arguments.windows, "--samples", arguments.samples, "--horizon", arguments.horizon]
    run = [str(part) for part in command]
    done = [subprocess.run(run, check=True, capture_output=True, text=True) for _ in range(arguments.rounds)]
    return [json.loads(result.stdout) for result in done]


def loop_crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One window and step at a time, by the definition."""
    num_samples = samples.shape[1]
    scores = np.empty(truth.shape)
    for window, step in np.ndindex(*truth.shape):
        values = samples[window, :, step]
        pairs = np.abs(values[:, None] - values).sum() / (2 * num_samples * (num_samples - 1))
        scores[window, step] = np.abs(values - truth[window, step]).mean() - pairs
    return scores


def loop_energy(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One window at a time, by the definition."""
    num_samples = samples.shape[1]
    scores = np.empty(len(truth))
    for window, paths in enumerate(samples):
        pairs = np.linalg.norm(paths[:, None] - paths, axis=-1).sum() / (2 * num_samples * (num_samples - 1))
        scores[window] = np.linalg.norm(paths - truth[window], axis=-1).mean() - pairs
    return scores


def scoringrules_crps(backend: Backend) -> Method:
    return lambda samples, truth: scoringrules.crps_ensemble(
        truth, samples, m_axis=1, estimator="fair", backend=backend
    )


def scoringrules_energy(backend: Backend) -> Method:
    return lambda samples, truth: scoringrules.es_ensemble(
        truth, samples, m_axis=1, v_axis=2, estimator="fair", backend=backend
    )


def methods() -> dict[str, dict[str, Method]]:
    """Ours first; scoringrules on NumPy and, where it is installed, on Numba."""
    others: dict[str, Backend] = {"scoringrules numpy": "numpy"}
    if find_spec("numba"):
        others["scoringrules numba"] = "numba"
    return {
        "CRPS": {
            "ours": fair_crps,
            **{label: scoringrules_crps(backend) for label, backend in others.items()},
            "loop": loop_crps,
        },
        "energy": {
            "ours": fair_energy_score,
            **{label: scoringrules_energy(backend) for label, backend in others.items()},
            "loop": loop_energy,
        },
    }


def compare(competitors: dict[str, Method], samples: np.ndarray, truth: np.ndarray, rounds: int) -> list[str]:
    """Lines of median seconds and ratios; raises where two methods disagree."""
    expected = competitors["ours"](samples, truth)
    for method in competitors.values():
        np.testing.assert_allclose(method(samples, truth), expected, rtol=1e-9, atol=1e-12)
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for number in range(rounds):
        for name in sorted(competitors, reverse=bool(number % 2)):
            began = time.process_time()
            competitors[name](samples, truth)
            seconds[name].append(time.process_time() - began)
    return [
        f"  {name:20s} {statistics.median(times):8.3f} s   "
        f"{statistics.median(t / own for t, own in zip(times, seconds['ours'], strict=True)):6.1f} x ours"
        for name, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--horizon", type=int, default=10)
    parser.add_argument("--compared-windows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--report-all-metrics", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.report_all_metrics:
        report_all_metrics(arguments.windows, arguments.samples, arguments.horizon)
        return
    measured = all_metrics(arguments)
    shape = f"{arguments.samples} samples x {arguments.horizon} steps"
    print(f"All metrics of {arguments.windows} windows x {shape}, median of {arguments.rounds} processes")
    for name, unit in (("scores", "s"), ("calibration", "s"), ("peak", "MiB")):
        print(f"  {name:20s} {statistics.median(run[name] for run in measured):8.2f} {unit}")
    forecast, windows = make_forecast(arguments.compared_windows, arguments.samples, arguments.horizon)
    for score, competitors in methods().items():
        print(f"Fair {score} of {arguments.compared_windows} windows x {shape}")
        print("\n".join(compare(competitors, forecast.samples, windows.truth.future, arguments.rounds)))


if __name__ == "__main__":
    main()
