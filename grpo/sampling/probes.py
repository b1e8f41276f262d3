"""What a language model knows by heart: does it go on with exact prices, does it tell whose prices they are?

Both probes show raw prices as plain text, which no forecast prompt does. The prices are adjusted closes to the cent: a
model that has read unadjusted prices of a stock with later dividends or splits remembers other figures, so silence
proves nothing, only an answer does.

Letters: B windows, L window length, K stocks, N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from grpo.evaluation.contamination import Recital
from grpo.sampling.generation import model_device
from preprocessing.errors import UserError
from preprocessing.windows import WindowSet

TICK = 0.01
"""The smallest change of price that the texts show."""
_TEXTS_PER_BATCH = 16


class ProbeError(UserError):
    """A language model that cannot be probed; the message says why."""


def check_reads_text(tokenizer: Any) -> None:
    """Refuse a tokenizer that does not know plain text.

    Raises:
        ProbeError: it loses characters of a price or a name.
    """
    text = "Daily closes: 123.45, 67.89, AAPL"
    read = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    if "".join(read.split()) != "".join(text.split()):
        raise ProbeError("not applicable: the model reads only its own alphabet, in which no price or name can be put")


def recite(model: Any, tokenizer: Any, windows: WindowSet) -> Recital:
    """Compare the log probability of each window's true next close with those a tick above and below.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: reads plain text (`check_reads_text`).
        windows: B windows; their past is shown, the first day to come is asked for.
    """
    prefixes = [f"Daily closes: {closes}," for closes in _closes(windows)]
    truth = windows.truth.future[:, 0]
    log_probs, greedy = [], np.zeros(0)
    # The neighbours are as likely as the truth by anything but memory: they have the same size and, mostly, the same
    # digits.
    for shift in (0.0, TICK, -TICK):
        continuations = [f" {price + shift:.2f}," for price in truth]
        scores, exact = _score(model, tokenizer, prefixes, continuations, title="probe: exact closes")
        log_probs.append(scores)
        greedy = exact if shift == 0 else greedy
    return Recital(exact=greedy, preference=log_probs[0] - (log_probs[1] + log_probs[2]) / 2)


def name_log_probs(model: Any, tokenizer: Any, windows: WindowSet, names: Sequence[str]) -> np.ndarray:
    """[B, K] log probability of each stock's name after the raw closes of each window.

    Args:
        model: as in `recite`.
        tokenizer: as in `recite`.
        windows: B windows.
        names: of the K stocks.
    """
    prefixes = [f"Daily closes: {closes}. Ticker symbol of this stock:" for closes in _closes(windows)]
    columns = [
        _score(model, tokenizer, prefixes, [f" {name}\n"] * len(prefixes), title=f"probe: is it {name}")[0]
        for name in names
    ]
    return np.stack(columns, axis=1)


def _closes(windows: WindowSet) -> list[str]:
    return [", ".join(f"{price:.2f}" for price in past) for past in windows.context.past[:, :, 0]]


@torch.no_grad()
def _score(
    model: Any, tokenizer: Any, prefixes: Sequence[str], continuations: Sequence[str], *, title: str
) -> tuple[np.ndarray, np.ndarray]:
    """[N] log probability of each continuation after its prefix, and whether it is the most likely at every token.

    Tokens that span the border count as the continuation's: a text is read as a whole, as the model has read texts.
    """
    device, scores, greedy = model_device(model), [], []
    for start in tqdm(range(0, len(prefixes), _TEXTS_PER_BATCH), desc=title, unit="batch", leave=False):
        batch = slice(start, start + _TEXTS_PER_BATCH)
        texts = [prefix + more for prefix, more in zip(prefixes[batch], continuations[batch], strict=True)]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        begins = [
            _common_length(tokenizer(prefix, add_special_tokens=False)["input_ids"], whole)
            for prefix, whole in zip(prefixes[batch], ids, strict=True)
        ]
        longest = max(map(len, ids))
        padded = torch.zeros((len(ids), longest), dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        logits = model(input_ids=padded.to(device), attention_mask=mask.to(device)).logits.float().cpu()  # [n, T, V]
        for row, (tokens, begin) in enumerate(zip(ids, begins, strict=True)):
            # The logits at a position are for the token after it. Padding is on the right, where a causal model does
            # not look.
            steps = torch.log_softmax(logits[row, begin - 1 : len(tokens) - 1], dim=-1)
            target = torch.tensor(tokens[begin:])
            scores.append(float(steps.gather(1, target[:, None]).sum()))
            greedy.append(bool((steps.argmax(-1) == target).all()))
    return np.array(scores), np.array(greedy)


def _common_length(prefix: Sequence[int], whole: Sequence[int]) -> int:
    """Tokens that the whole text shares with its prefix, at least one, so that something comes before the first."""
    same = next((i for i, (a, b) in enumerate(zip(prefix, whole, strict=False)) if a != b), len(prefix))
    return max(1, same)
