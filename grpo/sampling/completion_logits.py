"""Logits of completions with gradients, each distinct prompt forwarded once: by a cache, or packed into one row.

`cached_logits` forwards the prompts, then the completions on the prompts' key-value cache. Where that cannot be,
`packed_logits` puts a prompt and all its completions into one row, where a completion sees the prompt and itself: more
attention is computed than needed, and none of it is stored.

Letters: B rows (one per completion), U distinct prompts, N most completions of one prompt, P prompt length,
C completion length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import DynamicCache

from grpo.sampling.generation import left_pad, model_device

ROUNDING = {torch.float32: 0.002, torch.float16: 0.1, torch.bfloat16: 0.25}
"""Largest mean difference of a token's log-probability between two ways to compute it that rounding explains."""


@dataclass(frozen=True)
class Groups:
    """Which rows of a batch have the same prompt.

    Attributes:
        of_row: [B] number of each row's prompt.
        first: [U] a row of each prompt.
        place: [B] number of the row among those of its prompt.
    """

    of_row: torch.Tensor
    first: torch.Tensor
    place: torch.Tensor


def group_by_prompt(prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> Groups:
    """Find equal prompts, in whatever order the rows are.

    Args:
        prompt_ids: [B, P].
        prompt_mask: [B, P].
    """
    _, of_row, counts = torch.unique(
        torch.cat([prompt_ids, prompt_mask], dim=1), dim=0, return_inverse=True, return_counts=True
    )
    order = torch.argsort(of_row, stable=True)
    starts = counts.cumsum(0) - counts
    # In the order of prompts each row counts on from the first row of its prompt.
    place = torch.empty_like(of_row)
    place[order] = torch.arange(len(order), device=order.device) - starts[of_row[order]]
    return Groups(of_row=of_row, first=order[starts], place=place)


def completion_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_length: int
) -> torch.Tensor:
    """Logits that predict each completion token.

    Args:
        model: a causal language model.
        input_ids: [B, P + C], prompts padded on the left, completions on the right.
        attention_mask: [B, P + C].
        completion_length: C.

    Returns:
        [B, C, V]
    """
    inner = unwrapped(model)
    # Gradient checkpointing drops the cache, with a mere warning and log-probabilities that are wrong by nats. FSDP2
    # has freed the weights of the first of two forwards by the time its backward comes. Neither matters without
    # gradients.
    one_forward = (inner.training and inner.is_gradient_checkpointing) or isinstance(inner, FSDPModule)
    logits = packed_logits if one_forward and torch.is_grad_enabled() else cached_logits
    return logits(model, input_ids, attention_mask, completion_length)


@torch.no_grad()
def sharing_error(model: Any, prompts: Sequence[Sequence[int]], *, packed: bool) -> float:
    """How far sharing moves this model's log-probabilities from those of one forward per row.

    Up to eight last tokens of a prompt, and the same in reverse, serve as its completions.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids, of different lengths if there are such; those of fewer than three tokens are left out.
        packed: by `packed_logits`, else by `cached_logits`.

    Returns:
        Mean absolute difference per token, nats.
    """
    prompts = [prompt for prompt in prompts if len(prompt) > 2]
    if not prompts:
        return 0.0
    # Two tokens stay: one to share, and one from which the completion starts.
    length = min(8, min(map(len, prompts)) - 2)
    device = model_device(model)
    starts = [list(prompt[:-length]) for prompt in prompts for _ in range(2)]
    # Two completions of a prompt that differ, as those of a group do: one alone would not put the packing to the test.
    tails = [list(prompt[-length:])[::order] for prompt in prompts for order in (1, -1)]
    completions = torch.tensor(tails, device=device)
    ids, mask = left_pad(starts, 0, device)
    seen = torch.cat([mask, torch.ones_like(completions)], 1)
    shared = (packed_logits if packed else cached_logits)(model, torch.cat([ids, completions], 1), seen, length)
    rows = [torch.tensor([start + tail], device=device) for start, tail in zip(starts, tails, strict=True)]
    alone = torch.cat([model(input_ids=row, use_cache=False).logits[:, -length - 1 : -1] for row in rows])
    first, second = (
        torch.log_softmax(logits.float(), -1).gather(-1, completions[..., None]) for logits in (shared, alone)
    )
    return float((first - second).abs().mean())


def cached_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_length: int
) -> torch.Tensor:
    """As `completion_logits`, by a cache that keeps gradients.

    The cache holds the prompt without its last token; that token is the first of the second forward, whose logits
    at each position predict the next completion token.
    """
    shared = input_ids.shape[1] - completion_length - 1
    groups = group_by_prompt(input_ids[:, :shared], attention_mask[:, :shared])
    positions = _positions(attention_mask)
    # From the config, so that sliding layers get caches of their kind.
    cache = DynamicCache(config=unwrapped(model).config)
    model(
        input_ids=input_ids[groups.first, :shared],
        attention_mask=attention_mask[groups.first, :shared],
        position_ids=positions[groups.first, :shared],
        past_key_values=cache,
        use_cache=True,
        # Only the cache is wanted; logits of a whole prompt would be P times the vocabulary.
        logits_to_keep=1,
    )
    # U rows to B; selecting keeps the graph, so the gradients of all completions add up in their one prompt.
    cache.batch_select_indices(groups.of_row)
    output = model(
        input_ids=input_ids[:, shared:],
        attention_mask=attention_mask,
        position_ids=positions[:, shared:],
        past_key_values=cache,
        use_cache=True,
    )
    return output.logits[:, :-1]


def packed_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_length: int
) -> torch.Tensor:
    """As `completion_logits`, with the prompt and all its completions in one row [U, P - 1 + N (C + 1)].

    A segment is the prompt's last token and a completion. The model must take a 4-dimensional mask (eager and SDPA
    attention) and must not cut the past off by a sliding window shorter than P + C.
    """
    shared, segment = input_ids.shape[1] - completion_length - 1, completion_length + 1
    groups = group_by_prompt(input_ids[:, :shared], attention_mask[:, :shared])
    prompts, copies = len(groups.first), int(groups.place.max()) + 1

    def pack(values: torch.Tensor) -> torch.Tensor:  # [B, P + C] -> [U, P - 1 + N (C + 1)]
        # Prompts with fewer completions than others keep empty segments, which the mask hides.
        segments = values.new_zeros(prompts, copies, segment)
        segments[groups.of_row, groups.place] = values[:, shared:]
        return torch.cat([values[groups.first, :shared], segments.flatten(1)], dim=1)

    output = model(
        input_ids=pack(input_ids),
        attention_mask=_packed_mask(pack(attention_mask), shared, segment, _dtype(model)),
        position_ids=pack(_positions(attention_mask)),
        use_cache=False,
        logits_to_keep=copies * segment,
    )
    by_segment = output.logits.unflatten(1, (copies, segment))  # [U, N, C + 1, V]
    return by_segment[groups.of_row, groups.place, :-1]


def _packed_mask(seen: torch.Tensor, shared: int, segment: int, dtype: torch.dtype) -> torch.Tensor:
    """[U, 1, T, T] 0 where the row's token may see the column's, else the most negative number.

    Args:
        seen: [U, T] 1 where there is a token.
        shared: tokens of the prompt that all segments see.
        segment: tokens of a segment.
        dtype: of the model.
    """
    place = torch.arange(seen.shape[1], device=seen.device)
    number = torch.where(place < shared, -1, (place - shared).div(segment, rounding_mode="floor"))
    causal = place[:, None] >= place
    together = (number[:, None] == number) | (number == -1)
    # A padded token sees itself at least: some attention kernels make NaN of a row that sees nothing, and NaN times a
    # weight of 0 is still NaN.
    allowed = (causal & together & seen[:, None].bool()) | torch.eye(len(place), dtype=torch.bool, device=seen.device)
    return torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def _positions(attention_mask: torch.Tensor) -> torch.Tensor:
    # Positions count real tokens: padding on the left must not push a prompt to later positions than it has alone.
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def _dtype(model: Any) -> torch.dtype:
    if torch.is_autocast_enabled():
        return torch.get_autocast_dtype(unwrapped(model).device.type)
    return unwrapped(model).dtype


def unwrapped(model: Any) -> Any:
    """The model under DDP and its like (PEFT stays)."""
    while hasattr(model, "module"):
        model = model.module
    return model
