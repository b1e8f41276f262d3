"""vLLM in this process: rollouts for GRPO, and many samples per window for rejection sampling and comparison.

The only module that names vLLM; it is imported on first use. One engine serves the base model and any adapter: an
adapter is a folder that vLLM loads as LoRA weights, so the base weights are never merged or touched. After each
change of the trained adapter the engine's log-probabilities are compared with the model's own (`check_against`): a
sampler that answers with old weights stops the run instead of biasing it.

Runs on CUDA and, with vLLM's CPU build, without a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from grpo.models.adapters import model_source
from grpo.models.loading import weights_dtype
from grpo.models.spec import ModelSpec
from grpo.sampling.completion_logits import ROUNDING, completion_logits
from grpo.sampling.config import GenerationConfig
from grpo.sampling.generation import in_evaluation, left_pad, model_device
from preprocessing.errors import UserError
from preprocessing.seeds import integer


class StaleWeightsError(UserError):
    """vLLM samples from other weights than those that are trained."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        ids: token ids, the end token included where there is one.
        log_probs: log-probability of each token under the law it was drawn from.
    """

    ids: list[int]
    log_probs: list[float]


def require_vllm() -> None:
    """Say in one line why vLLM cannot be used here.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError("generation.backend vllm: vLLM is not installed; run `./run_pipeline.sh --install vllm`")


class VllmEngine:
    """A vLLM engine in this process.

    Args:
        source: folder or Hub id of the base model.
        dtype: of its weights; float32 or bfloat16.
        max_length: most tokens of prompt and completion.
        lora_rank: largest rank of an adapter, one that vLLM has kernels for.
        gpu_memory_utilization: share of the GPU's memory that vLLM may take; ignored on a CPU.
        seed: of the engine.
        trust_remote_code: let a Hub model run its own Python code.

    Raises:
        UserError: vLLM is missing, or cannot run here.
    """

    def __init__(
        self,
        source: str,
        *,
        dtype: torch.dtype,
        max_length: int,
        lora_rank: int,
        gpu_memory_utilization: float,
        seed: int,
        trust_remote_code: bool = False,
    ) -> None:
        require_vllm()
        # Set before vLLM is imported. The engine stays in this process, where the adapter is trained.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        if not torch.cuda.is_available():
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        vllm = _import("vllm")
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        try:
            self._llm = vllm.LLM(
                model=source,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=max_length,
                enforce_eager=not torch.cuda.is_available(),
                enable_lora=True,
                max_lora_rank=lora_rank,
                enable_prefix_caching=True,
                # vLLM's CPU build rewinds the generator of a seeded request whose prompt it cut in two, which torch's
                # CPU generators cannot do (0.30.0): no prompt is cut there.
                enable_chunked_prefill=torch.cuda.is_available(),
                gpu_memory_utilization=gpu_memory_utilization,
                # The log-probabilities after the temperature, those of the law that is drawn from.
                logprobs_mode="processed_logprobs",
                # Each process has an engine of its own: the launcher has started them, and vLLM must not start more.
                distributed_executor_backend="external_launcher" if processes > 1 else None,
                disable_log_stats=True,
                trust_remote_code=trust_remote_code,
                seed=seed,
            )
        except (ImportError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"generation.backend vllm: vLLM cannot start here: {reason}") from error
        self._dtype = dtype
        self._adapter: Any = None
        self._adapters_loaded = 0

    def load_adapter(self, folder: Path | None) -> None:
        """Sample from now on with the adapter in a folder, or (None) from the base model."""
        # One adapter at a time, as `max_loras` is 1 by default.
        if self._adapter is not None:
            self._llm.llm_engine.remove_lora(self._adapter.lora_int_id)
            self._adapter = None
        if folder is not None:
            # A number of its own each time: vLLM and its prefix cache go by the number, and under the number of an
            # earlier adapter they would answer with that one's weights.
            self._adapters_loaded += 1
            self._adapter = _import("vllm.lora.request").LoRARequest(
                f"adapter_{self._adapters_loaded}", self._adapters_loaded, str(folder)
            )

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        max_new_tokens: int,
        end_ids: Sequence[int],
        seed: int,
        first: int = 0,
        temperature: float = 1.0,
        pattern: str | None = None,
    ) -> list[list[Completion]]:
        """Sample completions from the full distribution: no top-k, no top-p.

        With a pattern the distribution is another: each token is drawn from those that can still lead to a match, their
        probabilities divided by their sum. The log-probabilities are then of this law, above the model's own by the
        logarithm of that sum, so that a policy gradient that takes them for the model's is biased.

        Args:
            prompts: token ids of U prompts; vLLM's prefix cache forwards each once.
            num_samples: S.
            max_new_tokens: longest completion.
            end_ids: tokens that end a completion.
            seed: the same seed gives the same samples, another one others.
            first: number of the first prompt among all that are asked with this seed in several calls.
            temperature: divides the logits; 0 takes the most likely token and allows one sample.
            pattern: regular expression that every completion must match.

        Returns:
            [U][S] completions.

        Raises:
            UserError: vLLM cannot hold this model's tokens to the pattern.
        """
        parameters_of = _import("vllm.sampling_params")
        form = parameters_of.StructuredOutputsParams(regex=pattern) if pattern else None
        seeds = request_seeds(seed, range(first, first + len(prompts)), num_samples=num_samples)
        parameters = [
            parameters_of.SamplingParams(
                n=num_samples,
                temperature=temperature,
                max_tokens=max_new_tokens,
                stop_token_ids=list(end_ids),
                # That of the sampled token alone.
                logprobs=0,
                seed=request_seed,
                # Answers are decoded by `grpo.models.chat.decode`, as everywhere.
                detokenize=False,
                structured_outputs=form,
            )
            for request_seed in seeds
        ]
        asked: Any = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        answers = self._llm.generate(asked, parameters, lora_request=self._adapter, use_tqdm=False)
        # vLLM ends such a request without an exception, which would look like a short answer.
        if any(output.finish_reason == "error" for answer in answers for output in answer.outputs):
            raise UserError(
                "generation.structured regex: vLLM cannot hold this model's tokens to the form of an answer; take "
                "generation.structured none"
            )
        return [[_completion(output) for output in answer.outputs] for answer in answers]

    def check_against(self, model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Completion]) -> float:
        """`check_log_probs` of what this engine sampled at temperature 1."""
        return check_log_probs(model, prompts, completions, ROUNDING[self._dtype])


def request_seeds(seed: int, prompts: range, *, num_samples: int) -> list[int]:
    """The seed of each request, such that no two samples of any prompts and seeds get the same.

    vLLM gives sample j of a request the request's seed plus j. So the samples of all prompts are numbered in one row,
    which starts where `preprocessing.seeds` says: two seeds that stand next to each other start far apart. On a CPU
    torch's generators look at the low 32 bits of a seed alone; those differ too, as long as there are far fewer
    samples than 2^32.

    Args:
        seed: of the run, the rollout or the like.
        prompts: numbers of the prompts.
        num_samples: of each prompt.
    """
    start = integer(seed, "vllm", bits=62)
    return [start + num_samples * number for number in prompts]


@torch.no_grad()
def check_log_probs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    tolerance: float,
    *,
    temperature: float = 1.0,
) -> float:
    """Compare the log-probabilities of sampled tokens with the model's own.

    Args:
        model: the policy that should have been sampled.
        prompts: token ids, one prompt per completion.
        completions: what vLLM sampled.
        tolerance: largest mean difference that rounding explains, nats.
        temperature: that divided the logits.

    Returns:
        Mean absolute difference per token, nats.

    Raises:
        StaleWeightsError: it is larger than `tolerance`.
    """
    device = model_device(model)
    longest = max(len(completion.ids) for completion in completions)
    ids, mask = left_pad(prompts, 0, device)
    rows = torch.zeros(len(completions), longest, dtype=torch.long)
    seen, sampled = torch.zeros_like(rows), torch.zeros(rows.shape)
    for row, completion in enumerate(completions):
        rows[row, : len(completion.ids)] = torch.tensor(completion.ids)
        seen[row, : len(completion.ids)] = 1
        sampled[row, : len(completion.ids)] = torch.tensor(completion.log_probs)
    rows, seen, sampled = rows.to(device), seen.to(device), sampled.to(device)
    # vLLM samples without the adapter's dropout.
    with in_evaluation(model):
        logits = completion_logits(model, torch.cat([ids, rows], 1), torch.cat([mask, seen], 1), longest)
    own = torch.log_softmax(logits.float() / temperature, -1).gather(-1, rows[..., None])[..., 0]
    difference = float(((own - sampled).abs() * seen).sum() / seen.sum())
    # Written so that NaN stops the run too.
    if not difference <= tolerance:
        raise StaleWeightsError(
            f"vLLM's log-probabilities differ from the model's by {difference:.3g} per token, more than rounding "
            f"explains ({tolerance}): it samples from other weights than those that are trained. "
            "Take generation.backend transformers, or another version of vLLM."
        )
    return difference


def engine_for(
    spec: ModelSpec, *, max_length: int, lora_rank: int, generation: GenerationConfig, seed: int = 0
) -> VllmEngine:
    """The engine of a base model; made once per process, since it takes memory and seconds.

    Args:
        spec: the model; any adapter of its base can be loaded into the engine.
        max_length: most tokens of prompt and completion.
        lora_rank: largest rank of the adapters.
        generation: says how much memory vLLM may take.
        seed: of the engine, which seeds this process too; each request brings its own.

    Raises:
        UserError: vLLM is missing, or cannot run here.
    """
    settings = {
        "dtype": weights_dtype(spec),
        "max_length": max_length,
        "lora_rank": _allowed_rank(lora_rank),
        "gpu_memory_utilization": generation.gpu_memory_utilization,
        "seed": seed,
        "trust_remote_code": spec.trust_remote_code,
    }
    key = json.dumps([model_source(spec.base), {name: str(value) for name, value in settings.items()}])
    if key not in _ENGINES:
        # Two engines would each reserve their share of the memory.
        _ENGINES.clear()
        _ENGINES[key] = VllmEngine(model_source(spec.base), **settings)
    return _ENGINES[key]


_ENGINES: dict[str, VllmEngine] = {}


def _import(module: str) -> Any:
    return importlib.import_module(module)


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    return Completion(ids, [step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)])


def _allowed_rank(rank: int) -> int:
    """The smallest rank that vLLM has kernels for and that holds the adapter's."""
    allowed = (1, 8, 16, 32, 64, 128, 256, 320, 512)
    return next((size for size in allowed if size >= rank), rank)
