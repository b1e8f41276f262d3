"""Sampling completions with the prompt forwarded once.

Each distinct prompt is prefilled once, and a lean loop draws one token a step for all rows at temperature, from the
full distribution: no top-k, no top-p, which would cut the tails of the predictive law and bias the importance ratio
of the policy gradient.

Each step reads the prompt's keys and values once for all its samples (`grpo.sampling.shared_attention`); for models
whose attention is not of the plain kind the cache is expanded to one copy per sample.

Letters: U distinct prompts, S samples, P prompt length, C completion length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from grpo.models.adapters import ModelError
from grpo.sampling.shared_attention import merged_adapters, shared_prompts

_BLOCK = 32
"""Tokens whose probabilities are summed first when one is drawn."""


def model_device(model: Any) -> torch.device:
    """The device that takes a model's input."""
    return model.get_input_embeddings().weight.device


@contextmanager
def in_evaluation(model: Any) -> Iterator[None]:
    """Without dropout while the block runs; then as before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def keeps_keys_and_values(config: Any) -> bool:
    """Whether all that a model remembers is keys and values of tokens, which the samples of a prompt can share."""
    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    return all(type(layer) in kinds for layer in DynamicCache(config=config).layers)


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """[U, P] token ids and attention mask of prompts of different lengths, padded on the left."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


@torch.no_grad()
def sample_completions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Sample `num_samples` completions of each prompt.

    Args:
        model: a causal language model (a PEFT model too) in evaluation mode.
        prompts: U lists of token ids.
        num_samples: S.
        max_new_tokens: longest completion.
        eos_ids: tokens that end a completion.
        pad_id: fills up after the end.
        temperature: divides the logits; 0 takes the most likely token.
        generator: source of randomness; None takes torch's global one.

    Returns:
        [U * S, C] token ids, the samples of one prompt next to each other, C <= max_new_tokens.

    Raises:
        ModelError: the model has recurrent layers.
    """
    if not keeps_keys_and_values(model.config):
        raise ModelError(
            f"models of type {model.config.model_type} keep a recurrent state that samples cannot share; take "
            "generation.backend vllm"
        )
    device = model_device(model)
    ids, mask = left_pad(prompts, pad_id, device)
    cache = DynamicCache(config=model.config)
    with merged_adapters(model):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            # Padding on the left does not count, so a prompt stands where it would stand alone.
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1].repeat_interleave(num_samples, 0)  # [U * S, vocabulary]
        position = mask.sum(1, keepdim=True).repeat_interleave(num_samples, 0)
        ends = torch.tensor(list(eos_ids), device=device)
        finished = torch.zeros(len(logits), dtype=torch.bool, device=device)
        tokens = []
        with _decoder(model, cache, mask, num_samples, max_new_tokens) as decode:
            for step in range(max_new_tokens):
                token = _draw(logits, temperature, generator).masked_fill(finished, pad_id)
                tokens.append(token)
                # The end token itself is kept; from the next step on the row is padding.
                finished = finished | torch.isin(token, ends)
                # Before the forward, not after: the last token needs no successor.
                if step == max_new_tokens - 1 or bool(finished.all()):
                    break
                logits = decode(input_ids=token[:, None], position_ids=position + step).logits[:, -1]
    return torch.stack(tokens, dim=1)


@contextmanager
def _decoder(
    model: Any, cache: DynamicCache, mask: torch.Tensor, num_samples: int, room: int
) -> Iterator[Callable[..., Any]]:
    """A function that forwards the next token of every sample: input_ids, position_ids [U * S, 1] -> output."""
    with shared_prompts(model, cache, mask, num_samples, room) as shared:
        # No mask: a sample may see its own tokens, and of the prompt what the layer's own bias lets through.
        if shared:
            yield partial(model, past_key_values=cache, use_cache=True)
            return
        expanded = _expand(cache, num_samples, room)
        seen = mask.repeat_interleave(num_samples, 0)
        # Without padding no mask is needed, and attention may take its faster causal kernel.
        padded = not bool(mask.all())

        def decode(**inputs: Any) -> Any:
            nonlocal seen
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            return model(**inputs, attention_mask=seen if padded else None, past_key_values=expanded, use_cache=True)

        yield decode


class _RoomyLayer(DynamicLayer):
    """A cache layer with room for the tokens to come: a step writes its own keys and values and copies no others.

    Concatenation, as DynamicLayer does it, copies the whole past each step; it was 55 % of the sampling time of the
    embedded model at 1,000 rows.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, copies: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.length = keys.shape[2]
        self._keys, self._values = (self._allocate(tensor, copies, room) for tensor in (keys, values))
        self._expose()

    def _allocate(self, tensor: torch.Tensor, copies: int, room: int) -> torch.Tensor:
        rows, heads, length, width = tensor.shape
        buffer = tensor.new_empty(rows * copies, heads, length + room, width)
        buffer[:, :, :length] = tensor.repeat_interleave(copies, 0)
        return buffer

    def _expose(self) -> None:
        self.keys, self.values = self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the next tokens [B, heads, T, width] and return all keys and values so far."""
        end = self.length + key_states.shape[2]
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self._expose()
        return self._keys[:, :, :end], self._values[:, :, :end]


def _expand(cache: DynamicCache, copies: int, room: int) -> DynamicCache:
    """The cache with each row `copies` times; layers that are no plain growing ones keep their own way."""
    layers: list[Any] = cache.layers
    if all(type(layer) is DynamicLayer for layer in layers):
        layers[:] = [_RoomyLayer(layer.keys, layer.values, copies, room) for layer in layers]
    else:
        cache.batch_repeat_interleave(copies)
    return cache


def _draw(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
    """One token [B] of each row of logits [B, V]; temperature 0 takes the most likely one."""
    if temperature == 0:
        return logits.argmax(-1)
    # Inversion with one uniform number a row; torch.multinomial draws one for every token of the vocabulary. First the
    # block of tokens is drawn, then the token in it: running sums over all tokens, in double precision because a
    # float32 sum over 150,000 would misplace the tail, take several times as long as the softmax.
    # [B, V], padded with zeros to [B, V / block, block]
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    blocks = torch.nn.functional.pad(weights, (0, -weights.shape[-1] % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    block_ends = blocks.sum(-1).double().cumsum(-1)  # [B, V / block]
    uniform = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device, generator=generator)
    target = uniform * block_ends[:, -1:]
    block = torch.searchsorted(block_ends, target, right=True).clamp(max=block_ends.shape[-1] - 1)
    ends = blocks.take_along_dim(block[..., None], 1)[:, 0].double().cumsum(-1)  # [B, block]
    # What is left of the target within its block, whose own start is its end less its sum.
    rest = target - block_ends.take_along_dim(block, 1) + ends[:, -1:]
    # Strictly below the block's end, or rounding could lead past it, to a token of probability 0.
    below_end = ends[:, -1:] * (1 - 1e-15)
    inside = torch.searchsorted(ends, torch.minimum(rest.clamp(min=0), below_end), right=True)
    return (block * _BLOCK + inside)[:, 0]


def trim_completions(tokens: torch.Tensor, eos_ids: Sequence[int]) -> list[list[int]]:
    """[N, C] sampled tokens to lists that end with their first end token, if they have one."""
    trimmed = []
    ends = set(eos_ids)
    for row in tokens.tolist():
        stop = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
        trimmed.append(row[: stop + 1])
    return trimmed


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(count)."""
    for start in range(0, count, max(size, 1)):
        yield slice(start, min(start + max(size, 1), count))
