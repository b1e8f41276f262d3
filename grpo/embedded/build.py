"""Build the embedded model: a small Llama trained from scratch on simulated stocks.

    python -m grpo.embedded.build --output_dir grpo/embedded/model

The tokenizer has one token per integer; the embeddings of the integers start as Fourier features of their values,
so that near numbers begin near each other. The loss is the cross-entropy to the exact one-step law
(`grpo.embedded.corpus`) on the answer tokens alone. The build ends by printing what the model reaches on simulated
stocks that it has not seen.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grpo.embedded.corpus import Examples, level_probabilities, stream_examples
from grpo.embedded.measure import report
from grpo.embedded.tokenizer import END, PAD, build_tokenizer, number_tokens, token_id
from grpo.language.config import PromptConfig
from grpo.models.chat import tokenize_prompts
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import LLMForecaster
from preprocessing.combined_preprocessor import DataConfig
from preprocessing.command_line import parse_config

HORIZON = 10


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How the embedded model is made."""

    output_dir: Path = Path("grpo/embedded/model")
    """Folder for the tokenizer, weights (bf16 safetensors) and build.json."""
    examples: int = 96_000
    """Training examples, windows."""
    batch_size: int = 32
    """Examples per optimizer step."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW, linear warm-up and cosine decay."""
    hidden_size: int = 128
    """Width of the model."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    """Attention heads."""
    feed_forward: int = 344
    """Width of the feed-forward layers."""
    per_series: int = 32
    """Windows taken from each simulated stock."""
    seed: int = 0
    """Seed of weights and corpus."""
    measure: bool = True
    """Score the model on simulated stocks at the end, about a minute."""


def build_model(tokenizer: PreTrainedTokenizerFast, config: BuildConfig) -> LlamaForCausalLM:
    """An untrained Llama with Fourier features as number embeddings."""
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=1024,
            # One matrix reads and writes numbers, so the features below serve the output as well.
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=token_id(tokenizer, END),
            pad_token_id=token_id(tokenizer, PAD),
        )
    )
    embed_numbers(model, tokenizer)
    return model


def embed_numbers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, std: float = 0.05) -> None:
    """Set three quarters of each integer's embedding to cosines and sines of its value, periods 24 to 2400."""
    weight = model.get_input_embeddings().weight.data
    assert isinstance(weight, torch.Tensor)
    weight.normal_(0, std)
    values, ids = number_tokens(tokenizer)
    # The last quarter stays free to learn what else a number means.
    pairs = int(weight.shape[1] * 0.75) // 2
    periods = np.exp(np.linspace(np.log(24), np.log(2400), pairs))
    angle = 2 * np.pi * values[:, None] / periods
    # A cosine over its periods has mean square 1/2, so sqrt(2) gives the features the standard deviation std of the
    # rest.
    features = std * math.sqrt(2) * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    weight[ids, : 2 * pairs] = torch.tensor(features, dtype=weight.dtype)
    rest = weight[ids, 2 * pairs :]
    # One random vector for all integers says "this is a number"; a little of each one's own stays.
    weight[ids, 2 * pairs :] = 0.3 * rest + std * torch.randn(rest.shape[1])


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: BuildConfig) -> list[float]:
    """Train in place; returns the loss of each step (nats per answer token)."""
    _, ids = number_tokens(tokenizer)
    number_ids = torch.tensor(ids)
    steps = config.examples // config.batch_size
    optimizer = torch.optim.AdamW(_weight_groups(model), lr=config.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        # Warm-up over the first 4 % of the steps, then a half cosine from 1 down to .02, so that the last steps still
        # move.
        lambda step: min(1, (step + 1) / (0.04 * steps)) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps))),
    )
    losses = []
    model.train()
    batches = _batches(tokenizer, config)
    for _ in tqdm(range(steps), desc="embedded model", unit="step", mininterval=10):
        input_ids, target = next(batches)
        # The head runs over the answer alone: position t gives the law of token t + 1, so the last prompt token comes
        # first. [B, H + 1, hidden]
        hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state[:, -HORIZON - 1 :]
        log_probs = torch.log_softmax(model.lm_head(hidden).float(), dim=-1)  # [B, H + 1, vocabulary]
        # [B, H, V] against [B, H, V] to [B, H]; the numbers compete with all other tokens, so the model also learns to
        # write nothing but numbers.
        numbers = -(target * log_probs[:, :HORIZON, number_ids]).sum(-1)
        end = -log_probs[:, HORIZON, token_id(tokenizer, END)]
        loss = torch.cat([numbers, end[:, None]], dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _weight_groups(model: LlamaForCausalLM) -> list[dict]:
    # Weight decay would pull the scales of the norms towards 0.
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]


def _batches(tokenizer: PreTrainedTokenizerFast, config: BuildConfig):
    """Endless (input_ids [B, P + H], target [B, H, V]): the prompt and the answer without its end."""
    # Windows of one stock overlap; shuffled among 64 batches, they do not fill a batch of their own.
    size = 64 * config.batch_size
    for examples in stream_examples(config.seed, size=size, per_series=config.per_series, config=DataConfig()):
        input_ids = encode(examples, tokenizer)
        for start in range(0, size, config.batch_size):
            rows = slice(start, start + config.batch_size)
            target = level_probabilities(examples.step_mean[rows], examples.step_sd[rows])
            yield input_ids[rows], torch.tensor(target, dtype=torch.float32)


def encode(examples: Examples, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """[N, P + H] token ids of prompts and answers; every prompt has the same length by construction."""
    prompts = tokenize_prompts(examples.prompts, tokenizer)
    values, ids = number_tokens(tokenizer)
    # The integers are without gap, so a value less the lowest one is its place among the ids.
    answers = ids[examples.answers - values[0]]  # [N, H]
    return torch.tensor(np.concatenate([np.array(prompts), answers], axis=1))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, facts: dict) -> None:
    """Write the model as bf16 safetensors with its tokenizer and the facts of the build."""
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    tokenizer.save_pretrained(folder)
    (folder / "build.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Build, save and report."""
    config = parse_config(BuildConfig, prog="python -m grpo.embedded.build", description=__doc__ or "")
    started = time.time()
    tokenizer = build_tokenizer(HORIZON)
    model = build_model(tokenizer, config)
    parameters = sum(p.numel() for p in model.parameters())
    losses = train(model, tokenizer, config)
    facts = {
        "parameters": parameters,
        "examples": config.examples,
        "seconds": round(time.time() - started),
        "final_loss": round(float(np.mean(losses[-100:])), 4),
        "seed": config.seed,
    }
    save(model, tokenizer, config.output_dir, facts)
    print(json.dumps(facts))
    if config.measure:
        # Measured after the rounding to bf16 that users get.
        forecaster = LLMForecaster("embedded", model.float().eval(), tokenizer, PromptConfig(), GenerationConfig())
        report(forecaster, config.output_dir)


if __name__ == "__main__":
    main()
