"""How much memory training takes, from the model's configuration alone: no weights are read.

The model is built on PyTorch's meta device, which has shapes and no storage, so the counts of parameters are exact.
A process holds weights and adapter all the time and the larger of activations and sampling. Weights and adapter are
exact up to alignment; the rest is within some 40 % for Llama-like models (tests/machine/test_memory.py measures it).

Letters: U prompts, R rows (completions), P prompt length, C completion length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from grpo.models.adapters import ModelError, model_source
from grpo.models.config import LoraSettings
from grpo.models.loading import weights_dtype
from grpo.models.spec import ModelSpec

# NF4 with quantised constants takes 4.127 bits, 0.516 bytes; here with some room.
BYTES_4BIT = 0.55
# Weight, gradient and the two moments of AdamW, float32.
BYTES_ADAPTER_STATE = 16
# The logit itself, and what the backward pass makes of it for a moment.
BYTES_TRAINING_LOGIT = 4
BYTES_PASSING_LOGIT = 8
# Per row and word: logits, probabilities, and their sums in double precision.
BYTES_SAMPLING_LOGIT = 24


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Counts that the estimate is made of.

    Attributes:
        parameters: of the base model, shared ones once.
        linear: of these, those of linear layers that 4-bit quantisation covers.
        lora: parameters of the adapter.
        ranks: sum of the ranks over the adapted linear layers of one decoder layer.
        layers: decoder layers.
        hidden: width of the residual stream.
        queries: width of all query heads.
        keys: width of all key heads.
        inner: width of the feed-forward layer.
        vocabulary: words.
    """

    parameters: int
    linear: int
    lora: int
    ranks: int
    layers: int
    hidden: int
    queries: int
    keys: int
    inner: int
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one process forwards at once: U prompts of P tokens, R completions of C tokens."""

    prompts: int
    rows: int
    prompt_length: int
    completion_length: int


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one process."""

    weights: int
    adapter: int
    activations: int
    sampling: int

    @property
    def fixed(self) -> int:
        """What is held all the time, known exactly."""
        return self.weights + self.adapter

    @property
    def total(self) -> int:
        """The peak."""
        return self.fixed + max(self.activations, self.sampling)


def model_size(spec: ModelSpec, lora: LoraSettings) -> ModelSize:
    """Counts of a base model, from its config.json, and of a fresh adapter on it.

    Raises:
        ModelError: there is no such model, or its configuration cannot be read.
    """
    source = model_source(spec.base)
    try:
        settings: Any = AutoConfig.from_pretrained(source, trust_remote_code=spec.trust_remote_code)
        # Shapes without storage: the counts are exact, and a model of 70B costs nothing.
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(settings, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"--model {spec.base} cannot be loaded: {reason}") from error
    text = settings.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    output = model.get_output_embeddings()
    # The output layer is neither quantised nor adapted.
    linear = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not output
    }
    adapted = [layer for name, layer in linear.items() if _is_adapted(name, lora)]
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear=sum(layer.weight.numel() for layer in linear.values()),
        lora=sum(lora.rank * (layer.in_features + layer.out_features) for layer in adapted),
        ranks=lora.rank * len(adapted) // text.num_hidden_layers,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


def estimate(size: ModelSize, spec: ModelSpec, training: Batch, sampling: Batch) -> MemoryEstimate:
    """Bytes of one process that trains on one batch and samples another."""
    loading, bytes_each = spec.loading, weights_dtype(spec).itemsize
    kept = size.parameters - size.linear if loading.quantization == "4bit" else size.parameters
    weights = bytes_each * kept + (BYTES_4BIT * size.linear if loading.quantization == "4bit" else 0)
    return MemoryEstimate(
        weights=round(weights),
        adapter=BYTES_ADAPTER_STATE * size.lora,
        activations=_activations(size, training, bytes_each, checkpointing=loading.gradient_checkpointing),
        sampling=_sampling(size, sampling, bytes_each),
    )


def _activations(size: ModelSize, batch: Batch, bytes_each: int, *, checkpointing: bool) -> int:
    tokens = batch.prompts * batch.prompt_length + batch.rows * (batch.completion_length + 1)
    # What the backward pass needs of each token in each layer: 4 of the residual width, 3 of the queries, 2 of the keys
    # and values, 4 inside the feed-forward layer, and the adapters' ranks.
    per_token = 4 * size.hidden + 3 * size.queries + 2 * size.keys + 4 * size.inner + size.ranks
    # Keys and values of the prompt are copied to the row of each completion.
    attended = batch.rows * (batch.prompt_length + batch.completion_length)
    if checkpointing:
        # The input of every layer, and one layer in full at a time; packed rows copy no keys.
        kept = bytes_each * (size.hidden * tokens * size.layers + per_token * tokens)
    else:
        kept = bytes_each * (per_token * tokens + 2 * size.keys * attended) * size.layers
    logits = batch.rows * (batch.completion_length + 1) * size.vocabulary
    return kept + (BYTES_TRAINING_LOGIT + BYTES_PASSING_LOGIT) * logits


def _sampling(size: ModelSize, batch: Batch, bytes_each: int) -> int:
    # A prompt is cached once for all its completions.
    cached = batch.prompts * batch.prompt_length + batch.rows * batch.completion_length
    cache = bytes_each * 2 * size.keys * size.layers * cached
    return cache + BYTES_SAMPLING_LOGIT * batch.rows * size.vocabulary


def _is_adapted(name: str, lora: LoraSettings) -> bool:
    """Whether PEFT puts an adapter on a linear layer: all of them, or by the last part of the name."""
    targets = lora.target_modules
    if isinstance(targets, str):
        return targets == "all-linear" or name.rsplit(".", 1)[-1] == targets
    return any(name == target or name.endswith(f".{target}") for target in targets)
