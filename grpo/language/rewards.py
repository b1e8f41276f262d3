"""Rewards: what a sampled path earns beside the realised one and the rest of its group. No torch.

Paths are errors in the window's own scale (`grpo.language.scale`), so that calm and wild windows, near and far days
weigh alike. For an invalid answer a path is a row of NaN.

Which reward is proper: `energy` (strictly, for the joint law of the path) and `crps` (for each day's law). Their
maximum is the true predictive law, so samples neither collapse to a line nor spread for nothing. `accuracy`,
`direction` and `pnl` have other optima (the mean path, a sign, a position) and are kept for comparison.

The group-mean baseline of GRPO weakens the terms that compare a path with the rest of its group;
`baseline_correction` gives the weight that makes up for it, and `group_rewards` uses it.

With `scale_rewards="group"` adding to or scaling a reward within a prompt changes nothing; "subtract the random
walk's loss" is a no-op there.

A reward of one's own is found by a name in the entry-point group `grpo.rewards`, by `package.module:name` or by
`file.py:name`. It is a `Reward`, a plain function of paths and truth,

    def closeness(paths, truth):  # [n, H] valid paths and [H], in the window's scale -> [n]
        return -abs(paths - truth).mean(-1)

or TRL's own form `f(completions, **columns) -> list[float]`, whose columns hold `path` (NaN where invalid), `truth`,
`window_id`, `volatility` and TRL's; it has to judge invalid answers itself.

Letters: G completions of one prompt, H horizon, N completions of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from grpo.evaluation.plugins import PluginError
from grpo.language.plugins import find_plugin
from grpo.language.scale import log_returns

ENTRY_POINTS = "grpo.rewards"
INVALID_MARGIN = 0.5
"""How far an invalid answer lies below the worst valid one of its group."""
TRADING_COST = 0.001
"""Cost of one position change, as a share of the price (10 basis points)."""

PathReward = Callable[..., np.ndarray]
TrlReward = Callable[..., list[float]]


class RewardError(PluginError):
    """A reward that is not usable, or that gave something else than a number for each path."""


@dataclass(frozen=True, kw_only=True)
class Reward:
    """What an answer earns, and how invalid answers and the group are treated.

    Attributes:
        name: as logs and tables call it.
        score: valid paths [n, H] and the truth [H] to rewards [n]; with `pair_weight` it is called with that too.
        scale: of the paths that `score` gets: `window`, or `log_return` for log(price_h / last close).
        invalid: what an invalid answer earns: `below`, 0.5 less than the worst valid answer of its group or than 0,
            whichever is lower, so that it is never better to be invalid, however wild the window; or `zero`.
        cost: from the window's daily volatility and the horizon to what each answer pays; None for nothing.
        pair_weight: from G to the weight of the terms that compare an answer with the rest of its group, which undoes
            what the group-mean baseline does to them (`baseline_correction`); None where there are no such terms.
        smallest_group: least G that the reward makes sense for.
    """

    name: str
    score: PathReward
    scale: Literal["window", "log_return"] = "window"
    invalid: Literal["below", "zero"] = "below"
    cost: Callable[[float, int], float] | None = None
    pair_weight: Callable[[int], float] | None = None
    smallest_group: int = 2


def path_norm(difference: np.ndarray) -> np.ndarray:
    """Euclidean norm over the horizon divided by sqrt(H): [..., H] to [...]."""
    return np.sqrt((difference**2).mean(-1))


def energy(paths: np.ndarray, truth: np.ndarray, pair_weight: float = 1.0) -> np.ndarray:
    """Each sample's share of minus the energy score, as its policy gradient needs it.

    r_i = -||x_i - y|| + w/(G-1) sum_{j != i} ||x_i - x_j||, with the Euclidean norm over the horizon divided by
    sqrt(H). The score is E||X-y|| - 1/2 E||X-X'|| (Gneiting & Raftery 2007, eq. 22); the gradient of the second
    term falls on both members of a pair, which makes the factor 1, not 1/2 (and, under a group-mean baseline,
    (G-1)/(G-2): see `baseline_correction`).

    Args:
        paths: [G, H] scaled paths, all valid.
        truth: [H] scaled realised path.
        pair_weight: w.

    Returns:
        [G] rewards, unbounded; for one path alone -||x - y||.

    Example:
        Two paths 0 and 2 and the truth 1, H = 1: both get -1 + 2 = 1. Two equal paths at the truth get 0.
    """
    return _spread(paths, path_norm, truth, pair_weight)


def crps(paths: np.ndarray, truth: np.ndarray, pair_weight: float = 1.0) -> np.ndarray:
    """As `energy`, with |.| of each day averaged over the horizon: the gradient of minus the mean CRPS."""
    return _spread(paths, lambda difference: np.abs(difference).mean(-1), truth, pair_weight)


def accuracy(paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 / (1 + MSE) in (0, 1]: the published style, whose optimum is a point forecast without spread."""
    return 1 / (1 + ((paths - truth) ** 2).mean(-1))


def direction(paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """0.1 where the sign of the last day's change is right, -0.1 where wrong, 0 where either is flat."""
    return 0.1 * np.sign(paths[:, -1]) * np.sign(truth[-1])


def answer_format(paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 for a valid answer; an invalid one gets 0."""
    return np.ones(len(paths))


def pnl(paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One position sign(x_H) held over the horizon: its return, scaled like the paths (costs: `cost_in_scale`)."""
    return np.sign(paths[:, -1]) * truth[-1]


def cost_in_scale(volatility: float, horizon: int) -> float:
    """The cost of entering and leaving a position, in the scale of the paths."""
    # Twice, since a position is entered and left; divided by volatility * sqrt(H), as the last day of a path is.
    return 2 * TRADING_COST / (volatility * np.sqrt(horizon))


def baseline_correction(size: int) -> float:
    """(G-1)/(G-2): the weight of pair terms with which the policy gradient is that of the proper score."""
    # Let r_i = -e_i + w p_i, with p_i the mean distance of path i to the other G - 1. GRPO subtracts the mean reward of
    # the group, and path i is in that mean twice: in its own reward, and in the pair terms of all the others.
    # For a given x_i the expected advantage is therefore, up to a constant, (1 - 1/G) (-e_i + w (G-2)/(G-1) p_i). With
    # w = 1 the pair term would count only (G-2)/(G-1), .86 at G = 8, and training would make the law too narrow; this w
    # cancels that factor. With G = 2 nothing is left of the pair term, which is why `smallest_group` is 3.
    return (size - 1) / (size - 2)


def _by_name(*rewards: Reward) -> dict[str, Reward]:
    return {reward.name: reward for reward in rewards}


REWARDS: Mapping[str, Reward] = _by_name(
    Reward(name="energy", score=energy, pair_weight=baseline_correction, smallest_group=3),
    Reward(name="crps", score=crps, pair_weight=baseline_correction, smallest_group=3),
    Reward(name="accuracy", score=accuracy),
    Reward(name="direction", score=direction),
    Reward(name="format", score=answer_format, invalid="zero"),
    Reward(name="pnl", score=pnl, cost=cost_in_scale),
)


def _spread(
    paths: np.ndarray, norm: Callable[[np.ndarray], np.ndarray], truth: np.ndarray, pair_weight: float
) -> np.ndarray:
    error = norm(paths - truth)
    # A group may have one valid answer only: there is no pair then, and G - 1 below would be 0.
    if len(paths) == 1:
        return -error
    # [G, 1, H] - [1, G, H] to [G, G]; the diagonal is 0, so the sum over a row is over the other G - 1.
    pairs = norm(paths[:, None] - paths[None])
    return -error + pair_weight * pairs.sum(1) / (len(paths) - 1)


def group_rewards(reward: Reward, paths: np.ndarray, truth: np.ndarray, volatility: float = 1.0) -> np.ndarray:
    """Rewards of a whole group, invalid answers included.

    Without any valid answer all get the same, so the group teaches nothing.

    Args:
        reward: what is paid for.
        paths: [G, H] scaled paths; rows of NaN are invalid.
        truth: [H] scaled realised path.
        volatility: of the window, per day; costs and log returns need it.

    Raises:
        RewardError: the reward gave something else than a number for each valid path.
    """
    valid = np.isfinite(paths).all(-1)
    rewards = np.zeros(len(paths))
    if valid.any():
        # G counts the invalid answers too, since the baseline is the mean reward over all of them.
        rewards[valid] = _score(reward, paths[valid], truth, volatility, len(paths))
    if reward.invalid == "below":
        # In a wild window a valid answer can earn -30. Beneath a fixed floor it would pay to answer nothing at all
        # there, so an invalid answer lies below the worst valid one, and below 0 where all the valid ones earn more.
        worst = rewards[valid].min() if valid.any() else 0.0
        rewards[~valid] = min(worst, 0.0) - INVALID_MARGIN
    # The invalid ones pay as well; else the cost would bring a valid answer closer to them, or below them.
    if reward.cost is not None:
        rewards = rewards - reward.cost(volatility, paths.shape[1])
    return rewards


def _score(reward: Reward, paths: np.ndarray, truth: np.ndarray, volatility: float, size: int) -> np.ndarray:
    if reward.scale == "log_return":
        paths, truth = log_returns(paths, volatility), log_returns(truth, volatility)
    weight = {} if reward.pair_weight is None else {"pair_weight": reward.pair_weight(size)}
    scores = np.asarray(reward.score(paths, truth, **weight), dtype=np.float64)
    # One NaN would reach the group's mean, then every advantage of the group, then every weight of the adapter.
    if scores.shape != (len(paths),) or not np.isfinite(scores).all():
        given = f"shape {scores.shape}" if scores.shape != (len(paths),) else "NaN or infinity"
        raise RewardError(
            f"reward '{reward.name}' gave {given} for {len(paths)} valid paths; it must give each a number"
        )
    return scores


@dataclass(frozen=True)
class FoundReward:
    """A reward as a trainer takes it.

    Attributes:
        name: as logs and tables call it.
        function: TRL's form, f(completions, **columns) -> list of N numbers.
        smallest_group: least G that it makes sense for.
        source: hash of the code that it comes from; None for this package's own.
    """

    name: str
    function: TrlReward
    smallest_group: int
    source: str | None


def find_reward(reference: str) -> FoundReward:
    """The reward of a name; see the module for what a name can be.

    Raises:
        PluginError: there is none, or what the name stands for is no reward.
    """
    plugin = find_plugin(reference, kind="reward", group=ENTRY_POINTS, own=REWARDS)
    if isinstance(plugin.value, Reward):
        reward = plugin.value
        return FoundReward(reward.name, as_trl(reward), reward.smallest_group, plugin.source)
    value: Any = plugin.value
    names = list(inspect.signature(value).parameters) if callable(plugin.value) else []
    name = getattr(value, "__name__", reference)
    # 2 where a reward does not say: one answer alone has nothing to be compared with.
    if "completions" in names:
        return FoundReward(name, value, 2, plugin.source)
    if len(names) == 2:
        return FoundReward(name, as_trl(Reward(name=name, score=value)), 2, plugin.source)
    raise RewardError(f"reward '{reference}' is no Reward, f(paths, truth) or f(completions, **columns)")


def find_rewards(references: Sequence[str], *, num_generations: int) -> list[FoundReward]:
    """The rewards of a stage, in order.

    Raises:
        PluginError: one is not there or not usable, two have one name, or the group is too small for one.
    """
    found = [find_reward(reference) for reference in references]
    for reward in found:
        if num_generations < reward.smallest_group:
            raise RewardError(
                f"num_generations must be at least {reward.smallest_group} with the reward {reward.name}; "
                f"got {num_generations}"
            )
        if sum(other.name == reward.name for other in found) > 1:
            raise RewardError(f"two rewards are called '{reward.name}', as logs name them; rename one of them")
    return found


def as_trl(reward: Reward) -> TrlReward:
    """A TRL reward callable `f(path, truth, window_id, volatility, **columns)`.

    It sees every completion of a batch at once and groups them by `window_id`; all completions of a window must
    be in the batch of one process, which `grpo.training.trainer` guarantees, as it gives the column `path`.
    """

    def trl_reward(
        path: Sequence[np.ndarray],
        truth: Sequence[Sequence[float]],
        window_id: Sequence[int],
        volatility: Sequence[float],
        **columns: Any,
    ) -> list[float]:
        paths, ids = np.asarray(path), np.asarray(window_id)  # [N, H], [N]
        rewards = np.empty(len(paths))
        # By the window's number and not by blocks of G rows: a trainer may shuffle a batch.
        for window in np.unique(ids):
            rows = np.flatnonzero(ids == window)
            first = rows[0]
            rewards[rows] = group_rewards(reward, paths[rows], np.asarray(truth[first]), volatility[first])
        return rewards.tolist()

    # TRL's logs call a reward by its function's name.
    trl_reward.__name__ = reward.name
    return trl_reward
