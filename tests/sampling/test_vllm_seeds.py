"""Which random numbers vLLM is told to take; a stand-in writes down what it would have sampled with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from grpo.language.config import PromptConfig
from grpo.models.spec import ModelSpec
from grpo.sampling import vllm_engine
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import VllmForecaster
from grpo.sampling.vllm_engine import VllmEngine
from tests.windows_factory import simulated_windows

CONTEXT = simulated_windows()["test"].context


class StandIn:
    """Keeps the seed of every sample by vLLM's rule: sample j of a request has the seed of the request plus j."""

    def __init__(self) -> None:
        self.samples: list[tuple[tuple[int, ...], int]] = []

    def generate(self, asked, parameters, **_):
        for prompt, settings in zip(asked, parameters, strict=True):
            self.samples += [(tuple(prompt["prompt_token_ids"]), settings.seed + j) for j in range(settings.n)]
        output = SimpleNamespace(token_ids=[7], logprobs=[{7: SimpleNamespace(logprob=-1.0)}], finish_reason="stop")
        return [SimpleNamespace(outputs=[output] * settings.n) for settings in parameters]


@pytest.fixture
def engine(monkeypatch) -> VllmEngine:
    parameters = SimpleNamespace(SamplingParams=SimpleNamespace, StructuredOutputsParams=None)
    monkeypatch.setattr(vllm_engine, "_import", lambda module: parameters)
    engine = object.__new__(VllmEngine)
    engine._llm, engine._adapter = StandIn(), None
    return engine


def drawn(engine: VllmEngine, seed: int, *, rows_per_batch: int, num_samples: int = 100) -> list[int]:
    """The seeds of all samples of a forecast, prompt by prompt."""
    engine._llm.samples.clear()
    generation = GenerationConfig(backend="vllm", rows_per_batch=rows_per_batch)
    forecaster = VllmForecaster("x", engine, ModelSpec(), PromptConfig(), generation)
    forecaster.progress = False
    forecaster.sample_texts(CONTEXT, horizon=10, num_samples=num_samples, seed=seed)
    return [number for _, number in engine._llm.samples]


def test_no_two_samples_of_any_seeds_and_windows_share_their_random_numbers(engine):
    seeds = [drawn(engine, seed, rows_per_batch=1000) for seed in range(20)]
    assert len(CONTEXT) > 10  # so that a forecast takes several calls
    assert {len(numbers) for numbers in seeds} == {100 * len(CONTEXT)}
    everything = np.array(seeds, dtype=np.uint64).ravel()
    for low_bits in (everything, everything % 2**32):  # the latter are all that torch looks at on a CPU
        assert len(np.unique(low_bits)) == len(everything)
    assert everything.max() < 2**63


def test_the_samples_of_a_window_do_not_depend_on_what_is_asked_at_once(engine):
    assert drawn(engine, 3, rows_per_batch=1000) == drawn(engine, 3, rows_per_batch=700)
