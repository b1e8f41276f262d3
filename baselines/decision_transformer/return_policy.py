"""Daily bars without a trader: a day's move is the action, and the return that is left is the return to go.

A window's future becomes a sequence for the Decision Transformer, one step per day ahead, every number in units of the
daily volatility at the origin:

    action a_t      the bin of day t + 1's return; bins of equal share (`Bins`)
    state s_t       the returns of the last L - 1 days, the features at the origin, the return since the origin
    return R_t      what is left of the return over all H days: sum of the returns of days t + 1 ... H

A path is drawn day by day: an action, then the return within its bin by the quantiles of the training windows, then
the next state and R_(t+1) = R_t - r_t.

The trap: R_0 is the answer. Read from the data, it gives away the last close, and an action that is predicted with it
is a forecast of nothing. Here R_0 is drawn from what a head of its own learnt to expect of the window, p(R_0 | s_0),
so that the paths follow p(path | s_0), the integral of p(path | R_0, s_0) p(R_0 | s_0). Drawn from the training
windows whatever the window (`target_return: train`), paths end where all paths end, and what the window says of the
last day is lost.

Letters: N windows, B windows of a batch, P paths, L window length, H horizon, F features, A actions, K return bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.decision_transformer.model import DecisionTransformer, ModelConfig, losses
from baselines.neural.inputs import WindowInputs

TargetReturn = Literal["learnt", "train"]
LEVELS = 2001
"""Quantiles that a `Bins` keeps."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins of equal share of the training values and their mirror images, and what values lie in them.

    Attributes:
        count: number of bins.
        quantiles: [LEVELS] of the mirrored training values, at evenly spaced levels from 0 to 1.
    """

    count: int
    quantiles: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, count: int) -> Self:
        """Bins of training values of any shape."""
        # Mirrored: a network that has learnt nothing finds all bins alike, and then draws a walk without drift. The
        # drift of the training windows has to be learnt, and to prove itself on the validation windows, like all else.
        mirrored = np.concatenate([values.ravel(), -values.ravel()])
        return cls(count, np.quantile(mirrored, np.linspace(0, 1, LEVELS)))

    def label(self, values: np.ndarray) -> np.ndarray:
        """int64 bin of each value; beyond the training values the first or the last."""
        edges = np.interp(np.arange(1, self.count) / self.count, np.linspace(0, 1, LEVELS), self.quantiles)
        return np.searchsorted(edges, values, side="right").astype(np.int64)

    def draw(self, bins: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """A value in each bin: its quantile at the level `uniform`, from 0 to 1 within the bin."""
        return np.interp((bins + uniform) / self.count, np.linspace(0, 1, LEVELS), self.quantiles)


@dataclass(frozen=True, eq=False)
class Days:
    """Windows as sequences of H days.

    Attributes:
        inputs: what was known at the origins.
        daily: [N, H] float32 returns that came.
        actions: [N, H] int64 their bins.
        totals: [N] int64 bins of the returns over all days.
    """

    inputs: WindowInputs
    daily: Tensor
    actions: Tensor
    totals: Tensor

    def take(self, rows: Tensor) -> Days:
        """Some windows, by row number."""
        return Days(self.inputs.take(rows), self.daily[rows], self.actions[rows], self.totals[rows])


def states_of(inputs: WindowInputs, daily: Tensor) -> Tensor:
    """[B, H, L - 1 + F + 1] states of each day, before the return of that day [B, H] is known."""
    length = inputs.returns.shape[1]
    # The return of the last day is no part of any state: it is known when the path is over.
    known = torch.cat([inputs.returns, daily[:, :-1]], dim=1)
    recent = known.unfold(1, length, 1)  # [B, H, L - 1]
    # 0 at the origin, then what was earned up to the day before.
    since = functional.pad(daily[:, :-1].cumsum(dim=1), (1, 0))[..., None]
    features = inputs.features[:, None].expand(-1, daily.shape[1], -1)
    return torch.cat([recent, features, since], dim=2)


def returns_to_go(daily: Tensor) -> Tensor:
    """[B, H] what is left of the return of all days, on each day before its own is known."""
    # Summed from the last day backwards.
    return daily.flip(1).cumsum(dim=1).flip(1)


class ReturnPolicy(nn.Module):
    """The Decision Transformer of daily returns, and what it expects the whole return to be.

    Attributes:
        transformer: over H days.
        target_head: from the state at the origin to K logits of the whole return's bin; None without returns to go.
    """

    def __init__(self, config: ModelConfig, return_bins: int) -> None:
        super().__init__()
        self.transformer = DecisionTransformer(config)
        self.target_head = None
        if config.use_returns:
            self.target_head = nn.Sequential(
                nn.Linear(config.state_size, 2 * config.d_model),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(2 * config.d_model, return_bins),
            )
            # Zeros: untrained, all returns are as likely as they were in training.
            nn.init.zeros_(self.target_head[-1].weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(self.target_head[-1].bias)  # pyright: ignore[reportArgumentType]

    def loss(self, days: Days, return_weight: float) -> Tensor:
        """CE(actions) + `return_weight` MSE(next returns to go) + CE(whole return)."""
        states = states_of(days.inputs, days.daily)
        # From the data, so it knows the future. That is fair in training; a path draws its own (`_whole_returns`).
        left = returns_to_go(days.daily)
        config = self.transformer.config
        predictions = self.transformer(states, days.actions, left)
        mask = torch.ones_like(days.actions, dtype=torch.bool)
        action_loss, return_error = losses(predictions, days.actions, left, mask, config.return_scale)
        loss = action_loss + return_weight * return_error
        # What the whole return may be is learnt from the state at the origin alone, by a head of its own.
        if self.target_head is not None:
            loss = loss + functional.cross_entropy(self.target_head(states[:, 0]), days.totals)
        return loss


@dataclass(frozen=True, eq=False)
class PathSampler:
    """Draws paths from a policy.

    Attributes:
        policy: in evaluation mode and double precision, so that a window's paths do not depend on its company.
        daily_bins: of the returns of a day.
        total_bins: of the return over all days.
        target_return: where the whole return comes from.
    """

    policy: ReturnPolicy
    daily_bins: Bins
    total_bins: Bins
    target_return: TargetReturn

    def sample(self, inputs: WindowInputs, uniforms: np.ndarray, *, days: int) -> np.ndarray:
        """[B, S, days] daily returns.

        Args:
            inputs: of B windows.
            uniforms: [B, S, 2 + 2 H] independent numbers between 0 and 1: two for the whole return, two per day.
            days: how many of the H to draw.
        """
        batch, samples = uniforms.shape[:2]
        numbers = uniforms.reshape(batch * samples, -1)  # P = B S paths
        with torch.no_grad():
            double = WindowInputs(inputs.returns.double(), inputs.features.double())
            # A day of return 0 stands in for the future, of which the first state holds nothing.
            origin = states_of(double, torch.zeros(batch, 1, dtype=torch.float64))[:, 0]
            left = self._whole_returns(origin, numbers[:, :2], samples)
            states = origin.repeat_interleave(samples, dim=0)  # [P, L - 1 + F + 1]
            return self._walk(states, left, numbers[:, 2:], days, inputs.returns.shape[1]).reshape(batch, samples, days)

    def _whole_returns(self, origin: Tensor, uniforms: np.ndarray, samples: int) -> np.ndarray:
        """[P] the return over all days that each path aims at."""
        head = self.policy.target_head
        # Drawn, never read from the data: the recorded return gives away the last close. By the learnt head, paths
        # follow p(path | s_0); drawn alike for all windows, they would lose what the window says of the last day.
        if head is None or self.target_return == "train":
            shares = torch.full((len(uniforms), self.total_bins.count), 1 / self.total_bins.count)
        else:
            shares = head(origin).softmax(dim=-1).repeat_interleave(samples, dim=0)
        return self.total_bins.draw(_invert(shares, uniforms[:, 0]), uniforms[:, 1])

    def _walk(self, states: Tensor, left: np.ndarray, uniforms: np.ndarray, days: int, length: int) -> np.ndarray:
        """[P, days] day by day; `states` are those at the origin and end as those of the last day."""
        transformer = self.policy.transformer
        cache = transformer.new_cache(len(states))
        daily = np.empty((len(states), days))
        actions = None
        for day in range(days):
            logits = transformer.step(cache, states, torch.from_numpy(left), actions)
            chosen = _invert(logits.softmax(dim=-1), uniforms[:, 2 * day])
            daily[:, day] = self.daily_bins.draw(chosen, uniforms[:, 2 * day + 1])
            moved = torch.from_numpy(daily[:, day, None])
            recent, features, since = states.split([length, states.shape[1] - length - 1, 1], dim=1)
            # The oldest return leaves, the drawn one enters, the features stay those of the origin.
            states = torch.cat([recent[:, 1:], moved, features, since + moved], dim=1)
            # What is still to come is what was aimed at less what has come: R_(t+1) = R_t - r_t.
            left = left - daily[:, day]
            actions = torch.from_numpy(chosen)
        return daily


def _invert(shares: Tensor, uniform: np.ndarray) -> np.ndarray:
    """[P] int64 the bin at each level `uniform` of the cumulated shares [P, K]."""
    cumulated = shares.numpy().cumsum(axis=1)
    # Rounding may leave the last sum below the level.
    return np.minimum((cumulated <= uniform[:, None]).sum(axis=1), shares.shape[1] - 1)
