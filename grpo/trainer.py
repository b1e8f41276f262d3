"""GRPO with the prompt forwarded once: a GRPOTrainer for short answers to long prompts.

Stock TRL forwards each prompt G times to sample and G times to train. Here the rollout prefills each prompt once
(`grpo.generation`), and policy, old and reference log-probabilities forward each distinct prompt once, with a
key-value cache that keeps gradients, and then only the completions. Loss and gradient equal TRL's on the same
batch (tests/test_trainer.py).

Where it does not apply (vLLM rollouts, gradient checkpointing, dropout in the adapter, a model without a plain
key-value cache) the trainer says so once and takes TRL's own path.

Implementation details that matter:
1. The cache holds the prompt without its last token; that token is the first of the second forward, whose logits
   at each position predict the next completion token.
2. Rows are grouped by their prompt's tokens, whatever their order, so TRL's shuffling does not matter.
3. Sampling is at the trainer's temperature from the full distribution; top-k and top-p must be off, since they
   would bias the importance ratio.
4. The parquet log of completions is written by rank 0 from its own share of the batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import DynamicCache
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import selective_log_softmax_and_entropy

from grpo.generation import sample_completions, trim_completions
from grpo.prompts import Style, parse_answers
from grpo.rewards import completion_text
from preprocessing.files import write_atomically


class SharedPromptGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose completions share their prompt's forward pass, in the rollout and in the loss.

    Args:
        completions_dir: folder for one parquet file per step, or None.
        style: answer style, to log the parsed paths.
        horizon: number of closes in an answer.
        **kwargs: of GRPOTrainer.
    """

    def __init__(
        self,
        *args: Any,
        completions_dir: Path | None = None,
        style: Style = "direct",
        horizon: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._completions_dir = completions_dir
        self._style: Style = style
        self._horizon = horizon
        obstacle = self._sharing_obstacle()
        self.share_prompts = obstacle is None
        if obstacle is not None and self.accelerator.is_main_process:
            print(f"note: prompts are forwarded once per completion, not once per group: {obstacle}.")

    def _sharing_obstacle(self) -> str | None:
        args: Any = self.args
        if args.gradient_checkpointing:
            return "gradient checkpointing drops the key-value cache (stageN.trl.gradient_checkpointing: false)"
        if args.use_liger_kernel:
            return "the Liger loss scores whole sequences"
        if args.top_k or args.top_p != 1.0 or args.min_p or args.repetition_penalty != 1.0:
            return "top_k, top_p, min_p or repetition_penalty is set"
        if any(getattr(config, "lora_dropout", 0) for config in getattr(self.model, "peft_config", {}).values()):
            return "lora.dropout is not 0"
        layer_types = getattr(self.accelerator.unwrap_model(self.model).config, "layer_types", None) or []
        if any("linear" in kind or "mamba" in kind for kind in layer_types):
            return "the model has recurrent layers"
        return None

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> Any:
        if not self.share_prompts or self.use_vllm or self.use_transformers_continuous_batching or multimodal_fields:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        distinct, rows = _distinct(prompt_ids)
        copies = max(len(row) for row in rows)
        assert isinstance(self._tokenizer.pad_token_id, int)
        assert self.max_completion_length is not None
        args: Any = self.args
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
        ) as model:
            tokens = sample_completions(
                model,
                distinct,
                num_samples=copies,
                max_new_tokens=self.max_completion_length,
                eos_ids=self.eos_token_ids,
                pad_id=self._tokenizer.pad_token_id,
                temperature=self.temperature,
            )
        sampled = trim_completions(tokens, self.eos_token_ids)
        completions: list[list[int]] = [[] for _ in prompt_ids]
        for prompt, positions in enumerate(rows):
            for copy, position in enumerate(positions):
                completions[position] = sampled[prompt * copies + copy]
        return completions, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **multimodal: Any,
    ) -> Any:
        if not self.share_prompts or compute_aux_loss or any(value is not None for value in multimodal.values()):
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **multimodal,
            )
        size = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            logits = completion_logits(model, input_ids[rows], attention_mask[rows], logits_to_keep)
            parts.append(
                selective_log_softmax_and_entropy(
                    logits,
                    input_ids[rows, -logits_to_keep:],
                    entropy_requires_grad=self._entropy_bonus_enabled,
                    temperature=self.temperature,
                    row_mask=attention_mask[rows, -logits_to_keep:],
                )
            )
        entropies = torch.cat([entropy for _, entropy in parts]) if compute_entropy else None
        return torch.cat([log_probs for log_probs, _ in parts]), entropies, None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # Beside the trained adapter a checkpoint holds TRL's KL reference in the subfolder "ref"; transformers then
        # reads the subfolders alone (huggingface/transformers#30478, still so in 5.17), and training would go on
        # from the starting weights. Remove when Trainer._load_from_checkpoint reads both.
        model = model or self.model
        if Path(resume_from_checkpoint, "ref").is_dir():
            model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._completions_dir is not None and self.accelerator.is_main_process:
            self._write_completions(inputs, prompts, completions, rewards[: len(prompts)])
        return rewards

    def _write_completions(self, inputs: Any, prompts: Any, completions: Any, rewards: torch.Tensor) -> None:
        assert self._completions_dir is not None
        texts = [completion_text(completion) for completion in completions]
        paths = parse_answers(texts, horizon=self._horizon, style=self._style)
        table = pd.DataFrame(
            {
                "step": self.state.global_step,
                "window_id": [row["window_id"] for row in inputs],
                "prompt": [prompt[-1]["content"] for prompt in prompts],
                "completion": texts,
                "levels": [None if (path != path).any() else path.tolist() for path in paths],
            }
        )
        for column, name in enumerate(self.reward_func_names):
            table[f"reward_{name}"] = rewards[:, column].tolist()
        file = self._completions_dir / f"step_{self.state.global_step:06d}.parquet"
        write_atomically(file, table.to_parquet(index=False))


def completion_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_length: int
) -> torch.Tensor:
    """Logits that predict each completion token, the distinct prompts forwarded once, with gradients.

    Args:
        model: a causal language model.
        input_ids: [B, P + C], prompts padded on the left, completions on the right.
        attention_mask: [B, P + C].
        completion_length: C.

    Returns:
        [B, C, vocabulary]
    """
    shared = input_ids.shape[1] - completion_length - 1  # the prompt without its last token
    key = torch.cat([input_ids[:, :shared], attention_mask[:, :shared]], dim=1)
    _, group = torch.unique(key, dim=0, return_inverse=True)  # [B] number of each row's prompt
    first = torch.full((int(group.max()) + 1,), len(group), device=group.device)
    first.scatter_reduce_(0, group, torch.arange(len(group), device=group.device), reduce="amin")
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=unwrapped_config(model))
    model(
        input_ids=input_ids[first, :shared],
        attention_mask=attention_mask[first, :shared],
        position_ids=positions[first, :shared],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(group)
    output = model(
        input_ids=input_ids[:, shared:],
        attention_mask=attention_mask,
        position_ids=positions[:, shared:],
        past_key_values=cache,
        use_cache=True,
    )
    return output.logits[:, :-1]


def unwrapped_config(model: Any) -> Any:
    """The transformers config under any wrapper (DDP, PEFT)."""
    while hasattr(model, "module"):
        model = model.module
    return model.config


def _distinct(prompts: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Distinct prompts in order of appearance, and for each the positions where it stands."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for position, prompt in enumerate(prompts):
        positions.setdefault(tuple(prompt), []).append(position)
    return [list(prompt) for prompt in positions], list(positions.values())
