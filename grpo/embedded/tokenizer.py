"""The embedded model's tokenizer: one token per integer and per word of the prompt, printable ASCII as fallback."""

from __future__ import annotations

import re

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from grpo.language.features import HIGHEST, LOWEST
from grpo.language.prompts import INSTRUCTIONS, TEMPLATE

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    # The generation block marks the answer, for trainers that mask all else of a conversation.
    "{% generation %}{{ m['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(horizon: int) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer whose vocabulary is the prompt's own.

    The instruction of the `direct` style for this horizon is one token, so that it costs the small model nothing.
    """
    words = sorted(set(re.findall(r"[a-z]+\d?", re.sub(r"\{.*?\}", " ", TEMPLATE))) | {"closes", "next"})
    ascii_characters = [chr(code) for code in range(33, 127)]
    numbers = [str(number) for number in range(LOWEST, HIGHEST + 1)]
    entries = [PAD, UNKNOWN, USER, ASSISTANT, END, *numbers, *words]
    entries += ascii_characters + [f"##{character}" for character in ascii_characters]
    # Without duplicates, which would leave ids without a token: the digits are numbers and ASCII characters both.
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        # Completions start at the end of the prompt, so the padding of a batch stands before it.
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    instruction = INSTRUCTIONS["direct"].format(horizon=horizon)
    fast.add_tokens(AddedToken(instruction, normalized=False))
    fast.chat_template = CHAT_TEMPLATE
    return fast


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token of the vocabulary."""
    return tokenizer.get_vocab()[token]


def number_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray]:
    """Values [HIGHEST - LOWEST + 1] of the integers that are one token, ascending, and their token ids."""
    values = np.arange(LOWEST, HIGHEST + 1)
    vocabulary = tokenizer.get_vocab()
    return values, np.array([vocabulary[str(value)] for value in values])
