"""Choosing among a window's sampled paths: which completions become SFT data.

The closest samples of each window make good-looking data and a narrow law: a model trained on them forgets how
uncertain it must be. `energy_subset` therefore chooses the samples that together score best as an ensemble,
`tempered` accepts each in proportion to exp(energy reward / temperature), and `best_of_k` is kept for contrast.
All of them compare the samples of a window with one another, so that of few samples even the worst would be kept:
`max_distance` bounds how far from what happened a sample may lie at all.

Letters: K samples of one window, m kept, H horizon, N windows.
"""

from __future__ import annotations

import numpy as np

from grpo.language.rewards import energy, path_norm
from grpo.training.config import RejectionConfig


def select(paths: np.ndarray, truth: np.ndarray, config: RejectionConfig, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of the kept samples, at most `config.keep`, none of them invalid or too far from what happened.

    Args:
        paths: [K, H] paths in the window's scale; rows of NaN are invalid and never kept.
        truth: [H] realised path in the same scale.
        config: how and how many.
        rng: used by `tempered` alone.
    """
    # Never true of NaN, so invalid answers drop out here.
    close = np.flatnonzero(path_norm(paths - truth) <= config.max_distance)
    if len(close) <= config.keep:
        return close
    choose = {"energy_subset": _energy_subset, "tempered": _tempered, "best_of_k": _best_of_k}[config.selection]
    return close[choose(paths[close], truth, config, rng)]


def _energy_subset(
    paths: np.ndarray, truth: np.ndarray, config: RejectionConfig, rng: np.random.Generator
) -> np.ndarray:
    """Greedy choice, then exchanges while any improves the subset's energy score.

    The score is that of the kept samples themselves as a law, mean ||x-y|| - 1/(2 m^2) sum ||x_i - x_j||, which a
    wide spread around the truth cannot drive to zero as it can the fair form.
    """
    distance, pairs = path_norm(paths - truth), path_norm(paths[:, None] - paths[None])
    chosen: list[int] = []
    for size in range(1, config.keep + 1):
        # [K] score of the subset with each candidate added: its mean distance, less half its mean pair distance.
        pair_sum = pairs[:, chosen].sum(1)
        score = (distance[chosen].sum() + distance) / size - (
            pairs[np.ix_(chosen, chosen)].sum() / 2 + pair_sum
        ) / size**2
        score[chosen] = np.inf
        chosen.append(int(score.argmin()))
    subset = np.array(chosen)
    # Each exchange lowers the score, so this ends by itself; the bound guards against rounding in circles.
    for _ in range(10 * config.keep):
        leaving, entering, gain = _best_exchange(distance, pairs, subset)
        if gain <= 1e-12:
            break
        subset[leaving] = entering
    return np.sort(subset)


def _best_exchange(distance: np.ndarray, pairs: np.ndarray, subset: np.ndarray) -> tuple[int, int, float]:
    """Position that should leave, sample that should enter, and how much the score falls."""
    size = len(subset)
    to_subset = pairs[:, subset].sum(1)  # [K]
    # [m, K], by who leaves and who enters; the two are never in the subset together, so their pair is taken off.
    change = (distance[None, :] - distance[subset][:, None]) / size
    spread = to_subset[None, :] - pairs[subset] - to_subset[subset][:, None]  # [m, K]
    change = change - spread / size**2
    change[:, subset] = np.inf
    leaving, entering = np.unravel_index(change.argmin(), change.shape)
    return int(leaving), int(entering), float(-change[leaving, entering])


def _tempered(paths: np.ndarray, truth: np.ndarray, config: RejectionConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw without replacement, weights exp(r / temperature): one step of policy improvement, taken offline."""
    reward = energy(paths, truth) / config.temperature
    # The largest keys of log-weight plus Gumbel noise are a draw without replacement (Kool et al. 2019).
    gumbel = reward + rng.gumbel(size=len(reward))
    return np.sort(np.argsort(-gumbel)[: config.keep])


def _best_of_k(paths: np.ndarray, truth: np.ndarray, config: RejectionConfig, rng: np.random.Generator) -> np.ndarray:
    return np.sort(np.argsort(path_norm(paths - truth), kind="stable")[: config.keep])


def strata(volatility: np.ndarray, last_move: np.ndarray, origin: np.ndarray, *, levels: int = 3) -> np.ndarray:
    """[N] stratum of each window: volatility tercile x direction of the coming move x date tercile.

    Args:
        volatility: [N] daily volatility of the window.
        last_move: [N] realised log return over the horizon; its sign is the direction.
        origin: [N] datetime64.
        levels: number of volatility and of date classes.
    """

    def classes(values: np.ndarray) -> np.ndarray:
        # Ranks and not quantiles: the classes stay equally large where values repeat.
        rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        return rank * levels // len(values)

    return (classes(volatility) * 2 + (last_move > 0)) * levels + classes(origin.astype(np.int64))


def draw_stratified(stratum: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` window numbers, equally many from each stratum as far as they go, ascending."""
    if count >= len(stratum):
        return np.arange(len(stratum))
    order = rng.permutation(len(stratum))
    position = np.empty(len(stratum), dtype=int)  # how many of the same stratum come before it in the shuffle
    for value in np.unique(stratum):
        members = order[stratum[order] == value]
        position[members] = np.arange(len(members))
    return np.sort(order[np.argsort(position[order], kind="stable")][:count])
