"""Is one forecaster better than another, or only luckier? Tests on losses and directions put together per date.

Stocks of one date move together and windows of neighbouring dates overlap, so windows are not independent: every test
sees one number per date and allows for the serial correlation of these numbers. `horizon` is always the number of
consecutive dates whose windows overlap: the steps ahead where every day is an origin (`dates.overlapping_dates`).

Letters: B windows, D dates, M forecasters, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from grpo.evaluation.bootstrap import date_bootstrap_indices, politis_white_block_length
from grpo.evaluation.dates import average_by_date, long_run_covariance, long_run_variance, sum_by_date


@dataclass(frozen=True, kw_only=True)
class DieboldMariano:
    """Outcome of the test of equal expected loss.

    Attributes:
        mean_difference: mean over dates of loss minus reference loss; negative where the forecaster is better.
        statistic: mean difference over its standard error, with the small-sample factor of HLN.
        p_value: two-sided; NaN where the dates are too few or the losses not finite.
        num_dates: dates that the test saw.
    """

    mean_difference: float
    statistic: float
    p_value: float
    num_dates: int


@dataclass(frozen=True, kw_only=True)
class ClarkWest:
    """Outcome of the test that a forecaster's mean adds nothing to a simpler forecast nested in it.

    Attributes:
        mean_gain: mean over dates of the adjusted loss difference; positive where the forecaster adds something.
        statistic: mean gain over its standard error.
        p_value: one-sided, small where it adds something; NaN where `reason` is not empty.
        num_dates: dates that the test saw.
        reason: why there is no p value, or "".
    """

    mean_gain: float
    statistic: float
    p_value: float
    num_dates: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PesaranTimmermann:
    """Outcome of the test that predicted and realised directions are independent.

    Attributes:
        hit_rate: share of windows whose direction was predicted.
        expected_hit_rate: the share that independent directions of the same frequencies would hit.
        statistic: the difference over its standard error.
        p_value: one-sided, small where the forecaster times the market; NaN where `reason` is not empty.
        num_windows: windows that have a direction on both sides; the others are left out.
        reason: why there is no p value, or "".
    """

    hit_rate: float
    expected_hit_rate: float
    statistic: float
    p_value: float
    num_windows: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelConfidenceSet:
    """The forecasters that hold the best one with a given confidence.

    Attributes:
        p_values: [M] smallest level at which the forecaster is left out; NaN where a loss is not finite or the dates
            are too few.
        included: [M] whether it belongs to the set: all whose losses are finite where the dates are too few.
        level: of the test; the set holds the best forecaster with probability 1 - level or more.
        block_length: expected dates per bootstrap block; NaN where there was no bootstrap.
        num_dates: dates that the test saw.
    """

    p_values: np.ndarray
    included: np.ndarray
    level: float
    block_length: float
    num_dates: int


def diebold_mariano(difference: np.ndarray, *, horizon: int) -> DieboldMariano:
    """Test that the mean of a loss difference per date, in time order, is zero.

    With a Bartlett long-run variance, the small-sample factor of Harvey, Leybourne and Newbold (1997) and Student's t.
    In the worst case, sums of H independent shocks, a nominal 5 % test so rejects in 7 to 9 % of samples of 30 to 300
    dates; with lag H-1 and the normal law it would in 12 to 18 %.

    Args:
        difference: [D] loss minus reference loss.
        horizon: steps ahead, H.
    """
    statistic, freedom = _mean_over_error(difference, horizon)
    return DieboldMariano(
        mean_difference=float(difference.mean()) if len(difference) else np.nan,
        statistic=statistic,
        p_value=float(2 * stats.t.sf(abs(statistic), freedom)),
        num_dates=len(difference),
    )


def clark_west(
    realised: np.ndarray, nested: np.ndarray, forecast: np.ndarray, dates: np.ndarray, *, horizon: int
) -> ClarkWest:
    """Test that a point forecast adds nothing to a nested one (Clark and West 2007).

    Under the null the larger model estimates parameters that are zero, and their noise raises its squared error; the
    difference (y - nested)^2 - [(y - forecast)^2 - (nested - forecast)^2] is free of that. It is averaged per date and
    its mean tested as in `diebold_mariano`, one-sided. Moves relative to the last close make the random walk the
    nested forecast 0. Forecasts as persistent as overlapping windows, of prices that nothing predicts, are found
    useful at 5 % in 4 to 7 % of samples of 60 to 400 dates (H = 1, 5, 10).

    Args:
        realised: [B].
        nested: [B] forecast of the simpler model.
        forecast: [B] mean forecast of the larger model.
        dates: [B] origins.
        horizon: steps ahead, H.
    """
    # a path that overflowed gives infinite squares; the reason below then says so
    with np.errstate(over="ignore", invalid="ignore"):
        gain = (realised - nested) ** 2 - (realised - forecast) ** 2 + (nested - forecast) ** 2
    by_date = average_by_date(gain, dates)
    statistic, freedom = _mean_over_error(by_date, horizon)
    reason = ""
    if not np.isfinite(gain).all():
        reason = "a forecast is not finite"
    elif len(by_date) < _fewest_dates(horizon):
        reason = f"{len(by_date)} dates are too few for a horizon of {horizon}"
    # with enough finite dates this is left: every gain is equal, as for a forecast that is the nested one
    elif np.isnan(statistic):
        reason = "the forecast never differs from the nested one"
    return ClarkWest(
        mean_gain=float(by_date.mean()) if len(by_date) else np.nan,
        statistic=statistic,
        p_value=float(stats.t.sf(statistic, freedom)),
        num_dates=len(by_date),
        reason=reason,
    )


def pesaran_timmermann(predicted: np.ndarray, realised: np.ndarray) -> PesaranTimmermann:
    """Test of directions for independent windows (Pesaran and Timmermann 1992, eq. 6), normal law, one-sided.

    With p_y and p_x the shares of rises, realised and predicted, the hit rate P is compared with P* = p_y p_x +
    (1-p_y)(1-p_x), and the statistic is (P - P*) / sqrt(V(P) - V(P*)).

    Args:
        predicted: [B] moves; only their sign counts.
        realised: [B] moves.
    """
    rises, outcome, reason = _directions(predicted, realised)
    n, hits, expected = _hit_rates(rises, outcome)
    if reason:
        return _untested(n, hits, expected, reason)
    # V(P) = P*(1-P*)/n
    # V(P*) = [(2p_y-1)^2 p_x(1-p_x) + (2p_x-1)^2 p_y(1-p_y)]/n + 4 p_y p_x (1-p_y)(1-p_x)/n^2
    # They differ by the product below alone; subtracting one from the other would lose digits.
    variance = 4 * rises.var() * outcome.var() * (n - 1) / n**2
    statistic = float((hits - expected) / np.sqrt(variance))
    return PesaranTimmermann(
        hit_rate=hits,
        expected_hit_rate=expected,
        statistic=statistic,
        p_value=float(stats.norm.sf(statistic)),
        num_windows=n,
    )


def pesaran_timmermann_by_date(
    predicted: np.ndarray, realised: np.ndarray, dates: np.ndarray, *, horizon: int
) -> PesaranTimmermann:
    """The same test where windows of one date move together and those of neighbouring dates overlap.

    Independent directions have a covariance of zero (Pesaran and Timmermann 2009): the products of the centred
    directions are summed per date, and their mean is tested as in `diebold_mariano`, one-sided. On overlapping moves
    of 5 and 10 days, independent of the forecasts, a 5 % test so rejects in 6 to 8 % of samples of 100 to 400 dates;
    taking the windows for independent, in 13 to 26 %.

    Args:
        predicted: [B] moves; only their sign counts.
        realised: [B] moves.
        dates: [B] origins.
        horizon: steps ahead, H.
    """
    rises, outcome, reason = _directions(predicted, realised)
    n, hits, expected = _hit_rates(rises, outcome)
    if reason:
        return _untested(n, hits, expected, reason)
    # windows without a direction are left out of the means, so that the products sum to n times the covariance
    products = (rises - rises.mean()) * (outcome - outcome.mean())
    by_date = sum_by_date(products[:, None], dates[_moves(predicted, realised)])[:, 0]
    statistic, freedom = _mean_over_error(by_date, horizon)
    if np.isnan(statistic):
        return _untested(n, hits, expected, f"{len(by_date)} dates are too few for a horizon of {horizon}")
    return PesaranTimmermann(
        hit_rate=hits,
        expected_hit_rate=expected,
        statistic=statistic,
        p_value=float(stats.t.sf(statistic, freedom)),
        num_windows=n,
    )


def model_confidence_set(
    losses: np.ndarray,
    *,
    horizon: int,
    level: float = 0.10,
    block_length: float | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> ModelConfidenceSet:
    """Model confidence set of Hansen, Lunde and Nason (2011) with the range statistic and a stationary bootstrap.

    The difference of two forecasters is divided by its Bartlett standard error, lag 2 (H-1), computed anew in each
    resample: with the usual one, the bootstrap's own, overlapping windows shrink the set. Of four equally good
    forecasters over 150 dates, losses sums of 5 shocks, a 90 % set so holds all four in 86 % of samples, and
    with the usual error in 70 %.

    Args:
        losses: [D, M] mean loss of each forecaster per date, dates in time order.
        horizon: steps ahead, H.
        level: of the test; forecasters with a p value above it form the set.
        block_length: expected dates per block; by default the larger of the horizon and the mean of Politis and
            White's choices for the differences from the average forecaster.
        num_resamples: R.
        seed: of the resamples.
    """
    finite = np.isfinite(losses).all(axis=0)
    kept, lag, p_values = losses[:, finite], 2 * (horizon - 1), np.full(losses.shape[1], np.nan)
    length = block_length or np.nan
    if len(losses) >= _fewest_dates(horizon) and finite.any():
        if block_length is None:
            # the tests see differences alone; what all forecasters share would only make the blocks longer
            apart = kept - kept.mean(axis=1, keepdims=True)
            # blocks shorter than the horizon would cut the dependence of overlapping windows
            length = max(horizon, float(np.mean([politis_white_block_length(series) for series in apart.T])))
        indices = date_bootstrap_indices(len(losses), block_length=length, num_resamples=num_resamples, seed=seed)
        difference, variance, rounding = _pairwise(kept, lag)
        law = np.empty((num_resamples, *difference.shape))
        for start in range(0, num_resamples, 100):  # the rows of all resamples at once would fill the memory
            some = slice(start, start + 100)
            resampled, resampled_variance, _ = _pairwise(kept[indices[some]], lag)
            # centred on what the dates show: under the null the differences are 0, whatever the sample's are
            law[some] = _over_error(resampled - difference, resampled_variance, rounding)
        # a forecaster with an infinite loss is out from the start and does not disturb the others
        p_values[finite] = eliminate(_over_error(difference, variance, rounding), law)
    return ModelConfidenceSet(
        p_values=p_values,
        included=finite & ~(p_values <= level),
        level=level,
        block_length=float(length),
        num_dates=len(losses),
    )


def eliminate(statistics: np.ndarray, law: np.ndarray) -> np.ndarray:
    """[M] p values of the model confidence set.

    Again and again the largest of the remaining forecasters' standardised differences is compared with its bootstrap
    law, and the forecaster i that it speaks against leaves; its p value is the largest so far.

    Args:
        statistics: [M, M] mean loss of i minus that of j over its standard error.
        law: [R, M, M] the same in each resample, around the difference that the dates show.
    """
    # the last one standing keeps p value 1: nothing speaks against it
    remaining, p_values, largest = np.arange(len(statistics)), np.ones(len(statistics)), 0.0
    while len(remaining) > 1:
        # a forecaster that leaves takes its row and column along: the law is that of those who remain
        worst = statistics[np.ix_(remaining, remaining)].max(axis=1)
        resampled = law[:, remaining[:, None], remaining].max(axis=(1, 2))
        # the largest so far: only so are the sets of all levels nested in each other
        largest = max(largest, float(np.mean(resampled >= worst.max())))
        loser = int(worst.argmax())
        p_values[remaining[loser]] = largest
        remaining = np.delete(remaining, loser)
    return p_values


def _pairwise(losses: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean differences [..., M, M] of losses [..., D, M], their variances, and what of a square is rounding."""
    num_dates, means = losses.shape[-2], losses.mean(axis=-2)
    covariance = long_run_covariance(np.swapaxes(losses, -1, -2), lag) / num_dates
    # var(a - b) = var(a) + var(b) - 2 cov(a, b), for all pairs at once
    own = np.diagonal(covariance, axis1=-2, axis2=-1)
    both = own[..., :, None] + own[..., None, :]
    # the difference of nearly equal numbers keeps only their rounding, some 1e-16 of their size; 1e-14 leaves room for
    # sums over dates
    return means[..., :, None] - means[..., None, :], both - 2 * covariance, 1e-14 * both


def _over_error(difference: np.ndarray, variance: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Difference over standard error: 0 for twins, infinite for forecasters that differ by a constant."""
    error = np.sqrt(np.where(variance > rounding, variance, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference**2 <= rounding, 0.0, difference / error)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values, to compare with the level that all tests together keep; NaN stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    # a test that could not be made is no test: it must not make the others stricter
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    # the smallest p counts for all tests, the next for one fewer, ...; the running maximum keeps their order
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


def _fewest_dates(horizon: int) -> int:
    # two more dates than the long-run variance reaches back
    return 2 * (horizon - 1) + 2


def _mean_over_error(series: np.ndarray, horizon: int) -> tuple[float, float]:
    """Mean of a date series over its standard error and the degrees of freedom, as `diebold_mariano` says.

    NaN where the dates are too few, a value is not finite, or nothing varies.
    """
    # H-step losses of consecutive dates are correlated up to lag H - 1, and Bartlett weights shrink those correlations:
    # twice the lag makes up for it
    n, lag = len(series), 2 * (horizon - 1)
    if n < _fewest_dates(horizon) or not np.isfinite(series).all():
        return np.nan, np.nan
    variance = long_run_variance(series, lag)
    if variance <= 0:  # equal on every date: no evidence either way
        return np.nan, np.nan
    # Harvey, Leybourne and Newbold: the variance of few dates comes out too small
    small_sample = np.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = small_sample * series.mean() / np.sqrt(variance / n)
    # Student's t with the degrees of freedom of the Bartlett estimate: the variance too is estimated, from few pieces
    return float(statistic), min(n - 1, 1.5 * n / (lag + 1))


def _moves(predicted: np.ndarray, realised: np.ndarray) -> np.ndarray:
    """[B] windows that have a direction on both sides."""
    # a median that equals the last close says nothing of the direction: neither hit nor miss
    return (predicted != 0) & (realised != 0)


def _directions(predicted: np.ndarray, realised: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Whether each window that moves was predicted to rise and rose (1 or 0), and why that cannot be tested."""
    moves = _moves(predicted, realised)
    rises, outcome = (predicted[moves] > 0).astype(float), (realised[moves] > 0).astype(float)
    if len(rises) == 0:
        return rises, outcome, "no window moves"
    # a constant direction has no covariance with anything, and the statistic would be 0 / 0
    if rises.min() == rises.max():
        return rises, outcome, f"the forecast is always {'up' if rises[0] else 'down'}"
    if outcome.min() == outcome.max():
        return rises, outcome, f"the price always goes {'up' if outcome[0] else 'down'}"
    return rises, outcome, ""


def _hit_rates(rises: np.ndarray, outcome: np.ndarray) -> tuple[int, float, float]:
    """Number of windows, their hit rate, and that of independent directions of the same frequencies."""
    if len(rises) == 0:
        return 0, np.nan, np.nan
    x, y = rises.mean(), outcome.mean()
    return len(rises), float(np.mean(rises == outcome)), float(x * y + (1 - x) * (1 - y))


def _untested(n: int, hits: float, expected: float, reason: str) -> PesaranTimmermann:
    return PesaranTimmermann(
        hit_rate=hits, expected_hit_rate=expected, statistic=np.nan, p_value=np.nan, num_windows=n, reason=reason
    )
