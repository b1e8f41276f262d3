"""Building blocks of sample paths: draws that belong to a window, and log returns to a forecast.

Letters: B windows, L window length, S samples, H horizon, K stocks.
"""

from __future__ import annotations

import numpy as np

from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import window_generators
from preprocessing.errors import UserError
from preprocessing.returns import future_log_returns
from preprocessing.windows import Context, WindowSet


def forecast_from_log_returns(context: Context, cumulative: np.ndarray) -> Forecast:
    """A forecast from log returns since the last close.

    Args:
        context: B windows.
        cumulative: [B, S, H] log(price of day h / last close). A path whose price over- or underflows is
            not valid.
    """
    with np.errstate(over="ignore"):
        samples = context.last_price[:, None, None] * np.exp(cumulative)
    # A price that over- or underflows cannot be scored. Its path is marked as invalid, so that it is counted.
    valid = np.all(np.isfinite(samples) & (samples > 0), axis=-1)
    return Forecast(samples=np.where(valid[:, :, None], samples, np.nan), valid=valid)


def daily_drift(windows: WindowSet) -> np.ndarray:
    """[B] mean daily log return of each window's future."""
    return future_log_returns(windows)[:, -1] / windows.horizon


def draw_rows(context: Context, num_rows: int, *, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """[B, *shape] row numbers below `num_rows`, drawn with replacement, reproducible per window."""
    return np.stack([generator.integers(num_rows, size=shape) for generator in window_generators(context, seed)])


def student_t(
    context: Context, dof: np.ndarray, *, num_samples: int, horizon: int, seed: int, one_scale_per_path: bool = False
) -> np.ndarray:
    """[B, S, H] uncorrelated Student-t variates of unit variance, reproducible per window.

    A Student-t variate is a normal one over a random scale. Either each day has its own scale, and days are
    independent; or all days of a path share one, and a path is calm or wild as a whole (multivariate t).
    The normal variates are those of `grpo.evaluation.sampling.standard_normal`, so that heavy tails are
    compared with Gaussian ones on common random numbers; infinite degrees of freedom (`dof` [B], above 2)
    give exactly those.
    """
    scales = (num_samples, 1 if one_scale_per_path else horizon)
    variates = []
    for generator, freedom in zip(window_generators(context, seed), dof, strict=True):
        # The normal variates first, so that they are the same numbers as the random walk's, whatever is drawn after
        # them.
        normal = generator.standard_normal((num_samples, horizon))
        gaussian = np.isinf(freedom)
        variates.append(normal if gaussian else normal * np.sqrt((freedom - 2) / generator.chisquare(freedom, scales)))
    return np.stack(variates)


def rows_of_stocks(name: str, stocks: np.ndarray, context: Context) -> np.ndarray:
    """[B] position of each window's stock in `stocks` [K], the sorted names of the training windows.

    Raises:
        UserError: a stock is not among them; the message names it and the forecaster.
    """
    items = np.array(context.item_id)
    unknown = np.setdiff1d(items, stocks)
    if len(unknown):
        raise UserError(
            f"{name}: no training windows of {', '.join(unknown)}; fit it on windows of every stock it forecasts."
        )
    # Sorted names: the position in them is the row of what was fitted.
    return np.searchsorted(stocks, items)


def require_horizon(name: str, *, fitted: int, asked: int) -> None:
    """Refuse to forecast further ahead than the training windows reach.

    Raises:
        UserError: the message names both horizons.
    """
    if asked > fitted:
        raise UserError(f"{name} was fitted for {fitted} days ahead and cannot forecast {asked}; fit it again.")


def require_validation(name: str, val: WindowSet) -> None:
    """Refuse to choose on an empty validation split.

    Raises:
        UserError: there is no window.
    """
    if len(val) == 0:
        raise UserError(f"{name} is tuned on validation windows and there are none; give val a larger share.")
