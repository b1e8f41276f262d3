"""What stage 2 teaches is what inference asks for and what is read, with the chat templates that TRL ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trl
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grpo.language.config import PromptConfig
from grpo.language.prompts import STYLES, style_of
from grpo.models.adapters import ModelError
from grpo.models.chat import (
    check_chat,
    completion_length,
    decode,
    end_of_turn,
    end_tokens,
    load_chat_tokenizer,
    tokenize_answers,
    tokenize_prompts,
)
from grpo.models.loading import load_generation_config, position_limit
from grpo.models.spec import ModelSpec
from tests.tiny_models import byte_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
ENDS = {
    "qwen2_5": "<|im_end|>", "qwen3": "<|im_end|>", "qwen3_5_think": "<|im_end|>", "qwen3_instruct_2507": "<|im_end|>",
    "llama3": "<|eot_id|>", "llama3_2": "<|eot_id|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>",
    "phi3": "<|end|>", "deepseek_r1_distill": "<｜end▁of▁sentence｜>", "glm4moe": "<|user|>", "gptoss": "<|return|>",
}  # fmt: skip
PROMPT = [{"role": "user", "content": "closes 500\nnext 10"}]
LEVELS = np.arange(495.0, 505.0)


def save_chat_model(folder: Path, template: str, *, eos: str | None = None, positions: int = 4096) -> ModelSpec:
    """A tiny random Llama over bytes with a chat template of TRL's."""
    end = ENDS[template]
    specials = list(dict.fromkeys(["<pad>", "<bos>", eos or end, end, "<think>", "</think>"]))
    vocabulary = {text: number for number, text in enumerate([*specials, *sorted(ByteLevel.alphabet())])}
    model = Tokenizer(BPE(vocabulary, []))
    model.pre_tokenizer, model.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<bos>", eos_token=eos or end
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [end]})
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=positions, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelSpec(base=str(folder))


@pytest.mark.parametrize("style", ["spaced", "reasoning"])
@pytest.mark.parametrize("template", list(ENDS))
def test_what_is_taught_is_read_as_it_was_meant(template, style, tmp_path):
    prompt = PromptConfig(style=style)
    spec, form = save_chat_model(tmp_path, template), style_of(prompt).form
    tokenizer = load_chat_tokenizer(spec, prompt)
    settings = load_generation_config(spec.base)
    check_chat(tokenizer, settings, form, 10)
    [asked], [taught] = tokenize_prompts([PROMPT], tokenizer), tokenize_answers([form.render(LEVELS, "up")], tokenizer)
    [read] = decode([taught], end_tokens(settings, tokenizer), tokenizer)
    assert form.parse(read, 10).tolist() == LEVELS.tolist()
    shown = tokenizer.decode(asked) + tokenizer.decode(taught)
    assert shown.count("<think>") == shown.count("</think>")  # no thought within a thought, none left open
    if style == "spaced":
        assert tokenizer.decode(taught[:-1]) == "495 496 497 498 499 500 501 502 503 504"
        assert "<think>" not in tokenizer.decode(taught)
    else:
        assert "up</think><answer>[495, 496" in shown


ASKED = {
    "qwen2_5": "<|im_start|>assistant\n",
    "qwen3": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "qwen3_5_think": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "deepseek_r1_distill": "<｜Assistant｜><think>\n\n</think>\n\n",
    "gptoss": "<|start|>assistant<|channel|>final<|message|>",
    "glm4moe": "/nothink<|assistant|>\n<think></think>\n",
}


@pytest.mark.parametrize("template", list(ASKED))
def test_an_answer_without_a_thought_begins_where_the_template_puts_it(template, tmp_path):
    tokenizer = load_chat_tokenizer(save_chat_model(tmp_path, template), PromptConfig(style="spaced"))
    [asked] = tokenize_prompts([PROMPT], tokenizer)
    assert tokenizer.decode(asked).endswith(ASKED[template])


def test_the_templates_arguments_reach_every_reader(tmp_path):
    spec = save_chat_model(tmp_path, "qwen3")
    prompt = PromptConfig(style="reasoning", chat_template_kwargs={"enable_thinking": False})
    [asked] = tokenize_prompts([PROMPT], load_chat_tokenizer(spec, prompt))
    tokenizer = load_chat_tokenizer(spec, PromptConfig(style="reasoning"))
    [plain] = tokenize_prompts([PROMPT], tokenizer)
    assert tokenizer.decode(asked) == tokenizer.decode(plain) + "<think>\n\n</think>\n\n"


def test_no_prompt_tells_the_day(tmp_path):
    tokenizer = load_chat_tokenizer(save_chat_model(tmp_path, "llama3_2"), PromptConfig(style="spaced"))
    [asked] = tokenize_prompts([PROMPT], tokenizer)
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(asked)


def test_the_embedded_model_is_asked_as_its_own_template_asks():
    tokenizer = load_chat_tokenizer(ModelSpec(), PromptConfig())
    whole = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": "1 2"}], return_dict=True)
    assert tokenize_prompts([PROMPT], tokenizer)[0] + tokenize_answers(["1 2"], tokenizer)[0] == whole["input_ids"]


def test_an_end_of_turn_that_ends_nothing_is_named(tmp_path):
    spec = save_chat_model(tmp_path, "qwen2_5", eos="<|endoftext|>")
    tokenizer = load_chat_tokenizer(spec, PromptConfig(style="spaced"))
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == "<|im_end|>"
    with pytest.raises(ModelError, match=r"ends an answer with <\|im_end\|>, which is no end token.*<\|endoftext\|>"):
        check_chat(tokenizer, load_generation_config(spec.base), STYLES["spaced"].form, 10)


@pytest.mark.parametrize("separator", [" ", ", ", ","])
@pytest.mark.parametrize("number", ["-200", "999", "1200"])
def test_every_answer_that_is_read_has_room(number, separator):
    tokenizer, text = byte_tokenizer(), separator.join([number] * 10)
    prompt = PromptConfig(style="spaced")
    assert style_of(prompt).form.parse(text, 10) is not None
    assert completion_length(tokenizer, prompt, 10) > len(tokenizer(text)["input_ids"])


def test_the_positions_of_a_model_are_known(tmp_path):
    assert position_limit(save_chat_model(tmp_path, "qwen2_5", positions=512)) == 512
