"""The language model as a forecaster: base model or any adapter, through one contract of prompts and sampling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig as SamplingLaw
from transformers import PreTrainedTokenizerBase

from grpo.evaluation.protocol import Forecast
from grpo.language.answers import answers_to_forecast
from grpo.language.config import PromptConfig
from grpo.language.prompts import style_of
from grpo.models.adapters import ModelError, adapter_settings, check_adapter
from grpo.models.chat import (
    check_lengths,
    completion_length,
    decode,
    end_tokens,
    load_chat_tokenizer,
    pad_token,
    tokenize_prompts,
)
from grpo.models.config import EMBEDDED
from grpo.models.loading import attach_adapter, load_base_model, load_generation_config
from grpo.models.spec import ModelSpec
from grpo.sampling.config import GenerationConfig
from grpo.sampling.generation import (
    batches,
    in_evaluation,
    left_pad,
    model_device,
    sample_completions,
    trim_completions,
)
from grpo.sampling.vllm_engine import VllmEngine, engine_for
from preprocessing.errors import UserError
from preprocessing.seeds import integer
from preprocessing.windows import Context


class LLMForecaster:
    """A fitted language model that answers with sampled paths.

    Attributes:
        name: how tables call it, for example `grpo_1st`.
        progress: whether sampling shows a progress bar of its own.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        prompt: PromptConfig,
        generation: GenerationConfig,
        *,
        progress: bool = True,
    ) -> None:
        self.name = name
        self.progress = progress
        self.model = model
        self.tokenizer = tokenizer
        self.prompt, self.style = prompt, style_of(prompt)
        self.generation = generation
        self.end_ids = end_tokens(model.generation_config, tokenizer)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths at temperature 1 from the full distribution; see `Forecaster.predict`."""
        texts = self.sample_texts(context, horizon=horizon, num_samples=num_samples, seed=seed)
        return answers_to_forecast(texts, context, horizon=horizon, form=self.style.form)

    def sample_texts(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> list[list[str]]:
        """[B][S] raw answers, for rejection sampling and inspection."""
        prompt_ids = tokenize_prompts(self.style.render(context, horizon), self.tokenizer)
        length = self._longest_answer(horizon)
        check_lengths(prompt_ids, length, self.prompt)
        texts: list[list[str]] = []
        with tqdm(total=len(context), desc=f"sample {self.name}", unit="window", disable=not self.progress) as bar:
            for sampled in self._sample(prompt_ids, num_samples, length, seed, horizon):
                decoded = decode(sampled, self.end_ids, self.tokenizer)
                texts += [decoded[i : i + num_samples] for i in range(0, len(decoded), num_samples)]
                bar.update(len(sampled) // num_samples)
        return texts

    def _longest_answer(self, horizon: int) -> int:
        return completion_length(self.tokenizer, self.prompt, horizon)

    def _sample(
        self, prompt_ids: list[list[int]], num_samples: int, length: int, seed: int, horizon: int
    ) -> Iterator[list[list[int]]]:
        """Sampled token ids batch by batch; the samples of one prompt next to each other."""
        # A generator of its own, so that validation does not disturb the random state of the training.
        generator = torch.Generator(device=model_device(self.model)).manual_seed(seed)
        with in_evaluation(self.model):
            for rows in batches(len(prompt_ids), max(self.generation.rows_per_batch // num_samples, 1)):
                tokens = sample_completions(
                    self.model,
                    prompt_ids[rows],
                    num_samples=num_samples,
                    max_new_tokens=length,
                    eos_ids=self.end_ids,
                    pad_id=pad_token(self.tokenizer),
                    generator=generator,
                )
                yield trim_completions(tokens, self.end_ids)

    def save(self, path: Path) -> None:
        """Write the adapter (or the whole base model) and the tokenizer into a folder."""
        self.model.save_pretrained(str(path))
        self.tokenizer.save_pretrained(str(path))


class GenerateForecaster(LLMForecaster):
    """The same, sampled by the model's own `generate`: for a model whose layers are not those of transformers."""

    def _sample(
        self, prompt_ids: list[list[int]], num_samples: int, length: int, seed: int, horizon: int
    ) -> Iterator[list[list[int]]]:
        device = model_device(self.model)
        # The full law at temperature 1, whatever the base model's generation_config.json recommends.
        law = SamplingLaw(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            num_return_sequences=num_samples,
            max_new_tokens=length,
            eos_token_id=self.end_ids,
            pad_token_id=pad_token(self.tokenizer),
        )
        with in_evaluation(self.model):
            for rows in batches(len(prompt_ids), max(self.generation.rows_per_batch // num_samples, 1)):
                ids, mask = left_pad(prompt_ids[rows], pad_token(self.tokenizer), device)
                # `generate` takes no generator of its own: the global one is seeded, and put back for the sake of the
                # training.
                with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    torch.manual_seed(integer(seed, "generate", rows.start, bits=32))
                    whole: Any = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=law)
                yield trim_completions(whole[:, ids.shape[1] :], self.end_ids)


class VllmForecaster(LLMForecaster):
    """The same, sampled by vLLM: one engine for the base model and every adapter."""

    def __init__(
        self, name: str, engine: VllmEngine, spec: ModelSpec, prompt: PromptConfig, generation: GenerationConfig
    ) -> None:
        tokenizer = load_chat_tokenizer(spec, prompt)
        self.name, self.progress = name, True
        self.tokenizer, self.generation = tokenizer, generation
        self.prompt, self.style = prompt, style_of(prompt)
        self.end_ids = end_tokens(load_generation_config(spec.base), tokenizer)
        self._engine, self._adapter = engine, spec.adapter

    def _sample(
        self, prompt_ids: list[list[int]], num_samples: int, length: int, seed: int, horizon: int
    ) -> Iterator[list[list[int]]]:
        self._engine.load_adapter(self._adapter)
        held = self.generation.structured == "regex"
        for rows in batches(len(prompt_ids), max(self.generation.rows_per_batch // num_samples, 1)):
            sampled = self._engine.sample(
                prompt_ids[rows],
                num_samples=num_samples,
                max_new_tokens=length,
                end_ids=self.end_ids,
                seed=seed,
                # Else every batch would draw with the seeds of the first one.
                first=rows.start,
                pattern=self.style.form.pattern(horizon) if held else None,
            )
            yield [completion.ids for samples in sampled for completion in samples]

    def _longest_answer(self, horizon: int) -> int:
        length = super()._longest_answer(horizon)
        if self.generation.structured == "none" or self.style.form.thinks or self.prompt.max_completion_length:
            return length
        # Room for three digits and what follows each number, one token each: an answer that is cut off is none.
        return max(length, 4 * horizon)

    def save(self, path: Path) -> None:
        """Copy the adapter into a folder.

        Raises:
            ModelError: it is the base model, of which vLLM has no copy to write.
        """
        if self._adapter is None:
            raise ModelError("a base model that vLLM serves is not written; it stays where it was loaded from.")
        shutil.copytree(self._adapter, path, dirs_exist_ok=True)


def load_llm_forecaster(
    spec: ModelSpec, prompt: PromptConfig, generation: GenerationConfig, *, name: str, lora_rank: int | None = None
) -> LLMForecaster:
    """A base model, with its adapter on it if it has one, as a forecaster.

    Args:
        spec: the model.
        prompt: how it is asked.
        generation: what samples, and how much at once.
        name: how tables call it.
        lora_rank: largest rank of the adapters that one vLLM engine is to serve in turn; None: of this adapter.

    Raises:
        ModelError: the model or adapter cannot be loaded, or the adapter belongs to another base.
        UserError: vLLM is asked for and cannot run here, or cannot hold this model to a form.
    """
    if generation.structured != "none" and spec.base == EMBEDDED:
        raise UserError(
            "generation.structured regex: the embedded model has one token per number, which vLLM's grammars, made for "
            "text, do not follow; take generation.structured none"
        )
    if generation.backend == "vllm":
        # vLLM makes room for adapters when it starts, so the rank must be known before any is loaded.
        rank = lora_rank or 1
        if spec.adapter is not None:
            check_adapter(spec.adapter, spec)
            rank = max(rank, adapter_settings(spec.adapter)["r"])
        engine = engine_for(spec, max_length=prompt.max_seq_length, lora_rank=rank, generation=generation)
        return VllmForecaster(name, engine, spec, prompt, generation)
    model: Any = load_base_model(spec)
    if spec.adapter is not None:
        model = attach_adapter(model, spec.adapter, spec, trainable=False)
    if torch.cuda.is_available():
        model = model.to("cuda")
    return LLMForecaster(name, model.eval(), load_chat_tokenizer(spec, prompt), prompt, generation)
