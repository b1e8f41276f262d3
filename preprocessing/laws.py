"""The law of the days to come of a simulated stock, given its whole past and its parameters.

Everything is about the log price; the exponential of a sample or of a quantile is the price's. The past is the
simulator's own record from the first day up to the origin, which the stock's name determines: where a process
remembers more than a window shows, no forecaster can do better than this, and most cannot do as well.

    gbm, ou, ar, trend, seasonal    jointly Gaussian over the horizon
    jump                            Poisson mixture of Gaussians, one for each number of jumps
    regime                          Hamilton filter, then a mixture over the number of wild days to come
    garch                           the variance is a function of the past; the mean is exact, and so is a sampled
                                    path; quantiles and scores are from many paths, exact on the first day
    stochvol, heston                none: the variance is hidden, and prices alone do not tell it exactly

With Student-t shocks (`tail` below 1000) samples and means stay exact, and quantiles and scores are from many paths.

Letters: B windows, S samples, H horizon, K components of a mixture, T days.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, pdtr, pdtrik

from preprocessing.seeds import generator
from preprocessing.simulation import (
    GAUSSIAN_TAIL,
    PROCESSES,
    START_PRICE,
    Paths,
    SimulatedStock,
    as_columns,
    autoregress,
    draw_shocks,
    garch_paths,
    next_variance,
    regime_paths,
    seasonal_wave,
)

LEVEL = np.log(START_PRICE)
DRAWS = 4000
"""Paths that stand for a law without a closed form; even, since its spread is measured on pairs of them."""
_NO_TAIL = 1e-15
"""Probability of more jumps than a mixture counts."""

Parameters = Mapping[str, float]


@dataclass(frozen=True)
class GaussianMixture:
    """Mixtures of Gaussians, one for each window and step.

    Attributes:
        weights: [B, H, K] adding up to 1 over K (each axis may have size 1 and broadcast).
        mean: [B, H, K].
        sd: [B, H, K], positive.
        drawn: whether the components are K independent draws of equal weight, K even, from a larger mixture.
    """

    weights: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    drawn: bool = False

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """[B, H] probability of at most x [B, H]."""
        return (self.weights * ndtr((x[..., None] - self.mean) / self.sd)).sum(-1)

    def quantile(self, probability: float) -> np.ndarray:
        """[B, H] values below which lies the given probability, in (0, 1): bisection to the last bit or so."""
        quantiles = self.mean + self.sd * ndtri(probability)  # one of the mixture lies among those of its components
        low, high = quantiles.min(-1), quantiles.max(-1)
        # 60 halvings of a bracket shrink it by 10^18, below what float64 can tell apart
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def distance(self, x: np.ndarray) -> np.ndarray:
        """[B, H] mean absolute distance from x [B, H]."""
        return (self.weights * _mean_absolute(self.mean - x[..., None], self.sd)).sum(-1)

    def spread(self) -> np.ndarray:
        """[B, H] mean absolute distance of two independent values (Grimit et al. 2006, the CRPS of a mixture)."""
        if self.drawn:
            # draws are in random order, so each beside its mirror is a pair of independent ones; all pairs of 4000
            # would take thousands of times as long
            apart = self.mean - self.mean[..., ::-1]
            return _mean_absolute(apart, np.hypot(self.sd, self.sd[..., ::-1])).mean(-1)
        weights, mean, sd = np.broadcast_arrays(self.weights, self.mean, self.sd)
        # one component against all at a time: all pairs at once would be [B, H, K, K]
        total = np.zeros(mean.shape[:-1])
        for k in range(mean.shape[-1]):
            one = slice(k, k + 1)
            apart = _mean_absolute(mean - mean[..., one], np.hypot(sd, sd[..., one]))
            total += weights[..., k] * (weights * apart).sum(-1)
        return total


def _mean_absolute(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Mean absolute value of a Gaussian."""
    z = mean / sd
    return mean * (2 * ndtr(z) - 1) + sd * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2)


@dataclass(frozen=True)
class ConditionalLaw:
    """The law of the next H log prices of B windows, each given its whole past.

    Attributes:
        mean: [B, H] exact means.
        draw_futures: (window, S, generator) to Paths [S, H]: independent draws of that window's future.
        closed_form: the law of each step, where it is a mixture that can be written down.
    """

    mean: np.ndarray
    draw_futures: Callable[[int, int, np.random.Generator], Paths]
    closed_form: GaussianMixture | None = None

    @property
    def exact(self) -> bool:
        """Whether quantiles and scores are exact, not only means and samples."""
        return self.closed_form is not None

    def sample(self, num_samples: int, generators: Sequence[np.random.Generator]) -> np.ndarray:
        """[B, S, H] draws of the joint law over the horizon, one generator per window."""
        draws = [self.draw_futures(row, num_samples, rng).log_price for row, rng in enumerate(generators)]
        return np.stack(draws)

    @cached_property
    def marginals(self) -> GaussianMixture:
        """The law of each step by itself: in closed form, or the mixture of the last steps of DRAWS paths.

        Given a path up to the day before, its next step is Gaussian, so the mixture is smooth, and exact for the
        first day of GARCH with Gaussian shocks. It holds 2 x B x H x DRAWS numbers: ask for few windows.
        """
        if self.closed_form is not None:
            return self.closed_form
        paths = [self.draw_futures(row, DRAWS, generator(0)) for row in range(len(self.mean))]
        return GaussianMixture(
            weights=np.full((1, 1, DRAWS), 1 / DRAWS),
            # [S, H] to [H, K]: each path is a component of the mixture
            mean=np.stack([future.step_mean.T for future in paths]),
            sd=np.stack([future.step_sd.T for future in paths]),
            drawn=True,
        )

    def quantile(self, probability: float) -> np.ndarray:
        """[B, H] log price below which each step lies with the given probability."""
        return self.marginals.quantile(probability)

    @cached_property
    def best_mae(self) -> np.ndarray:
        """[B, H] mean absolute error of the median: no point forecast of the log price has a smaller one."""
        return self.marginals.distance(self.quantile(0.5))

    @cached_property
    def best_crps(self) -> np.ndarray:
        """[B, H] mean CRPS of this law itself: no forecast of the log price has a smaller one."""
        return self.marginals.spread() / 2


def conditional_law(stock: SimulatedStock, rows: np.ndarray, horizon: int) -> ConditionalLaw | None:
    """The law of the log prices after some days of a simulated stock, given all up to that day.

    Args:
        stock: the stock; its seed determines the past.
        rows: [B] row numbers of the last known days.
        horizon: H.

    Returns:
        The law, or None where prices do not determine it (hidden variance).
    """
    build = LAWS.get(stock.process)
    if build is None:
        return None
    return build(stock.parameters, stock.paths().log_price[0], np.asarray(rows), horizon)


# One builder per process: parameters, log prices [T] of which only those up to each row count, rows [B], horizon


def _gbm(p: Parameters, log_price: np.ndarray, rows: np.ndarray, horizon: int) -> ConditionalLaw:
    mean = log_price[rows][:, None] + p["drift"] * np.arange(1, horizon + 1)
    return _linear_law(p, mean, np.ones(horizon))


def _ar(p: Parameters, log_price: np.ndarray, rows: np.ndarray, horizon: int) -> ConditionalLaw:
    # the process starts at LEVEL before its first day, so that day has a return too
    last_return = np.diff(log_price, prepend=LEVEL)[rows]
    reach = np.cumsum(p["phi"] ** np.arange(horizon))  # of one day's shock on the log price, from that day on
    return _linear_law(p, log_price[rows][:, None] + p["phi"] * last_return[:, None] * reach, reach)


def _reverting(level: Callable[[Parameters, np.ndarray], np.ndarray]) -> Callable[..., ConditionalLaw]:
    """The builder for a log price that reverts to level(parameters, days counted from the first)."""

    def build(p: Parameters, log_price: np.ndarray, rows: np.ndarray, horizon: int) -> ConditionalLaw:
        decay = 0.5 ** (1 / p["half_life"])
        steps = np.arange(1, horizon + 1)
        # today's distance from the level: decay^h of it is left after h days
        distance = log_price[rows] - LEVEL - level(p, rows)
        mean = LEVEL + level(p, rows[:, None] + steps) + distance[:, None] * decay**steps
        return _linear_law(p, mean, decay ** (steps - 1))

    return build


def _linear_law(p: Parameters, mean: np.ndarray, response: np.ndarray) -> ConditionalLaw:
    """Means [B, H] plus shocks, one a day, that move the log price by response [H] times their size from then on."""
    horizon = len(response)
    lag = np.subtract.outer(np.arange(horizon), np.arange(horizon))
    reach = np.where(lag >= 0, response[lag], 0.0)  # [H, H] of the shock of the second index on the first

    def draw_futures(window: int, num_samples: int, rng: np.random.Generator) -> Paths:
        normal, scale = draw_shocks(as_columns(p, num_samples), horizon, rng)
        sd = p["sigma"] * scale
        log_price = mean[window] + (sd * normal) @ reach.T
        return Paths(log_price, log_price - sd * normal, sd)

    closed_form = None
    if p["tail"] >= GAUSSIAN_TAIL:
        # variances of independent shocks add; a shock's own age decides how much of it is left
        sd = p["sigma"] * np.sqrt(np.cumsum(response**2))
        closed_form = GaussianMixture(np.ones((1, 1, 1)), mean[..., None], sd[None, :, None])
    return ConditionalLaw(mean, draw_futures, closed_form)


def _jump(p: Parameters, log_price: np.ndarray, rows: np.ndarray, horizon: int) -> ConditionalLaw:
    last, steps = log_price[rows][:, None], np.arange(1, horizon + 1)
    # with any tail: jumps add their expected number times their expected size
    mean = last + (p["drift"] + p["intensity"] * p["sigma"] * p["jump_mean"]) * steps

    def draw_futures(window: int, num_samples: int, rng: np.random.Generator) -> Paths:
        return _shifted(PROCESSES["jump"].simulate(as_columns(p, num_samples), horizon, rng), last[window])

    if p["tail"] < GAUSSIAN_TAIL:
        return ConditionalLaw(mean, draw_futures)
    expected = (p["intensity"] * steps)[:, None]  # [H, 1]
    # so many components that the probability left out is no more than rounding
    most = 0 if p["intensity"] == 0 else int(np.ceil(pdtrik(1 - _NO_TAIL, expected[-1, 0])))
    jumps = np.arange(most + 1)
    weights = np.diff(pdtr(jumps, expected), prepend=0.0)  # [H, K]
    center = last[..., None] + p["drift"] * steps[:, None] + p["sigma"] * p["jump_mean"] * jumps
    sd = p["sigma"] * np.sqrt(steps[:, None] + jumps * p["jump_sd"] ** 2)
    return ConditionalLaw(mean, draw_futures, GaussianMixture(weights[None], center, sd[None]))


def _garch(p: Parameters, log_price: np.ndarray, rows: np.ndarray, horizon: int) -> ConditionalLaw:
    shocks = np.diff(log_price, prepend=LEVEL) - p["drift"]
    news = next_variance(p, 0.0, shocks)  # what each day's shock and the constant add to the next day's variance
    first, decay = np.array([[p["sigma"] ** 2]]), np.array([[p["beta"]]])
    # the variance follows from the past returns alone, which is what makes GARCH exact and a hidden volatility not
    variance = autoregress(first, decay, np.append(0.0, news)[None])[0]  # [T + 1] of each day, and the one after
    last = log_price[rows]

    def draw_futures(window: int, num_samples: int, rng: np.random.Generator) -> Paths:
        columns = as_columns(p, num_samples)
        # [S, 1] the variance of the day after the origin: the origin's own return is known and counts in it
        start = np.full((num_samples, 1), variance[rows[window] + 1])
        return _shifted(garch_paths(columns, start, *draw_shocks(columns, horizon, rng)), last[window])

    return ConditionalLaw(last[:, None] + p["drift"] * np.arange(1, horizon + 1), draw_futures)


def _regime(p: Parameters, log_price: np.ndarray, rows: np.ndarray, horizon: int) -> ConditionalLaw:
    last, steps = log_price[rows], np.arange(1, horizon + 1)
    wild = _probability_wild(p, np.diff(log_price, prepend=LEVEL))[rows]
    # of day h being wild rather than calm, less one half: switching shrinks it, and may turn it
    lean = (wild[:, None] - 0.5) * (1 - 2 * p["switch"]) ** steps
    mean = last[:, None] - 2 * p["sigma"] * p["tilt"] * np.cumsum(lean, axis=1)

    def draw_futures(window: int, num_samples: int, rng: np.random.Generator) -> Paths:
        columns = as_columns(p, num_samples)
        normal, scale = draw_shocks(columns, horizon, rng)
        # the state today is hidden: each path draws its own from what the prices tell of it
        start = rng.random((num_samples, 1)) < wild[window]
        flips = rng.random(normal.shape) < p["switch"]
        state = (start + np.cumsum(flips, axis=1)) % 2 == 1
        return _shifted(regime_paths(columns, state, normal, scale), last[window])

    if p["tail"] < GAUSSIAN_TAIL:
        return ConditionalLaw(mean, draw_futures)
    days, counts = steps[:, None], np.arange(horizon + 1)  # [H, 1] days ahead, [K] of them wild
    center = last[:, None, None] + p["sigma"] * p["tilt"] * (days - 2 * counts)
    # impossible counts (more than the days there are) have weight 0 and any positive deviation
    variance = np.maximum(days - counts, 0) + counts * p["wildness"] ** 2
    closed_form = GaussianMixture(_count_wild_days(wild, p["switch"], horizon), center, p["sigma"] * np.sqrt(variance))
    return ConditionalLaw(mean, draw_futures, closed_form)


def _probability_wild(p: Parameters, returns: np.ndarray) -> np.ndarray:
    """[T] probability that each day is wild given the returns up to it (Hamilton 1989)."""
    z = {sign: (returns - sign * p["sigma"] * p["tilt"]) / p["sigma"] for sign in (1, -1)}
    z[-1] = z[-1] / p["wildness"]
    if p["tail"] < GAUSSIAN_TAIL:  # logarithm of the density of a Student-t with unit variance, but for a constant
        density = {sign: -(p["tail"] + 1) / 2 * np.log1p(values**2 / (p["tail"] - 2)) for sign, values in z.items()}
    else:
        density = {sign: -(values**2) / 2 for sign, values in z.items()}
    # the wild state is `wildness` times as wide, so its density is that much lower; what both share drops out
    evidence = density[-1] - np.log(p["wildness"]) - density[1]
    probability, wild = np.empty(len(returns)), 0.5
    for t in range(len(returns)):
        # by log odds: the densities of an extreme return would underflow, the difference of their logs does not
        prior = wild * (1 - p["switch"]) + (1 - wild) * p["switch"]
        wild = probability[t] = expit(logit(prior) + evidence[t])
    return probability


def _count_wild_days(wild: np.ndarray, switch: float, horizon: int) -> np.ndarray:
    """[B, H, H + 1] probability of each number of wild days among the next h, given that of today [B]."""
    weights = np.empty((len(wild), horizon, horizon + 1))
    # [B, H + 1] of each number so far, with the last day wild or calm
    ends_wild, ends_calm = np.zeros((2, len(wild), horizon + 1))
    ends_wild[:, 0], ends_calm[:, 0] = wild, 1 - wild
    for step in range(horizon):
        into_wild = ends_wild * (1 - switch) + ends_calm * switch
        ends_calm = ends_calm * (1 - switch) + ends_wild * switch
        # a wild day moves every count up by one
        ends_wild = np.concatenate([np.zeros((len(wild), 1)), into_wild[:, :-1]], axis=1)
        weights[:, step] = ends_wild + ends_calm
    return weights


def _shifted(paths: Paths, start: np.ndarray) -> Paths:
    """Paths from 0 as paths from a log price."""
    return Paths(paths.log_price + start, paths.step_mean + start, paths.step_sd)


LAWS: dict[str, Callable[[Parameters, np.ndarray, np.ndarray, int], ConditionalLaw]] = {
    "gbm": _gbm,
    "ou": _reverting(lambda p, days: np.zeros(days.shape)),
    "ar": _ar,
    "trend": _reverting(lambda p, days: p["drift"] * days),
    "seasonal": _reverting(seasonal_wave),
    "regime": _regime,
    "garch": _garch,
    "jump": _jump,
}
"""The processes whose law is known, and how it follows from the past."""
