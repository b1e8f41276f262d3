"""The forms that an answer can have: how it is written, read back, and held to its form. No torch.

Letters: B windows, S samples, H horizon, N answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from grpo.evaluation.protocol import Forecast
from grpo.language.scale import LAST_CLOSE_LEVEL, to_prices
from preprocessing.windows import Context

CUT_OFF = " [cut off]"
"""Mark of an answer that never ended; no form has it, so the answer is invalid."""
MAX_DISTANCE = 700
"""An answer further than this from the last close (70 daily standard deviations) is not a price forecast.

Of the 78,512 ten-day futures of StockNet's 88 stocks (2012 to 2017) half stay within 3 daily standard deviations, 99 %
within 11.4, and the widest, a stock that lost half of its value twice, reaches 45.1. With the former bound of 1,000 a
single answer could move its group's mean reward by hundreds. Down to -199, the lowest number that a prompt shows, all
answers of a vocabulary of one token per number stay within it.
"""
THOUGHT_TOKENS = 512
"""Longest answer where a thought comes first, whose length nothing bounds, tokens."""

# Some chat templates open the thought themselves, at the end of the prompt; then the completion begins inside it and
# has no <think> of its own.
_THOUGHT = re.compile(r"\s*(?:<think>)?.*?</think>\s*<answer>\s*\[(.*?)\]\s*</answer>\s*", flags=re.DOTALL)
# Stricter than float(), which would also take nan, inf, 1e9 and 1_000. Six digits are more than MAX_DISTANCE lets
# through, and keep a model that repeats one digit without end from making a number.
_NUMBER = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]+)?")


class AnswerForm(Protocol):
    """How an answer is written.

    Attributes:
        thinks: whether a thought comes before the numbers.
    """

    thinks: bool

    def render(self, levels: np.ndarray, thought: str = "") -> str:
        """Levels [H] as the answer's text; they are rounded to integers."""
        ...

    def parse(self, text: str, horizon: int) -> np.ndarray | None:
        """An answer's text to levels [H] float64, or None where it is not exactly that."""
        ...

    def pattern(self, horizon: int) -> str:
        """Regular expression of an answer with levels from 0 to 999, 50 daily standard deviations both ways."""
        ...

    def longest(self, horizon: int) -> list[str]:
        """Answers, of which one takes as many tokens as any accepted answer of integers can; empty without a bound."""
        ...


@dataclass(frozen=True)
class Numbers:
    """The numbers alone: `503 498 ...`. Commas are taken too.

    Args:
        may_use_commas: whether answers have room for a comma after each number. The shipped model never writes one,
            and its samples depend on how many tokens an answer may have.
    """

    may_use_commas: bool = True
    thinks = False

    def render(self, levels: np.ndarray, thought: str = "") -> str:
        """See `AnswerForm`; there is no place for a thought."""
        return " ".join(_integers(levels))

    def parse(self, text: str, horizon: int) -> np.ndarray | None:
        """See `AnswerForm`: NaN, infinities, words, a wrong count and absurd distances are all invalid."""
        parts = text.replace(",", " ").split()
        if len(parts) != horizon or not all(_NUMBER.fullmatch(part) for part in parts):
            return None
        levels = np.array(parts, dtype=np.float64)
        return levels if (np.abs(levels - LAST_CLOSE_LEVEL) <= MAX_DISTANCE).all() else None

    def pattern(self, horizon: int) -> str:
        """See `AnswerForm`."""
        return " ".join(["[0-9]{1,3}"] * horizon)

    def longest(self, horizon: int) -> list[str]:
        """See `AnswerForm`."""
        if not self.may_use_commas:
            return [" ".join(["999"] * horizon)]
        # Which of them is longest in tokens depends on the tokenizer (a sign, a fourth digit, three nines), so all are
        # offered to be measured.
        lowest, highest = (str(LAST_CLOSE_LEVEL + distance) for distance in (-MAX_DISTANCE, MAX_DISTANCE))
        return [mark.join([number] * horizon) for mark in (" ", ", ", ",") for number in (lowest, highest, "999")]


@dataclass(frozen=True)
class ThoughtAndNumbers:
    """A thought first: `<think>..</think><answer>[503, 498, ...]</answer>`."""

    thinks = True

    def render(self, levels: np.ndarray, thought: str = "") -> str:
        """See `AnswerForm`."""
        return f"<think>{thought}</think><answer>[{', '.join(_integers(levels))}]</answer>"

    def parse(self, text: str, horizon: int) -> np.ndarray | None:
        """See `AnswerForm`; the opening <think> may be missing."""
        match = _THOUGHT.fullmatch(text)
        return Numbers().parse(match[1], horizon) if match else None

    def pattern(self, horizon: int) -> str:
        """See `AnswerForm`."""
        return rf"<think>[^<]*</think><answer>\[{', '.join(['[0-9]{1,3}'] * horizon)}\]</answer>"

    def longest(self, horizon: int) -> list[str]:
        """See `AnswerForm`: nothing bounds a thought."""
        return []


def parse_all(texts: Sequence[str], *, horizon: int, form: AnswerForm) -> np.ndarray:
    """Answers to levels [N, H]; rows of NaN where invalid."""
    levels = np.full((len(texts), horizon), np.nan)
    for row, text in enumerate(texts):
        parsed = form.parse(text, horizon)
        if parsed is not None:
            levels[row] = parsed
    return levels


def answers_to_forecast(
    texts: Sequence[Sequence[str]], context: Context, *, horizon: int, form: AnswerForm
) -> Forecast:
    """Answers [B][S] to sample paths; one that is not exactly `horizon` numbers in the form is invalid."""
    levels = parse_all([text for row in texts for text in row], horizon=horizon, form=form)
    levels = levels.reshape(len(context), -1, horizon)  # [B, S, H]
    # [B, 1, 1] against [B, S, H]
    volatility = context.feature("volatility")[:, None, None]
    samples = to_prices(levels, context.last_price[:, None, None], volatility)
    # In a window of enormous volatility an accepted level can still overflow to an infinite price or vanish to 0, of
    # which no return can be taken.
    valid = np.asarray(np.isfinite(samples).all(-1) & (samples > 0).all(-1))
    samples[~valid] = np.nan
    return Forecast(samples=samples, valid=valid, texts=tuple(map(tuple, texts)))


def _integers(levels: np.ndarray) -> list[str]:
    return [str(number) for number in np.rint(levels).astype(int)]
