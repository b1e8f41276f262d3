"""What trading on each forecaster's median would have earned, with Sharpe ratios deflated by the number of trials."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pandas as pd

from grpo.comparison.results import Section
from grpo.config import RunConfig
from grpo.evaluation.comparison import Comparison
from grpo.evaluation.identity import key_of, windows_hash
from grpo.evaluation.leaderboard import OPTIMUM, REFERENCE
from grpo.evaluation.trading import Backtest, Performance, TradingRule, deflated_sharpe, trade
from grpo.evaluation.trials import TRIALS_FILE, Trials, log_trials, read_trials
from grpo.runs.manifest import jsonable
from preprocessing.windows import WindowSet

RULES = {"long or flat": TradingRule(), "long or short": TradingRule(short=True)}
BUY_AND_HOLD = "buy and hold"


def trading_section(
    config: RunConfig,
    comparison: Comparison,
    market: WindowSet,
    identities: Mapping[str, str],
    logger: logging.Logger,
) -> list[Section]:
    """Trade every rule on every forecaster's median of the last day, log the trials, and deflate the Sharpe ratios.

    With several seeds the signal is the mean of their medians. The random walk has no view and the optimum is no rival:
    neither is traded.

    Args:
        config: the run.
        comparison: all forecasts.
        market: all test windows, of which the comparison's may be a part: they hold the prices of the days between.
        identities: key of each forecaster, for the log of trials.
        logger: is told where the log cannot be written.
    """
    # seeds repeat the same windows: they are averaged into one signal, not traded side by side
    one_seed = comparison.seed == comparison.seed[0]
    windows = comparison.windows.take(one_seed)
    # the close of day 1 would be entry and exit at once
    if windows.horizon == 1 and windows.truth.next_open is None:
        return []
    # median of the last day: [seeds * B] to [seeds, B], averaged to [B]
    backtests = {
        (evaluation.name, rule): trade(
            evaluation.scores.median_move[:, -1].reshape(-1, len(windows)).mean(axis=0), windows, RULES[rule], market
        )
        for evaluation in comparison.evaluations
        if evaluation.name not in (REFERENCE, OPTIMUM)
        for rule in RULES
    }
    if not backtests:
        return []
    trials = _log(config, comparison, identities, backtests, logger)
    rows = [
        _row(name, rule, backtest.strategy, trials) | {"hit_rate": backtest.hit_rate, "trades": backtest.num_trades}
        for (name, rule), backtest in backtests.items()
    ]
    # buy and hold does not depend on the signal: any backtest has the same
    hold = next(iter(backtests.values()))
    stocks = len(set(market.context.item_id))
    rows.append(_row(BUY_AND_HOLD, "", hold.hold, None) | {"trades": stocks})
    first, last = np.datetime_as_string([hold.origins[0], hold.exits[-1]], unit="D")
    note = (
        f"Signal: the median of day {windows.horizon} against the last close; filled at the {hold.fill}, sold at the "
        f"close of day {windows.horizon}, {RULES['long or flat'].cost:.2%} a side, {hold.strategy.num_periods} periods "
        f"that do not overlap, {first} to {last}. The stocks of a period's origin share all the money, which waits "
        f"between periods; buy and hold keeps it in {'the stock' if stocks == 1 else f'all {stocks} stocks'} on the "
        "same days. deflated: probability that the true Sharpe ratio is above 0, given that it is one of "
        f"{trials.num_trials} trials logged in {TRIALS_FILE}."
    )
    return [Section("Trading", pd.DataFrame(rows), note)]


def _row(name: str, rule: str, performance: Performance, trials: Trials | None) -> dict[str, object]:
    # a ratio of one period, or of returns that do not vary, has nothing to be tested by
    deflated = np.nan
    if trials is not None and np.isfinite(performance.sharpe) and performance.num_periods > 1:
        # trials of former comparisons count: whoever tries a hundred rules finds a good one by luck
        deflated = deflated_sharpe(
            performance, num_trials=max(trials.num_trials, 1), sharpe_variance=trials.sharpe_variance
        )
    return {
        "forecaster": name,
        "rule": rule,
        "annual_return": performance.annual_return,
        "sharpe": performance.sharpe,
        "sharpe_error": performance.sharpe_error,
        "deflated": deflated,
        "max_drawdown": performance.max_drawdown,
        "turnover": performance.turnover,
    }


def _log(
    config: RunConfig,
    comparison: Comparison,
    identities: Mapping[str, str],
    backtests: Mapping[tuple[str, str], Backtest],
    logger: logging.Logger,
) -> Trials:
    """Write this comparison into the log of trials and count them; a log that cannot be written stops nothing."""
    seeds = np.unique(comparison.seed).tolist()
    data = windows_hash(comparison.windows)
    settings = {"samples": config.compare.num_samples, "seeds": seeds, "windows": data}
    # by forecaster, rule, windows and seeds: the same comparison again is no new trial
    sharpe = {
        key_of({"forecaster": identities[name], "rule": rule, **settings}): backtest.strategy.sharpe
        for (name, rule), backtest in backtests.items()
    }
    record = {
        "key": key_of({"trials": sorted(sharpe)}),
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "run": str(config.run_folder),
        "stock": config.stock,
        "forecasters": sorted({name for name, _ in backtests}),
        "seeds": seeds,
        "sharpe": sharpe,
    }
    file = config.results_dir / TRIALS_FILE
    try:
        log_trials(file, jsonable(record))
        trials = read_trials(file)
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("the log of trials cannot be kept, so only those of this run count: %s", error)
        ratios = [ratio for ratio in sharpe.values() if np.isfinite(ratio)]
        return Trials(len(sharpe), float(np.var(ratios, ddof=1)) if len(ratios) > 1 else 0.0, 0)
    if trials.unreadable:
        logger.warning("%s: %d lines are not readable and do not count", file, trials.unreadable)
    return trials
