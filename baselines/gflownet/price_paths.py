"""Future paths as sequences of return bins, rewarded by their distance to the path that came.

A path x has H daily log returns over the daily volatility at the origin. A token is one of V equally likely bins of
the training windows' returns; it stands for the mean of its bin.

What the reward must be. One path y is seen per window. Squared log-residuals fit E[log R(x|y) | c], the mean over all
y that follow windows like c, so the learnt law is the geometric mean exp(E[log R(x|y) | c])/Z(c). With

    score(x, y) = (x - y)' S^-1 (x - y)/2,    R = exp(-score/tau),

E[score | c] = (x - m(c))' S^-1 (x - m(c))/2 + const, where m(c) = E[y | c]: the law is N(m(c), tau S). It is a
calibrated forecast iff tau S is the covariance of y around m(c), however noisy one y is. (An arithmetic mean of R
would be the law of y blurred by the kernel, N(m(c), tau S + Cov(y | c)): too wide by the kernel.) So S is the
covariance of residuals on the training windows and tau, the temperature, is chosen on validation windows.

Two changes leave that law as it is. The score of the path without a move, (0 - y)' S^-1 (0 - y)/2, is taken off: it
depends on y alone, so it moves log Z(c) and takes away most of the noise. And bins, being equally likely and not
equally wide, count by themselves as the law of all returns; R is divided by the normal density with that law's
variance v, log w(x) = |x|^2/(2 v). Where a context says nothing and tau S = v I, R is the same for all paths and
the forecast is the empirical law of daily returns, fat tails included.

With the Cholesky factor L of tau S and u(x) = L^-1 x, u_t depends on x_1 ... x_t alone, so log R is a sum over days,

    log R = sum_t  u_t(x) u_t(y) - u_t(x)^2/2 + x_t^2/(2 v),

and flows can look forward.

Letters: B trajectories, H horizon, V bins, N training windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy import optimize, special

from baselines.gflownet.environment import SequenceEnvironment

PIECES = 32
"""Knots of the quantile function per bin."""
TEMPERATURES = (0.25, 4.0)
"""Searched range of the temperature."""


@dataclass(frozen=True, eq=False)
class ReturnBins:
    """Equally likely bins of daily returns in units of the daily volatility.

    Attributes:
        knots: [V PIECES + 1] quantiles at equally spaced levels; the bins' edges are every PIECES-th.
    """

    knots: np.ndarray

    @classmethod
    def fit(cls, returns: np.ndarray, num_bins: int) -> Self:
        """Quantiles of the training windows' returns, of any shape."""
        return cls(np.quantile(returns, np.linspace(0, 1, num_bins * PIECES + 1)))

    @property
    def num_bins(self) -> int:
        """V."""
        return len(self.knots) // PIECES

    @property
    def values(self) -> np.ndarray:
        """[V] mean return of each bin."""
        middles = (self.knots[1:] + self.knots[:-1]) / 2
        return middles.reshape(-1, PIECES).mean(axis=1)

    def decode(self, tokens: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Returns within their bins, of tokens and of levels in [0, 1) within the bin, of equal shape."""
        place = (tokens + levels) * PIECES
        # Rounding may put a level near 1 in the last bin onto the last knot, which has none to its right.
        below = np.minimum(place.astype(np.int64), len(self.knots) - 2)
        return self.knots[below] + (place - below) * (self.knots[below + 1] - self.knots[below])


@dataclass(frozen=True, eq=False)
class PathKernel:
    """How near a path is to the one that came.

    Attributes:
        covariance: [H, H] tau S, of daily returns in units of the daily volatility.
        variance: v of one day's return, all windows together.
    """

    covariance: np.ndarray
    variance: float

    def whiten(self, paths: np.ndarray) -> np.ndarray:
        """[..., H] u = L^-1 x of paths [..., H]."""
        # L^-1 is lower triangular, so u_t depends on the days up to t alone: what lets log R be a sum over days.
        return paths @ np.linalg.inv(np.linalg.cholesky(self.covariance)).T


class PricePaths(SequenceEnvironment):
    """Paths of H days; the condition of the reward is the whitened path u(y) [B, H] that came."""

    def __init__(self, bins: ReturnBins, kernel: PathKernel) -> None:
        horizon = len(kernel.covariance)
        super().__init__("price_paths", bins.num_bins, horizon)
        self.bins, self.kernel = bins, kernel
        self.num_features = 2 * horizon + 2
        values = np.append(bins.values, [0.0, 0.0])  # of BOS and padding
        self._values = torch.from_numpy(values)
        self._whitening = torch.from_numpy(kernel.whiten(np.eye(horizon)).T.copy())

    def encode(self, states: torch.Tensor) -> torch.Tensor:
        """[*, 2 H + 2] day as one-hot, returns so far (latest first, 0 where none), and their sum."""
        tokens = states[..., 1:]
        days = self.lengths(states)
        values = self._values[tokens]  # [*, H]
        order = days[..., None] - 1 - torch.arange(self.num_steps)
        latest_first = torch.where(order >= 0, values.gather(-1, order.clamp(min=0)), 0.0)
        day = torch.nn.functional.one_hot(days, self.num_steps + 1)
        features = torch.cat([day, latest_first, values.sum(dim=-1, keepdim=True)], dim=-1)
        return features.to(torch.get_default_dtype())

    def log_step_rewards(self, states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """[B, H] of trajectories [B, H + 1, D], whose last state holds the path."""
        return self._terms(states[:, -1], condition)

    def log_reward(self, states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """[*] of whole paths [*, D]."""
        return self._terms(states, condition).sum(dim=-1)

    def _terms(self, ends: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        if condition is None:
            raise ValueError("the reward of a price path needs the path that came")
        path = self._values[ends[..., 1:]]
        whitened = path @ self._whitening.T
        # Day by day, minus the score after that of the path without a move (it depends on y alone) is taken off. The
        # last term divides by the bins' own law, as equally likely bins count by themselves.
        return whitened * condition - whitened.square() / 2 + path.square() / (2 * self.kernel.variance)


def fit_temperature(mean: np.ndarray, truth: np.ndarray, covariance: np.ndarray) -> float:
    """The temperature tau at which N(mean, tau S) has the lowest CRPS on validation windows.

    The CRPS of each day's cumulative return (in closed form: Gneiting and Raftery 2007, equation 5) over sqrt(h),
    mean over windows and days.

    Args:
        mean: [N, H] forecasts of the daily returns.
        truth: [N, H] the daily returns that came.
        covariance: [H, H] S.
    """
    # Cumulative returns are what is scored; sums of days have the covariance 1 S 1', with 1 lower triangular.
    error = np.cumsum(truth - mean, axis=1)
    ones = np.tril(np.ones_like(covariance))
    spread = np.sqrt(np.diag(ones @ covariance @ ones.T))  # [H] of cumulative returns
    root = np.sqrt(np.arange(1, len(spread) + 1))

    def loss(log_tau: float) -> float:
        # tau scales a variance, so the deviation grows by its root. Searched in logs: a factor is as far up as down.
        sigma = spread * np.exp(log_tau / 2)
        z = error / sigma
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        crps = sigma * (z * (2 * special.ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
        return float((crps / root).mean())

    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))
