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

from grpo.models.adapters import adapter_settings, model_source
from grpo.models.config import LoraSettings
from grpo.models.hardware import cuda_devices, splits_weights
from grpo.models.spec import ModelSpec
from preprocessing.errors import UserError

INSTALL = "`./run_pipeline.sh --install unsloth` or `pip install 'grpo-forecast[unsloth]'`"


def unsloth_problems(spec: ModelSpec, *, sampler: str) -> list[str]:
    """Why `backend unsloth` cannot train this model here, one line each; nothing is imported.

    Args:
        spec: the model.
        sampler: `generation.backend`, what the rollouts are asked to come from.
    """
    instead = "take backend transformers"
    problems = []
    if importlib.util.find_spec("unsloth") is None:
        problems.append(f"backend unsloth: Unsloth is not installed; run {INSTALL}, or {instead}")
    if not cuda_devices():
        problems.append(f"backend unsloth: PyTorch sees no GPU, and Unsloth's kernels need one; {instead}")
    if splits_weights():
        problems.append(f"backend unsloth: it keeps all weights in each process; take ddp, or {instead}")
    for chosen, setting, value in (
        (sampler, "generation.backend", "transformers"),
        (spec.loading.attention, "loading.attention", "auto"),
        (spec.loading.liger, "loading.liger", False),
    ):
        if chosen != value:
            given, value = str(chosen).lower(), str(value).lower()
            problems.append(f"backend unsloth: {setting} {given} has no place in it; take {setting} {value}")
    return problems


def activate(spec: ModelSpec, *, sampler: str) -> None:
    """Import Unsloth if it is to train this model; call it before anything that imports TRL, transformers or PEFT.

    Raises:
        UserError: Unsloth is not installed, there is no GPU, or a setting does not go with it.
    """
    if spec.backend != "unsloth":
        return
    problems = unsloth_problems(spec, sampler=sampler)
    if problems:
        raise UserError("; ".join(problems))
    importlib.import_module("unsloth")


def load_model(spec: ModelSpec, lora: LoraSettings, *, dtype: Any, max_seq_length: int, seed: int) -> Any:
    """The base model with a LoRA adapter to train, a copy of the one that it wears or a fresh one.

    Args:
        spec: the model.
        lora: what a fresh adapter looks like.
        dtype: torch type of the weights.
        max_seq_length: tokens of the longest prompt and completion.
        seed: of a fresh adapter.

    Returns:
        A PEFT model whose adapter is called `default`.
    """
    fast = importlib.import_module("unsloth").FastLanguageModel
    checkpointing = "unsloth" if spec.loading.gradient_checkpointing else False
    loading = {
        "max_seq_length": max_seq_length,
        "dtype": dtype,
        "load_in_4bit": spec.loading.quantization == "4bit",
        "use_gradient_checkpointing": checkpointing,
        "use_exact_model_name": True,  # or it takes a copy of the weights from another repository
        "trust_remote_code": spec.trust_remote_code,
    }
    source = model_source(spec.base)
    if spec.adapter is not None:
        with tempfile.TemporaryDirectory() as folder:
            # Unsloth finds the base model by the name in the adapter's settings. Ours is a name for people, so a copy
            # gets the place.
            copy = Path(shutil.copytree(spec.adapter, Path(folder, "adapter")))
            settings = adapter_settings(spec.adapter) | {"base_model_name_or_path": source}
            (copy / "adapter_config.json").write_text(json.dumps(settings))
            model, _ = fast.from_pretrained(model_name=str(copy), **loading)
        return model
    model, _ = fast.from_pretrained(model_name=source, **loading)
    return fast.get_peft_model(
        model,
        r=lora.rank,
        target_modules=lora.target_modules,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
    )


def require_reference(model: Any, *, beta: float) -> None:
    """Check that a GRPO trainer that continues an adapter has kept a copy of it for the KL.

    Raises:
        UserError: it has not, so that the KL would be to the base model.
    """
    # PEFT's adapter `ref` is where TRL keeps the KL reference of an adapter that is continued.
    if beta and "ref" not in getattr(model, "peft_config", {}):
        raise UserError(
            "backend unsloth: this version takes the base model as the KL reference, not the adapter that the stage "
            "starts from; give --stage3.beta 0, or take backend transformers"
        )
