from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from grpo.embedded.tokenizer import build_tokenizer
from grpo.evaluation.plugins import PluginError
from grpo.evaluation.source_code import source_hash
from grpo.language.answers import Numbers
from grpo.language.config import PromptConfig
from grpo.language.features import prompt_numbers
from grpo.language.prompts import INSTRUCTIONS, STYLES, PromptStyle, find_style, style_of
from preprocessing.errors import UserError
from preprocessing.windows import FEATURES, Context
from tests.windows_factory import simulated_windows

HORIZON = 10


def flat_context(**features: float) -> Context:
    """One window: closes 90, 91, ..., 119 and a last close of 100, every feature 1 unless given."""
    past = np.append(np.arange(90.0, 119.0), 100.0)
    values = dict.fromkeys(FEATURES, 1.0) | {"volatility": 0.02} | features
    return Context(
        item_id=("ACME",),
        origin=np.array(["2020-01-02"], dtype="datetime64[ns]"),
        past=past[None, :, None],
        features=np.array([[values[name] for name in FEATURES]]),
    )


def shown(text: str) -> PromptStyle:
    return PromptStyle(template=f"{text} next {{horizon}}", form=Numbers())


GOLDEN_BODY = """\
closes 447 453 458 464 469 474 480 485 490 495 500 505 510 515 520 524 529 534 538 543 548 552 557 561 566 \
570 574 579 583 500
sma 511 ema -199 mom -25 rsi 55 macd 5 willr 1 cci 1 adx 1 bbands -199 -199 -199 stoch 1 1
min -199 day 1 max -199 day 1 mean -199 median -199 day 1 trend 5 lags 1 100 1 100 1 100 volatility 200
past mean -199 sd 500 ar1 987 volatility 999 drift 999
next 10"""


@pytest.mark.parametrize("style", list(STYLES))
def test_golden_prompt(style):
    # sma 102.2: 500 + 10 ln(1.022) / .02 = 510.88; mom -5: 10 (-5/100) / .02 = -25; past_ar1 .987 in thousandths
    context = flat_context(sma=102.2, mom=-5.0, rsi=55.4, past_ar1=0.987)
    [[message]] = STYLES[style].render(context, HORIZON)
    assert message == {"role": "user", "content": INSTRUCTIONS[style].format(horizon=10) + "\n" + GOLDEN_BODY}


def test_the_reasoning_style_asks_for_tags():
    text = INSTRUCTIONS["reasoning"]
    assert all(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>"))


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_can_be_shown(name):
    low, high = (0.01, 0.03) if name == "volatility" else (0.5, 0.9)
    if name in ("sma", "ema", "min", "max", "mean", "median", "past_mean", "norm_mean") or name.startswith("bbands"):
        low, high = 95.0, 105.0
    if name in ("past_std", "past_volatility", "past_drift", "ewma_volatility", "yang_zhang_volatility"):
        low, high = 0.01, 0.02
    if name in ("rsi", "willr", "cci", "adx", "stoch_k", "stoch_d") or name.endswith("timestep"):
        low, high = 20.0, 40.0
    if name.startswith("top_lag") and not name.endswith("correlation"):
        low, high = 2.0, 5.0
    if name in ("mom", "macd", "trend", "macd_signal", "macd_histogram", "norm_std"):
        low, high = -3.0, 3.0
    if name == "trend_direction":
        low, high = -1.0, 1.0
    style = STYLES["direct"] if f"{{{name}}}" in STYLES["direct"].template else shown(f"{{{name}}}")
    prompts = [style.render(flat_context(**{name: v}), 10) for v in (low, high)]
    assert prompts[0] != prompts[1]


def test_no_ticker_date_or_price_level_leaks():
    context = simulated_windows()["train"].context.take(np.arange(5))
    scaled = dataclasses.replace(
        context,
        item_id=("OTHER",) * 5,
        origin=context.origin + np.timedelta64(900, "D"),
        past=context.past * 37.5,
        features=context.features * np.array([37.5 if name in PRICES else 1.0 for name in FEATURES]),
    )
    assert STYLES["direct"].render(context, 10) == STYLES["direct"].render(scaled, 10)


PRICES = {
    *("sma", "ema", "mom", "macd", "bbands_upper", "bbands_middle", "bbands_lower"),
    *("min", "max", "mean", "median", "trend", "norm_mean", "norm_std", "past_mean"),
}


def test_every_prompt_is_one_token_per_number_for_the_embedded_model():
    tokenizer = build_tokenizer(HORIZON)
    context = simulated_windows()["full"].context
    prompts = STYLES["direct"].render(context, HORIZON)
    ids = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert {len(row) for row in ids} == {95}
    assert not any(tokenizer.unk_token_id in row for row in ids)
    fallback = {i for token, i in tokenizer.get_vocab().items() if token.startswith("##")}
    assert not any(fallback & set(row) for row in ids)
    answer = "500 -3 12 999 0 1 2 3 4 5"
    assert tokenizer.decode(tokenizer(answer)["input_ids"]) == answer


def test_the_tokenizer_survives_saving(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer(HORIZON)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    prompt = STYLES["direct"].render(simulated_windows()["val"].context, HORIZON)
    kwargs = {"add_generation_prompt": True, "return_dict": True}
    assert loaded.apply_chat_template(prompt, **kwargs) == tokenizer.apply_chat_template(prompt, **kwargs)


def test_numbers_are_clipped_to_the_vocabulary():
    numbers = prompt_numbers(flat_context(sma=1e9, mom=-1e9))
    assert numbers["sma"] == 999
    assert numbers["mom"] == -199


def text_of(style: PromptStyle) -> str:
    [[message]] = style.render(flat_context(sma=102.2, rsi=55.4), HORIZON)
    return message["content"]


def test_the_text_of_the_message_may_come_from_a_file(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("rsi {rsi}, sma {sma}; {{braces}}; {horizon} days\n")
    prompt = PromptConfig(style="reasoning", template=str(file))
    assert text_of(style_of(prompt)) == "rsi 55, sma 511; {braces}; 10 days"
    assert style_of(prompt).form == STYLES["reasoning"].form
    file.unlink()
    assert text_of(style_of(PromptConfig(template=prompt.template))) == "rsi 55, sma 511; {braces}; 10 days"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{horizon} days, rsi {rsy}", "prompt.template names {rsy}; there are horizon, closes, sma, "),
        ("{horizon} {rsi.real}", "names {rsi.real}"),
        ("rsi {rsi}", "has no {horizon}"),
        ("{horizon} days {", "a brace that is meant as such is written twice"),
        ("no field at all", "there is no file no field at all"),
    ],
)
def test_a_text_that_cannot_be_filled_in_is_one_line(text, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        PromptConfig(template=text)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_field_is_named(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("forecast")
    with pytest.raises(UserError, match=r"mine\.txt has no {horizon}"):
        PromptConfig(template=str(file))


OWN = """
from grpo.language.answers import Numbers
from grpo.language.prompts import PromptStyle

short = PromptStyle(template="{closes}, {horizon} more", form=Numbers())
text = "{closes}"
"""


def test_a_style_may_come_from_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    style = find_style(f"{file}:short")
    assert text_of(style).endswith("583 500, 10 more")
    assert style.source == source_hash(file=file)
    with pytest.raises(PluginError, match="is a str, not a PromptStyle"):
        find_style(f"{file}:text")
    with pytest.raises(PluginError, match="there is no prompt style 'poem'; there are direct, reasoning, spaced"):
        find_style("poem")
    file.write_text(OWN.replace("{horizon}", "ten"))
    with pytest.raises(PluginError, match=r"mine\.py:short': prompt\.template has no {horizon}"):
        find_style(f"{file}:short")


def test_without_a_style_the_embedded_model_gets_its_own_wording():
    assert PromptConfig().for_model(embedded=True).style == "direct"
    assert PromptConfig().for_model(embedded=False).style == "spaced"
    assert PromptConfig(style="direct").for_model(embedded=False).style == "direct"
    assert "separated by single spaces" in INSTRUCTIONS["spaced"]
