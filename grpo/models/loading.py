"""Loading base models, tokenizers and adapters, with errors that say what is wrong with a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from grpo.config import RunConfig
from grpo.models.adapters import ModelError, base_name, check_adapter, model_source
from grpo.models.config import EMBEDDED, LoraSettings
from grpo.models.hardware import loading_problems
from grpo.models.unsloth import load_model as load_with_unsloth

WEIGHTS_FILE = "adapter_model.safetensors"
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def load_tokenizer(config: RunConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding on the left, with a chat template and a pad token.

    Raises:
        ModelError: it cannot be loaded, knows no numbers, or has no chat template.
    """
    source = model_source(config.model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"--model {config.model}: its tokenizer cannot be loaded: {_reason(error)}") from error
    if not tokenizer("500", add_special_tokens=False)["input_ids"]:
        raise ModelError(f"--model {config.model} has no tokenizer files, or they have no tokens for numbers.")
    if tokenizer.chat_template is None:
        raise ModelError(f"--model {config.model} has no chat template; take the model's Instruct variant.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def weights_dtype(config: RunConfig) -> torch.dtype:
    """Precision of the base model's weights: `loading.dtype`, or what suits the device and the model."""
    if config.loading.dtype != "auto":
        return getattr(torch, config.loading.dtype)
    return torch.bfloat16 if torch.cuda.is_available() and config.model != EMBEDDED else torch.float32


def load_generation_config(config: RunConfig) -> GenerationConfig | None:
    """The base model's generation config, or None where it has none."""
    try:
        return GenerationConfig.from_pretrained(model_source(config.model))
    except OSError:
        return None


def load_base_model(config: RunConfig) -> PreTrainedModel:
    """The base model as `config.loading` asks for it, its weights in the precision of `weights_dtype`.

    Raises:
        ModelError: it cannot be loaded, its files lack weights, which would otherwise start at random, or this
            machine lacks what `config.loading` asks for.
    """
    source = model_source(config.model)
    problems = loading_problems(config.loading)
    if problems:
        raise ModelError("; ".join(problems))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=weights_dtype(config),
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
            **_loading_arguments(config),
        )
    except _LOAD_ERRORS as error:
        raise ModelError(f"--model {config.model} cannot be loaded: {_reason(error)}") from error
    model, report = loaded
    if report["missing_keys"]:
        raise ModelError(f"--model {config.model} lacks weights: {_some(report['missing_keys'])}")
    return model


def load_policy(config: RunConfig, start_from: Path | None) -> tuple[Any, LoraConfig | None]:
    """The model that a stage trains, from `config.backend`.

    Args:
        config: the run.
        start_from: adapter to continue; None trains a fresh one.

    Returns:
        The model, and the adapter that the trainer has yet to put onto it (None: it is there).

    Raises:
        ModelError: the model or the adapter cannot be loaded, or they do not belong together.
    """
    if config.backend == "unsloth":
        return _load_unsloth_policy(config, start_from), None
    model = load_base_model(config)
    if start_from is None:
        return model, lora_config(config.lora)
    return attach_adapter(model, start_from, config, trainable=True), None


def _load_unsloth_policy(config: RunConfig, start_from: Path | None) -> PeftModel:
    if start_from is not None:
        check_adapter(start_from, config)
    try:
        model = load_with_unsloth(config, start_from, dtype=weights_dtype(config))
    except _LOAD_ERRORS as error:
        model = f"adapter {start_from} on --model {config.model}" if start_from else f"--model {config.model}"
        raise ModelError(f"backend unsloth: {model} cannot be loaded: {_reason(error)}") from error
    if start_from is not None:
        _require_fitting(model, start_from, config)
    model.peft_config["default"].base_model_name_or_path = model_source(config.model)
    return model


def _loading_arguments(config: RunConfig) -> dict[str, Any]:
    """What `config.loading` says beyond the precision, in transformers' words."""
    loading, arguments = config.loading, {}
    if loading.attention != "auto":
        arguments["attn_implementation"] = loading.attention
    if loading.quantization == "4bit":
        # QLoRA (Dettmers et al. 2023, section 3): NF4, constants quantised too, products in the weights' precision
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=weights_dtype(config),
        )
        arguments["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}  # quantised where it stays
    return arguments


def training_arguments(config: RunConfig) -> dict[str, Any]:
    """What `config.loading` means for training, in the words of transformers' TrainingArguments."""
    gpu, dtype = torch.cuda.is_available(), config.loading.dtype
    return {
        "use_cpu": not gpu,
        "bf16": gpu and dtype in ("auto", "bfloat16"),
        "fp16": gpu and dtype == "float16",
        "gradient_checkpointing": config.loading.gradient_checkpointing,
        "use_liger_kernel": config.loading.liger,
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


def attach_adapter(model: PreTrainedModel, adapter: Path, config: RunConfig, *, trainable: bool) -> PeftModel:
    """Load an adapter onto its base model.

    Raises:
        ModelError: damaged weights, weights that do not fit, or an adapter of another base model.
    """
    check_adapter(adapter, config)
    if not (Path(adapter) / WEIGHTS_FILE).is_file():
        raise ModelError(f"adapter {adapter} has no {WEIGHTS_FILE}; make it again.")
    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except _LOAD_ERRORS as error:
        raise ModelError(f"adapter {adapter} cannot be loaded onto {base_name(config)}: {_reason(error)}") from error
    _require_fitting(peft_model, adapter, config)
    peft_model.peft_config["default"].base_model_name_or_path = model_source(config.model)
    return peft_model


def _require_fitting(peft_model: PeftModel, adapter: Path, config: RunConfig) -> None:
    """Compare the layers of an adapter's file with those that it was loaded onto.

    PEFT leaves a layer that the file lacks untrained, and drops what the model has no layer for.

    Raises:
        ModelError: they are not the same.
    """
    try:
        with safe_open(Path(adapter) / WEIGHTS_FILE, "pt") as file:
            stored = {name for name in file.keys() if "lora_" in name}  # noqa: SIM118, the file is no mapping
    except _LOAD_ERRORS as error:
        raise ModelError(f"adapter {adapter} cannot be loaded onto {base_name(config)}: {_reason(error)}") from error
    expected = {name for name in get_peft_model_state_dict(peft_model, save_embedding_layers=False) if "lora_" in name}
    if stored != expected:
        raise ModelError(f"adapter {adapter} does not fit {base_name(config)}: {_some(stored ^ expected)}")


def save_adapter(model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, config: RunConfig) -> None:
    """Write the `default` adapter as safetensors, recording its base model by name."""
    settings = model.peft_config["default"]
    loaded_from = settings.base_model_name_or_path
    settings.base_model_name_or_path = base_name(config)
    try:
        # The base's embeddings are never trained here; False spares PEFT a look-up of the base on the Hub.
        model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    finally:
        settings.base_model_name_or_path = loaded_from
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card, with the path of this machine
    tokenizer.save_pretrained(str(folder))


def _reason(error: BaseException) -> str:
    """The line of an error that says most: the first that is not a mere heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)


def _some(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first
