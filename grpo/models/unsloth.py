"""Unsloth in place of transformers' own forward and TRL's own GRPO loss, in the training stages.

The only module that names Unsloth. Importing it replaces classes of TRL, transformers and PEFT, so it must come before
them (`activate`, which the stages call first), and never where it cannot run: an import that fails leaves half of its
replacements behind, and without a GPU it would train by another path of its own.

What is Unsloth's then, and what stays:
1. GRPO's rollout and loss are those of Unsloth's GRPOTrainer, which shares the prompt in the loss by its own grouping
   (UNSLOTH_GRPO_PREFIX_GROUPER, on by default); `grpo.training.trainer.SharedPromptGRPOTrainer` would call its
   layers with a cache that they do not take, so it steps aside, and says so once.
2. Prompts, rewards, validation, manifests and the adapter's files are the same, so that adapters go from one backend to
   the other between stages. Rejection sampling and comparison load them without Unsloth.
3. Stage 3's KL reference must be the adapter that it starts from; Unsloth has code that takes the base model instead,
   where it recognises TRL's. `require_reference` stops the stage there.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from grpo.config import RunConfig
from grpo.models.adapters import adapter_settings, model_source
from grpo.models.hardware import cuda_devices, splits_weights
from preprocessing.errors import UserError

INSTALL = "`./run_pipeline.sh --install unsloth` or `pip install 'grpo-forecast[unsloth]'`"


def unsloth_problems(config: RunConfig) -> list[str]:
    """Why `backend unsloth` cannot train this run here, one line each; nothing is imported."""
    instead = "take backend transformers"
    problems = []
    if importlib.util.find_spec("unsloth") is None:
        problems.append(f"backend unsloth: Unsloth is not installed; run {INSTALL}, or {instead}")
    if not cuda_devices():
        problems.append(f"backend unsloth: PyTorch sees no GPU, and Unsloth's kernels need one; {instead}")
    if splits_weights():
        problems.append(f"backend unsloth: it keeps all weights in each process; take ddp, or {instead}")
    for chosen, setting, value in (
        (config.generation.backend, "generation.backend", "transformers"),
        (config.loading.attention, "loading.attention", "auto"),
        (config.loading.liger, "loading.liger", False),
    ):
        if chosen != value:
            given, value = str(chosen).lower(), str(value).lower()
            problems.append(f"backend unsloth: {setting} {given} has no place in it; take {setting} {value}")
    return problems


def activate(config: RunConfig) -> None:
    """Import Unsloth if this run asks for it; call it before anything that imports TRL, transformers or PEFT.

    Raises:
        UserError: Unsloth is not installed, there is no GPU, or a setting does not go with it.
    """
    if config.backend != "unsloth":
        return
    problems = unsloth_problems(config)
    if problems:
        raise UserError("; ".join(problems))
    importlib.import_module("unsloth")


def load_model(config: RunConfig, start_from: Path | None, *, dtype: Any) -> Any:
    """The base model with a LoRA adapter to train, a fresh one or a copy of a finished one.

    Args:
        config: the run.
        start_from: adapter to continue; None makes one of `config.lora`.
        dtype: torch type of the weights.

    Returns:
        A PEFT model whose adapter is called `default`.
    """
    fast = importlib.import_module("unsloth").FastLanguageModel
    checkpointing = "unsloth" if config.loading.gradient_checkpointing else False
    loading = {
        "max_seq_length": config.prompt.max_seq_length,
        "dtype": dtype,
        "load_in_4bit": config.loading.quantization == "4bit",
        "use_gradient_checkpointing": checkpointing,
        "use_exact_model_name": True,  # or it takes a copy of the weights from another repository
        "trust_remote_code": config.trust_remote_code,
    }
    source = model_source(config.model)
    if start_from is not None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(start_from, Path(folder, "adapter")))
            settings = adapter_settings(start_from) | {"base_model_name_or_path": source}
            (copy / "adapter_config.json").write_text(json.dumps(settings))
            model, _ = fast.from_pretrained(model_name=str(copy), **loading)
        return model
    model, _ = fast.from_pretrained(model_name=source, **loading)
    return fast.get_peft_model(
        model,
        r=config.lora.rank,
        target_modules=config.lora.target_modules,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        use_gradient_checkpointing=checkpointing,
        random_state=config.seed,
    )


def require_reference(model: Any, *, beta: float) -> None:
    """Check that a GRPO trainer that continues an adapter has kept a copy of it for the KL.

    Raises:
        UserError: it has not, so that the KL would be to the base model.
    """
    if beta and "ref" not in getattr(model, "peft_config", {}):
        raise UserError(
            "backend unsloth: this version takes the base model as the KL reference, not the adapter that the stage "
            "starts from; give --stage3.beta 0, or take backend transformers"
        )
