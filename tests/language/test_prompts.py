from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.embedded.tokenizer import build_tokenizer
from grpo.language.prompts import (
    INSTRUCTIONS,
    answer_pattern,
    parse_answer,
    parse_answers,
    prompt_numbers,
    render_answer,
    render_prompts,
    to_levels,
    to_prices,
)
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


GOLDEN_BODY = """\
closes 447 453 458 464 469 474 480 485 490 495 500 505 510 515 520 524 529 534 538 543 548 552 557 561 566 \
570 574 579 583 500
sma 511 ema -199 mom -25 rsi 55 macd 5 willr 1 cci 1 adx 1 bbands -199 -199 -199 stoch 1 1
min -199 day 1 max -199 day 1 mean -199 median -199 day 1 trend 5 lags 1 100 1 100 1 100 volatility 200
past mean -199 sd 500 ar1 987 volatility 999 drift 999
next 10"""


@pytest.mark.parametrize("style", ["direct", "reasoning"])
def test_golden_prompt(style):
    # sma 102.2: 500 + 10 ln(1.022) / .02 = 510.88; mom -5: 10 (-5/100) / .02 = -25; past_ar1 .987 in thousandths
    context = flat_context(sma=102.2, mom=-5.0, rsi=55.4, past_ar1=0.987)
    [[message]] = render_prompts(context, horizon=HORIZON, style=style)
    assert message == {"role": "user", "content": INSTRUCTIONS[style].format(horizon=10) + "\n" + GOLDEN_BODY}


def test_the_reasoning_style_asks_for_tags():
    text = INSTRUCTIONS["reasoning"]
    assert all(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>"))


NOT_IN_PROMPT = {
    *("norm_mean", "norm_std", "macd_signal", "macd_histogram", "trend_r2", "trend_direction"),
    *("ewma_volatility", "yang_zhang_volatility"),
}


@pytest.mark.parametrize("name", [name for name in FEATURES if name not in NOT_IN_PROMPT])
def test_every_feature_reaches_the_prompt(name):
    low, high = (0.01, 0.03) if name == "volatility" else (0.5, 0.9)
    if name in ("sma", "ema", "min", "max", "mean", "median", "past_mean") or name.startswith("bbands"):
        low, high = 95.0, 105.0
    if name in ("past_std", "past_volatility", "past_drift"):
        low, high = 0.01, 0.02
    if name in ("rsi", "willr", "cci", "adx", "stoch_k", "stoch_d") or name.endswith("timestep"):
        low, high = 20.0, 40.0
    if name.startswith("top_lag") and not name.endswith("correlation"):
        low, high = 2.0, 5.0
    if name in ("mom", "macd", "trend"):
        low, high = -3.0, 3.0
    prompts = [render_prompts(flat_context(**{name: v}), horizon=10, style="direct") for v in (low, high)]
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
    assert render_prompts(context, horizon=10, style="direct") == render_prompts(scaled, horizon=10, style="direct")


PRICES = {
    *("sma", "ema", "mom", "macd", "bbands_upper", "bbands_middle", "bbands_lower"),
    *("min", "max", "mean", "median", "trend", "norm_mean", "norm_std", "past_mean"),
}


@given(st.lists(st.integers(-199, 9999), min_size=10, max_size=10), st.sampled_from(["direct", "reasoning"]))
def test_parse_inverts_render(levels, style):
    parsed = parse_answer(
        render_answer(np.array(levels), style=style, thought="up, then down"), horizon=10, style=style
    )
    assert parsed is not None
    assert parsed.tolist() == levels


@pytest.mark.parametrize("style", ["direct", "reasoning"])
@given(data=st.data())
def test_whatever_has_the_form_of_an_answer_is_one(data, style):
    text = data.draw(st.from_regex(answer_pattern(HORIZON, style=style), fullmatch=True))
    parsed = parse_answer(text, horizon=HORIZON, style=style)
    assert parsed is not None
    assert len(parsed) == HORIZON


@pytest.mark.parametrize("style", ["direct", "reasoning"])
@given(levels=st.lists(st.integers(0, 999), min_size=HORIZON, max_size=HORIZON))
def test_every_answer_from_0_to_999_has_the_form(levels, style):
    pattern = answer_pattern(HORIZON, style=style)
    assert re.fullmatch(pattern, render_answer(np.array(levels), style=style))
    assert not re.fullmatch(pattern, render_answer(np.array(levels[1:]), style=style))


TEN = "1 2 3 4 5 6 7 8 9 10"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 2 3",
        TEN + " 11",
        "nan " + TEN[2:],
        "inf " + TEN[2:],
        "1e3 " + TEN[2:],
        "0x1 " + TEN[2:],
        "-100000 " + TEN[2:],
        "99999 " + TEN[2:],
        "prices: " + TEN,
        TEN + " [cut off]",
        TEN.replace(" ", ";"),
        "１ " + TEN[2:],
        "<answer>[" + TEN.replace(" ", ", ") + "]</answer>",
    ],
)
def test_anything_but_ten_plain_numbers_is_invalid(text):
    assert parse_answer(text, horizon=10, style="direct") is None


@pytest.mark.parametrize(
    "text",
    [
        TEN,
        "<answer>[1,2,3,4,5,6,7,8,9,10]</answer>",
        "<think>a</think><answer>[1,2]</answer>",
        "<think>a</think>" + TEN,
    ],
)
def test_the_reasoning_style_needs_its_tags(text):
    assert parse_answer(text, horizon=10, style="reasoning") is None


def test_a_template_that_opens_the_thought_itself_is_understood():
    # Some chat templates end the prompt with <think>, so that the completion starts inside the thought.
    text = "rising</think>\n<answer>[" + TEN.replace(" ", ", ") + "]</answer>"
    assert parse_answer(text, horizon=10, style="reasoning") is not None


def test_invalid_answers_are_rows_of_nan():
    levels = parse_answers([TEN, "no"], horizon=10, style="direct")
    assert levels[0].tolist() == list(range(1, 11))
    assert np.isnan(levels[1]).all()


@given(st.floats(1e-3, 1e5), st.floats(1e-4, 0.3), st.floats(-3, 3))
def test_levels_and_prices_are_inverse(last, volatility, change):
    price = np.array([last * np.exp(change)])
    back = to_prices(to_levels(price, np.array(last), np.array(volatility)), np.array(last), np.array(volatility))
    np.testing.assert_allclose(back, price, rtol=1e-9)


def test_the_last_close_is_level_500_and_a_daily_deviation_is_10_points():
    last, volatility = np.array(80.0), np.array(0.01)
    np.testing.assert_allclose(to_levels(np.array([80.0, 80 * np.exp(0.01)]), last, volatility), [500, 510])


def test_every_prompt_is_one_token_per_number_for_the_embedded_model():
    tokenizer = build_tokenizer(HORIZON)
    context = simulated_windows()["full"].context
    prompts = render_prompts(context, horizon=HORIZON, style="direct")
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
    prompt = render_prompts(simulated_windows()["val"].context, horizon=HORIZON, style="direct")
    kwargs = {"add_generation_prompt": True, "return_dict": True}
    assert loaded.apply_chat_template(prompt, **kwargs) == tokenizer.apply_chat_template(prompt, **kwargs)


def test_numbers_are_clipped_to_the_vocabulary():
    numbers = prompt_numbers(flat_context(sma=1e9, mom=-1e9))
    assert numbers["sma"] == 999
    assert numbers["mom"] == -199
