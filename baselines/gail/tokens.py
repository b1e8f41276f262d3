"""Returns as tokens: bins that hold equally many training returns.

Letters: N values, V tokens, R intervals between the knots of a bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch

from preprocessing.errors import UserError

KNOTS = 32
"""R, intervals by which a bin's quantile function is kept."""
LEVELS = (1 - np.cos(np.pi * np.arange(KNOTS + 1) / KNOTS)) / 2
"""[R + 1] levels of the knots, dense at both ends: the outermost bins end in single extreme returns."""

Decode = Literal["mean", "uniform", "quantile"]


@dataclass(frozen=True)
class RoundTrip:
    """What encoding and decoding by bin means loses.

    Attributes:
        rmse: root mean squared error over the root mean square of the values.
        max_error: largest absolute error, in units of the values.
        outside: share of the values beyond the training range, which the outermost tokens stand for.
    """

    rmse: float
    max_error: float
    outside: float


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Quantile bins and what each stands for.

    Attributes:
        edges: [V - 1] inner edges, ascending; a value on an edge belongs to the bin above it.
        means: [V] mean of the training values in each bin.
        knots: [V, R + 1] quantiles at `LEVELS` of the training values in each bin, from its least to its largest.
    """

    edges: np.ndarray
    means: np.ndarray
    knots: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, num_tokens: int) -> Self:
        """Cut the training values into bins of equal counts; bins that ties leave empty are dropped.

        Raises:
            UserError: fewer than two values per bin.
        """
        values = np.asarray(values, dtype=np.float64).ravel()
        if len(values) < 2 * num_tokens:
            raise UserError(f"{num_tokens} tokens need at least {2 * num_tokens} training returns; got {len(values)}")
        # Where returns tie, several quantiles fall on one value, and a bin may stay empty; its edge is dropped below.
        edges = np.unique(np.quantile(values, np.arange(1, num_tokens) / num_tokens))
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        edges = edges[counts[:-1] > 0]
        bins = np.searchsorted(edges, values, side="right")
        members = [values[bins == token] for token in range(len(edges) + 1)]
        return cls(edges, np.array([m.mean() for m in members]), np.stack([np.quantile(m, LEVELS) for m in members]))

    @property
    def num_tokens(self) -> int:
        """V."""
        return len(self.means)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """int64 token of each value; beyond the training range, the outermost one."""
        return np.searchsorted(self.edges, np.asarray(values, dtype=np.float64), side="right").astype(np.int64)

    def is_outside(self, values: np.ndarray) -> np.ndarray:
        """Whether each value lies beyond the training range."""
        return (values < self.knots[0, 0]) | (values > self.knots[-1, -1])

    def decode(self, tokens: np.ndarray, position: np.ndarray, rule: Decode) -> np.ndarray:
        """The value of each token.

        Args:
            tokens: any shape, below V.
            position: the same shape, in [0, 1): where in the bin, used unless the rule is `mean`.
            rule: see `PretrainedConfig.decode`.
        """
        if rule == "mean":
            return self.means[tokens]
        if rule == "uniform":
            low, high = self.knots[tokens, 0], self.knots[tokens, -1]
            return low + position * (high - low)
        # Without the outermost two levels the answer is 0 to R - 1, so that there is always a knot to the right.
        below = np.searchsorted(LEVELS[1:-1], position, side="right")
        low, high = self.knots[tokens, below], self.knots[tokens, below + 1]
        return low + (position - LEVELS[below]) / (LEVELS[below + 1] - LEVELS[below]) * (high - low)

    def round_trip(self, values: np.ndarray) -> RoundTrip:
        """What encoding and decoding these values by bin means loses."""
        error = self.means[self.encode(values)] - values
        return RoundTrip(
            rmse=float(np.sqrt((error**2).mean() / (values**2).mean())),
            max_error=float(np.abs(error).max()),
            outside=float(self.is_outside(values).mean()),
        )

    def state(self) -> dict[str, torch.Tensor]:
        """As tensors, to be kept beside the weights."""
        return {name: torch.from_numpy(getattr(self, name)) for name in ("edges", "means", "knots")}

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> Self:
        """What `state` gave."""
        return cls(**{name: state[name].numpy() for name in ("edges", "means", "knots")})
