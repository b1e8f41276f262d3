"""GRPO with the prompt forwarded once: a GRPOTrainer for short answers to long prompts.

Stock TRL forwards each prompt G times to sample and G times to train. Here the rollout prefills each prompt once
(`grpo.sampling.generation`), and policy, old and reference log-probabilities forward each distinct prompt once
(`grpo.sampling.completion_logits`). Loss and gradient equal TRL's on the same batch (tests/training/test_trainer.py).

Where it does not apply (dropout in the adapter, a model with recurrent layers, one whose log-probabilities change by
it, which the first rollout finds out) the trainer says so once and takes TRL's own path; under vLLM the rollout is
vLLM's, with its own prefix cache.

Implementation details that matter:
1. Rows are grouped by their prompt's tokens, whatever their order.
2. Where a rollout serves several micro-batches, TRL shuffles its rows; here whole groups are shuffled, so that the
   completions of a prompt stay in one micro-batch and share it there too.
3. Sampling is at the trainer's temperature from the full distribution; top-k and top-p must be off, since they
   would bias the importance ratio.
4. The parquet log of completions is written by rank 0 from its own share of the batch.
"""

from __future__ import annotations

import math
import shutil
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pandas as pd
import torch
from trl import GRPOTrainer
from trl.trainer.utils import selective_log_softmax_and_entropy, split_tensor_dict

from grpo.language.prompts import Style, parse_answers
from grpo.language.rewards import completion_text
from grpo.sampling.completion_logits import ROUNDING, completion_logits, sharing_error
from grpo.sampling.generation import in_evaluation, keeps_keys_and_values, sample_completions, trim_completions
from grpo.sampling.vllm_engine import Completion, VllmEngine, check_log_probs
from grpo.training.launcher import whole_model
from preprocessing.files import write_atomically


class RecordingGRPOTrainer(GRPOTrainer):
    """GRPOTrainer that keeps groups within a process, writes down what was sampled, and resumes with its reference.

    It changes no number, so that it also serves a GRPOTrainer that another library has put in place of TRL's.

    Args:
        completions_dir: folder for one parquet file per step, or None.
        style: answer style, to log the parsed paths.
        horizon: number of closes in an answer.
        **kwargs: of GRPOTrainer.

    Raises:
        ValueError: a group would be split over processes.
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
        settings: Any = self.args
        rows = settings.per_device_train_batch_size * settings.steps_per_generation
        if rows % settings.num_generations:
            raise ValueError(
                f"num_generations {settings.num_generations} does not divide the {rows} completions of a process, so "
                "that a group would be split over processes, and with it what its rewards compare"
            )
        self._completions_dir = completions_dir
        self._style: Style = style
        self._horizon = horizon

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


class SharedPromptGRPOTrainer(RecordingGRPOTrainer):
    """GRPOTrainer whose completions share their prompt's forward pass, in the rollout and in the loss.

    Args:
        engine: vLLM in this process, for the rollouts; None samples with the trained model itself.
        **kwargs: of RecordingGRPOTrainer.

    Raises:
        ValueError: a group would be split over processes.
    """

    def __init__(self, *args: Any, engine: VllmEngine | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._engine = engine
        self._engine_step: int | None = None  # optimizer step whose adapter the engine has
        self._engine_folder = TemporaryDirectory(prefix="grpo_adapter_")
        # Makes TRL correct the loss for the difference between the law that was sampled and the policy, and log it.
        self.use_vllm = self.use_vllm or engine is not None
        obstacle = self._sharing_obstacle()
        self.share_prompts, self._verified = True, False
        if obstacle is not None:
            self._stop_sharing(obstacle)

    def _stop_sharing(self, obstacle: str) -> None:
        self.share_prompts = False
        if self.accelerator.is_main_process:
            print(f"note: prompts are forwarded once per completion, not once per group: {obstacle}.")

    def _sharing_obstacle(self) -> str | None:
        args: Any = self.args
        if args.use_liger_kernel:
            return "the Liger loss scores whole sequences"
        if not args.ds3_gather_for_generation:
            return "ds3_gather_for_generation is false"
        if args.top_k or args.top_p != 1.0 or args.min_p or args.repetition_penalty != 1.0:
            return "top_k, top_p, min_p or repetition_penalty is set"
        if any(getattr(config, "lora_dropout", 0) for config in getattr(self.model, "peft_config", {}).values()):
            return "lora.dropout is not 0"
        config = self.accelerator.unwrap_model(self.model).config
        if not keeps_keys_and_values(config):
            return "the model has recurrent layers"
        if self._packs() and config._attn_implementation not in ("sdpa", "eager"):
            return f"prompts are packed, which {config._attn_implementation} attention cannot mask"
        return None

    def _verify_sharing(self, prompts: list[list[int]]) -> None:
        """Once per run, ask the model both ways; where its answers differ, share no more.

        Settings do not tell everything: position biases (ALiBi), for one, do not survive the packing of rows.
        """
        model = cast(Any, self.model)
        prompts = [min(prompts, key=len), max(prompts, key=len)]
        obstacle = ""
        try:
            with in_evaluation(model):  # dropout would differ from one forward to the next
                error = sharing_error(model, prompts, packed=self._packs())
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # whatever a model's own code says to a mask or cache that it does not take
            error, obstacle = math.inf, f" ({type(problem).__name__}: {' '.join(str(problem).split())})"
        errors: Any = self.accelerator.gather(torch.tensor([error], device=self.accelerator.device))
        error = float(errors.max())  # all processes share, or none
        if not error <= ROUNDING[self._computes_in()]:
            self._stop_sharing(f"sharing changes this model's log-probabilities by {error:.2g} per token{obstacle}")
        self._verified = True

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        args, model = cast(Any, self.args), cast(Any, self.model)
        rows, group = len(generation_batch), args.num_generations
        if not self.share_prompts or not model.training:
            return super()._prepare_inputs(generation_batch)
        if self._step % (args.steps_per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            sampled = self._generate_and_score_completions(generation_batch)
            blocks = torch.arange(rows).view(-1, group)
            order = blocks[torch.randperm(len(blocks))].flatten()
            self._buffered_inputs = split_tensor_dict(_take(sampled, order), args.steps_per_generation)
        return self._buffered_inputs[self._step % args.steps_per_generation]

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> Any:
        if self.share_prompts and not self._verified and not multimodal_fields:
            self._verify_sharing(prompt_ids)
        if self._engine is not None:
            return self._generate_with_engine(self._engine, prompt_ids)
        if self.use_vllm:
            changed = self.state.global_step != self._last_loaded_step  # TRL then sends the weights to the server
            completions, log_probs = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
            if changed:
                self._check_server(prompt_ids, completions, log_probs)
            return completions, log_probs
        if not self.share_prompts or self.use_transformers_continuous_batching or multimodal_fields:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        distinct, rows = _distinct(prompt_ids)
        copies = max(len(row) for row in rows)
        assert isinstance(self._tokenizer.pad_token_id, int)
        assert self.max_completion_length is not None
        with whole_model(self) as model:
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

    def _generate_with_engine(self, engine: VllmEngine, prompt_ids: list[list[int]]) -> Any:
        assert self.max_completion_length is not None
        with whole_model(self) as model:
            changed = self.state.global_step != self._engine_step
            if changed:
                folder = Path(self._engine_folder.name, str(self.state.global_step))
                cast(Any, model).save_pretrained(
                    str(folder), selected_adapters=["default"], save_embedding_layers=False
                )
                engine.load_adapter(folder)
                if self._engine_step is not None:  # one adapter a step would fill the disk
                    shutil.rmtree(Path(self._engine_folder.name, str(self._engine_step)))
                self._engine_step = self.state.global_step
            distinct, rows = _distinct(prompt_ids)
            sampled = engine.sample(
                distinct,
                num_samples=max(len(positions) for positions in rows),
                max_new_tokens=self.max_completion_length,
                end_ids=self.eos_token_ids,
                seed=self._rollout_seed(),
                temperature=self.temperature,
            )
            if changed:
                firsts = [samples[0] for samples in sampled]
                self._log_metric("sampling/canary", engine.check_against(model, distinct, firsts))
        placed = {position: sampled[i][j] for i, positions in enumerate(rows) for j, position in enumerate(positions)}
        ordered = [placed[position] for position in range(len(prompt_ids))]
        return [completion.ids for completion in ordered], [completion.log_probs for completion in ordered]

    def _check_server(self, prompt_ids: list[list[int]], completions: list[list[int]], log_probs: Any) -> None:
        """The canary of a vLLM server: stop if it answers with other weights than those it was sent."""
        distinct, rows = _distinct(prompt_ids)
        firsts = [Completion(completions[row], [_number(value) for value in log_probs[row]]) for row, *_ in rows]
        with whole_model(self) as model:
            difference = check_log_probs(
                model, distinct, firsts, ROUNDING[self._computes_in()], temperature=self.temperature
            )
        self._log_metric("sampling/canary", difference)

    def _computes_in(self) -> torch.dtype:
        args: Any = self.args
        return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else cast(Any, self.model).dtype

    def _rollout_seed(self) -> int:
        """Differs between runs, processes and rollouts; a resumed run draws what it would have drawn."""
        key = f"{self.args.seed}/{self.accelerator.process_index}/{self._step}"
        return zlib.crc32(key.encode()) >> 1

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
        if (
            not self.share_prompts
            or compute_aux_loss
            or any(value is not None for value in multimodal.values())
            or self._slides(input_ids.shape[1])
        ):
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

    def _slides(self, length: int) -> bool:
        """Whether a packed row would show a completion more of its past than a sliding window lets it see."""
        window = getattr(self.accelerator.unwrap_model(self.model).config, "sliding_window", None)
        return self._packs() and window is not None and length > window

    def _packs(self) -> bool:
        """Whether the loss packs a prompt and its completions into one row (`grpo.sampling.completion_logits`)."""
        args: Any = self.args
        return args.gradient_checkpointing or self.is_fsdp_enabled


def _take(batch: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """The rows of everything in a batch that has rows."""

    def take(values: Any) -> Any:
        if isinstance(values, torch.Tensor):
            return values[rows] if values.ndim else values
        return [values[row] for row in rows.tolist()] if isinstance(values, list) else values

    return {name: take(values) for name, values in batch.items()}


def _number(value: float | None) -> float:
    """A log-probability; TRL's client says None for one that is not a number."""
    return math.nan if value is None else value


def _distinct(prompts: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Distinct prompts in order of appearance, and for each the positions where it stands."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for position, prompt in enumerate(prompts):
        positions.setdefault(tuple(prompt), []).append(position)
    return [list(prompt) for prompt in positions], list(positions.values())
