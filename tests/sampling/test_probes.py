"""The probes find a model that has learnt a series by heart, and acquit one that has not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from grpo.evaluation.contamination import choose_apart, recital_row, ticker_row
from grpo.sampling.probes import ProbeError, check_reads_text, name_log_probs, recite
from preprocessing.windows import FEATURES, Context, Truth, WindowSet

NAMES = ["AA", "BB"]
DAYS, SEEN = 70, 6


ASCII = "".join(map(chr, range(32, 127))) + "\n"


def character_tokenizer(alphabet: str = ASCII) -> PreTrainedTokenizerFast:
    """One token per character; any other reads as the last one of the alphabet."""
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(alphabet)}, unk_token=alphabet[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def price_series() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: np.round(50 * np.exp(0.02 * rng.standard_normal(DAYS).cumsum()), 2) for name in NAMES}


def windows_of(series: dict[str, np.ndarray]) -> WindowSet:
    """Every window of SEEN closes and the next one, both stocks."""
    origins = np.arange(SEEN - 1, DAYS - 1)
    days = np.datetime64("2020-01-01", "ns") + np.arange(DAYS).astype("timedelta64[D]")
    past = [closes[origin - SEEN + 1 : origin + 1] for closes in series.values() for origin in origins]
    future = [closes[origin + 1 : origin + 2] for closes in series.values() for origin in origins]
    count = len(past)
    return WindowSet(
        context=Context(
            item_id=tuple(name for name in series for _ in origins),
            origin=np.tile(days[origins], len(series)),
            past=np.array(past)[:, :, None],
            features=np.zeros((count, len(FEATURES))),
        ),
        truth=Truth(future=np.array(future), dates=np.tile(days[origins + 1], len(series))[:, None]),
    )


def tiny_model(vocabulary: int) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer()


@pytest.fixture(scope="module")
def memorised(tokenizer):
    """A model that has read both series, each with its name, until it knew them."""
    model, series = tiny_model(len(tokenizer)).train(), price_series()
    windows = windows_of(series)
    texts = []
    for row in range(len(windows)):
        closes = ", ".join(f"{price:.2f}" for price in windows.context.past[row, :, 0])
        texts.append(f"Daily closes: {closes}, {windows.truth.future[row, 0]:.2f},")
        texts.append(f"Daily closes: {closes}. Ticker symbol of this stock: {windows.context.item_id[row]}\n")
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
    for row, text in enumerate(texts):  # of the texts that end with a name, the name alone
        if text.endswith("\n"):
            labels[row, : len(text) - len("AA\n")] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    rng, recent = torch.Generator().manual_seed(0), 1.0
    while recent > 0.1:  # a fixed number of steps is enough on one processor and not on another
        rows = torch.randperm(len(texts), generator=rng)[:32]
        loss = model(input_ids=padded[rows], labels=labels[rows]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        recent = 0.9 * recent + 0.1 * loss.item()
    return model.eval()


def test_a_model_that_knows_the_series_recites_it(memorised, tokenizer):
    windows = windows_of(price_series())
    recital = recite(memorised, tokenizer, windows)
    row = recital_row("base", "train", recital, windows.context.origin)
    assert row["found"] > 0.3
    assert row["p_value"] < 1e-6


def test_a_model_that_has_read_nothing_does_not(tokenizer):
    windows = windows_of(price_series())
    recital = recite(tiny_model(len(tokenizer)), tokenizer, windows)
    row = recital_row("base", "train", recital, windows.context.origin)
    assert row["found"] == 0
    assert row["p_value"] > 0.01


def test_a_model_that_knows_the_series_names_the_stock(memorised, tokenizer):
    windows = windows_of(price_series())
    windows = windows.take(choose_apart(windows.context, 100))
    truth = np.array([NAMES.index(item) for item in windows.context.item_id])
    known = ticker_row("base", name_log_probs(memorised, tokenizer, windows, NAMES), truth)
    blank = ticker_row("base", name_log_probs(tiny_model(len(tokenizer)), tokenizer, windows, NAMES), truth)
    assert known["found"] >= 0.9
    assert known["p_value"] < 0.02
    assert blank["p_value"] > 0.05


def test_the_log_probabilities_are_those_of_one_text_at_a_time(memorised, tokenizer):
    windows = windows_of(price_series()).take(np.array([3, 40]))
    table = name_log_probs(memorised, tokenizer, windows, NAMES)
    for row in range(2):
        closes = ", ".join(f"{price:.2f}" for price in windows.context.past[row, :, 0])
        prefix = f"Daily closes: {closes}. Ticker symbol of this stock:"
        ids = torch.tensor([tokenizer(f"{prefix} BB\n")["input_ids"]])
        steps = torch.log_softmax(memorised(input_ids=ids).logits[0].detach(), dim=-1)
        expected = sum(float(steps[i - 1, ids[0, i]]) for i in range(len(prefix), ids.shape[1]))
        assert table[row, 1] == pytest.approx(expected, abs=1e-4)


def test_windows_apart_share_no_day_of_a_stock():
    context = windows_of(price_series()).context
    chosen = context.take(choose_apart(context, 100))
    for name in NAMES:
        origins = chosen.origin[np.array(chosen.item_id) == name]
        assert len(origins) >= 3
        assert (np.diff(origins) > np.timedelta64(SEEN, "D")).all()


def test_a_model_with_an_alphabet_of_its_own_cannot_be_probed(tokenizer):
    check_reads_text(tokenizer)
    with pytest.raises(ProbeError, match="not applicable: the model reads only its own alphabet"):
        check_reads_text(character_tokenizer("0123456789 ,"))
