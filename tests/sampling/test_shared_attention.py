from __future__ import annotations

import pytest
import torch

from grpo.sampling import generation
from grpo.sampling.generation import sample_completions
from grpo.sampling.shared_attention import MODEL_TYPES
from tests.tiny_models import ARCHITECTURES, tiny_model

STEPS = 4


@pytest.mark.parametrize("samples", [1, 2, 8])
@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize(("heads", "key_heads"), [(2, 2), (4, 4), (4, 2), (4, 1), (9, 3), (14, 2), (32, 8)])
def test_every_step_has_the_logits_of_a_plain_forward(heads, key_heads, prompts, samples, monkeypatch):
    model, _ = tiny_model("llama", heads=heads, key_heads=key_heads)
    starts = [[5, 6, 7, 8, 9, 10], [15, 16, 17]][:prompts]  # the second one is padded
    steps: list[torch.Tensor] = []
    draw = generation._draw

    def recorded(logits, temperature, generator):
        steps.append(logits)
        return draw(logits, temperature, generator)

    monkeypatch.setattr(generation, "_draw", recorded)
    tokens = sample_completions(
        model,
        starts,
        num_samples=samples,
        max_new_tokens=STEPS,
        eos_ids=[2000],
        pad_id=0,
        generator=torch.Generator().manual_seed(0),
    )
    assert tokens.shape == (prompts * samples, STEPS)
    seen = torch.stack(steps, dim=1)  # [U * S, C, V]
    for row, answer in enumerate(tokens.tolist()):
        whole = torch.tensor([starts[row // samples] + answer])
        plain = model(input_ids=whole, use_cache=False).logits[0, -STEPS - 1 : -1]
        torch.testing.assert_close(seen[row], plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name in MODEL_TYPES])
def test_tiny_models_have_fewer_key_heads_than_heads_and_more_than_one(architecture):
    config = tiny_model(architecture)[0].config
    assert 1 < config.num_key_value_heads < config.num_attention_heads
