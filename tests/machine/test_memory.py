"""The memory estimate against counts and bytes that PyTorch itself reports on small models."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import selective_log_softmax_and_entropy

from grpo.config import RunConfig
from grpo.machine.memory import BYTES_PASSING_LOGIT, Batch, estimate, model_size
from grpo.models.adapters import ModelError
from grpo.models.config import LoadingConfig, LoraSettings
from grpo.models.loading import load_base_model, lora_config
from grpo.models.spec import ModelSpec
from grpo.sampling.completion_logits import completion_logits

SIZES = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}
FEW_KEYS = {"num_key_value_heads": 1, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6}


def saved(tmp_path: Path, config_class, model_class, **sizes) -> RunConfig:
    model_class(config_class(**{**SIZES, **sizes})).save_pretrained(tmp_path)
    return RunConfig(model=str(tmp_path), lora=LoraSettings(rank=8, alpha=16))


def held_for_backward(model, batch: Batch) -> int:
    """Bytes of the distinct tensors that autograd keeps after a forward pass, parameters aside."""
    group, vocabulary = batch.rows // batch.prompts, model.config.vocab_size
    prompts = torch.randint(0, vocabulary, (batch.prompts, batch.prompt_length)).repeat_interleave(group, 0)
    ids = torch.cat([prompts, torch.randint(0, vocabulary, (batch.rows, batch.completion_length))], dim=1)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}  # the tensors stay alive, so that no address comes twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = completion_logits(model, ids, torch.ones_like(ids), batch.completion_length)
        selective_log_softmax_and_entropy(
            logits, ids[:, -batch.completion_length :], entropy_requires_grad=False, temperature=1.0
        )
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(
    ("classes", "sizes", "batch", "checkpointing"),
    [
        ((LlamaConfig, LlamaForCausalLM), {}, (2, 16, 300, 12), False),
        ((LlamaConfig, LlamaForCausalLM), FEW_KEYS, (4, 32, 200, 12), False),
        ((Qwen2Config, Qwen2ForCausalLM), {"vocab_size": 32_000}, (2, 16, 100, 12), False),
        ((Qwen2Config, Qwen2ForCausalLM), {}, (16, 16, 300, 30), False),
        ((LlamaConfig, LlamaForCausalLM), FEW_KEYS, (4, 32, 200, 12), True),
    ],
    ids=["llama", "few keys", "large vocabulary", "nothing shared", "checkpointing"],
)
def test_the_activations_are_what_autograd_keeps(classes, sizes, batch, checkpointing, tmp_path):
    config = saved(tmp_path, *classes, **sizes)
    config = dataclasses.replace(config, loading=LoadingConfig(gradient_checkpointing=checkpointing))
    prompts, rows, prompt_length, completion_length = batch
    forwarded = Batch(prompts=prompts, rows=rows, prompt_length=prompt_length, completion_length=completion_length)
    size = model_size(config.spec(), config.lora)
    model = get_peft_model(load_base_model(config.spec()), lora_config(config.lora)).train()
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    estimated = estimate(size, config.spec(), forwarded, forwarded).activations
    estimated -= BYTES_PASSING_LOGIT * rows * (completion_length + 1) * size.vocabulary
    if checkpointing:  # the layer that is computed again is not there yet after the forward pass
        without = estimate(dataclasses.replace(size, layers=0), config, forwarded, forwarded).activations
        estimated -= without - estimate(
            dataclasses.replace(size, layers=0, hidden=0, queries=0, keys=0, inner=0, ranks=0),
            config.spec(), forwarded, forwarded,
        ).activations  # fmt: skip
    assert estimated == pytest.approx(held_for_backward(model, forwarded), rel=0.15)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["down_proj"]], ids=str)
def test_parameters_are_counted_as_peft_makes_them(targets, tmp_path):
    config = saved(tmp_path, Qwen2Config, Qwen2ForCausalLM, tie_word_embeddings=True)
    config = dataclasses.replace(config, lora=LoraSettings(rank=5, alpha=10, target_modules=targets))
    size = model_size(config.spec(), config.lora)
    model = get_peft_model(load_base_model(config.spec()), lora_config(config.lora))
    trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    assert size.lora == sum(trained.values())
    assert size.parameters == sum(weight.numel() for weight in model.parameters()) - size.lora
    assert size.ranks * SIZES["num_hidden_layers"] == sum(5 for name in trained if "lora_A" in name)


def test_the_embedded_model_is_counted_without_its_weights():
    size = model_size(ModelSpec(), LoraSettings())
    assert size.parameters == 971_776
    batch = Batch(prompts=1, rows=8, prompt_length=10, completion_length=11)
    needed = estimate(size, ModelSpec(), batch, batch)
    assert needed.weights == 4 * 971_776
    assert needed.adapter == 16 * size.lora
    assert needed.total == needed.fixed + max(needed.activations, needed.sampling)


def test_options_change_the_bytes_as_documented():
    batch = Batch(prompts=2, rows=16, prompt_length=300, completion_length=12)
    size = model_size(ModelSpec(), LoraSettings())

    def with_loading(**options):
        return estimate(size, ModelSpec(loading=LoadingConfig(**options)), batch, batch)

    plain = with_loading()
    assert with_loading(dtype="bfloat16").weights == plain.weights // 2
    small = with_loading(quantization="4bit", dtype="bfloat16").weights
    assert small == round(0.55 * size.linear + 2 * (size.parameters - size.linear))
    assert with_loading(gradient_checkpointing=True).activations < plain.activations / 3
    keys, cached = size.keys, 2 * 300 + 16 * 12
    assert plain.sampling == 4 * 2 * keys * size.layers * cached + 24 * 16 * size.vocabulary


def test_a_model_without_a_configuration_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=f"--model {tmp_path} cannot be loaded: "):
        model_size(ModelSpec(base=str(tmp_path)), LoraSettings())


PEAK = """
import re, sys, torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import selective_log_softmax_and_entropy
from grpo.sampling.completion_logits import completion_logits
from grpo.config import LoraSettings, RunConfig
from grpo.machine.memory import Batch, estimate, model_size
from grpo.models.loading import load_base_model, lora_config
config = RunConfig(model=sys.argv[1], lora=LoraSettings(rank=16))
def resident():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
def step(model, prompts, rows, length, completion):
    ids = torch.randint(0, 1000, (prompts, length)).repeat_interleave(rows // prompts, 0)
    ids = torch.cat([ids, torch.randint(0, 1000, (rows, completion))], 1)
    logits = completion_logits(model, ids, torch.ones_like(ids), completion)
    logps, _ = selective_log_softmax_and_entropy(logits, ids[:, -completion:], entropy_requires_grad=False,
                                                 temperature=1.0)
    logps.sum().backward()
size = model_size(config.spec(), config.lora)
small = get_peft_model(LlamaForCausalLM(LlamaConfig(vocab_size=1000, hidden_size=16, intermediate_size=16,
    num_hidden_layers=1, num_attention_heads=1)), lora_config(config.lora))
step(small, 1, 2, 10, 10)  # what the libraries take themselves
before = resident()
model = get_peft_model(load_base_model(config.spec()), lora_config(config.lora)).train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
batch = Batch(prompts=4, rows=32, prompt_length=300, completion_length=12)
step(model, 4, 32, 300, 12)
optimizer.step()
print(resident() - before, estimate(size, config.spec(), batch, batch).total)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_the_peak_of_a_process_is_what_was_estimated(tmp_path):
    saved(
        tmp_path, LlamaConfig, LlamaForCausalLM, vocab_size=8000, hidden_size=256, intermediate_size=768,
        num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4,
    )  # fmt: skip
    shown = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    measured, estimated = map(int, shown.stdout.split())
    assert estimated == pytest.approx(measured, rel=0.4), f"{estimated / measured:.2f}"
