"""The language model as a forecaster, on the embedded model and on tiny ones."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from grpo.evaluation.protocol import Forecaster
from grpo.language.config import PromptConfig
from grpo.language.prompts import STYLES
from grpo.models.chat import (
    PromptTooLongError,
    check_lengths,
    completion_length,
    decode,
    end_tokens,
    tokenize_prompts,
)
from grpo.models.loading import load_tokenizer
from grpo.models.spec import ModelSpec
from grpo.sampling import forecaster as forecaster_module
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import (
    LLMForecaster,
    VllmForecaster,
    load_llm_forecaster,
)
from preprocessing.errors import UserError
from tests.tiny_models import tiny_model
from tests.windows_factory import simulated_windows

CONTEXT = simulated_windows()["test"].context.take(np.arange(6))


@pytest.fixture(scope="module")
def embedded() -> LLMForecaster:
    return load_llm_forecaster(ModelSpec(), PromptConfig(), GenerationConfig(), name="base")


def predict(forecaster: LLMForecaster, *, seed: int = 0, num_samples: int = 8):
    return forecaster.predict(CONTEXT, horizon=10, num_samples=num_samples, seed=seed)


def with_generation(forecaster: LLMForecaster, **settings) -> LLMForecaster:
    return LLMForecaster(
        forecaster.name, forecaster.model, forecaster.tokenizer, forecaster.prompt, GenerationConfig(**settings)
    )


def test_the_embedded_model_cannot_be_held_to_a_form():
    generation = GenerationConfig(backend="vllm", structured="regex")
    with pytest.raises(UserError, match=r"one token per number.*take generation\.structured none"):
        load_llm_forecaster(ModelSpec(), PromptConfig(), generation, name="base")


def test_an_answer_that_is_held_to_its_form_has_room_for_any_split_of_its_digits():
    for structured, longest in (("none", 14), ("regex", 40)):  # ten numbers of one token, or of three, and what follows
        generation = GenerationConfig(backend="vllm", structured=structured)
        forecaster = VllmForecaster("x", SimpleNamespace(), ModelSpec(), PromptConfig(), generation)
        assert forecaster._longest_answer(10) == longest


def test_it_is_a_forecaster(embedded):
    assert isinstance(embedded, Forecaster)
    assert embedded.name == "base"


def test_the_seed_alone_decides_the_samples(embedded):
    torch.manual_seed(5)
    first = predict(embedded, seed=3)
    state = torch.get_rng_state()
    again = predict(embedded, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "sampling must not touch the global random state"
    assert np.array_equal(first.samples, again.samples, equal_nan=True)
    assert first.texts == again.texts
    assert not np.array_equal(first.samples, predict(embedded, seed=4).samples, equal_nan=True)


def test_samples_are_positive_prices_of_the_right_shape(embedded):
    forecast = predict(embedded)
    assert forecast.samples.shape == (6, 8, 10)
    assert forecast.valid.mean() > 0.9
    assert (forecast.samples[forecast.valid] > 0).all()
    moves = np.log(forecast.samples / CONTEXT.last_price[:, None, None])
    assert np.nanmax(np.abs(moves)) < 1


def test_samples_are_nan_exactly_where_the_answer_is_invalid(embedded, monkeypatch):
    texts = [["500 " * 10, "510 " * 9, "nan " * 10, "520 " * 10 + "[cut off]"]] * 6
    monkeypatch.setattr(embedded, "sample_texts", lambda *args, **kwargs: texts)
    forecast = predict(embedded, num_samples=4)
    assert forecast.valid.tolist() == [[True, False, False, False]] * 6
    np.testing.assert_allclose(forecast.samples[:, 0], np.repeat(CONTEXT.last_price[:, None], 10, axis=1))
    assert np.isnan(forecast.samples[:, 1:]).all()
    assert forecast.texts == tuple(map(tuple, texts))


def test_an_answer_that_never_ends_is_invalid(embedded):
    endless = LLMForecaster(
        "endless",
        embedded.model,
        embedded.tokenizer,
        dataclasses.replace(embedded.prompt, max_completion_length=10),  # ten numbers, and no room for the end
        embedded.generation,
    )
    forecast = predict(endless)
    assert not forecast.valid.any()
    assert all(text.endswith("[cut off]") for row in forecast.texts or () for text in row)


def test_greedy_answers_do_not_depend_on_the_batch(embedded, monkeypatch):
    sample = forecaster_module.sample_completions
    monkeypatch.setattr(
        forecaster_module, "sample_completions", lambda *args, **kwargs: sample(*args, **kwargs, temperature=0)
    )
    sizes = {rows: predict(with_generation(embedded, rows_per_batch=rows), num_samples=2) for rows in (1, 4, 1024)}
    assert sizes[1].texts == sizes[4].texts == sizes[1024].texts
    for row in sizes[1].texts or ():
        assert row[0] == row[1]


def test_predictions_of_one_law_whatever_the_batch(embedded):
    """Means over 100 samples agree within four standard errors; windows that traded places would not."""
    small, large = (
        predict(with_generation(embedded, rows_per_batch=rows), num_samples=100).samples for rows in (100, 600)
    )
    error = np.sqrt(2 / 100) * np.nanstd(large, axis=1)
    assert (np.abs(np.nanmean(small, axis=1) - np.nanmean(large, axis=1)) < 4 * error).all()
    assert not np.array_equal(small, large, equal_nan=True)


def test_a_saved_forecaster_loads_and_predicts_the_same(embedded, tmp_path):
    embedded.save(tmp_path / "again")
    loaded = load_llm_forecaster(
        ModelSpec(base=str(tmp_path / "again")), PromptConfig(), GenerationConfig(), name="again"
    )
    assert np.array_equal(predict(loaded).samples, predict(embedded).samples, equal_nan=True)


def test_training_mode_is_given_back(embedded):
    model, tokenizer = tiny_model("llama")
    policy = LLMForecaster("policy", model.train(), tokenizer, PromptConfig(), GenerationConfig())
    predict(policy, num_samples=2)
    assert model.training


def test_a_long_prompt_is_refused():
    with pytest.raises(PromptTooLongError, match="8 tokens and its answer may take 5, more than --max-seq-length 12"):
        check_lengths([[1] * 8, [1] * 3], 5, PromptConfig(max_seq_length=12))
    check_lengths([[1] * 8, [1] * 3], 4, PromptConfig(max_seq_length=12))


def test_an_answer_has_room_for_its_numbers_and_an_end():
    tokenizer = load_tokenizer(ModelSpec())
    assert completion_length(tokenizer, PromptConfig(), 10) >= 11
    assert completion_length(tokenizer, PromptConfig(style="reasoning"), 10) == 512
    assert completion_length(tokenizer, PromptConfig(max_completion_length=7), 10) == 7


def test_prompts_end_where_the_answer_begins():
    tokenizer = load_tokenizer(ModelSpec())
    prompts = tokenize_prompts(STYLES["direct"].render(CONTEXT, 10), tokenizer)
    assert {tokenizer.decode(ids[-1:]) for ids in prompts} == {"<|assistant|>"}


def test_the_end_tokens_of_model_and_tokenizer_both_end_an_answer():
    model, tokenizer = tiny_model("llama")
    model.generation_config.eos_token_id = [7, 9]
    assert end_tokens(None, tokenizer) == [tokenizer.eos_token_id]
    assert end_tokens(model.generation_config, tokenizer) == sorted([7, 9, tokenizer.eos_token_id])


def test_decoding_marks_what_was_cut_off():
    _, tokenizer = tiny_model("llama")
    numbers = tokenizer("500 -3", add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    completions = [[*numbers, end], [*numbers, *numbers]]
    assert decode(completions, [end], tokenizer) == ["500 -3", "500 -3 500 -3 [cut off]"]
