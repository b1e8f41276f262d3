"""What is imitated: real paths of scaled returns, each with what was known before it.

Letters: N demonstrations, C numbers of context, H steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from baselines.gail.tokens import Tokenizer
from baselines.neural.inputs import InputScaling
from preprocessing.returns import daily_volatility
from preprocessing.windows import WindowSet


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Paths to imitate.

    Attributes:
        context: [N, C] float32 what is known before each path; C is 0 where nothing is.
        returns: [N, H] float32 log returns over `scale`.
        scale: [N] float64 standard deviation of a step's log return.
        start: [N] float64 price before the first step.
    """

    context: torch.Tensor
    returns: torch.Tensor
    scale: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.returns)

    @classmethod
    def of_windows(cls, windows: WindowSet, scaling: InputScaling) -> Self:
        """Windows and their futures."""
        scale = daily_volatility(windows.context, scaling.volatility)
        context = scaling.inputs(windows.context).joined
        return cls(context, scaling.targets(windows), scale, windows.context.last_price)

    def take(self, rows: np.ndarray | slice) -> Demonstrations:
        """Some of them, by row numbers."""
        return Demonstrations(self.context[rows], self.returns[rows], self.scale[rows], self.start[rows])

    def prices(self, returns: np.ndarray) -> np.ndarray:
        """[N, H + 1] prices along scaled returns [N, H], the start first."""
        log_price = np.cumsum(self.scale[:, None] * returns, axis=1)
        return self.start[:, None] * np.exp(np.concatenate([np.zeros((len(self), 1)), log_price], axis=1))


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """Demonstrations as tokens.

    Attributes:
        context: [N, C] float32.
        tokens: [N, T] int64.
        returns: [N, T] float32 scaled log returns that the tokens stand for.
    """

    context: torch.Tensor
    tokens: torch.Tensor
    returns: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def encode(cls, demonstrations: Demonstrations, tokenizer: Tokenizer) -> TokenSequences:
        """The tokens of demonstrations."""
        tokens = torch.from_numpy(tokenizer.encode(demonstrations.returns.numpy()))
        return cls(demonstrations.context, tokens, demonstrations.returns)

    def take(self, rows: torch.Tensor) -> TokenSequences:
        """Some of them, by row numbers; returns that are not known stay unknown."""
        returns = self.returns[rows] if len(self.returns) else self.returns
        return TokenSequences(self.context[rows], self.tokens[rows], returns)
