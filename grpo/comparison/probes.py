"""Probes of what the compared language models know by heart, as a table and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from grpo.comparison.contenders import LanguageModel
from grpo.comparison.forecasters import Forecasters
from grpo.comparison.results import Section
from grpo.evaluation.comparison import Fold
from grpo.evaluation.contamination import choose_apart, probe_warnings, recital_row, ticker_row
from grpo.evaluation.protocol import Forecaster
from grpo.models.config import EMBEDDED
from preprocessing.windows import WindowSet, concatenate

_WINDOWS = 100
"""Windows shown of the training and of the test span, at most."""
_READ_NOTHING = "the embedded model has read no text, only simulated prices"
_NOTE = (
    "Raw closes as plain text. exact next close: share of windows whose most likely continuation is the true close to "
    "the cent, and the log probability of the true close over that of its neighbours a cent away (preference; tested "
    "against 0). name of the stock: share of windows whose stock the model names, against always naming the most "
    "frequent one. Prices are adjusted, so silence proves nothing."
)


def run_probes(
    forecasters: Forecasters, models: Sequence[LanguageModel], folds: Sequence[Fold]
) -> tuple[list[Section], list[str]]:
    """Probe each language model on windows that do not overlap; the table, and what it warns of.

    Args:
        forecasters: loads them.
        models: the language models.
        folds: the first one's training windows, and all test windows.
    """
    # a model that has read no text cannot remember any
    readers = [model for model in models if model.spec.base != EMBEDDED]
    if not readers:
        return [Section("Probes", pd.DataFrame(), f"Not applicable: {_READ_NOTHING}.")], []
    rows: list[dict[str, object]] = []
    skipped = [f"{model.name}: not applicable: {_READ_NOTHING}" for model in models if model not in readers]
    spans = {"train": folds[0].train, "test": concatenate([fold.test for fold in folds])}
    spans = {span: windows.take(choose_apart(windows.context, _WINDOWS)) for span, windows in spans.items()}
    for model in readers:
        found = _probe(model.name, forecasters.forecaster(model, folds[0], seed=0), spans)
        if isinstance(found, str):
            skipped.append(f"{model.name}: {found}")
        else:
            rows += found
    forecasters.release()
    table = pd.DataFrame(rows)
    note = " ".join([*([_NOTE] if rows else []), *(f"{line}." for line in skipped)])
    return [Section("Probes", table, note)], probe_warnings(table) if rows else []


def _probe(name: str, forecaster: Forecaster, spans: Mapping[str, WindowSet]) -> list[dict[str, object]] | str:
    """The rows of one model, or why it cannot be probed."""
    from grpo.sampling.probes import ProbeError, check_reads_text, name_log_probs, recite  # brings torch

    model, tokenizer = getattr(forecaster, "model", None), getattr(forecaster, "tokenizer", None)
    if model is None:
        return "not applicable: its log probabilities are out of reach"
    try:
        check_reads_text(tokenizer)
    except ProbeError as error:
        return str(error)
    rows = [
        recital_row(name, span, recite(model, tokenizer, windows), windows.context.origin)
        for span, windows in spans.items()
    ]
    stocks = sorted(set(spans["test"].context.item_id))
    # with one stock there is nothing to choose from
    if len(stocks) > 1:
        # [B] number of each window's stock in `stocks`, which is sorted
        truth = np.searchsorted(stocks, np.array(spans["test"].context.item_id))
        rows.append(ticker_row(name, name_log_probs(model, tokenizer, spans["test"], stocks), truth))
    return rows
