"""vLLM for real, on its CPU build and the embedded model; `tests/run_vllm.sh` installs it and runs these."""

from __future__ import annotations

import importlib
import importlib.util
import json

import numpy as np
import pytest
import torch
from peft import get_peft_model

from grpo.config import RunConfig
from grpo.language.answers import Numbers
from grpo.models.loading import load_base_model, load_tokenizer, lora_config, save_adapter
from grpo.sampling.forecaster import load_llm_forecaster
from grpo.sampling.generation import sample_completions, trim_completions
from grpo.sampling.vllm_engine import StaleWeightsError, VllmEngine, engine_for
from preprocessing.errors import UserError
from preprocessing.windows_reader import read_windows
from tests.tiny_adapters import publish_random_adapter
from tests.tiny_models import byte_tokenizer, save_byte_model
from tests.tiny_runs import SLUG, TinyRun

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: tests/run_vllm.sh"),
]
CONFIG = RunConfig(generation=RunConfig().generation.__class__(backend="vllm"))
PROMPTS = [list(range(5, 60)), list(range(100, 130)), list(range(300, 345))]
LENGTH = 15
FLAGS = ("--generation.backend", "vllm")


@pytest.fixture(scope="module")
def engine() -> VllmEngine:
    return engine_of(CONFIG)


@pytest.fixture(scope="module")
def ends() -> list[int]:
    return [load_tokenizer(CONFIG.spec()).eos_token_id]


@pytest.fixture
def policy(tmp_path):
    """A model with an adapter that changes its answers, and the adapter's folder."""
    model = get_peft_model(load_base_model(CONFIG.spec()), lora_config(CONFIG.lora)).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, load_tokenizer(CONFIG.spec()), tmp_path / "adapter", CONFIG.model)
    return model, tmp_path / "adapter"


def test_greedy_answers_equal_those_of_transformers_token_for_token(engine, ends, policy):
    model, adapter = policy
    answers = []
    for folder in (adapter, None):
        engine.load_adapter(folder)
        ours = engine.sample(PROMPTS, num_samples=1, max_new_tokens=LENGTH, end_ids=ends, seed=0, temperature=0)
        with torch.no_grad():
            if folder is None:
                model = model.unload()
            theirs = sample_completions(
                model, PROMPTS, num_samples=1, max_new_tokens=LENGTH, eos_ids=ends, pad_id=0, temperature=0
            )
        answers.append([samples[0].ids for samples in ours])
        assert answers[-1] == trim_completions(theirs, ends)
    assert answers[0] != answers[1]


def test_samples_carry_the_models_log_probabilities_and_follow_the_seed(engine, ends, policy):
    model, adapter = policy
    engine.load_adapter(adapter)

    def sample(seed: int):
        return engine.sample(PROMPTS, num_samples=8, max_new_tokens=LENGTH, end_ids=ends, seed=seed)

    first = sample(0)
    assert [[c.ids for c in row] for row in sample(0)] == [[c.ids for c in row] for row in first]
    assert [[c.ids for c in row] for row in sample(1)] != [[c.ids for c in row] for row in first]
    for row in first:
        assert len({tuple(completion.ids) for completion in row}) == 8
    prompts = [prompt for prompt in PROMPTS for _ in range(8)]
    assert engine.check_against(model, prompts, [completion for row in first for completion in row]) < 1e-4


def test_sample_j_of_a_request_has_the_seed_of_the_request_plus_j(engine):
    """The rule that `request_seeds` and its stand-in in test_vllm_seeds.py rely on."""
    engine.load_adapter(None)
    parameters = importlib.import_module("vllm.sampling_params").SamplingParams
    prompt = {"prompt_token_ids": PROMPTS[0]}

    def ids(seed: int, n: int) -> list[list[int]]:
        settings = parameters(n=n, seed=seed, max_tokens=LENGTH, temperature=1.0, detokenize=False)
        return [
            list(output.token_ids) for output in engine._llm.generate([prompt], settings, use_tqdm=False)[0].outputs
        ]

    together = ids(2**40 + 11, 4)
    assert together == [ids(2**40 + 11 + j, 1)[0] for j in range(4)]
    assert len({tuple(sample) for sample in together}) == 4
    assert ids(11, 1) == together[:1], "a CPU's generator reads the low 32 bits alone"


def test_sampled_frequencies_equal_the_models_probabilities(engine, policy):
    model, adapter = policy
    engine.load_adapter(adapter)
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([PROMPTS[1]])).logits[0, -1], -1)
    sampled = engine.sample(PROMPTS[1:2], num_samples=4000, max_new_tokens=1, end_ids=[], seed=3)[0]
    observed = torch.bincount(torch.tensor([c.ids[0] for c in sampled]), minlength=len(expected)) / 4000
    noise = (2 * expected * (1 - expected) / (torch.pi * 4000)).sqrt().sum()  # mean absolute multinomial deviation
    assert (observed - expected).abs().sum() < 1.3 * noise


def test_samples_of_other_weights_than_the_models_are_noticed(engine, ends, policy):
    model, _ = policy
    engine.load_adapter(None)
    base = [row[0] for row in engine.sample(PROMPTS, num_samples=1, max_new_tokens=LENGTH, end_ids=ends, seed=0)]
    with pytest.raises(StaleWeightsError, match="samples from other weights"):
        engine.check_against(model, PROMPTS, base)


def engine_of(config: RunConfig) -> VllmEngine:
    return engine_for(
        config.spec(),
        max_length=config.prompt.max_seq_length,
        lora_rank=config.lora.rank,
        generation=config.generation,
        seed=config.seed,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TinyRun:
    run = TinyRun(tmp_path_factory.mktemp("vllm"))
    assert run.stage("preprocess") == 0
    assert run.stage("stage1", *FLAGS, "--stage1.learning_rate", "0.01") == 0
    return run


def test_grpo_trains_on_vllms_samples(trained):
    history = json.loads((trained.place("stage1") / "log_history.json").read_text())
    steps = [entry for entry in history if "sampling/canary" in entry]
    assert len(steps) == 4
    assert max(entry["sampling/canary"] for entry in steps) < 1e-4
    assert max(entry["sampling/sampling_logp_difference/mean"] for entry in steps) < 1e-4
    assert min(entry["sampling/importance_sampling_ratio/min"] for entry in steps) > 0.99
    assert all(np.isfinite(entry["reward"]) for entry in steps)


def test_grpo_stops_when_vllm_keeps_old_weights(tmp_path, capsys, monkeypatch):
    load = VllmEngine.load_adapter
    monkeypatch.setattr(
        VllmEngine, "load_adapter", lambda self, folder: load(self, folder) if self._adapter is None else None
    )
    run = TinyRun(tmp_path)
    engine_of(run.config("stage1", *FLAGS)).load_adapter(None)
    assert run.stage("preprocess") == 0
    assert run.stage("stage1", *FLAGS, "--stage1.learning_rate", "0.01") == 1
    error = capsys.readouterr().err
    assert "samples from other weights than those that are trained" in error
    assert "Traceback" not in error


def test_vllm_and_transformers_forecast_alike(trained):
    folder = trained.place("preprocess")
    windows = read_windows(*(folder / f"{SLUG}_test_{part}.csv" for part in "xy")).take(np.arange(6))
    adapter = trained.place("stage1") / "adapter"
    medians, spreads = [], []
    for flags in (FLAGS, ()):
        config = trained.config("compare", *flags)
        spec = config.spec(adapter)
        forecaster = load_llm_forecaster(spec, config.prompt, config.generation, name="grpo_1st", lora_rank=16)
        forecast = forecaster.predict(windows.context, horizon=windows.horizon, num_samples=200, seed=0)
        assert forecast.valid.mean() > 0.97
        log_return = np.log(forecast.samples / windows.context.last_price[:, None, None])
        medians.append(np.nanmedian(log_return, axis=1))
        lower, upper = np.nanquantile(log_return, [0.25, 0.75], axis=1)
        spreads.append(upper - lower)
    # The median of 200 has a standard deviation of about .065 interquartile ranges, a range one of .09 of itself.
    assert (np.abs(medians[0] - medians[1]) / spreads[1]).mean() < 0.15
    assert np.abs(np.log(spreads[0] / spreads[1])).mean() < 0.2


def test_rejection_sampling_and_comparison_run_on_vllm(trained):
    assert trained.stage("rejection", *FLAGS) == 0
    flags = ("--compare.forecasters", "[base, grpo_1st, random_walk]")
    assert trained.stage("compare", *FLAGS, *flags) == 0
    assert "grpo_1st" in (trained.place("compare") / "leaderboard.md").read_text()


# Held to a form


def test_one_token_per_number_cannot_be_held_to_a_form(engine, ends):
    with pytest.raises(UserError, match="cannot hold this model's tokens to the form"):
        engine.sample(PROMPTS, num_samples=2, max_new_tokens=80, end_ids=ends, seed=0, pattern="[0-9]{1,3} [0-9]{1,3}")


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory):
    """A model over bytes, and the flags that ask for it."""
    folder = save_byte_model(tmp_path_factory.mktemp("bytes") / "model")
    return folder, (*FLAGS, "--model", folder, "--max-seq-length", 1024)


def can_go_on(text: str, horizon: int) -> bool:
    """Whether a text is the beginning of `horizon` numbers of one to three digits, by counting."""
    numbers = text.split(" ")
    whole, last = numbers[:-1], numbers[-1]
    digits = all(letter in "0123456789" for letter in "".join(numbers))
    return digits and len(numbers) <= horizon and all(1 <= len(number) <= 3 for number in whole) and len(last) <= 3


def test_the_held_law_is_the_models_own_cut_to_the_form_and_renormalised(bytes_model):
    folder, flags = bytes_model
    horizon, tokenizer = 3, byte_tokenizer()
    config = TinyRun(folder).config("compare", *flags)
    prompt = tokenizer("closes 500 498 503 next 3")["input_ids"]
    engine, model = engine_of(config), load_base_model(config.spec()).eval()
    [held] = engine.sample(
        [prompt],
        num_samples=16,
        max_new_tokens=12,
        end_ids=[tokenizer.eos_token_id],
        seed=0,
        pattern=Numbers().pattern(horizon),
    )
    texts = {token: tokenizer.decode([token]) for token in range(2, len(tokenizer))}
    taken = 0.0
    for completion in held:
        assert completion.ids[-1] == tokenizer.eos_token_id
        assert Numbers().parse(tokenizer.decode(completion.ids[:-1]), horizon) is not None
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion.ids])).logits[0, len(prompt) - 1 : -1]
        own = torch.log_softmax(logits, -1)
        for step, token in enumerate(completion.ids):
            so_far = tokenizer.decode(completion.ids[:step])
            allowed = [number for number, text in texts.items() if can_go_on(so_far + text, horizon)]
            if so_far.count(" ") == horizon - 1 and so_far[-1] != " ":
                allowed.append(tokenizer.eos_token_id)
            mass = own[step, allowed].logsumexp(-1)
            assert completion.log_probs[step] == pytest.approx(float(own[step, token] - mass), abs=1e-4)
            taken -= float(mass)
    assert taken / len(held) > 5  # nats per answer by which a trainer would take these for more likely than they are


def test_rejection_sampling_held_to_the_form_has_no_invalid_answer(bytes_model, tmp_path):
    _, flags = bytes_model
    shares = []
    for number, structured in enumerate(("regex", "none")):
        run = TinyRun(tmp_path / str(number))
        assert run.stage("preprocess") == 0
        adapter = publish_random_adapter(run.config("rejection", *flags), tmp_path / "adapter")
        held = (*flags, "--generation.structured", structured, "--grpo-saved-lora-1st", adapter)
        code = run.stage("rejection", *held)
        manifest = run.place("rejection") / "manifest.json"
        shares.append(json.loads(manifest.read_text())["metrics"]["valid"] if code == 0 else 0)
    assert shares == [1, 0]
