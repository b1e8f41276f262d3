"""The shared prompt on a CUDA device, in each precision and with each attention kernel."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from grpo.models.config import LoadingConfig
from grpo.models.loading import load_base_model
from grpo.models.spec import ModelSpec
from grpo.sampling.completion_logits import cached_logits, packed_logits
from grpo.sampling.generation import sample_completions
from tests.training.test_trainer import assert_bfloat16_rounds_alike, both_ways

needs_flash_attention = pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed"
)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_float32_loss_and_gradient_equal_stock_trl(architecture, tmp_path):
    ((loss, gradient), (stock_loss, stock_gradient)), trainer, _ = both_ways(architecture, tmp_path, use_cpu=False)
    assert next(trainer.model.parameters()).is_cuda
    assert loss == pytest.approx(stock_loss, abs=1e-5)
    for name, expected in stock_gradient.items():
        torch.testing.assert_close(gradient[name], expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_bfloat16_gradient_is_as_near_to_stock_trls_as_rounding_leaves_that_to_float32(architecture, tmp_path):
    assert_bfloat16_rounds_alike(architecture, tmp_path, use_cpu=False)


def model_with(attention: str, dtype: str):
    loading = LoadingConfig(attention=attention, dtype=dtype)  # type: ignore[arg-type]
    return load_base_model(ModelSpec(loading=loading)).to("cuda").eval()


def ragged_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two prompts of different lengths with three completions each, [6, 60 + 9]."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 900, (6, 69), generator=generator)
    ids[1:3, :60], ids[4:6, :60] = ids[0, :60], ids[3, :60]
    mask = torch.ones_like(ids)
    mask[3:, :20] = 0
    return ids.cuda(), mask.cuda()


@pytest.mark.parametrize(
    ("attention", "dtype", "tolerance"),
    [
        ("sdpa", "float32", 1e-4),
        ("sdpa", "bfloat16", 0.15),
        pytest.param("flash_attention_2", "bfloat16", 0.15, marks=needs_flash_attention),
    ],
)
@torch.no_grad()
def test_shared_logits_equal_those_of_whole_rows(attention, dtype, tolerance):
    model, (ids, mask) = model_with(attention, dtype), ragged_batch()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    whole = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, 59:-1].float()
    shared = cached_logits(model, ids, mask, 9).float()
    assert (torch.log_softmax(shared, -1) - torch.log_softmax(whole, -1)).abs().mean() < tolerance
    if attention == "sdpa":
        packed = packed_logits(model, ids, mask, 9).float()
        assert (torch.log_softmax(packed, -1) - torch.log_softmax(whole, -1)).abs().mean() < tolerance


@torch.no_grad()
def test_sampled_answers_equal_those_of_the_cpu():
    model = model_with("auto", "float32")
    prompts = [list(range(5, 60)), list(range(100, 130))]
    settings = {"num_samples": 1, "max_new_tokens": 12, "eos_ids": [], "pad_id": 0, "temperature": 0}
    on_gpu = sample_completions(model, prompts, **settings).cpu()
    assert torch.equal(on_gpu, sample_completions(model.to("cpu"), prompts, **settings))
