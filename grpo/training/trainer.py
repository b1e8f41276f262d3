"""GRPO with the prompt forwarded once: a GRPOTrainer for short answers to long prompts.

Stock TRL forwards each prompt G times to sample and G times to train. Here the rollout prefills each prompt once
(`grpo.sampling.generation`), and policy, old and reference log-probabilities forward each distinct prompt once
(`grpo.sampling.completion_logits`). Loss and gradient equal TRL's on the same batch (tests/training/test_trainer.py).

Some models and settings cannot share: dropout in the adapter, recurrent layers, or a position scheme that gives other
log-probabilities when rows are packed. The first rollout asks the model both ways; if the answers differ, the trainer
says so once and goes TRL's own way. Under vLLM the rollout is vLLM's, with its own prefix cache.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from grpo.language.answers import AnswerForm, Numbers, parse_all
from grpo.language.prompts import Messages
from grpo.language.scale import scale_paths
from grpo.models.chat import decode
from grpo.sampling.completion_logits import ROUNDING, completion_logits, sharing_error
from grpo.sampling.generation import in_evaluation, keeps_keys_and_values, sample_completions, trim_completions
from grpo.sampling.vllm_engine import Completion, VllmEngine, check_log_probs
from grpo.training.launcher import whole_model
from grpo.training.trl_seam import LogProbs, OpenGRPOTrainer, Rollout, Row, Scored
from preprocessing.files import write_atomically
from preprocessing.seeds import integer

logger = logging.getLogger("grpo")


class RecordingGRPOTrainer(OpenGRPOTrainer):
    """GRPOTrainer that keeps groups within a process and writes down what was sampled.

    It changes no number, so that it also serves a GRPOTrainer that another library has put in place of TRL's.

    Args:
        *args: of GRPOTrainer.
        completions_dir: folder for one parquet file per step, or None.
        form: of the answers.
        horizon: number of closes in an answer.
        **kwargs: of GRPOTrainer.

    Raises:
        ValueError: a group would be split over processes.
    """

    def __init__(
        self,
        *args: Any,
        completions_dir: Path | None = None,
        form: AnswerForm = Numbers(),  # noqa: B008, it holds no state
        horizon: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        settings = self.settings
        rows = settings.per_device_train_batch_size * settings.steps_per_generation
        if rows % settings.num_generations:
            raise ValueError(
                f"num_generations {settings.num_generations} does not divide the {rows} completions of a process, so "
                "that a group would be split over processes, and with it what its rewards compare"
            )
        self._completions_dir = completions_dir
        self._form, self._horizon, self._warned = form, horizon, False

    def before_rewards(self, rows: Sequence[Row], completion_ids: list[list[int]]) -> Sequence[Row]:
        """Read each answer once, for all rewards and the log: its text, levels and path, NaN where it is invalid.

        The text is decoded here as validation and comparison decode it, so that an answer without an end is as invalid
        to the rewards as it is to them.
        """
        texts = decode(completion_ids, self.eos_token_ids, self.policy_tokenizer)
        levels = parse_all(texts, horizon=self._horizon, form=self._form)  # [B, H]
        valid = np.isfinite(levels).all(-1)
        self.log_metric("valid", float(valid.mean()))
        if not valid.any() and not self._warned and self.accelerator.is_main_process:
            self._warn(texts)
        read = zip(rows, texts, levels, scale_paths(levels), strict=True)
        return [{**row, "answer": text, "levels": level, "path": path} for row, text, level, path in read]

    def _warn(self, texts: Sequence[str]) -> None:
        """Say once that a step has nothing to learn from, with three of its answers."""
        self._warned = True
        logger.warning(
            "step %d: none of the %d answers is valid, so this step teaches nothing. Three of them: %s; what is asked "
            "for: %r. Take a model or an adapter that answers in this form, another prompt.style, or a longer "
            "prompt.max_completion_length",
            *(self.state.global_step + 1, len(texts), ", ".join(map(_shortened, texts[:3]))),
            self._form.render(np.arange(495.0, 495 + self._horizon)),
        )

    def on_rewards(
        self, rows: Sequence[Row], prompts: Sequence[Messages], completions: Sequence[Messages], rewards: torch.Tensor
    ) -> None:
        """Rank 0 writes its completions down, with what they were paid."""
        # Its own share of the batch: answers to read, not an account of all.
        if self._completions_dir is None or not self.accelerator.is_main_process:
            return
        table = pd.DataFrame(
            {
                "step": self.state.global_step,
                "window_id": [row["window_id"] for row in rows],
                "prompt": [prompt[-1]["content"] for prompt in prompts],
                "completion": [row["answer"] for row in rows],
                "levels": [row["levels"].tolist() if np.isfinite(row["levels"]).all() else None for row in rows],
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
        # The optimizer step whose adapter the engine has.
        self._engine_step: int | None = None
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
        args = self.settings
        if args.use_liger_kernel:
            return "the Liger loss scores whole sequences"
        # Our sampler needs all weights in one piece, and this setting leaves them in shards.
        if not args.ds3_gather_for_generation:
            return "ds3_gather_for_generation is false"
        # Our own sampler draws from the full law at the trainer's temperature: a cut one would bias the importance
        # ratio.
        if args.top_k or args.top_p != 1.0 or args.min_p or args.repetition_penalty != 1.0:
            return "top_k, top_p, min_p or repetition_penalty is set"
        # Dropout is drawn once per forward: completions that share a prompt would share its mask too.
        if any(getattr(config, "lora_dropout", 0) for config in getattr(self.model, "peft_config", {}).values()):
            return "lora.dropout is not 0"
        config = self.policy.config
        if not keeps_keys_and_values(config):
            return "the model has recurrent layers"
        if self._packs() and config._attn_implementation not in ("sdpa", "eager"):
            return f"prompts are packed, which {config._attn_implementation} attention cannot mask"
        return None

    def _verify_sharing(self, prompts: list[list[int]]) -> None:
        """Once per run, ask the model both ways; where its answers differ, share no more.

        Settings do not tell everything: position biases (ALiBi), for one, do not survive the packing of rows.
        """
        # The shortest and the longest, so that one of them is padded.
        prompts = [min(prompts, key=len), max(prompts, key=len)]
        obstacle = ""
        try:
            # Dropout would differ from one forward to the next.
            with in_evaluation(self.model):
                error = sharing_error(self.model, prompts, packed=self._packs())
        except torch.OutOfMemoryError:
            raise
        # Whatever a model's own code says to a mask or a cache that it does not take.
        except Exception as problem:
            error, obstacle = math.inf, f" ({type(problem).__name__}: {' '.join(str(problem).split())})"
        # The largest of all processes: all share or none, since their forwards must run in step.
        error = float(
            torch.as_tensor(self.accelerator.gather(torch.tensor([error], device=self.accelerator.device))).max()
        )
        # Written so that NaN counts as too much.
        if not error <= ROUNDING[self._computes_in()]:
            self._stop_sharing(f"sharing changes this model's log-probabilities by {error:.2g} per token{obstacle}")
        self._verified = True

    def keeps_groups_together(self) -> bool:
        """Groups stay whole where they share their prompt."""
        return self.share_prompts

    def rollout(self, prompts: list[list[int]], stock: Callable[[], Rollout]) -> Rollout:
        """Sample with each distinct prompt forwarded once: by the engine, by TRL's server, or by the model itself."""
        if self.share_prompts and not self._verified:
            self._verify_sharing(prompts)
        if self._engine is not None:
            return self._rollout_of_engine(self._engine, prompts)
        if self.use_vllm:
            # Asked before sampling, which sends them.
            changed = not self.weights_were_sent
            completions, log_probs = stock()
            if changed:
                self._check_server(prompts, completions, log_probs or [])
            return completions, log_probs
        if not self.share_prompts or self.use_transformers_continuous_batching:
            return stock()
        return self._rollout_of_model(prompts), None

    def _rollout_of_model(self, prompts: list[list[int]]) -> list[list[int]]:
        distinct, rows = _distinct(prompts)
        # All distinct prompts get as many samples as the most frequent one; the surplus of the others is dropped.
        copies = max(len(row) for row in rows)
        assert self.max_completion_length is not None
        with whole_model(self) as model:
            tokens = sample_completions(
                model,
                distinct,
                num_samples=copies,
                max_new_tokens=self.max_completion_length,
                eos_ids=self.eos_token_ids,
                pad_id=self.pad_token_id,
                temperature=self.temperature,
            )
        sampled = trim_completions(tokens, self.eos_token_ids)
        completions: list[list[int]] = [[] for _ in prompts]
        for prompt, positions in enumerate(rows):
            for copy, position in enumerate(positions):
                completions[position] = sampled[prompt * copies + copy]
        return completions

    def _rollout_of_engine(self, engine: VllmEngine, prompts: list[list[int]]) -> Rollout:
        assert self.max_completion_length is not None
        with whole_model(self) as model:
            # Several rollouts may belong to one optimizer step, and the adapter moves only with a step.
            changed = self.state.global_step != self._engine_step
            if changed:
                self._send_adapter(engine, model)
            distinct, rows = _distinct(prompts)
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
                self.log_metric("sampling/canary", engine.check_against(model, distinct, firsts))
        placed = {position: sampled[i][j] for i, positions in enumerate(rows) for j, position in enumerate(positions)}
        ordered = [placed[position] for position in range(len(prompts))]
        return [completion.ids for completion in ordered], [completion.log_probs for completion in ordered]

    def _send_adapter(self, engine: VllmEngine, model: PeftModel) -> None:
        """Give the engine the adapter of this step, and forget the one it had: one a step would fill the disk."""
        folder = Path(self._engine_folder.name, str(self.state.global_step))
        model.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
        engine.load_adapter(folder)
        if self._engine_step is not None:
            shutil.rmtree(Path(self._engine_folder.name, str(self._engine_step)))
        self._engine_step = self.state.global_step

    def _check_server(
        self, prompts: list[list[int]], completions: list[list[int]], log_probs: Sequence[Sequence[float | None]]
    ) -> None:
        """The canary of a vLLM server: stop if it answers with other weights than those it was sent."""
        distinct, rows = _distinct(prompts)
        firsts = [Completion(completions[row], [_number(value) for value in log_probs[row]]) for row, *_ in rows]
        with whole_model(self) as model:
            difference = check_log_probs(
                model, distinct, firsts, ROUNDING[self._computes_in()], temperature=self.temperature
            )
        self.log_metric("sampling/canary", difference)

    def _computes_in(self) -> torch.dtype:
        args = self.settings
        return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else self.policy.dtype

    def _rollout_seed(self) -> int:
        """Differs between runs, processes and rollouts; a resumed run draws what it would have drawn."""
        return integer(self.settings.seed, "rollout", self.accelerator.process_index, self.micro_step, bits=63)

    def log_probs(self, batch: Scored, stock: Callable[[], LogProbs]) -> LogProbs:
        """Score completions with each distinct prompt forwarded once."""
        if not self.share_prompts or self._slides(batch.input_ids.shape[1]):
            return stock()
        parts = []
        for start in range(0, len(batch.input_ids), batch.rows_at_once):
            rows = slice(start, start + batch.rows_at_once)
            ids, mask = batch.input_ids[rows], batch.attention_mask[rows]
            logits = completion_logits(batch.model, ids, mask, batch.completion_length)
            answers = slice(-batch.completion_length, None)
            parts.append(self.token_log_probs(logits, ids[:, answers], mask[:, answers]))
        entropies = torch.cat([entropy for _, entropy in parts]) if batch.entropy else None
        return torch.cat([log_probs for log_probs, _ in parts]), entropies, None

    def _slides(self, length: int) -> bool:
        """Whether a packed row would show a completion more of its past than a sliding window lets it see."""
        # The mask of a packed row says nothing of a window, so a completion would see all of its past.
        window = getattr(self.policy.config, "sliding_window", None)
        return self._packs() and window is not None and length > window

    def _packs(self) -> bool:
        """Whether the loss packs a prompt and its completions into one row (`grpo.sampling.completion_logits`)."""
        return self.settings.gradient_checkpointing or self.is_fsdp_enabled


def _number(value: float | None) -> float:
    """A log-probability; TRL's client says None for one that is not a number."""
    return math.nan if value is None else value


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}")


def _distinct(prompts: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Distinct prompts in order of appearance, and for each the positions where it stands."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for position, prompt in enumerate(prompts):
        positions.setdefault(tuple(prompt), []).append(position)
    return [list(prompt) for prompt in positions], list(positions.values())
