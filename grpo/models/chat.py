"""The language model's chat: how a prompt is rendered to tokens, what an answer begins and ends with, how it is read.

Every stage, every sampler and TRL's trainers render with the tokenizer that `load_chat_tokenizer` gives, so the prompt
that is trained on is the prompt that is asked. Its chat template holds all that a caller could otherwise forget:

* its arguments (`prompt.chat_template_kwargs`); where a template has `enable_thinking`, that follows the prompt style;
* what stands between the template's prompt and an answer without a thought. Templates of Qwen3 and its like write an
  empty <think></think> there; where a template opens a thought (DeepSeek R1), it is closed;
* one fixed day, where a template writes today's (Llama 3): a prompt must not change overnight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from grpo.language.answers import CUT_OFF, THOUGHT_TOKENS, AnswerForm
from grpo.language.config import PromptConfig
from grpo.language.prompts import Messages, style_of
from grpo.models.adapters import ModelError
from grpo.models.loading import load_tokenizer, with_arguments
from grpo.models.spec import ModelSpec
from preprocessing.errors import UserError

_FIXED_DAY = (
    "{%- macro strftime_now(format) -%}{{ '2024-07-26' if format == '%Y-%m-%d' else '26 Jul 2024' }}{%- endmacro -%}"
)
_PROBE: Messages = [{"role": "user", "content": "closes 500"}]
_ANSWER = "495 500 505"


class PromptTooLongError(UserError):
    """A prompt and its answer do not fit into the sequence length."""


def load_chat_tokenizer(spec: ModelSpec, prompt: PromptConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, whose chat template renders prompts as every stage asks them.

    Raises:
        ModelError: it cannot be loaded, has no chat template, or one that cannot be rendered.
    """
    tokenizer = load_tokenizer(spec)
    template, thinks = str(tokenizer.get_chat_template()), style_of(prompt).form.thinks
    arguments = {"enable_thinking": thinks} if "enable_thinking" in template else {}
    template = with_arguments(template, arguments | prompt.chat_template_kwargs)
    if "strftime_now" in template:
        template = _FIXED_DAY + template
    # Assigned only where it differs: tokenizers with several named templates would lose the others.
    if template != tokenizer.get_chat_template():
        tokenizer.chat_template = template
    before = "" if thinks else _before_answer(tokenizer)
    if before:
        asked = _render(tokenizer, _PROBE)
        # json.dumps writes the text as a string that Jinja reads the same way.
        ending = f"{{% if add_generation_prompt %}}{{{{ {json.dumps(before)} }}}}{{% endif %}}"
        tokenizer.chat_template = template.removesuffix("\n") + ending
        # Rendered once more, since a template may end in a block that swallows what follows.
        if _render(tokenizer, _PROBE) != asked + before:
            raise ModelError(f"--model {spec.base}: nothing can be put behind its chat template")
    return tokenizer


def _before_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template writes between its prompt and an answer."""
    asked = _render(tokenizer, _PROBE)
    whole = _render(tokenizer, [*_PROBE, {"role": "assistant", "content": _ANSWER}], answered=True)
    # Only if the prompt stays as it is once it is answered: some templates rewrite earlier turns.
    if whole.startswith(asked) and _ANSWER in whole[len(asked) :]:
        return whole[len(asked) : whole.index(_ANSWER, len(asked))]
    return "\n</think>\n\n" if opens_thought(tokenizer) else ""


def opens_thought(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts end within a thought, so that an answer goes on with it."""
    return _render(tokenizer, _PROBE).rstrip().endswith("<think>")


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, answered: bool = False) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=not answered, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        raise ModelError(f"the model's chat template cannot be rendered: {' '.join(str(error).split())}") from error


def tokenize_prompts(prompts: Sequence[Messages], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each prompt through the chat template, ready for the model's answer.

    Raises:
        ModelError: the template cannot be rendered.
    """
    try:
        encoded: Any = tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, return_dict=True)
    except TemplateError as error:
        raise ModelError(f"the model's chat template cannot be rendered: {' '.join(str(error).split())}") from error
    return encoded["input_ids"]


def tokenize_answers(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each answer as the model is to write it after the prompt, and the token that ends it."""
    if opens_thought(tokenizer):
        # The prompt has opened the thought already.
        texts = [text.removeprefix("<think>") for text in texts]
    # No token for a beginning of text: the answer follows the prompt.
    encoded: Any = tokenizer(list(texts), add_special_tokens=False)
    return [[*ids, end_of_turn(tokenizer)] for ids in encoded["input_ids"]]


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the template puts behind an answer, or the tokenizer's own end where it puts none.

    Raises:
        ModelError: there is neither.
    """
    whole = _render(tokenizer, [*_PROBE, {"role": "assistant", "content": _ANSWER}], answered=True)
    behind = whole.rpartition(_ANSWER)[2].lstrip()
    added: dict[str, int] = cast(Any, tokenizer).get_added_vocab()  # transformers types it as an attribute
    special = [token for token in added if behind.startswith(token)]
    if special:
        # The longest, as one special token may begin with another.
        return added[max(special, key=len)]
    if tokenizer.eos_token_id is None:
        raise ModelError("the model has no end-of-sequence token, so its answers would never end")
    return cast(int, tokenizer.eos_token_id)


def end_tokens(settings: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: those of the model's generation config (or None) and the tokenizer's."""
    own = settings.eos_token_id if settings is not None else None
    ids = own if isinstance(own, list) else [own]
    # All of them: chat models often end a turn by another token than the one that their tokenizer calls the end.
    found = {token for token in [*ids, tokenizer.eos_token_id] if token is not None}
    if not found:
        raise ModelError("the model has no end-of-sequence token, so its answers would never end")
    return sorted(found)


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The pad token's id (`load_tokenizer` makes sure that there is one)."""
    assert isinstance(tokenizer.pad_token_id, int)
    return tokenizer.pad_token_id


def decode(completions: Sequence[Sequence[int]], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Answers as text; one that never ended keeps a mark that makes it invalid."""
    texts = []
    for ids in completions:
        # An answer without an end may be the first part of a longer one, even where its numbers look complete.
        ended = bool(ids) and ids[-1] in ends
        text = str(tokenizer.decode(list(ids[:-1] if ended else ids), skip_special_tokens=True))
        texts.append(text if ended else text + CUT_OFF)
    return texts


def completion_length(tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig, horizon: int) -> int:
    """Longest completion, tokens: the configured one, or what the longest accepted answer needs and a few to spare."""
    if prompt.max_completion_length is not None:
        return prompt.max_completion_length
    longest = style_of(prompt).form.longest(horizon)
    if not longest:
        return THOUGHT_TOKENS
    encoded: Any = tokenizer(longest, add_special_tokens=False)
    # Four to spare, for the end token and blanks around the numbers.
    return max(map(len, encoded["input_ids"])) + 4


def check_lengths(prompt_ids: list[list[int]], completion: int, prompt: PromptConfig) -> None:
    """Refuse prompts that leave no room for the answer.

    Raises:
        PromptTooLongError: names the longest prompt and the setting to change.
    """
    longest = max(map(len, prompt_ids))
    if longest + completion > prompt.max_seq_length:
        raise PromptTooLongError(
            f"the longest prompt has {longest} tokens and its answer may take {completion}, more than "
            f"--max-seq-length {prompt.max_seq_length}; raise it, or shorten --data.window"
        )


def check_chat(
    tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig | None, form: AnswerForm, horizon: int
) -> None:
    """Render one example, end it as stage 2 teaches to, and read it back as every stage does.

    Raises:
        ModelError: it is not read as it was meant.
    """
    end, ends = end_of_turn(tokenizer), end_tokens(settings, tokenizer)
    if end not in ends:
        name, known = tokenizer.convert_ids_to_tokens(end), tokenizer.convert_ids_to_tokens(ends)
        raise ModelError(
            f"the chat template ends an answer with {name}, which is no end token of this model ({', '.join(known)}), "
            f"so answers would never end; set eos_token to {name} in its tokenizer_config.json, or add {end} to "
            "eos_token_id in its generation_config.json"
        )
    levels = np.arange(495.0, 495 + horizon)
    [ids] = tokenize_answers([form.render(levels, "rising slowly")], tokenizer)
    [text] = decode([ids], ends, tokenizer)
    read = form.parse(text, horizon)
    if read is None or not np.array_equal(read, levels):
        raise ModelError(f"the answer that stage 2 would teach is read back as {text!r}, which is not in its style")
