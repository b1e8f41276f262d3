"""The statistical forecasters on real stocks, beside reference figures for 88 of them, with the noise of both.

    .venv/bin/python benchmarks/peers.py --data-dir DIR
    .venv/bin/python benchmarks/peers.py --data-dir DIR --quick
    .venv/bin/python benchmarks/peers.py --data-dir DIR --forecasters fhs,fhs_drift --stride 1

DIR holds StockNet's raw CSVs (2012-09-04 to 2017-09-01), all 88 or some. 30 adjusted closes in, 10 out; one calendar
cut, training windows end before 2016-03-08; test origins 2016-10-14 to 2017-08-18, every tenth of them (22, whose
futures do not overlap), or every one with `--stride 1`. Errors in percent of the last close, relative to the random
walk with daily variance 1/2 EWMA(.97) + 1/2 whole past. p: Diebold-Mariano on the CRPS averaged per date. `_500` and
`_past`: on 500 closes, and on all that the stock has; so is the random walk, whose EWMA would not forget its start
within 30. The models of statsforecast are refitted on each window.

Noise. In square brackets, a 95 % interval from a two-way bootstrap: stationary blocks of origins, and stocks one by
one, each drawn anew (Owen 2007, "The pigeonhole bootstrap", whose variance is on average somewhat too large). It
says how far a figure may lie from what other stocks and other years would show. The reference was measured on the
same origins, so for it only the stocks that DIR lacks can differ: the second interval draws stocks alone, shrunk by
sqrt(1 - stocks in DIR / 88), because the 88 hold those of DIR. Marks behind the reference, half a unit of its last
digit allowed: `=` inside the second interval, `~` inside the first alone, `!` outside both.

benchmarks/README.md holds the table of 68 stocks and what was found.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines.building_blocks.packages import MissingPackageError
from baselines.foundation.models import MissingWeightsError
from grpo.evaluation.bootstrap import date_bootstrap_indices, politis_white_block_length
from grpo.evaluation.harness import choose_windows, evaluate
from grpo.evaluation.metrics import INTERVALS, WindowScores
from grpo.evaluation.protocol import Forecaster, forecaster_plugin
from grpo.evaluation.significance import average_by_date, diebold_mariano
from preprocessing.config import DataConfig
from preprocessing.market_data import load_stocks
from preprocessing.stock_windows import days_of, split_windows
from preprocessing.windows import WindowSet

HORIZON, CLOSES = 10, 30
ALL_CLOSES = 10_000
"""More than any stock has: a window of its whole past."""
FIRST_TARGET_AFTER_CUT = 30
"""Bars between the second cut and the first test target, which make 2016-10-14 the first origin."""
STRIDE, STOCKS = 10, 88
"""Days between two origins, and stocks, of the reference figures."""
BATCH = 2000
SLOW = ("auto_ets", "auto_theta", "auto_arima")
"""Refitted on each window."""
QUICK_WINDOWS = 272
"""Windows of those with --quick: 4 of each of 68 stocks."""
NUM_RESAMPLES = 2000
FIGURES = ("rel. MAE", "rel. CRPS", "coverage 80", "coverage 95")


@dataclass(frozen=True)
class Peer:
    """One row: which forecaster, on how many closes, and its reference figures on 88 stocks.

    Attributes:
        plugin: registered name.
        on_88: `FIGURES` on 88 stocks and 22 origins, with the digits that are given; none where unknown.
        settings: fields of the plugin's Config that differ from their defaults.
        closes: window length, or all closes there are if these are fewer.
        train_stride: days between two training origins.
    """

    plugin: str
    on_88: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    closes: int = CLOSES
    train_stride: int = 1


REFERENCE = "reference"
ETS, THETA, ARIMA = ("0.996", "1.010", ".91", ".98"), ("0.996", "1.024", ".91", ".98"), ("1.000", "1.011", ".91", ".98")
PEERS = {
    REFERENCE: Peer("ewma_t", ("1.000", "1.000", ".889", ".970"), {"dof": np.inf}, closes=ALL_CLOSES),
    "ewma_gaussian": Peer("ewma_t", settings={"dof": np.inf}),
    "ewma_t6": Peer("ewma_t", settings={"dof": 6.0}),
    "ewma_t6_past": Peer("ewma_t", ("1.000", "0.988", ".863", ".972"), {"dof": 6.0}, closes=ALL_CLOSES),
    "ewma_t6_by_day": Peer("ewma_t", settings={"dof": 6.0, "tails": "day"}),
    "ewma_t": Peer("ewma_t"),
    "random_walk": Peer("random_walk"),
    "random_walk_drift": Peer("random_walk_drift"),
    "random_walk_panel_drift": Peer("random_walk_panel_drift", ("0.991", "0.993", ".891", ".970")),
    "straight_line": Peer("straight_line", ("1.561", "1.519", ".695", ".868")),
    "seasonal_naive": Peer("seasonal_naive"),
    "historical_bootstrap": Peer("historical_bootstrap", ("0.994", "0.988", ".880", ".975")),
    "fhs": Peer("fhs", ("1.000", "0.990", ".864", ".970")),
    "fhs_past_unit": Peer("fhs", ("1.000", "0.990", ".864", ".970"), {"unit_variance": True}, closes=ALL_CLOSES),
    "fhs_by_day": Peer("fhs", settings={"block": 1}),
    "fhs_drift": Peer("fhs_drift", ("0.991", "0.985", ".867", ".971")),
    "fhs_drift_past_unit": Peer(
        "fhs_drift", ("0.991", "0.985", ".867", ".971"), {"unit_variance": True}, closes=ALL_CLOSES
    ),
    "garch_t": Peer("garch_t"),
    "garch_t_past": Peer("garch_t", ("1.000", "0.992", ".861", ".968"), closes=ALL_CLOSES),
    "ridge": Peer("ridge"),
    "lightgbm_quantile": Peer("lightgbm_quantile", ("1.010", "0.998", ".816", ".951")),
    "lightgbm_quantile_tenth": Peer("lightgbm_quantile", ("1.010", "0.998", ".816", ".951"), train_stride=10),
    "chronos": Peer("chronos"),
    "timesfm": Peer("timesfm"),
    "auto_ets_30": Peer("auto_ets"),
    "auto_theta_30": Peer("auto_theta"),
    "auto_ets_500": Peer("auto_ets", ETS, closes=500),
    "auto_theta_500": Peer("auto_theta", THETA, closes=500),
    "auto_ets_past": Peer("auto_ets", ETS, closes=ALL_CLOSES),
    "auto_theta_past": Peer("auto_theta", THETA, closes=ALL_CLOSES),
    "auto_arima_past": Peer("auto_arima", ARIMA, closes=ALL_CLOSES),
}


class Stocks:
    """The windows of all stocks, and the closes before them."""

    def __init__(self, data_dir: Path, stride: int) -> None:
        config = DataConfig(data_dir=data_dir, window=CLOSES, horizon=HORIZON, embargo=FIRST_TARGET_AFTER_CUT)
        self.bars = load_stocks("all", config)[0]
        splits, _ = split_windows(self.bars, config)
        days = np.unique(splits["test"].context.origin)[::stride]
        self.train, self.val = splits["train"], splits["val"]
        self.train_days = np.unique(self.train.context.origin)
        self.test = splits["test"].take(np.isin(splits["test"].context.origin, days))

    def every(self, stride: int) -> WindowSet:
        """The training windows of every so many days."""
        return self.train.take(np.isin(self.train.context.origin, self.train_days[::stride]))

    def batches(self, windows: WindowSet, closes: int) -> Iterator[tuple[np.ndarray, WindowSet]]:
        """Row numbers and windows of equal length, at most BATCH, whose past is the last `closes` or all there are."""
        identity = zip(windows.context.item_id, windows.context.origin, strict=True)
        pasts = [self._closes_until(item, origin)[-closes:] for item, origin in identity]
        lengths = np.array([len(past) for past in pasts])
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            for part in np.split(rows, range(BATCH, len(rows), BATCH)):
                batch = windows.take(part)
                past = np.stack([pasts[row] for row in part])[:, :, None]
                yield part, dataclasses.replace(batch, context=dataclasses.replace(batch.context, past=past))

    def _closes_until(self, item: str, origin: np.datetime64) -> np.ndarray:
        bars = self.bars[item]
        return bars["close"].to_numpy(dtype=np.float64)[: np.searchsorted(days_of(bars), origin) + 1]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A ratio of means over windows.

    Attributes:
        value: the ratio.
        anywhere: ends of the interval over origins and stocks.
        same_origins: ends of the interval over stocks alone, for a mean over STOCKS stocks that hold these.
    """

    value: float
    anywhere: tuple[float, float]
    same_origins: tuple[float, float]

    def mark(self, reference: str) -> str:
        """Whether a reference lies inside; half a unit of its last digit is allowed."""
        allowance = 0.5 * 10.0 ** -len(reference.partition(".")[2])
        for mark, (low, high) in (("=", self.same_origins), ("~", self.anywhere)):
            if low - allowance <= float(reference) <= high + allowance:
                return mark
        return "!"


def ratio_with_noise(values: np.ndarray, windows: WindowSet, *, horizon: int, seed: int = 0) -> Figure:
    """Mean of column 0 over mean of column 1 of values [B, 2], and 95 % percentile intervals of it.

    Args:
        values: per window.
        windows: the B windows.
        horizon: origins whose futures overlap.
        seed: of the resamples.
    """
    items, item = np.unique(np.array(windows.context.item_id), return_inverse=True)
    days, day = np.unique(windows.context.origin, return_inverse=True)
    cells = np.zeros((len(items), len(days), 2))
    np.add.at(cells, (item, day), values)
    panel = np.moveaxis(cells, -1, 0)  # [2, K, D] sums per stock and origin
    value = values[:, 0].sum() / values[:, 1].sum()
    by_day = panel.sum(axis=1)  # [2, D]
    length = max(horizon, politis_white_block_length(by_day[0] - value * by_day[1]))
    drawn = date_bootstrap_indices(len(days), block_length=length, num_resamples=NUM_RESAMPLES, seed=seed)
    day_counts = np.stack([np.bincount(row, minlength=len(days)) for row in drawn])  # [R, D]
    rng = np.random.default_rng([seed, 1])  # apart from the origins' draws
    item_counts = rng.multinomial(len(items), np.full(len(items), 1 / len(items)), size=NUM_RESAMPLES)  # [R, K]
    sums = item_counts @ panel  # [2, R, D]
    both = (sums * day_counts).sum(axis=2)  # [2, R]
    alone = sums.sum(axis=2)
    shrink = np.sqrt(max(0.0, 1 - len(items) / STOCKS))
    return Figure(
        value=float(value),
        anywhere=_percentiles(both[0] / both[1]),
        same_origins=_percentiles(value + shrink * (alone[0] / alone[1] - value)),
    )


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one forecaster reached.

    Attributes:
        name: key of PEERS.
        scores: per window.
        figures: those named by FIGURES.
        p_value: of equal CRPS.
        fit_seconds: of all training windows.
        predict_seconds: of all test windows.
    """

    name: str
    scores: WindowScores
    figures: tuple[Figure, ...]
    p_value: float
    fit_seconds: float
    predict_seconds: float


def score(
    forecaster: Forecaster, stocks: Stocks, windows: WindowSet, closes: int, *, num_samples: int, seed: int
) -> tuple[WindowScores, float]:
    """Scores in the order of the windows, and the seconds that the forecasts took."""
    order, parts = [], []
    for rows, batch in stocks.batches(windows, closes):
        order.append(rows)
        parts.append(evaluate(forecaster, batch, num_samples=num_samples, seed=seed))
    scores = WindowScores.concatenate([part.scores for part in parts]).take(np.argsort(np.concatenate(order)))
    return scores, sum(part.seconds for part in parts)


def run(
    name: str,
    stocks: Stocks,
    reference: WindowScores | None,
    *,
    max_windows: int,
    overlap: int,
    num_samples: int,
    seed: int,
) -> Row:
    """Fit and score one row.

    Args:
        name: key of PEERS.
        stocks: windows.
        reference: scores of the reference on all test windows; None for the reference itself.
        max_windows: test windows at most, 0 for all.
        overlap: origins whose futures overlap.
        num_samples: paths per window.
        seed: of the paths.
    """
    peer = PEERS[name]
    rows = choose_windows(stocks.test.context, max_windows)
    test = stocks.test.take(rows)
    plugin = forecaster_plugin(peer.plugin)
    began = time.perf_counter()
    config = plugin.Config(**peer.settings)
    forecaster = plugin.fit(
        config, stocks.every(peer.train_stride), stocks.val, horizon=HORIZON, seed=seed, out_dir=Path("unused")
    )
    fit_seconds = time.perf_counter() - began
    scores, seconds = score(forecaster, stocks, test, peer.closes, num_samples=num_samples, seed=seed)
    same = scores if reference is None else reference.take(rows)
    mae, crps = (
        np.stack([getattr(each, loss).mean(axis=1) for each in (scores, same)], axis=1)
        for loss in ("absolute_error", "crps")
    )  # [B, 2] each
    covered = [scores.covered[:, INTERVALS.index(level)].mean(axis=1) for level in (0.8, 0.95)]
    columns = [mae, crps, *(np.stack([hits, np.ones(len(test))], axis=1) for hits in covered)]
    difference = average_by_date(crps[:, 0] - crps[:, 1], test.context.origin)
    return Row(
        name=name,
        scores=scores,
        figures=tuple(ratio_with_noise(values, test, horizon=overlap) for values in columns),
        p_value=diebold_mariano(difference, horizon=overlap).p_value,
        fit_seconds=fit_seconds,
        predict_seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of StockNet's raw CSVs")
    parser.add_argument("--forecasters", help=f"comma-separated, of {', '.join(PEERS)}; default: all")
    parser.add_argument("--stride", type=int, default=STRIDE, help="days between two test origins")
    parser.add_argument("--num-samples", type=int, default=400, help="paths per window")
    parser.add_argument("--seed", type=int, default=0)
    quick = f"forecast with {', '.join(SLOW)} on {QUICK_WINDOWS} windows, not on all"
    parser.add_argument("--quick", action="store_true", help=quick)
    arguments = parser.parse_args()
    names = arguments.forecasters.split(",") if arguments.forecasters else list(PEERS)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"--forecasters: there is no {', '.join(unknown)}; there are {', '.join(PEERS)}")
    stocks = Stocks(arguments.data_dir, arguments.stride)
    context = stocks.test.context
    origins = np.unique(context.origin)
    print(
        f"{len(set(context.item_id))} stocks, {len(context)} windows, {len(origins)} origins "
        f"{str(origins[0])[:10]} to {str(origins[-1])[:10]}, {arguments.num_samples} paths\n"
    )
    settings = {
        "overlap": -(-HORIZON // arguments.stride),
        "num_samples": arguments.num_samples,
        "seed": arguments.seed,
    }
    comparable = arguments.stride == STRIDE
    reference = run(REFERENCE, stocks, None, max_windows=0, **settings)
    print_reference(reference.scores)
    print(f"| forecaster | {' | '.join(FIGURES)} | p CRPS | fit s | s per 1,000 | windows |")
    print("|---|---|---|---|---|---|---|---|---|")
    print_row(reference, comparable)
    for name in names:
        if name == REFERENCE:
            continue
        max_windows = QUICK_WINDOWS if arguments.quick and PEERS[name].plugin in SLOW else 0
        try:
            row = run(name, stocks, reference.scores, max_windows=max_windows, **settings)
            print_row(row, comparable and len(row.scores.crps) == len(context))
        except (MissingPackageError, MissingWeightsError) as error:
            print(f"| {name} | left out: {error} ||||||||", flush=True)
    if comparable:
        print(f"\nIn round brackets: {STOCKS} stocks, the same origins.")


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


def print_row(row: Row, comparable: bool) -> None:
    """One line of the table, the figures on 88 stocks in round brackets where they are comparable."""
    references = PEERS[row.name].on_88 if comparable else ()
    cells = [row.name]
    for place, figure in enumerate(row.figures):
        low, high = figure.anywhere
        cell = f"{figure.value:.3f}"
        if low < high:  # the reference over itself has no noise
            cell += f" [{low:.3f}, {high:.3f}]"
        if references:
            cell += f" ({references[place]} {figure.mark(references[place])})"
        cells.append(cell)
    cells.append("" if np.isnan(row.p_value) else f"{row.p_value:.3f}")
    count = len(row.scores.crps)
    cells += [f"{row.fit_seconds:.1f}", f"{row.predict_seconds / count * 1000:.2f}", f"{count}"]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
