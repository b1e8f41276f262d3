"""Loading base models, tokenizers and adapters, with errors that say what is wrong with a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from grpo.language.config import TemplateValue
from grpo.models.adapters import ModelError, base_name, check_adapter, model_source
from grpo.models.config import EMBEDDED, LoadingConfig, LoraSettings
from grpo.models.hardware import loading_problems
from grpo.models.spec import ModelSpec
from grpo.models.unsloth import load_model as load_with_unsloth
from preprocessing.files import JsonObject

WEIGHTS_FILE = "adapter_model.safetensors"
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding on the left, with a chat template that holds its arguments, and a pad token.

    Raises:
        ModelError: it cannot be loaded, knows no numbers, or has no chat template.
    """
    source = model_source(spec.base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"--model {spec.base}: its tokenizer cannot be loaded: {_reason(error)}") from error
    # Of a folder without tokenizer files transformers may make an empty tokenizer, without an error.
    if not tokenizer("500", add_special_tokens=False)["input_ids"]:
        raise ModelError(f"--model {spec.base} has no tokenizer files, or they have no tokens for numbers.")
    if tokenizer.chat_template is None:
        raise ModelError(f"--model {spec.base} has no chat template; take the model's Instruct variant.")
    if tokenizer.pad_token_id is None:
        # Masks say what is padding, so which token it is does not matter.
        tokenizer.pad_token = tokenizer.eos_token
    # Completions follow their prompt directly, so padding goes before it.
    tokenizer.padding_side = "left"
    if spec.chat_template:
        tokenizer.chat_template = with_arguments(tokenizer.get_chat_template(), spec.chat_template)
    return tokenizer


def with_arguments(template: str, arguments: Mapping[str, TemplateValue]) -> str:
    """A chat template that sets its arguments itself, so that every reader of the tokenizer renders the same prompt.

    Trainers, samplers and servers each have their own way to pass such arguments on, and some have none.

    Raises:
        ModelError: a name that no template can hold.
    """
    for name in arguments:
        if not name.isidentifier():
            raise ModelError(f"chat template: '{name}' is no name of an argument; take letters, digits and underscores")
    return "".join(f"{{%- set {name} = {json.dumps(value)} -%}}" for name, value in arguments.items()) + template


def weights_dtype(spec: ModelSpec) -> torch.dtype:
    """Precision of the base model's weights: `loading.dtype`, or what suits the device and the model."""
    if spec.loading.dtype != "auto":
        return getattr(torch, spec.loading.dtype)
    # A CPU has no fast bfloat16, and the embedded model is small enough for float32 anywhere.
    return torch.bfloat16 if torch.cuda.is_available() and spec.base != EMBEDDED else torch.float32


def load_generation_config(base: str) -> GenerationConfig | None:
    """The base model's generation config, or None where it has none."""
    try:
        return GenerationConfig.from_pretrained(model_source(base))
    except OSError:
        return None


def position_limit(spec: ModelSpec) -> int | None:
    """Most tokens that the base model can tell apart, or None where its configuration names no limit.

    Raises:
        ModelError: the configuration cannot be read.
    """
    try:
        settings = AutoConfig.from_pretrained(model_source(spec.base), trust_remote_code=spec.trust_remote_code)
    except _LOAD_ERRORS as error:
        raise ModelError(f"--model {spec.base} cannot be loaded: {_reason(error)}") from error
    return getattr(settings.get_text_config(), "max_position_embeddings", None)


def load_base_model(spec: ModelSpec) -> PreTrainedModel:
    """The base model without its adapter, as `spec.loading` asks for it, in the precision of `weights_dtype`.

    Raises:
        ModelError: it cannot be loaded, its files lack weights, which would otherwise start at random, or this
            machine lacks what `spec.loading` asks for.
    """
    source = model_source(spec.base)
    problems = loading_problems(spec.loading)
    if problems:
        raise ModelError("; ".join(problems))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=weights_dtype(spec),
            trust_remote_code=spec.trust_remote_code,
            output_loading_info=True,
            **_loading_arguments(spec),
        )
    except _LOAD_ERRORS as error:
        raise ModelError(f"--model {spec.base} cannot be loaded: {_reason(error)}") from error
    model, report = loaded
    # transformers starts missing weights at random, with a warning that is easily lost.
    if report["missing_keys"]:
        raise ModelError(f"--model {spec.base} lacks weights: {_some(report['missing_keys'])}")
    return model


def load_policy(
    spec: ModelSpec, lora: LoraSettings, *, max_seq_length: int, seed: int
) -> tuple[Any, LoraConfig | None]:
    """The model that a stage trains, from `spec.backend`.

    Args:
        spec: the model; training continues its adapter, or a fresh one where it has none.
        lora: what a fresh adapter looks like.
        max_seq_length: tokens of the longest prompt and completion.
        seed: of a fresh adapter that Unsloth makes; transformers' come from the global generator.

    Returns:
        The model, and the adapter that the trainer has yet to put onto it (None: it is there).

    Raises:
        ModelError: the model or the adapter cannot be loaded, or they do not belong together.
    """
    if spec.backend == "unsloth":
        return _load_unsloth_policy(spec, lora, max_seq_length=max_seq_length, seed=seed), None
    model = load_base_model(spec)
    if spec.adapter is None:
        return model, lora_config(lora)
    return attach_adapter(model, spec.adapter, spec, trainable=True), None


def _load_unsloth_policy(spec: ModelSpec, lora: LoraSettings, *, max_seq_length: int, seed: int) -> PeftModel:
    if spec.adapter is not None:
        check_adapter(spec.adapter, spec)
    try:
        model = load_with_unsloth(spec, lora, dtype=weights_dtype(spec), max_seq_length=max_seq_length, seed=seed)
    except _LOAD_ERRORS as error:
        model = f"adapter {spec.adapter} on --model {spec.base}" if spec.adapter else f"--model {spec.base}"
        raise ModelError(f"backend unsloth: {model} cannot be loaded: {_reason(error)}") from error
    if spec.adapter is not None:
        _require_fitting(model, spec.adapter, spec.base)
    model.peft_config["default"].base_model_name_or_path = model_source(spec.base)
    return model


def _loading_arguments(spec: ModelSpec) -> JsonObject:
    """What `spec.loading` says beyond the precision, in transformers' words."""
    loading, arguments = spec.loading, {}
    if loading.attention != "auto":
        arguments["attn_implementation"] = loading.attention
    if loading.quantization == "4bit":
        # QLoRA (Dettmers et al. 2023, section 3): NF4, constants quantised too, products in the weights' precision
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=weights_dtype(spec),
        )
        # Weights are quantised as they reach a GPU, so they are loaded onto that of this process.
        arguments["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    return arguments


def training_arguments(loading: LoadingConfig) -> JsonObject:
    """What the loading settings mean for training, in the words of transformers' TrainingArguments."""
    gpu, dtype = torch.cuda.is_available(), loading.dtype
    return {
        "use_cpu": not gpu,
        "bf16": gpu and dtype in ("auto", "bfloat16"),
        "fp16": gpu and dtype == "float16",
        "gradient_checkpointing": loading.gradient_checkpointing,
        "use_liger_kernel": loading.liger,
    }


def lora_config(settings: LoraSettings) -> LoraConfig:
    """PEFT's form of the adapter settings."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        task_type="CAUSAL_LM",
    )


def attach_adapter(model: PreTrainedModel, adapter: Path, spec: ModelSpec, *, trainable: bool) -> PeftModel:
    """Load an adapter onto its base model.

    Raises:
        ModelError: damaged weights, weights that do not fit, or an adapter of another base model.
    """
    check_adapter(adapter, spec)
    if not (Path(adapter) / WEIGHTS_FILE).is_file():
        raise ModelError(f"adapter {adapter} has no {WEIGHTS_FILE}; make it again.")
    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except _LOAD_ERRORS as error:
        raise ModelError(f"adapter {adapter} cannot be loaded onto {base_name(spec.base)}: {_reason(error)}") from error
    _require_fitting(peft_model, adapter, spec.base)
    peft_model.peft_config["default"].base_model_name_or_path = model_source(spec.base)
    return peft_model


def _require_fitting(peft_model: PeftModel, adapter: Path, base: str) -> None:
    """Compare the layers of an adapter's file with those that it was loaded onto.

    PEFT leaves a layer that the file lacks untrained, and drops what the model has no layer for.

    Raises:
        ModelError: they are not the same.
    """
    try:
        with safe_open(Path(adapter) / WEIGHTS_FILE, "pt") as file:
            # Names alone: safetensors reads the header and no weights.
            stored = {name for name in file.keys() if "lora_" in name}  # noqa: SIM118, the file is no mapping
    except _LOAD_ERRORS as error:
        raise ModelError(f"adapter {adapter} cannot be loaded onto {base_name(base)}: {_reason(error)}") from error
    expected = {name for name in get_peft_model_state_dict(peft_model, save_embedding_layers=False) if "lora_" in name}
    if stored != expected:
        raise ModelError(f"adapter {adapter} does not fit {base_name(base)}: {_some(stored ^ expected)}")


def save_adapter(model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, base: str) -> None:
    """Write the `default` adapter as safetensors, recording its base model by name."""
    settings = model.peft_config["default"]
    loaded_from = settings.base_model_name_or_path
    # The model was loaded from a place of this machine; the file is to hold a name that others know.
    settings.base_model_name_or_path = base_name(base)
    try:
        # The base's embeddings are never trained here; False spares PEFT a look-up of the base on the Hub.
        model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    finally:
        settings.base_model_name_or_path = loaded_from
    # PEFT's empty model card, with the path of this machine.
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(str(folder))


def _reason(error: BaseException) -> str:
    """The line of an error that says most: the first that is not a mere heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)


def _some(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first
