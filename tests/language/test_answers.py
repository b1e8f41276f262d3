from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.language.answers import MAX_DISTANCE, Numbers, ThoughtAndNumbers, parse_all

HORIZON = 10
FORMS = {"direct": Numbers(), "reasoning": ThoughtAndNumbers()}


@given(st.lists(st.integers(-199, 1199), min_size=10, max_size=10), st.sampled_from(["direct", "reasoning"]))
def test_parse_inverts_render(levels, style):
    parsed = FORMS[style].parse(FORMS[style].render(np.array(levels), "up, then down"), 10)
    assert parsed is not None
    assert parsed.tolist() == levels


@pytest.mark.parametrize("style", ["direct", "reasoning"])
@given(data=st.data())
def test_whatever_has_the_form_of_an_answer_is_one(data, style):
    text = data.draw(st.from_regex(FORMS[style].pattern(HORIZON), fullmatch=True))
    parsed = FORMS[style].parse(text, HORIZON)
    assert parsed is not None
    assert len(parsed) == HORIZON


@pytest.mark.parametrize("style", ["direct", "reasoning"])
@given(levels=st.lists(st.integers(0, 999), min_size=HORIZON, max_size=HORIZON))
def test_every_answer_from_0_to_999_has_the_form(levels, style):
    pattern = FORMS[style].pattern(HORIZON)
    assert re.fullmatch(pattern, FORMS[style].render(np.array(levels)))
    assert not re.fullmatch(pattern, FORMS[style].render(np.array(levels[1:])))


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
    assert FORMS["direct"].parse(text, 10) is None


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
    assert FORMS["reasoning"].parse(text, 10) is None


def test_a_template_that_opens_the_thought_itself_is_understood():
    # Some chat templates end the prompt with <think>, so that the completion starts inside the thought.
    text = "rising</think>\n<answer>[" + TEN.replace(" ", ", ") + "]</answer>"
    assert FORMS["reasoning"].parse(text, 10) is not None


def test_invalid_answers_are_rows_of_nan():
    levels = parse_all([TEN, "no"], horizon=10, form=Numbers())
    assert levels[0].tolist() == list(range(1, 11))
    assert np.isnan(levels[1]).all()


@pytest.mark.parametrize("form", FORMS.values())
def test_an_answer_no_market_has_ever_given_is_no_forecast(form):
    def far(distance):
        return form.render(np.array([500.0] * 9 + [500 + distance]))

    assert MAX_DISTANCE > 451, "the widest ten-day future of 88 stocks lies 450.7 points from its last close"
    for side in (-1, 1):
        assert form.parse(far(side * MAX_DISTANCE), 10) is not None
        assert form.parse(far(side * (MAX_DISTANCE + 1)), 10) is None


def test_the_longest_answers_cover_every_separator_that_is_taken():
    form = Numbers()
    longest = form.longest(3)
    assert {"-200, -200, -200", "1200,1200,1200", "999 999 999"} <= set(longest)
    assert all(form.parse(text, 3) is not None for text in longest)
    assert Numbers(may_use_commas=False).longest(3) == ["999 999 999"]
    assert ThoughtAndNumbers().longest(3) == []
