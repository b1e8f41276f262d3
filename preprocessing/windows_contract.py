"""Windows files of others: X with closes, thirteen indicators and the window's extremes; Y with closes; no more.

What follows from the closes is computed. What cannot be known (date, stock) is replaced, and the log says by what: rows
count as days from ORIGIN on, scales and statistics of the whole past are those of the window, macd_signal is macd.
Letters: B windows, L window length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from preprocessing.scaling import StandardNorm
from preprocessing.statistics import ewma_volatility, past_statistics, trailing_volatility, window_statistics

ORIGIN = np.datetime64("2000-01-01", "ns")
"""What the first row counts as."""
THIRTEEN = (
    "sma", "ema", "mom", "rsi", "macd", "willr", "cci", "adx", "bbands_upper", "bbands_middle", "bbands_lower",
    "stoch_k", "stoch_d",
)  # fmt: skip
"""Indicators that such a file must give: they need more bars than the window holds, or ranges."""
EXTREMES = ("min", "min_timestep", "max", "max_timestep", "mean", "median", "median_timestep")
"""Statistics that it may give."""
_SPELLINGS = {
    "sequence": "closesequence close closes closeseq closingprices prices price",
    "bbands_upper": "bbupper upperband bollingerupper bbandsupperband bollingerbandsupper",
    "bbands_middle": "bbmiddle middleband bollingermiddle bbandsmiddleband bbmid bollingerbandsmiddle",
    "bbands_lower": "bblower lowerband bollingerlower bbandslowerband bollingerbandslower",
    "stoch_k": "slowk fastk stochk k",
    "stoch_d": "slowd fastd stochd d",
    "mom": "momentum",
    "willr": "williamsr williams",
    "min_timestep": "mintimestep mintime minstep minindex argmin",
    "max_timestep": "maxtimestep maxtime maxstep maxindex argmax",
    "median_timestep": "mediantimestep mediantime medianstep medianindex",
}


def names_of(path: Path) -> tuple[str, ...]:
    """The names of a file's columns; none where it cannot be read, which reading it will say."""
    try:
        if path.suffix == ".parquet":
            return tuple(parquet.read_schema(path).names)
        with path.open(encoding="utf-8-sig") as file:
            return tuple(name.strip().strip('"') for name in file.readline().split(","))
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        return ()


def our_names(names: Iterable[str]) -> dict[str, str]:
    """What a file calls each column that is known here, by the name used here."""
    known = {re.sub(r"[\W_]", "", name): name for name in ("sequence", *THIRTEEN, *EXTREMES)}
    known |= {key: name for name, keys in _SPELLINGS.items() for key in keys.split()}
    found: dict[str, str] = {}
    for name in names:
        ours = known.get(re.sub(r"[\W_]", "", name.lower()))
        if ours is not None:
            found.setdefault(ours, name)
    return found


def is_foreign(names: Iterable[str]) -> bool:
    """Whether these are columns of a file without date and stock."""
    names = [*names]
    return "date" not in names and "stock" not in names and "sequence" in our_names(names)


def stock_of(path: Path) -> str:
    """The name of the stock by that of its file: AAPL of AAPL_train_x.csv."""
    return re.sub(r"[_-]?(train|val|test|full)?[_-]?[xy]?$", "", path.stem, flags=re.IGNORECASE) or "stock"


def as_json(cell: object) -> object:
    """A list of numbers that numpy printed, without commas, as JSON."""
    if isinstance(cell, str) and cell.strip().startswith("[") and "," not in cell:
        return re.sub(r"(?<=[\d.])\s+(?=[\d.-])", ", ", re.sub(r"\.(?=[\s\]])", ".0", cell))
    return cell


def complete(past: np.ndarray, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[B] each feature: those that are given, and what follows from the closes or stands in.

    Args:
        past: [B, L] closes.
        given: [B] each of THIRTEEN, and EXTREMES where they are there.
    """
    # statistics of the past as of the window's last close; earlier closes are not in the file
    rows = [{name: values[-1] for name, values in past_statistics(closes).items()} for closes in past]
    norms = [StandardNorm.fit(closes) for closes in past]
    volatility = trailing_volatility(past)
    return {
        **window_statistics(past),
        **{name: np.array([row[name] for row in rows]) for name in rows[0]},
        "volatility": volatility,
        "ewma_volatility": np.array([ewma_volatility(closes)[-1] for closes in past]),
        "yang_zhang_volatility": volatility,
        "norm_mean": np.array([norm.mean for norm in norms]),
        "norm_std": np.array([norm.std for norm in norms]),
        "macd_signal": given["macd"],
        "macd_histogram": np.zeros(len(past)),
        **given,
    }


def said(path: Path) -> str:
    """What the log says of such a file."""
    return (
        f"{path} has no date and no stock: rows count as days from {str(ORIGIN)[:10]} on, all of stock "
        f"{stock_of(path)}; scales and statistics of the past are those of the window, and macd_signal is macd"
    )
