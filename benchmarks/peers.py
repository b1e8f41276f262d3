"""The statistical forecasters on real stocks, beside reference figures for 88 of them.

    .venv/bin/python benchmarks/peers.py --data-dir DIR
    .venv/bin/python benchmarks/peers.py --data-dir DIR --forecasters fhs,fhs_drift --stride 1

DIR holds StockNet's raw CSVs (2012-09-04 to 2017-09-01), all 88 or some. 30 adjusted closes in, 10 out; one calendar
cut, training windows end before 2016-03-08; test origins 2016-10-14 to 2017-08-18, every tenth of them (22, whose
futures do not overlap), or every one with `--stride 1`. Errors in percent of the last close, relative to the random
walk with daily variance 1/2 EWMA(.97) + 1/2 whole past. p: Diebold-Mariano on the CRPS averaged per date. The models
of statsforecast are refitted on each window; 30 closes are too few for them, so they get 500, and where that takes
long only some of the windows, on which the reference is then scored too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines.foundation import MissingWeightsError
from baselines.packages import MissingPackageError
from grpo.evaluation.harness import evaluate
from grpo.evaluation.metrics import WindowScores, summarise
from grpo.evaluation.protocol import Forecaster, forecaster_plugin
from grpo.evaluation.significance import average_by_date, diebold_mariano
from preprocessing.config import DataConfig
from preprocessing.market_data import load_stocks
from preprocessing.stock_windows import split_windows
from preprocessing.windows import WindowSet

HORIZON, CLOSES, LONG = 10, 30, 500
FIRST_TARGET_AFTER_CUT = 30
"""Bars between the second cut and the first test target, which make 2016-10-14 the first origin."""
BATCH = 2000


@dataclass(frozen=True)
class Peer:
    """One row: which forecaster, on how many closes, and its reference figures on 88 stocks.

    Attributes:
        plugin: registered name.
        on_88: relative MAE, relative CRPS, coverage 80 and 95 on the 22 origins, NaN where not given.
        settings: fields of the plugin's Config that differ from their defaults.
        closes: window length.
        max_windows: test windows at most, spread evenly.
    """

    plugin: str
    on_88: tuple[float, float, float, float] = (np.nan, np.nan, np.nan, np.nan)
    settings: Mapping[str, Any] = field(default_factory=dict)
    closes: int = CLOSES
    max_windows: int | None = None


REFERENCE = "reference"
PEERS = {
    REFERENCE: Peer("ewma_t", (1, 1, 0.889, 0.970), {"dof": np.inf}),
    "ewma_t6": Peer("ewma_t", (1, 0.988, 0.863, 0.972), {"dof": 6.0}),
    "ewma_t6_by_day": Peer("ewma_t", settings={"dof": 6.0, "tails": "day"}),
    "ewma_t": Peer("ewma_t"),
    "random_walk": Peer("random_walk"),
    "random_walk_drift": Peer("random_walk_drift"),
    "random_walk_panel_drift": Peer("random_walk_panel_drift", (0.991, 0.993, 0.891, 0.970)),
    "seasonal_naive": Peer("seasonal_naive"),
    "historical_bootstrap": Peer("historical_bootstrap", (0.994, 0.988, 0.880, 0.975)),
    "fhs": Peer("fhs", (1, 0.990, 0.864, 0.970)),
    "fhs_by_day": Peer("fhs", settings={"block": 1}),
    "fhs_drift": Peer("fhs_drift", (0.991, 0.985, 0.867, 0.971)),
    "garch_t": Peer("garch_t", (1, 0.992, 0.861, 0.968)),
    "ridge": Peer("ridge"),
    "lightgbm_quantile": Peer("lightgbm_quantile", (1.010, 0.998, 0.816, 0.951)),
    "chronos": Peer("chronos"),
    "timesfm": Peer("timesfm"),
    "auto_ets_30": Peer("auto_ets"),
    "auto_theta_30": Peer("auto_theta"),
    "auto_ets_500": Peer("auto_ets", (0.996, 1.010, 0.91, 0.98), closes=LONG),
    "auto_theta_500": Peer("auto_theta", (0.996, 1.024, 0.91, 0.98), closes=LONG),
    "auto_arima_500": Peer("auto_arima", (1.000, 1.011, 0.91, 0.98), closes=LONG, max_windows=600),
}


class Stocks:
    """Windows of all stocks, made once per window length."""

    def __init__(self, data_dir: Path, stride: int) -> None:
        self.data_dir, self.stride = data_dir, stride
        self.made: dict[int, dict[str, WindowSet]] = {}

    def splits(self, closes: int) -> dict[str, WindowSet]:
        """Train, val and the chosen test windows."""
        if closes not in self.made:
            config = DataConfig(data_dir=self.data_dir, window=closes, horizon=HORIZON, embargo=FIRST_TARGET_AFTER_CUT)
            splits, _ = split_windows(load_stocks("all", config)[0], config)
            test = splits["test"]
            days = np.unique(test.context.origin)[:: self.stride]
            self.made[closes] = splits | {"test": test.take(np.isin(test.context.origin, days))}
        return self.made[closes]


def keys(windows: WindowSet) -> list[tuple[str, np.datetime64]]:
    """Stock and origin of each window."""
    return list(zip(windows.context.item_id, windows.context.origin, strict=True))


def score(forecaster: Forecaster, windows: WindowSet, num_samples: int, seed: int) -> tuple[WindowScores, float]:
    """Scores and the seconds that the forecasts took, in batches that bound the memory."""
    parts = []
    for begin in range(0, len(windows), BATCH):
        batch = windows.take(np.arange(begin, min(begin + BATCH, len(windows))))
        parts.append(evaluate(forecaster, batch, num_samples=num_samples, seed=seed))
    return WindowScores.concatenate([part.scores for part in parts]), sum(part.seconds for part in parts)


def run(name: str, stocks: Stocks, reference: WindowScores | None, num_samples: int, seed: int) -> dict[str, Any]:
    """Fit and score one row; `reference` holds the scores of the reference on all windows of 30 closes."""
    peer, splits = PEERS[name], stocks.splits(PEERS[name].closes)
    plugin = forecaster_plugin(peer.plugin)
    test = splits["test"]
    if peer.max_windows is not None and len(test) > peer.max_windows:
        test = test.take(np.linspace(0, len(test) - 1, peer.max_windows).round().astype(int))
    began = time.perf_counter()
    config = plugin.Config(**peer.settings)
    forecaster = plugin.fit(config, splits["train"], splits["val"], horizon=HORIZON, seed=seed, out_dir=Path("unused"))
    fit_seconds = time.perf_counter() - began
    scores, seconds = score(forecaster, test, num_samples, seed)
    row_of = {key: row for row, key in enumerate(keys(stocks.splits(CLOSES)["test"]))}
    rows = np.array([row_of[key] for key in keys(test)])
    same = scores if reference is None else reference.take(rows)
    difference = average_by_date((scores.crps - same.crps).mean(axis=1), test.context.origin)
    overlap = -(-HORIZON // stocks.stride)  # origins whose futures share days
    return {
        "forecaster": name,
        "rel_mae": scores.absolute_error.mean() / same.absolute_error.mean(),
        "rel_crps": scores.crps.mean() / same.crps.mean(),
        "p": diebold_mariano(difference, horizon=overlap).p_value,
        **{key: value for key, value in summarise(scores).items() if key in ("coverage_80", "coverage_95")},
        "fit_s": fit_seconds,
        "s_per_1000": seconds / len(test) * 1000,
        "windows": len(test),
        "scores": scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of StockNet's raw CSVs")
    parser.add_argument("--forecasters", help=f"comma-separated, of {', '.join(PEERS)}; default: all")
    parser.add_argument("--stride", type=int, default=10, help="days between two test origins")
    parser.add_argument("--num-samples", type=int, default=400, help="paths per window")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = arguments.forecasters.split(",") if arguments.forecasters else list(PEERS)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"--forecasters: there is no {', '.join(unknown)}; there are {', '.join(PEERS)}")
    stocks = Stocks(arguments.data_dir, arguments.stride)
    test = stocks.splits(CLOSES)["test"]
    origins = np.unique(test.context.origin)
    print(
        f"{len(set(test.context.item_id))} stocks, {len(test)} windows, {len(origins)} origins "
        f"{str(origins[0])[:10]} to {str(origins[-1])[:10]}, {arguments.num_samples} paths\n"
    )
    reference = run(REFERENCE, stocks, None, arguments.num_samples, arguments.seed)
    print_reference(reference["scores"])
    print("| forecaster | rel. MAE | rel. CRPS | p CRPS | coverage 80/95 | fit s | s per 1,000 | windows |")
    print("|---|---|---|---|---|---|---|---|")
    print_row(reference)
    for name in names:
        if name == REFERENCE:
            continue
        try:
            print_row(run(name, stocks, reference["scores"], arguments.num_samples, arguments.seed))
        except (MissingPackageError, MissingWeightsError) as error:
            print(f"| {name} | left out: {error} |||||||", flush=True)
    print("\nIn brackets: all 88 stocks, 22 origins.")


def print_reference(scores: WindowScores) -> None:
    """Errors of the reference, pooled and by horizon."""
    table = pd.DataFrame(
        {
            "MAE": scores.absolute_error.mean(axis=0),
            "RMSE": np.sqrt(scores.squared_error.mean(axis=0)),
            "CRPS": scores.crps.mean(axis=0),
        },
        index=range(1, HORIZON + 1),
    )
    pooled = f"MAE {scores.absolute_error.mean():.3f} %, RMSE {np.sqrt(scores.squared_error.mean()):.3f} %"
    print(f"Reference: {pooled}, CRPS {scores.crps.mean():.3f} %; on days 1, 5, 10:")
    print(table.loc[[1, 5, 10]].round(3).to_string(), "\n")


def print_row(row: Mapping[str, Any]) -> None:
    """One line of the table, the figures on 88 stocks in brackets."""
    mae, crps, low, high = PEERS[row["forecaster"]].on_88

    def bracket(value: float, digits: int = 3) -> str:
        return "" if np.isnan(value) else f" ({value:.{digits}f})"

    print(
        f"| {row['forecaster']} | {row['rel_mae']:.3f}{bracket(mae)} | {row['rel_crps']:.3f}{bracket(crps)} "
        f"| {'' if np.isnan(row['p']) else format(row['p'], '.3f')} "
        f"| {row['coverage_80']:.3f}{bracket(low)} / {row['coverage_95']:.3f}{bracket(high)} "
        f"| {row['fit_s']:.1f} | {row['s_per_1000']:.2f} | {row['windows']} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
