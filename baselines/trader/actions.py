"""Step 5: what the trader did, as one of five actions, with thresholds from the sizes of train.

The action of bar t is the net size that the trader traded in bar t + 1, the first one in which the state at the
close of bar t could be acted upon. A size is strong where it exceeds the `strong_quantile` of the net sizes of its
side on train.

Letters: T bars.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from baselines.trader.ingestion import TraderDataError


class Action(IntEnum):
    """What the trader does in the next bar."""

    STRONG_BUY = 0
    BUY = 1
    HOLD = 2
    SELL = 3
    STRONG_SELL = 4


@dataclass(frozen=True, kw_only=True)
class ActionThresholds:
    """Sizes above which a net purchase or sale is strong, in tokens.

    Attributes:
        strong_buy: a larger net purchase is STRONG_BUY, another BUY.
        strong_sell: a larger net sale is STRONG_SELL, another SELL.
    """

    strong_buy: float
    strong_sell: float


def fit_thresholds(net_sizes: np.ndarray, strong_quantile: float) -> ActionThresholds:
    """Thresholds from the net sizes of train bars.

    Args:
        net_sizes: [T] bought minus sold in each bar, tokens, of all train markets; 0 where nothing was traded.
        strong_quantile: share of a side's bars that are not strong, 0 < q < 1. The quantile is one of the sizes
            (the smallest that at least this share does not exceed), so that a trader of two sizes is cut between them.

    Raises:
        TraderDataError: no train bar holds a net purchase, or none a net sale.
    """
    thresholds = {}
    for name, sizes in (("buy", net_sizes[net_sizes > 0]), ("sell", -net_sizes[net_sizes < 0])):
        if len(sizes) == 0:
            raise TraderDataError(f"the trader does not {name} in any train bar: a strong one cannot be told apart.")
        # One of the sizes and nothing between two: a trader of two sizes is then cut between them.
        thresholds[f"strong_{name}"] = float(np.quantile(sizes, strong_quantile, method="inverted_cdf"))
    return ActionThresholds(**thresholds)


def label_actions(net_sizes: np.ndarray, thresholds: ActionThresholds) -> np.ndarray:
    """[T] int64 actions of net sizes [T] in tokens; HOLD where as much was bought as sold, or nothing."""
    actions = np.full(len(net_sizes), Action.HOLD, np.int64)
    # In this order: a strong trade is one of its side first, and the second line overwrites it.
    actions[net_sizes > 0] = Action.BUY
    actions[net_sizes > thresholds.strong_buy] = Action.STRONG_BUY
    actions[net_sizes < 0] = Action.SELL
    actions[-net_sizes > thresholds.strong_sell] = Action.STRONG_SELL
    return actions
