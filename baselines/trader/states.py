"""Step 4: the 17 features of a state, and their scaling, which is fitted on train alone.

A state is what the trader could know at the close of its bar: the market's features and his own books.

Letters: T bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from baselines.trader.features import MOMENTS
from baselines.trader.ingestion import Bars
from baselines.trader.positions import Books

STATE_NAMES = (
    "fracdiff_price",
    "yang_zhang_volatility",
    "volume_zscore",
    "rsi",
    "macd_histogram",
    "bollinger_width",
    *(f"{moment}_{wave}" for moment in MOMENTS for wave in ("sin", "cos")),
    "unrealised_pnl",
    "pnl_percent",
    "inventory",
    "position_size_ratio",
    "time_since_entry",
)
"""The features in the order in which every array holds them."""
CYCLIC = tuple(name.endswith(("_sin", "_cos")) for name in STATE_NAMES)
"""Which are sines and cosines: these have a scale of their own and are left as they are."""


def market_states(
    features: pd.DataFrame, fracdiff_price: np.ndarray, bars: Bars, books: Books, capital: float
) -> pd.DataFrame:
    """States [T, 17] of one market, unscaled.

    Args:
        features: of the T bars, as `features.market_features` gives them.
        fracdiff_price: [T] fractional difference of the log close.
        bars: T bars.
        books: at their closes.
        capital: of the trader, USDC.

    Returns:
        The columns of STATE_NAMES. unrealised_pnl is in USDC, inventory in tokens, negative if short; pnl_percent is
        the unrealised profit in percent of what the position cost, position_size_ratio what it is worth over the
        capital, time_since_entry in bars; these are 0 where nothing is held.
    """
    held = books.inventory != 0
    # Where nothing is held the cost is 0; the 1 keeps the quotient below defined, and `where` puts it aside.
    cost = np.where(held, np.abs(books.inventory) * books.entry_price, 1.0)
    bar = bars.close_time[1] - bars.close_time[0]  # milliseconds
    columns = {name: features[name].to_numpy(float) for name in STATE_NAMES if name in features}
    columns |= {
        "fracdiff_price": fracdiff_price,
        "unrealised_pnl": books.unrealised_pnl,
        "pnl_percent": np.where(held, 100 * books.unrealised_pnl / cost, 0.0),
        "inventory": books.inventory,
        "position_size_ratio": np.abs(books.inventory) * bars.close / capital,
        "time_since_entry": np.where(held, (bars.close_time - books.opened) / bar, 0.0),
    }
    return pd.DataFrame({name: columns[name] for name in STATE_NAMES})


@dataclass(frozen=True, kw_only=True)
class StateScaling:
    """What turns a feature into its score: (feature - mean) / std.

    Attributes:
        mean: [17] means on train; 0 for sines and cosines.
        std: [17] standard deviations on train; 1 for sines, cosines and what never changes on train.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, states: np.ndarray) -> StateScaling:
        """The scaling of train states [T, 17]."""
        cyclic = np.array(CYCLIC)
        mean, std = states.mean(0), states.std(0)
        flat = std <= 1e-12 * np.maximum(np.abs(mean), 1.0)  # what rounding leaves of a constant
        return cls(mean=np.where(cyclic, 0.0, mean), std=np.where(cyclic | flat, 1.0, std))

    def apply(self, states: np.ndarray) -> np.ndarray:
        """[..., 17] float32 scores of states [..., 17]."""
        return ((states - self.mean) / self.std).astype(np.float32)
