"""Models and adapters from folders, and what is said of folders that cannot be used."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from grpo.models import loading as modeling
from grpo.models.adapters import ModelError, base_name, model_source
from grpo.models.config import LoadingConfig, LoraSettings
from grpo.models.loading import (
    attach_adapter,
    load_base_model,
    load_tokenizer,
    lora_config,
    save_adapter,
    training_arguments,
)
from grpo.models.spec import ModelSpec
from tests.tiny_models import save_tiny_model

TOKENS = torch.randint(5, 900, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A base model and an adapter for it."""
    root = tmp_path_factory.mktemp("originals")
    save_tiny_model("qwen2", root / "tiny")
    spec = ModelSpec(base=str(root / "tiny"))
    model = get_peft_model(load_base_model(spec), lora_config(LoraSettings(rank=4, alpha=8)))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, load_tokenizer(spec), root / "adapter", spec.base)
    return root


@pytest.fixture
def copies(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "copies"))


def spec_of(folder: Path) -> ModelSpec:
    return ModelSpec(base=str(folder / "tiny"))


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


def test_an_adapter_survives_saving(originals, tmp_path):
    spec = spec_of(originals)
    first = attach_adapter(load_base_model(spec), originals / "adapter", spec, trainable=True)
    save_adapter(first, load_tokenizer(spec), tmp_path / "again", spec.base)
    second = attach_adapter(load_base_model(spec), tmp_path / "again", spec, trainable=False)
    assert torch.equal(logits(first), logits(second))
    assert (logits(first) - logits(load_base_model(spec))).abs().max() > 0.1
    assert {name for name, weight in first.named_parameters() if weight.requires_grad} == {
        name for name, _ in first.named_parameters() if "lora_" in name
    }
    assert not any(weight.requires_grad for weight in second.parameters())


def test_an_adapter_names_its_base_without_a_path(originals):
    settings = json.loads((originals / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny"
    for file in (originals / "adapter").iterdir():
        assert str(originals).encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("model", "name"), [("embedded", "embedded"), ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct")]
)
def test_the_base_name_of_models_that_are_no_folders(model, name):
    assert base_name(model) == name


def test_a_tokenizer_pads_on_the_left_and_has_a_pad_token(originals):
    tokenizer = load_tokenizer(spec_of(originals))
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id is not None


ARGUMENTS_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if thinks is defined and thinks is false %}<quick>{% endif %}{{ day | default('today') }}|{{ depth }}"
)


def test_arguments_of_the_chat_template_are_part_of_the_tokenizer(copies, tmp_path):
    (copies / "tiny" / "chat_template.jinja").write_text(ARGUMENTS_TEMPLATE)
    arguments = {"thinks": False, "day": 'the "1st" of {May}', "depth": 3}
    spec = dataclasses.replace(spec_of(copies), chat_template=arguments)
    plain, bound = load_tokenizer(spec_of(copies)), load_tokenizer(spec)
    messages = [{"role": "user", "content": "hi "}]
    expected = 'hi <quick>the "1st" of {May}|3'
    assert plain.apply_chat_template(messages, tokenize=False) == "hi today|"
    assert plain.apply_chat_template(messages, tokenize=False, **arguments) == expected
    assert bound.apply_chat_template(messages, tokenize=False) == expected
    bound.save_pretrained(tmp_path / "saved")  # as an adapter's folder keeps it, for servers
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.apply_chat_template(messages, tokenize=False) == expected


def test_an_argument_that_no_template_can_hold_is_named(originals):
    with pytest.raises(ModelError, match="'a b' is no name of an argument"):
        load_tokenizer(dataclasses.replace(spec_of(originals), chat_template={"a b": 1}))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def drop(file: Path, part: str) -> None:
    save_file({k: v for k, v in load_file(file).items() if part not in k}, file, metadata={"format": "pt"})


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tiny: (tiny / "config.json").unlink(), "without config.json"),
        (lambda tiny: (tiny / "config.json").write_text("{"), "cannot be loaded: .*config.json"),
        (lambda tiny: (tiny / "config.json").write_text("{}"), "cannot be loaded: .*model_type"),
        (lambda tiny: (tiny / "model.safetensors").unlink(), "cannot be loaded: .*no file named model.safetensors"),
        (lambda tiny: cut(tiny / "model.safetensors"), "cannot be loaded: .*incomplete"),
        (lambda tiny: (tiny / "model.safetensors").write_bytes(b""), "cannot be loaded"),
        (lambda tiny: drop(tiny / "model.safetensors", "up_proj"), "lacks weights: .*up_proj.weight and 1 more"),
        (lambda tiny: shutil.rmtree(tiny), "there is no such folder"),
    ],
)
def test_a_damaged_model_is_named(copies, damage: Callable[[Path], object], message):
    damage(copies / "tiny")
    with pytest.raises(ModelError, match=f"--model {copies / 'tiny'}.*{message}") as caught:
        load_base_model(spec_of(copies))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tiny: (tiny / "tokenizer.json").write_text("{"), "tokenizer cannot be loaded"),
        (lambda tiny: (tiny / "tokenizer.json").unlink(), "no tokenizer files"),
        (lambda tiny: (tiny / "chat_template.jinja").unlink(), "no chat template"),
    ],
)
def test_a_damaged_tokenizer_is_named(copies, damage: Callable[[Path], object], message):
    damage(copies / "tiny")
    with pytest.raises(ModelError, match=message):
        load_tokenizer(spec_of(copies))


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/model", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_hub_id(model):
    with pytest.raises(ModelError, match="no such folder"):
        model_source(model)


LORA_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def widen(file: Path) -> None:
    weights = load_file(file)
    save_file(weights | {LORA_A: torch.zeros(4, 64)}, file)


def add_layer(file: Path) -> None:
    save_file(load_file(file) | {LORA_A.replace("layers.0", "layers.7"): torch.zeros(4, 32)}, file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda adapter: shutil.rmtree(adapter), "no adapter_config.json"),
        (lambda adapter: (adapter / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda adapter: (adapter / "adapter_config.json").write_text("{"), "is damaged"),
        (lambda adapter: (adapter / "adapter_config.json").write_text("[]"), "does not hold an adapter's settings"),
        (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda adapter: cut(adapter / "adapter_model.safetensors"), "cannot be loaded onto tiny: .*incomplete"),
        (lambda adapter: drop(adapter / "adapter_model.safetensors", "layers.1.mlp.up_proj.lora_B"), "does not fit"),
        (lambda adapter: add_layer(adapter / "adapter_model.safetensors"), "does not fit tiny: .*layers.7"),
        (lambda adapter: widen(adapter / "adapter_model.safetensors"), "onto tiny: size mismatch .*q_proj"),
        (
            lambda adapter: rewrite(adapter / "adapter_config.json", base_model_name_or_path="other"),
            "was trained on base model 'other', but --model is 'tiny'",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_that_does_not_fit_is_named(copies, damage: Callable[[Path], object], message):
    damage(copies / "adapter")
    spec = spec_of(copies)
    with pytest.raises(ModelError, match=message) as caught:
        attach_adapter(load_base_model(spec), copies / "adapter", spec, trainable=True)
    assert str(copies / "adapter") in str(caught.value)
    assert "\n" not in str(caught.value)


def loading(folder: Path, **options) -> ModelSpec:
    return ModelSpec(base=str(folder / "tiny"), loading=LoadingConfig(**options))


def test_the_base_is_loaded_as_the_options_say(originals):
    plain = load_base_model(loading(originals))
    other = load_base_model(loading(originals, dtype="bfloat16", attention="eager"))
    assert (plain.dtype, other.dtype) == (torch.float32, torch.bfloat16)
    assert (plain.config._attn_implementation, other.config._attn_implementation) == ("sdpa", "eager")
    eager = load_base_model(loading(originals, attention="eager"))
    torch.testing.assert_close(logits(plain), logits(eager), rtol=1e-4, atol=1e-4)


def test_an_option_that_the_machine_lacks_stops_before_anything_is_loaded(originals, monkeypatch):
    monkeypatch.setattr("grpo.models.hardware.cuda_devices", list)
    monkeypatch.setattr(modeling.AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(ModelError, match=r"sees no GPU; take loading\.quantization none; .*not installed") as caught:
        load_base_model(loading(originals, quantization="4bit"))
    assert "\n" not in str(caught.value)


def test_four_bits_are_nf4_with_quantised_constants_on_the_process_own_device(originals, monkeypatch):
    given: dict = {}

    def from_pretrained(source, **arguments):
        given.update(arguments)
        return None, {"missing_keys": []}

    monkeypatch.setattr(modeling, "loading_problems", lambda loading: [])
    monkeypatch.setattr(modeling.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setenv("LOCAL_RANK", "3")
    load_base_model(loading(originals, quantization="4bit", dtype="bfloat16", attention="flash_attention_2"))
    settings = given["quantization_config"]
    assert settings.load_in_4bit
    assert settings.bnb_4bit_use_double_quant
    assert (settings.bnb_4bit_quant_type, settings.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)
    assert (given["device_map"], given["attn_implementation"]) == ({"": 3}, "flash_attention_2")


@pytest.mark.parametrize(
    ("gpu", "options", "expected"),
    [
        (False, {}, {"use_cpu": True, "bf16": False, "fp16": False}),
        (True, {}, {"use_cpu": False, "bf16": True, "fp16": False}),
        (True, {"dtype": "float16"}, {"use_cpu": False, "bf16": False, "fp16": True}),
        (True, {"dtype": "float32"}, {"use_cpu": False, "bf16": False, "fp16": False}),
        (False, {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "use_liger_kernel": False}),
        (True, {"liger": True}, {"gradient_checkpointing": False, "use_liger_kernel": True}),
    ],
)  # fmt: skip
def test_the_options_reach_the_trainer(gpu, options, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    arguments = training_arguments(LoadingConfig(**options))
    assert arguments | expected == arguments
