"""Point forecasts under the protocol of VTA (arXiv 2511.08616), beside the figures on all 88 stocks.

    .venv/bin/python benchmarks/vta10.py --data-dir DIR

DIR holds StockNet's raw CSVs, all 88 or some. Preset vta-10: 10 adjusted closes in, 10 out, stride 1, each stock cut
70/10/20 by its own rows, errors on z-scores by the mean and deviation of the stock's training closes. The point
forecast is the median of each forecaster's law in closed form (`point`): no sampling noise is in these figures.
`ridge_per_stock` is fitted on each stock by itself, `ridge` on all of them together. p: Diebold-Mariano on squared
errors averaged per date, against the random walk; negative t: better than it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from baselines.statistical.naive import RandomWalk, RandomWalkConfig, RandomWalkDrift, RandomWalkPanelDrift
from baselines.statistical.regression import Ridge, RidgeConfig
from grpo.evaluation.markdown import markdown
from grpo.evaluation.significance import average_by_date, diebold_mariano
from preprocessing.market_data import load_stocks
from preprocessing.presets import preset
from preprocessing.stock_windows import split_windows
from preprocessing.windows import WindowSet

ON_88 = {
    "random_walk": (0.0606, 0.1623),
    "random_walk_drift": (0.0599, 0.1610),
    "ridge_per_stock": (0.0610, 0.1626),
}
"""MSE and MAE of the same forecasters on the 20,875 test windows of all 88 stocks."""
SYSTEMS = {
    "VTA, published": (0.0659, 0.1701),
    "CALF, published": (0.0674, 0.1738),
    "the GRPO-LLM forecasts that VTA ships": (0.0680, 0.1732),
}


def points(name: str, splits: dict[str, WindowSet]) -> np.ndarray:
    """[B, H] point forecasts of the test windows, in price units."""
    train, val, test = splits["train"], splits["val"], splits["test"]
    settings = {"horizon": test.horizon, "seed": 0, "out_dir": Path("unused")}
    if name == "ridge_per_stock":
        return ridge_per_stock(train, val, test)
    if name == "ridge":
        return Ridge.fit(RidgeConfig(), train, val, **settings).point(test.context, horizon=test.horizon)
    plugin = {plugin.name: plugin for plugin in (RandomWalk, RandomWalkDrift, RandomWalkPanelDrift)}[name]
    return plugin.fit(RandomWalkConfig(), train, val, **settings).point(test.context, horizon=test.horizon)


def ridge_per_stock(train: WindowSet, val: WindowSet, test: WindowSet) -> np.ndarray:
    """[B, H] each stock's windows by the ridge regression of that stock."""
    answer = np.empty_like(test.truth.future)
    stocks = [np.array(windows.context.item_id) for windows in (train, val, test)]
    for stock in np.unique(stocks[2]):
        own = [windows.take(items == stock) for windows, items in zip((train, val, test), stocks, strict=True)]
        forecaster = Ridge.fit(RidgeConfig(), own[0], own[1], horizon=test.horizon, seed=0, out_dir=Path("unused"))
        answer[stocks[2] == stock] = forecaster.point(own[2].context, horizon=test.horizon)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of StockNet's raw CSVs")
    config = preset("vta-10", data_dir=parser.parse_args().data_dir)
    splits, _ = split_windows(load_stocks("all", config)[0], config)
    test = splits["test"]
    scale = test.context.feature("norm_std")[:, None]
    print(f"{len(set(test.context.item_id))} stocks, {len(test)} test windows\n")
    rows, reference = [], None
    for name in ("random_walk", "random_walk_drift", "random_walk_panel_drift", "ridge_per_stock", "ridge"):
        error = (points(name, splits) - test.truth.future) / scale  # [B, H] in z-scores
        squared = (error**2).mean(axis=1)
        reference = squared if reference is None else reference
        test_of = diebold_mariano(average_by_date(squared - reference, test.context.origin), horizon=test.horizon)
        tested = ("", "") if np.isnan(test_of.p_value) else (f"{test_of.statistic:+.2f}", f"{test_of.p_value:.3f}")
        on_88 = " / ".join(f"{value:.4f}" for value in ON_88.get(name, ()))
        rows.append((name, f"{squared.mean():.4f}", f"{abs(error).mean():.4f}", *tested, on_88))
    rows += [(name, "", "", "", "", f"{mse:.4f} / {mae:.4f}") for name, (mse, mae) in SYSTEMS.items()]
    headers = ("forecaster", "MSE", "MAE", "t", "p", "MSE / MAE, 88 stocks")
    print(markdown(dict(zip(headers, zip(*rows, strict=True), strict=True))))


if __name__ == "__main__":
    main()
