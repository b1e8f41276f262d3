"""A tiny build from nothing, and what the model in the package can do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from baselines.statistical.naive import RandomWalk, RandomWalkConfig
from grpo.embedded import build
from grpo.embedded.build import BuildConfig, build_model, encode, train
from grpo.embedded.corpus import simulate_examples
from grpo.embedded.tokenizer import build_tokenizer, number_tokens
from grpo.evaluation.metrics import score_windows, summarise
from grpo.language.config import PromptConfig
from grpo.models.adapters import EMBEDDED_FOLDER
from grpo.models.spec import ModelSpec
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import load_llm_forecaster
from preprocessing.combined_preprocessor import DataConfig
from tests.windows_factory import simulated_windows

TINY = {
    "batch_size": 8,
    "examples": 8 * 60,
    "hidden_size": 32,
    "layers": 1,
    "heads": 2,
    "feed_forward": 48,
    "per_series": 32,
}


def test_examples_become_prompts_of_one_length_and_one_token_per_number():
    tokenizer = build_tokenizer(10)
    examples = simulate_examples(np.random.default_rng(0), per_series=6, config=DataConfig())
    ids = encode(examples, tokenizer)
    assert ids.shape == (6, 95 + 10)
    for row, answer in zip(ids, examples.answers, strict=True):
        assert tokenizer.decode(row[-10:]) == " ".join(map(str, answer))


def test_near_numbers_begin_with_near_embeddings():
    tokenizer = build_tokenizer(10)
    weight = build_model(tokenizer, BuildConfig()).get_input_embeddings().weight.detach()
    values, ids = number_tokens(tokenizer)
    numbers = torch.nn.functional.normalize(weight[torch.tensor(ids)], dim=1)
    similarity = numbers @ numbers.T
    distance = np.abs(values[:, None] - values[None])
    near, far = (similarity[torch.tensor(mask)].mean() for mask in (distance == 1, distance > 300))
    assert near > 0.9
    assert far < near - 0.4


def test_a_few_steps_lower_the_loss():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(10)
    config = BuildConfig(**TINY)
    losses = train(build_model(tokenizer, config), tokenizer, config)
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 1


def test_a_build_writes_a_folder_that_loads(tmp_path, monkeypatch, capsys):
    flags = {**TINY, "examples": 8 * 3, "output_dir": tmp_path / "model", "measure": "false"}
    arguments = [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["build", *arguments])
    build.main()
    folder: Path = tmp_path / "model"
    assert '"parameters"' in capsys.readouterr().out
    assert {"build.json", "config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    forecaster = load_llm_forecaster(ModelSpec(base=str(folder)), PromptConfig(), GenerationConfig(), name="tiny")
    context = simulated_windows()["test"].context.take(np.arange(2))
    assert forecaster.predict(context, horizon=10, num_samples=3, seed=0).samples.shape == (2, 3, 10)


def test_the_packaged_model_is_small_and_loads_as_any_other():
    assert sum(file.stat().st_size for file in EMBEDDED_FOLDER.iterdir()) < 5_000_000
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER)
    assert next(model.parameters()).dtype == torch.bfloat16
    assert len(AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)) == model.config.vocab_size


def test_the_packaged_tokenizer_is_the_one_that_the_code_builds():
    packaged = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    assert packaged.get_vocab() == build_tokenizer(10).get_vocab()


def test_the_packaged_model_answers_and_beats_the_random_walk_where_prices_revert():
    splits = simulated_windows("sim:ou?half_life=4&rows=900&seed=11")
    windows = splits["test"].take(np.arange(0, len(splits["test"]), 3))
    model = load_llm_forecaster(ModelSpec(), PromptConfig(), GenerationConfig(), name="base")
    walk = RandomWalk.fit(
        RandomWalkConfig(), splits["train"], splits["val"], horizon=10, seed=0, out_dir=Path("unused")
    )
    scores = {
        forecaster.name: summarise(
            score_windows(forecaster.predict(windows.context, horizon=10, num_samples=32, seed=0), windows)
        )
        for forecaster in (model, walk)
    }
    assert scores["base"]["valid"] > 0.99
    assert scores["base"]["crps"] < 0.9 * scores["random_walk"]["crps"]
