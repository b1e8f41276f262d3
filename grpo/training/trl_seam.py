"""The seam to TRL: every name of TRL's inside that this package touches, in one module.

`OpenGRPOTrainer` is TRL's GRPOTrainer with four openings under public names: `rollout`, `log_probs`,
`keeps_groups_together` and `on_rewards`. Left alone they do what TRL does. What stands behind them are private names,
which a release of TRL may rename without notice; `PRIVATE_NAMES` lists them, and tests/training/test_trl_seam.py fails
on a version that lacks one, in place of a training that silently goes TRL's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.utils import selective_log_softmax_and_entropy, split_tensor_dict

from grpo.language.prompts import Messages

PRIVATE_NAMES = (
    "_calculate_rewards",
    "_generate_and_score_completions",
    "_generate_single_turn",
    "_get_per_token_logps_and_entropies",
    "_load_from_checkpoint",
    "_log_metric",
    "_prepare_inputs",
)
"""Methods of TRL's GRPOTrainer that are overridden or called here."""
PRIVATE_STATE = ("_buffered_inputs", "_entropy_bonus_enabled", "_step", "_tokenizer")
"""Attributes that it sets in its constructor and that are read here."""

Row = dict[str, Any]
"""One row of a dataset: its prompt, and the columns that rewards need."""
Batch = dict[str, torch.Tensor | None]
"""What TRL makes of a rollout, by name; tensors [B, ...]."""
Rollout = tuple[list[list[int]], list[list[float]] | None]
"""Token ids of each completion, and the log-probabilities with which they were sampled, or None."""


class Settings(Protocol):
    """What is used of TRL's GRPOConfig, whose own annotations allow None where its constructor has filled it in."""

    per_device_train_batch_size: int
    steps_per_generation: int
    num_generations: int
    use_liger_kernel: bool
    ds3_gather_for_generation: bool
    gradient_checkpointing: bool
    top_k: int
    top_p: float
    min_p: float | None
    repetition_penalty: float
    bf16: bool
    fp16: bool
    seed: int


@dataclass(frozen=True)
class Scored:
    """Completions whose log-probabilities are asked for.

    Attributes:
        model: a causal language model, as the launcher wrapped it.
        input_ids: [B, P + C], prompts padded on the left, completions on the right.
        attention_mask: [B, P + C].
        completion_length: C.
        rows_at_once: rows forwarded together.
        entropy: whether the entropies are asked for too.
    """

    model: PreTrainedModel
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    completion_length: int
    rows_at_once: int
    entropy: bool


LogProbs = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Log-probabilities [B, C], entropies [B, C] or None, and the auxiliary loss of a mixture of experts or None."""


class OpenGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with openings; see the module."""

    @property
    def settings(self) -> Settings:
        """TRL's configuration."""
        return cast(Settings, self.args)

    @property
    def policy(self) -> PreTrainedModel:
        """The model that is trained, without the launcher's wrappers."""
        return cast(PreTrainedModel, self.accelerator.unwrap_model(self.model))

    @property
    def policy_tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the policy."""
        return cast(PreTrainedTokenizerBase, self._tokenizer)

    @property
    def pad_token_id(self) -> int:
        """Token that fills up a row."""
        return cast(int, cast(PreTrainedTokenizerBase, self._tokenizer).pad_token_id)

    @property
    def micro_step(self) -> int:
        """Micro-batches since training began; a resumed training goes on counting."""
        return self._step

    @property
    def weights_were_sent(self) -> bool:
        """Whether a vLLM server has the adapter of this optimizer step."""
        return self.state.global_step == self._last_loaded_step

    def log_metric(self, name: str, value: float) -> None:
        """Put a number into the log entry of this step."""
        self._log_metric(name, value)

    # The openings

    def rollout(self, prompts: list[list[int]], stock: Callable[[], Rollout]) -> Rollout:
        """Sample one completion for each prompt; `stock` is TRL's way."""
        return stock()

    def log_probs(self, batch: Scored, stock: Callable[[], LogProbs]) -> LogProbs:
        """Score completions; `stock` is TRL's way."""
        return stock()

    def keeps_groups_together(self) -> bool:
        """Whether micro-batches take whole groups, where TRL shuffles single completions."""
        return False

    def before_rewards(self, rows: Sequence[Row], completion_ids: list[list[int]]) -> Sequence[Row]:
        """What rewards get to see: the rows of this process's completions, with columns added."""
        return rows

    def on_rewards(
        self, rows: Sequence[Row], prompts: Sequence[Messages], completions: Sequence[Messages], rewards: torch.Tensor
    ) -> None:
        """Look at what this process sampled: `rewards` [B, number of rewards] of its own completions."""

    # TRL's own names

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # Beside the trained adapter a checkpoint holds TRL's KL reference in the subfolder "ref"; transformers then
        # reads the subfolders alone (huggingface/transformers#30478, still so in 5.17), and training would go on
        # from the starting weights. Remove when Trainer._load_from_checkpoint reads both.
        if Path(resume_from_checkpoint, "ref").is_dir():
            cast(PreTrainedModel, model or self.model).load_adapter(
                resume_from_checkpoint, "default", is_trainable=True
            )

    def _calculate_rewards(
        self,
        inputs: Sequence[Row],
        prompts: Sequence[Messages],
        completions: Sequence[Messages],
        completion_ids_list: list[list[int]],
    ) -> torch.Tensor:
        rows = self.before_rewards(inputs, completion_ids_list)
        rewards = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        self.on_rewards(rows, prompts, completions, rewards[: len(prompts)])
        return rewards

    def _prepare_inputs(self, generation_batch: list[Row]) -> Batch:
        if not self.keeps_groups_together() or not cast(torch.nn.Module, self.model).training:
            return super()._prepare_inputs(generation_batch)
        parts = self.settings.steps_per_generation
        # As TRL does it, but for the shuffle: whole groups, so that the completions of a prompt stay in one micro-batch
        # and share its forward.
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            sampled = self._generate_and_score_completions(generation_batch)
            # [groups, G]
            blocks = torch.arange(len(generation_batch)).view(-1, self.settings.num_generations)
            order = blocks[torch.randperm(len(blocks))].flatten()
            self._buffered_inputs = split_tensor_dict(take_rows(sampled, order), parts)
        return self._buffered_inputs[self._step % parts]

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: object,
        multimodal_fields: object,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> Rollout:
        stock = super()._generate_single_turn

        def as_trl_does() -> Rollout:
            return stock(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)

        # Pictures are TRL's own matter.
        return as_trl_does() if multimodal_fields else self.rollout(prompt_ids, as_trl_does)

    def _get_per_token_logps_and_entropies(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **multimodal: object,
    ) -> LogProbs:
        stock = super()._get_per_token_logps_and_entropies

        def as_trl_does() -> LogProbs:
            return stock(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **multimodal,
            )

        # The router loss of a mixture of experts runs over all tokens of all rows, which sharing would count once.
        if compute_aux_loss or any(value is not None for value in multimodal.values()):
            return as_trl_does()
        rows = batch_size or len(input_ids)
        return self.log_probs(
            Scored(model, input_ids, attention_mask, logits_to_keep, rows, compute_entropy), as_trl_does
        )

    def token_log_probs(
        self, logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies [B, C] at the trainer's temperature, as TRL computes them.

        Args:
            logits: [B, C, V].
            tokens: [B, C].
            mask: [B, C].
        """
        return selective_log_softmax_and_entropy(
            logits,
            tokens,
            entropy_requires_grad=self._entropy_bonus_enabled,
            temperature=self.temperature,
            row_mask=mask,
        )


def gathered_model(trainer: Trainer) -> AbstractContextManager[PeftModel]:
    """The model without its wrappers, and with all its weights where ZeRO-3 shards them."""
    return unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator)


def take_rows(batch: Batch, rows: torch.Tensor) -> Batch:
    """The rows of every tensor in a batch that has rows."""
    return {name: values[rows] if values is not None and values.ndim else values for name, values in batch.items()}
