"""Windows to messages and answers back to prices: one contract for every stage.

Prices are written as levels: integers on a scale where the last close is 500 and 10 points are one daily standard
deviation of the log price over the window. So no ticker, date or price level reaches the model, calm and wild
windows look alike, and every number is short. A level stands for the price
last_close * exp((level - 500) / 10 * volatility), which is positive whatever the level.

Two styles: `direct` answers with the numbers alone, `reasoning` with <think>..</think><answer>[..]</answer>.

Letters: B windows, L window length, H horizon.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from preprocessing.windows import FEATURES, Context

Style = Literal["direct", "reasoning"]
Messages = list[dict[str, str]]

LAST_CLOSE_LEVEL = 500
POINTS_PER_DAILY_SD = 10
LOWEST, HIGHEST = -199, 999
"""Numbers in a prompt are clipped to this range, so that each can be one token of a small vocabulary."""
MAX_DISTANCE = 10_000
"""An answer further than this from the last close (1,000 daily standard deviations) is not a price forecast."""

INSTRUCTIONS: dict[str, str] = {
    "direct": (
        "Forecast the next {horizon} daily closes of a stock. Scale: the last close is 500, 10 points are one daily "
        "standard deviation. Answer with {horizon} integers and nothing else."
    ),
    "reasoning": (
        "Forecast the next {horizon} daily closes of a stock. Scale: the last close is 500, 10 points are one daily "
        "standard deviation. Think about trend, volatility and mean reversion first, inside <think> and </think>. "
        "Then give one possible path of the {horizon} closes as <answer>[{horizon} integers, separated by commas]"
        "</answer> and nothing else."
    ),
}

_LEVELS = (
    "sma",
    "ema",
    "bbands_upper",
    "bbands_middle",
    "bbands_lower",
    "min",
    "max",
    "mean",
    "median",
    "past_mean",
)
_PRICE_CHANGES = ("mom", "macd", "trend")
_AS_THEY_ARE = (
    "rsi",
    "willr",
    "cci",
    "adx",
    "stoch_k",
    "stoch_d",
    "min_timestep",
    "max_timestep",
    "median_timestep",
    "top_lag_1",
    "top_lag_2",
    "top_lag_3",
)
TEMPLATE = (
    "sma {sma} ema {ema} mom {mom} rsi {rsi} macd {macd} willr {willr} cci {cci} adx {adx} "
    "bbands {bbands_upper} {bbands_middle} {bbands_lower} stoch {stoch_k} {stoch_d}\n"
    "min {min} day {min_timestep} max {max} day {max_timestep} mean {mean} median {median} day {median_timestep} "
    "trend {trend} lags {top_lag_1} {top_lag_1_correlation} {top_lag_2} {top_lag_2_correlation} "
    "{top_lag_3} {top_lag_3_correlation} volatility {volatility}\n"
    "past mean {past_mean} sd {past_std} ar1 {past_ar1} volatility {past_volatility} drift {past_drift}"
)
_ANSWER = re.compile(r"\s*(?:<think>)?.*?</think>\s*<answer>\s*\[(.*?)\]\s*</answer>\s*", flags=re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]+)?")


def to_levels(prices: np.ndarray, last_price: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """Prices to real-valued levels; the last two arguments broadcast against the first."""
    return LAST_CLOSE_LEVEL + POINTS_PER_DAILY_SD * np.log(prices / last_price) / volatility


def to_prices(levels: np.ndarray, last_price: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """Levels back to prices: the exact inverse of `to_levels`."""
    return last_price * np.exp((levels - LAST_CLOSE_LEVEL) / POINTS_PER_DAILY_SD * volatility)


def render_prompts(context: Context, *, horizon: int, style: Style) -> list[Messages]:
    """One user message per window, for any chat template.

    Args:
        context: B windows.
        horizon: number of closes to ask for.
        style: `direct` or `reasoning`.
    """
    volatility, last = context.feature("volatility"), context.last_price
    closes = _whole(to_levels(context.past[:, :, 0], last[:, None], volatility[:, None]))  # [B, L]
    columns = prompt_numbers(context)
    instruction = INSTRUCTIONS[style].format(horizon=horizon)
    prompts = []
    for row in range(len(context)):
        body = TEMPLATE.format_map({name: values[row] for name, values in columns.items()})
        text = f"{instruction}\ncloses {' '.join(map(str, closes[row]))}\n{body}\nnext {horizon}"
        prompts.append([{"role": "user", "content": text}])
    return prompts


def prompt_numbers(context: Context) -> dict[str, np.ndarray]:
    """[B] integers of every feature as the prompt shows it.

    Price-like features are levels; changes of price are points; past_std in points; correlations in percent;
    past_ar1 in thousandths; volatility in hundredths of a percent per day; past_volatility in percent of the
    window's; past_drift in percent of a daily standard deviation; the rest as it is.
    """
    volatility, last = context.feature("volatility"), context.last_price
    numbers = {name: to_levels(context.feature(name).clip(min=1e-12), last, volatility) for name in _LEVELS}
    for name in _PRICE_CHANGES:
        numbers[name] = POINTS_PER_DAILY_SD * context.feature(name) / last / volatility
    for name in _AS_THEY_ARE:
        numbers[name] = context.feature(name)
    for rank in (1, 2, 3):
        name = f"top_lag_{rank}_correlation"
        numbers[name] = 100 * context.feature(name)
    numbers["volatility"] = 1e4 * volatility
    numbers["past_std"] = POINTS_PER_DAILY_SD * context.feature("past_std") / volatility
    numbers["past_ar1"] = 1000 * context.feature("past_ar1")
    numbers["past_volatility"] = 100 * context.feature("past_volatility") / volatility
    numbers["past_drift"] = 100 * context.feature("past_drift") / volatility
    return {name: _whole(values) for name, values in numbers.items()}


def render_answer(levels: np.ndarray, *, style: Style, thought: str = "") -> str:
    """Levels [H] as the answer text; they are rounded to integers."""
    numbers = [str(number) for number in np.rint(levels).astype(int)]
    if style == "direct":
        return " ".join(numbers)
    return f"<think>{thought}</think><answer>[{', '.join(numbers)}]</answer>"


def answer_pattern(horizon: int, *, style: Style) -> str:
    """Regular expression of an answer with levels from 0 to 999, 50 daily standard deviations around the last close."""
    levels = ["[0-9]{1,3}"] * horizon
    if style == "direct":
        return " ".join(levels)
    return rf"<think>[^<]*</think><answer>\[{', '.join(levels)}\]</answer>"


def parse_answer(text: str, *, horizon: int, style: Style) -> np.ndarray | None:
    """Answer text to levels [H] float64, or None when it is not exactly `horizon` plain numbers in the style.

    NaN, infinities, words, a wrong count, text around the numbers and absurd distances are all invalid.
    """
    if style == "reasoning":
        match = _ANSWER.fullmatch(text)
        if not match:
            return None
        text = match[1]
    parts = text.replace(",", " ").split()
    if len(parts) != horizon or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    levels = np.array(parts, dtype=np.float64)
    return levels if (np.abs(levels - LAST_CLOSE_LEVEL) <= MAX_DISTANCE).all() else None


def parse_answers(texts: list[str], *, horizon: int, style: Style) -> np.ndarray:
    """Answers to levels [N, H]; rows of NaN where invalid."""
    levels = np.full((len(texts), horizon), np.nan)
    for row, text in enumerate(texts):
        parsed = parse_answer(text, horizon=horizon, style=style)
        if parsed is not None:
            levels[row] = parsed
    return levels


def _whole(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), LOWEST, HIGHEST).astype(int)


assert set(_LEVELS + _PRICE_CHANGES + _AS_THEY_ARE) <= set(FEATURES)
