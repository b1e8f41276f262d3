"""A language model's answers to a forecast, wherever it runs. No torch.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grpo.evaluation.protocol import Forecast
from grpo.language.prompts import Style, parse_answers, to_prices
from preprocessing.windows import Context

CUT_OFF = " [cut off]"
"""Mark of an answer that never ended; no style has it, so the answer is invalid."""


def answers_to_forecast(texts: Sequence[Sequence[str]], context: Context, *, horizon: int, style: Style) -> Forecast:
    """Answers [B][S] to sample paths; one that is not exactly `horizon` numbers in the style is invalid."""
    levels = parse_answers([text for row in texts for text in row], horizon=horizon, style=style)
    levels = levels.reshape(len(context), -1, horizon)  # [B, S, H]
    volatility = context.feature("volatility")[:, None, None]
    samples = to_prices(levels, context.last_price[:, None, None], volatility)
    valid = np.asarray(np.isfinite(samples).all(-1) & (samples > 0).all(-1))
    samples[~valid] = np.nan
    return Forecast(samples=samples, valid=valid, texts=tuple(map(tuple, texts)))
