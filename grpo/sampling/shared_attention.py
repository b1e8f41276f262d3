"""Attention of many samples to one prompt: the prompt's keys and values are stored and read once, not per sample.

With its cache expanded to S samples a decoding step reads S copies of the prompt's keys and values; here the queries
of all samples of a prompt form one matrix that meets its keys once, and only what each sample wrote itself is its
own: softmax([Q K_prompt^T, Q K_own^T]) [V_prompt, V_own], the same sum in another order.

Letters: U distinct prompts, S samples, P prompt length, T own tokens so far, K key-value heads, R query heads of one
key-value head, W head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma"})
"""Models whose attention is softmax(scale Q K^T) V over a plain key-value cache."""
_NAME = "shared_prompt"
_MERGED_BYTES = 256 * 2**20
"""A float32 adapter is merged into a copy of its layers while sampling if the copy takes no more than this."""


class SharedPromptLayer(DynamicLayer):
    """A cache layer that holds the prompts' keys and values once and has room for the samples' own.

    Attributes:
        prompt_keys: [U, K, P, W].
        prompt_values: [U, K, P, W].
        prompt_bias: [U, 1, 1, P] 0, or minus infinity where the prompt is padding; None without padding.
    """

    def __init__(self, layer: Any, prompt_bias: torch.Tensor | None, num_samples: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.prompt_keys, self.prompt_values, self.prompt_bias = layer.keys, layer.values, prompt_bias
        prompts, heads, _, width = layer.keys.shape
        # Keys lie transposed, as their product with the query takes them; else each step would copy all of them.
        self._keys = layer.keys.new_empty(prompts * num_samples, heads, width, room).transpose(2, 3)
        self._values = layer.values.new_empty(prompts * num_samples, heads, room, width)
        self._own = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one token's keys and values [U * S, K, 1, W]; returns the samples' own so far [U * S, K, T, W]."""
        self._keys[:, :, self._own] = key_states[:, :, 0]
        self._values[:, :, self._own] = value_states[:, :, 0]
        self._own += 1
        return self._keys[:, :, : self._own], self._values[:, :, : self._own]

    def get_seq_length(self) -> int:
        """Tokens that the next one can see."""
        return self.prompt_keys.shape[2] + self._own


@contextmanager
def shared_prompts(model: Any, cache: DynamicCache, mask: torch.Tensor, num_samples: int, room: int) -> Iterator[bool]:
    """Turn the cache of prefilled prompts into one that `num_samples` samples of each share while the block runs.

    Args:
        model: a causal language model, a PEFT model too.
        cache: of the prefilled prompts, U rows.
        mask: [U, P] 1 where a prompt has a token, 0 where it is padded.
        num_samples: S.
        room: most tokens that a sample will write.

    Yields:
        False where the model or its cache is of another kind; nothing was changed then.
    """
    config, layers = model.config, list[Any](cache.layers)
    if config.model_type not in MODEL_TYPES or any(type(layer) is not DynamicLayer for layer in layers):
        yield False
        return
    # A bias costs a sum over all scores in each step, so there is none where nothing is padded.
    bias = None
    if not bool(mask.all()):
        zeros = torch.zeros(mask.shape, dtype=layers[0].keys.dtype, device=mask.device)
        bias = zeros.masked_fill(mask == 0, -torch.inf)[:, None, None]
    shared: list[Any] = [SharedPromptLayer(layer, bias, num_samples, room) for layer in layers]
    cache.layers = shared
    # transformers finds attention by a name in the config, so ours is registered under one and named while the block
    # runs.
    before = config._attn_implementation
    AttentionInterface.register(_NAME, partial(_attend, shared))
    config._attn_implementation = _NAME
    try:
        yield True
    finally:
        config._attn_implementation = before


def _attend(
    layers: list[SharedPromptLayer],
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of one new token of each sample; `transformers` calls it for every layer.

    Args:
        layers: of the cache.
        module: the model's attention module; its `layer_idx` tells the layer.
        query: [U * S, K * R, 1, W].
        key: [U * S, K, T, W] the samples' own.
        value: [U * S, K, T, W].
        attention_mask: None; `transformers` makes no mask for an attention of one's own.
        scaling: factor of the scores.
        **kwargs: dropout, sliding window: not in use while sampling from such a model.

    Returns:
        [U * S, 1, K * R, W] and no weights.
    """
    layer = layers[module.layer_idx]
    prompts, heads, length, width = layer.prompt_keys.shape
    rows, own = len(query), key.shape[2]
    samples, repeats = rows // prompts, query.shape[1] // heads

    def by_prompt(values: torch.Tensor) -> torch.Tensor:  # [U * S, K, R, x] -> [U, K, S * R, x]
        split = values.view(prompts, samples, heads, repeats, values.shape[-1])
        return split.transpose(1, 2).reshape(prompts, heads, samples * repeats, values.shape[-1])

    def by_sample(values: torch.Tensor) -> torch.Tensor:  # [U, K, S * R, x] -> [U * S, K, R, x]
        split = values.view(prompts, heads, samples, repeats, values.shape[-1])
        return split.transpose(1, 2).reshape(rows, heads, repeats, values.shape[-1])

    # Scaled once, before the two products rather than after.
    query = (query * scaling).view(rows, heads, repeats, width)
    to_prompt = by_prompt(query) @ layer.prompt_keys.transpose(2, 3)  # [U, K, S * R, P]
    if layer.prompt_bias is not None:
        to_prompt = to_prompt + layer.prompt_bias
    to_own = by_prompt(query @ key.transpose(2, 3))  # [U, K, S * R, T]
    # One softmax over prompt and own tokens, in float32 as the models' own attention does it.
    weights = torch.softmax(torch.cat([to_prompt, to_own], -1), -1, dtype=torch.float32).to(value.dtype)
    from_prompt, from_own = weights.split([length, own], -1)
    # [U, K, S * R, P] @ [U, K, P, W] and [U * S, K, R, T] @ [U * S, K, T, W]
    output = by_sample(from_prompt @ layer.prompt_values) + by_sample(from_own) @ value
    return output.reshape(rows, 1, heads * repeats, width), None


@contextmanager
def merged_adapters(model: Any) -> Iterator[None]:
    """Let each LoRA layer of a small float32 model compute x (W + s B A)^T with one product while the block runs.

    The weights themselves are not touched. Nothing changes for a model of another precision (rounding the sum
    would change the policy that is sampled), for one that is too large for a copy, and for other kinds of LoRA.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLinear) and _is_plain(module)]
    if sum(layer.base_layer.weight.nbytes for layer in layers) > _MERGED_BYTES:
        layers = []
    for layer in layers:
        deltas = [layer.get_delta_weight(name) for name in layer.active_adapters if name in layer.lora_A]
        # A copy: merging into the weights and back would leave their rounding behind, a little more each step.
        weight = layer.base_layer.weight + sum(deltas)
        layer.forward = partial(torch.nn.functional.linear, weight=weight, bias=layer.base_layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            # The instance attribute hid the method of the class, which is back now.
            del layer.forward


def _is_plain(layer: Any) -> bool:
    return (
        type(layer.base_layer) is torch.nn.Linear
        and layer.base_layer.weight.dtype == torch.float32
        and not (layer.merged or layer.disable_adapters or layer.lora_variant)
        and not any(layer.lora_bias.values())
    )
