"""Training examples for the embedded model: windows of simulated stocks with the exact law of every next close.

The windows come from the same preprocessing and the prompts from the same renderer that the pipeline uses. The
target of each answer position is not the sampled number but the exact one-step law of the process, discretised to
levels (teacher forcing on the sampled path), which needs far fewer examples than hard labels.

Letters: N examples, H horizon, V integers that are one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from grpo.language.features import HIGHEST, LOWEST
from grpo.language.prompts import STYLES, Messages
from grpo.language.scale import POINTS_PER_DAILY_SD, to_levels
from preprocessing.combined_preprocessor import DataConfig, make_windows
from preprocessing.scaling import StandardNorm
from preprocessing.seeds import generator
from preprocessing.simulation import PROCESSES, START_PRICE, make_bars

SHARES = {
    "gbm": 0.22,
    "ou": 0.14,
    "ar": 0.08,
    "trend": 0.08,
    "seasonal": 0.08,
    "regime": 0.15,
    "stochvol": 0.25,
}
"""Share of each process in the corpus; the ones that look like real stocks weigh more."""
ROWS = (150, 1600)
"""Shortest and longest simulated history, days, drawn log-uniformly: statistics of the past are noisy or sharp."""
MIN_STEP_SD = 0.5
"""Smallest standard deviation of a target, levels: half a tick, the rounding of the answer itself."""


@dataclass(frozen=True)
class Examples:
    """A batch of examples.

    Attributes:
        prompts: N message lists.
        answers: [N, H] the realised path in integer levels.
        step_mean: [N, H] mean of each close given the past and the closes before it, in levels.
        step_sd: [N, H] standard deviation, in levels.
    """

    prompts: list[Messages]
    answers: np.ndarray
    step_mean: np.ndarray
    step_sd: np.ndarray


def draw_parameters(process: str, rng: np.random.Generator) -> dict[str, float]:
    """Random parameters of a process, over the range that stocks plausibly show."""
    # Daily volatility, 1.5 % in the middle and .75 to 3 % in 95 of 100 stocks; half of the stocks have fat tails.
    sigma = float(np.exp(rng.normal(np.log(0.015), 0.35)))
    tail = float(rng.choice([4.0, 6.0, 1e6], p=[0.25, 0.25, 0.5]))
    specific = {
        "gbm": lambda: {"drift": rng.normal(0, 0.04) * sigma},
        "ou": lambda: {"half_life": float(np.exp(rng.uniform(np.log(1.5), np.log(40))))},
        "ar": lambda: {"phi": rng.uniform(-0.5, 0.5)},
        "trend": lambda: {"half_life": rng.uniform(1, 20), "drift": rng.normal(0, 0.15) * sigma},
        "seasonal": lambda: {
            "half_life": rng.uniform(0.3, 10),
            "period": rng.uniform(5, 40),
            "amplitude": rng.uniform(0.5, 4),
            "phase": rng.uniform(),
        },
        "regime": lambda: {
            "switch": rng.uniform(0.01, 0.08),
            "wildness": rng.uniform(1.0, 3.0),
            "tilt": rng.uniform(0, 0.2),
        },
        "stochvol": lambda: {
            "drift": rng.normal(0, 0.04) * sigma,
            "persistence": rng.uniform(0.85, 0.99),
            "vol_of_vol": rng.uniform(0.05, 0.25),
        },
    }
    return {"sigma": sigma, "tail": tail, **specific[process]()}


def simulate_examples(rng: np.random.Generator, *, per_series: int, config: DataConfig) -> Examples:
    """Examples of one simulated stock, at most `per_series` of them, at random origins.

    The process and its parameters are drawn afresh; the model learns of them only through the data in its prompt.
    """
    process = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    parameters = {name: np.full((1, 1), value) for name, value in draw_parameters(process, rng).items()}
    rows = int(np.exp(rng.uniform(*np.log(ROWS))))
    paths = PROCESSES[process].simulate(parameters, rows, rng)
    level = np.log(START_PRICE)
    bars = make_bars(paths.log_price[0] + level, rng)
    windows = make_windows(process, bars, config, StandardNorm.fit(bars["close"].to_numpy()))
    chosen = np.sort(rng.choice(len(windows), size=min(per_series, len(windows)), replace=False))
    windows = windows.take(chosen)
    context = windows.context
    # The process knows its law by row, a window its origin by date.
    rows_of_origin = np.searchsorted(bars.index.to_numpy(dtype="datetime64[ns]"), context.origin)
    future = rows_of_origin[:, None] + np.arange(1, config.horizon + 1)  # [N, H]
    last, volatility = context.last_price[:, None], context.feature("volatility")[:, None]
    answers = np.clip(np.rint(to_levels(windows.truth.future, last, volatility)), 0, HIGHEST).astype(int)
    # Through a price and back, as the window scales by its own last close and volatility.
    mean = to_levels(np.exp(paths.step_mean[0][future] + level), last, volatility)
    sd = POINTS_PER_DAILY_SD * paths.step_sd[0][future] / volatility
    return Examples(
        prompts=STYLES["direct"].render(context, config.horizon),
        answers=answers,
        step_mean=mean,
        step_sd=np.maximum(sd, MIN_STEP_SD),
    )


def stream_examples(seed: int, *, size: int, per_series: int, config: DataConfig) -> Iterator[Examples]:
    """Endless chunks of `size` examples from fresh stocks, shuffled."""
    rng = generator(seed)
    while True:
        parts, count = [], 0
        while count < size:
            parts.append(simulate_examples(rng, per_series=per_series, config=config))
            count += len(parts[-1].prompts)
        order = rng.permutation(count)[:size]
        prompts = [prompt for part in parts for prompt in part.prompts]
        yield Examples(
            prompts=[prompts[i] for i in order],
            answers=np.concatenate([part.answers for part in parts])[order],
            step_mean=np.concatenate([part.step_mean for part in parts])[order],
            step_sd=np.concatenate([part.step_sd for part in parts])[order],
        )


def level_probabilities(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """[..., V] probability of each integer level LOWEST..HIGHEST under N(mean, sd); the ends take the tails."""
    # Answers are rounded, so an integer stands for the half point on both sides of it.
    edges = np.arange(LOWEST, HIGHEST + 2) - 0.5
    edges[0], edges[-1] = -np.inf, np.inf
    return np.diff(ndtr((edges - mean[..., None]) / sd[..., None]), axis=-1)
