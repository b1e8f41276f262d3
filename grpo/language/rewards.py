"""Rewards: pure functions of a group's sampled paths, and their form as TRL reward callables.

Paths are errors in the window's own scale: z_h = log(price_h / last close) / (volatility * sqrt(h)), so that calm
and wild windows, near and far days weigh alike. For an invalid answer a path is a row of NaN.

Which reward is proper: `energy` (strictly, for the joint law of the path) and `crps` (for each day's law). Their
maximum is the true predictive law, so samples neither collapse to a line nor spread for nothing. `accuracy`,
`direction` and `pnl` have other optima (the mean path, a sign, a position) and are kept for comparison.

The group-mean baseline bends a reward that looks at the rest of the group. Let r_i = -e_i + w p_i with p_i the mean
distance of path i to the other G - 1. GRPO subtracts the mean reward of the group, in which path i stands twice more:
in its own reward and in the pair terms of all others. Given x_i the expected advantage is, up to a constant,
(1 - 1/G) (-e_i + w (G-2)/(G-1) p_i). With w = 1 the pair term therefore counts (G-2)/(G-1) (.86 at G = 8) and training
narrows the law; w = (G-1)/(G-2) makes the policy gradient that of the proper score exactly. `group_rewards` uses it.

With `scale_rewards="group"` adding to or scaling a reward within a prompt changes nothing; "subtract the random
walk's loss" is a no-op there.

Letters: G completions of one prompt, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from grpo.language.prompts import LAST_CLOSE_LEVEL, POINTS_PER_DAILY_SD, Style, parse_answers

INVALID_MARGIN = 0.5
"""How far an invalid answer lies below the worst valid one of its group."""
TRADING_COST = 0.001
"""Cost of one position change, as a share of the price (10 basis points)."""

PathReward = Callable[..., np.ndarray]


def path_norm(difference: np.ndarray) -> np.ndarray:
    """Euclidean norm over the horizon divided by sqrt(H): [..., H] to [...]."""
    return np.sqrt((difference**2).mean(-1))


def energy(paths: np.ndarray, truth: np.ndarray, pair_weight: float = 1.0) -> np.ndarray:
    """Each sample's share of minus the energy score, as its policy gradient needs it.

    r_i = -||x_i - y|| + w/(G-1) sum_{j != i} ||x_i - x_j||, with the Euclidean norm over the horizon divided by
    sqrt(H). The score is E||X-y|| - 1/2 E||X-X'|| (Gneiting & Raftery 2007, eq. 22); the gradient of the second
    term falls on both members of a pair, which makes the factor 1, not 1/2 (and, under a group-mean baseline,
    (G-1)/(G-2): see the module).

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
    """1 for a valid answer; an invalid one gets 0 (see `group_rewards`)."""
    return np.ones(len(paths))


def pnl(paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One position sign(x_H) held over the horizon: its return, scaled like the paths (costs: `cost_in_scale`)."""
    return np.sign(paths[:, -1]) * truth[-1]


REWARDS: dict[str, PathReward] = {
    "energy": energy,
    "crps": crps,
    "accuracy": accuracy,
    "direction": direction,
    "format": answer_format,
    "pnl": pnl,
}


def _spread(
    paths: np.ndarray, norm: Callable[[np.ndarray], np.ndarray], truth: np.ndarray, pair_weight: float
) -> np.ndarray:
    error = norm(paths - truth)
    if len(paths) == 1:
        return -error
    pairs = norm(paths[:, None] - paths[None])  # [G, G], zero diagonal
    return -error + pair_weight * pairs.sum(1) / (len(paths) - 1)


def group_rewards(reward: PathReward, paths: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rewards of a whole group, invalid answers included.

    An invalid answer takes no part in the pair terms and gets 0.5 less than the worst valid answer of its group or
    than 0, whichever is lower: it is never better to be invalid, however wild the window. Without any valid answer
    all get -0.5, so the group teaches nothing. For `format` an invalid answer gets 0.

    Args:
        reward: one of `REWARDS`.
        paths: [G, H] scaled paths; rows of NaN are invalid.
        truth: [H] scaled realised path.
    """
    valid = np.isfinite(paths).all(-1)
    size = len(paths)
    rewards = np.zeros(size)
    if valid.any():
        if reward in (energy, crps):
            rewards[valid] = reward(paths[valid], truth, pair_weight=(size - 1) / (size - 2))
        else:
            rewards[valid] = reward(paths[valid], truth)
    if reward is not answer_format:
        worst = rewards[valid].min() if valid.any() else 0.0
        rewards[~valid] = min(worst, 0.0) - INVALID_MARGIN
    return rewards


def scale_paths(levels: np.ndarray) -> np.ndarray:
    """Levels [..., H] to paths in the window's scale (module docstring)."""
    steps = np.arange(1, levels.shape[-1] + 1)
    return (levels - LAST_CLOSE_LEVEL) / POINTS_PER_DAILY_SD / np.sqrt(steps)


def completion_text(completion: str | Sequence[dict[str, Any]]) -> str:
    """The text of a completion in TRL's plain or conversational form."""
    return completion if isinstance(completion, str) else str(completion[0]["content"])


def make_reward(name: str, *, style: Style, horizon: int) -> Callable[..., list[float]]:
    """A TRL reward callable `f(completions, window_id, truth_levels, **columns) -> list[float]`.

    It sees every completion of a batch at once and groups them by `window_id`; all completions of a window must
    be in the batch of one process, which `grpo.training.trainer` guarantees.

    Args:
        name: key of `REWARDS`.
        style: answer style to parse.
        horizon: number of closes.

    Raises:
        KeyError: no reward of that name; the message lists them.
    """
    if name not in REWARDS:
        raise KeyError(f"no reward named '{name}'; there are {', '.join(REWARDS)}")
    reward = REWARDS[name]

    def trl_reward(
        completions: list[Any], window_id: list[int], truth_levels: list[list[float]], **columns: Any
    ) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        paths = scale_paths(parse_answers(texts, horizon=horizon, style=style))  # [N, H]
        ids = np.asarray(window_id)
        rewards = np.empty(len(texts))
        for window in np.unique(ids):
            rows = np.flatnonzero(ids == window)
            truth = scale_paths(np.asarray(truth_levels[rows[0]], dtype=np.float64))
            group = group_rewards(reward, paths[rows], truth)
            if name == "pnl":
                group = group - cost_in_scale(columns["volatility"][rows[0]], horizon)
            rewards[rows] = group
        return rewards.tolist()

    trl_reward.__name__ = name
    return trl_reward


def cost_in_scale(volatility: float, horizon: int) -> float:
    """The cost of entering and leaving a position, in the scale of the paths."""
    return 2 * TRADING_COST / (volatility * np.sqrt(horizon))
