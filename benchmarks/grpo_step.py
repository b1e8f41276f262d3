"""One GRPO step with the prompt forwarded once, against stock TRL, in alternation in one run.

    .venv/bin/python benchmarks/grpo_step.py                                    # CPU, 1M and 5M parameters
    .venv/bin/python benchmarks/grpo_step.py --sizes 1M --shapes 400x60x8 --completions 16 --rounds 5
    .venv/bin/python benchmarks/grpo_step.py --sizes 1M --shapes 400x60x8 --dtype bfloat16
    .venv/bin/python benchmarks/grpo_step.py --sizes 1M --shapes 400x60x8 --compile     # shared, with torch.compile
    .venv/bin/python benchmarks/grpo_step.py --shapes 400x60x8 --profile        # where a shared step's time goes
    .venv/bin/python benchmarks/grpo_step.py --device cuda --architecture qwen2.5-0.5b,qwen2.5-1.5b --shapes 512x48x8
    (the last with --unsloth: Unsloth's trainer too, where it is installed)

Both trainers get the same random weights, LoRA on all linear layers, the same prompts and TRL's settings that are
fastest here (no gradient checkpointing). A step is what `trainer.train()` does between two optimizer steps: sample,
score, loss, backward, AdamW. CPU times are CPU seconds of one thread, which other programs disturb least; on a GPU
they are seconds on the clock. The ratio printed is that of the medians over the rounds.

`limit` is the time that the matrix products of one step would take at the rate that this machine reaches on a
large one: P + G C tokens are forwarded to sample, forwarded to score, and backward again (LoRA: the frozen weights
need no gradient). `memory` is how far the peak of a fresh process that makes one step lies above what it held before.

What bounds the ratio: sharing forwards P + G C tokens in place of G (P + C), 4.2 times fewer at 400x60x8. The C steps
of sampling come one after the other and cost about as much for 16 completions as for 64, which is why the ratio grows
with the completions per step; the toolkit's own default is 128.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from grpo.embedded.tokenizer import build_tokenizer
from grpo.training.trainer import SharedPromptGRPOTrainer

Shape = tuple[int, int, int, int]
"""Prompt length, completion length, G, and prompts per step."""
PARTS = ("generation", "forward", "backward", "step")
RANK = 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TRAINERS = {"stock": GRPOTrainer, "shared": SharedPromptGRPOTrainer, "compiled": SharedPromptGRPOTrainer}


def llama(hidden: int, layers: int) -> Callable[[int], Any]:
    """A Llama of the embedded model's kind."""

    def make(vocabulary: int) -> Any:
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=hidden,
                intermediate_size=3 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=hidden // 32,
                num_key_value_heads=hidden // 64,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
            )
        )

    return make


def qwen2(hidden: int, intermediate: int, layers: int, heads: int) -> Callable[[int], Any]:
    """The architecture of Qwen2.5, its whole vocabulary included."""

    def make(_: int) -> Any:
        return Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=151_936,
                hidden_size=hidden,
                intermediate_size=intermediate,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=2,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
            )
        )

    return make


MODELS = {
    "1M": llama(128, 5),
    "5M": llama(256, 6),
    "20M": llama(512, 6),
    "qwen2.5-0.5b": qwen2(896, 4864, 24, 14),
    "qwen2.5-1.5b": qwen2(1536, 8960, 28, 12),
}


class Clock:
    """Seconds by part of a step: CPU seconds of this process, or the wall clock of a GPU that has finished."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def medians(self) -> dict[str, float]:
        """Of each part, without the first step."""
        return {part: statistics.median(self.seconds[part][1:]) for part in PARTS}

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            result = function(*args, **kwargs)
            self.seconds[part].append(self.now() - began)
            return result

        return timed


def prompt_texts(tokenizer: PreTrainedTokenizerFast, length: int, count: int) -> list[str]:
    """Prompts of exactly `length` tokens each, all different."""
    generator = torch.Generator().manual_seed(0)
    words = [word for word in (str(number) for number in range(1000)) if len(tokenizer(word).input_ids) == 1]
    return [
        " ".join(words[int(i)] for i in torch.randint(len(words), (length,), generator=generator)) for _ in range(count)
    ]


def make_model(size: str, dtype: str) -> Any:
    """Random weights, the same for all; every completion has C tokens, whatever they say."""
    torch.manual_seed(0)
    model = MODELS[size](len(build_tokenizer(10))).to(DTYPES[dtype])
    model.generation_config.eos_token_id = None
    return model


def make_trainer(
    trainer_class: Any, model: Any, adapter: LoraConfig | None, shape: Shape, device: str, dtype: str, folder: str
) -> Any:
    """A trainer for prompts of P tokens, completions of C and groups of G; without an adapter the model has its own."""
    prompt, completion, group, prompts = shape
    tokenizer: Any = build_tokenizer(10)
    trainer = trainer_class(
        model=model,
        reward_funcs=lambda completion_ids, **_: [float(sum(ids) % 97) for ids in completion_ids],
        args=GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=prompts * group,
            num_generations=group,
            max_completion_length=completion,
            max_steps=1,
            gradient_checkpointing=False,
            use_cpu=device == "cpu",
            dataloader_pin_memory=device == "cuda",
            bf16=dtype == "bfloat16",
            top_k=0,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompt_texts(tokenizer, prompt, 64)}),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    trainer.eos_token_ids = []
    trainer.remove_callback(PrinterCallback)
    return trainer


def trainer_of(kind: str, size: str, shape: Shape, device: str, dtype: str, folder: str) -> Any:
    """One of `TRAINERS`, with LoRA on all linear layers."""
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(TRAINERS[kind], make_model(size, dtype), adapter, shape, device, dtype, folder)
    if kind == "compiled":
        compile_loss(trainer)
    return trainer


def watch(trainer: Any, clock: Clock) -> None:
    """Time the parts of every step from now on."""
    trainer._generate_single_turn = clock.around("generation", trainer._generate_single_turn)
    trainer._compute_loss = clock.around("forward", trainer._compute_loss)
    trainer.accelerator.backward = clock.around("backward", trainer.accelerator.backward)
    trainer.training_step = clock.around("step", trainer.training_step)


def compile_loss(trainer: Any) -> None:
    """Compile the layers for the loss; for the sampling, whose shapes change with each token, they stay as they are."""
    torch._dynamo.config.recompile_limit = 256  # of one function: every layer and every shape is one
    layers = list(trainer.model.get_decoder().layers)
    compiled = [torch.compile(layer.forward) for layer in layers]
    compute = trainer._compute_loss

    def loss(*args: Any) -> Any:
        for layer, forward in zip(layers, compiled, strict=True):
            layer.forward = forward
        try:
            return compute(*args)
        finally:
            for layer in layers:
                del layer.forward

    trainer._compute_loss = loss


def measure(
    kinds: Sequence[str], size: str, shape: Shape, device: str, dtype: str, rounds: int
) -> dict[str, dict[str, float]]:
    """Median seconds of each part, for each trainer, and of its first step, which warms up and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = {kind: trainer_of(kind, size, shape, device, dtype, folder) for kind in kinds}
        clocks = {kind: Clock(device) for kind in kinds}
        for kind, trainer in trainers.items():
            watch(trainer, clocks[kind])
        for number in range(rounds + 1):
            for kind in kinds[:: -1 if number % 2 else 1]:
                trainers[kind].train()
    return {kind: clock.medians() | {"first": clock.seconds["step"][0]} for kind, clock in clocks.items()}


def measure_unsloth(size: str, shape: Shape, device: str, dtype: str, rounds: int) -> dict[str, float]:
    """The same for Unsloth's trainer, in a process of its own, since its import replaces TRL's."""
    command = [sys.executable, "-m", "benchmarks.grpo_step_unsloth", size, "x".join(map(str, shape))]
    done = subprocess.run(
        [*command, device, dtype, str(rounds)], cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory(kind: str, size: str, shape: Shape, device: str, dtype: str) -> float:
    """MiB that one step adds to the peak of a fresh process (GPU: peak of allocated memory)."""
    command = [sys.executable, __file__, "--memory-of", kind, "--sizes", size, "--device", device, "--dtype", dtype]
    command += ["--shapes", "x".join(map(str, shape[:3])), "--completions", str(shape[2] * shape[3])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report_memory(kind: str, size: str, shape: Shape, device: str, dtype: str) -> None:
    """Make one step and print its peak."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(kind, size, shape, device, dtype, folder)
        if device == "cuda":
            trainer.train()
            print(torch.cuda.max_memory_allocated() / 2**20)
            return
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
        before = _resident_mib("VmRSS")
        trainer.train()
        print(_resident_mib("VmHWM") - before)


def _resident_mib(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def report_profile(size: str, shape: Shape, device: str, dtype: str, rounds: int) -> None:
    """Print the functions that take most of a shared step's own time; the profiler makes Python's share look larger."""
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = trainer_of("shared", size, shape, device, dtype, folder)
        trainer.train()  # warms up
        profile = cProfile.Profile(Clock(device).now)
        step = trainer.training_step
        trainer.training_step = lambda *args, **kwargs: profile.runcall(step, *args, **kwargs)
        for _ in range(rounds):
            trainer.train()
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(25)


def matmul_rate(device: str, dtype: str) -> float:
    """Floating-point operations per second of a large matrix product."""
    n = 8192 if device == "cuda" else 1024
    a = torch.randn(n, n, device=device, dtype=DTYPES[dtype])
    clock = Clock(device)
    product = clock.around("product", lambda: a @ a)
    for _ in range(12):
        product()
    return 2 * n**3 / statistics.median(clock.seconds["product"][2:])


def step_flops(size: str, shape: Shape) -> float:
    """Operations of the matrix products of one step with the prompt forwarded once, attention included."""
    prompt, completion, group, prompts = shape
    with torch.device("meta"):
        model = MODELS[size](len(build_tokenizer(10)))
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for p in model.parameters() if p.ndim > 1) - head  # tied: the embedding is the head
    tokens = prompt + group * completion
    pairs = prompt**2 / 2 + group * completion * (prompt + completion / 2)  # query and key positions
    attention = 4 * config.num_hidden_layers * config.hidden_size * pairs
    forward = 2 * body * tokens + 2 * head * group * completion + attention
    return prompts * 3 * forward  # to sample, to score, and back through the activations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", "--architecture", default="1M,5M", help=f"of {', '.join(MODELS)}, with commas")
    parser.add_argument("--shapes", default="400x60x8,800x60x16", help="prompt x completion x group, with commas")
    parser.add_argument("--completions", type=int, default=64, help="per step; G of them have the same prompt")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--dtype", choices=list(DTYPES), help="of weights and products; bfloat16 on a GPU, float32 on a CPU"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="only where the time of a shared step goes")
    parser.add_argument(
        "--compile", action="store_true", help="compare shared prompts with and without torch.compile in the loss"
    )
    parser.add_argument("--unsloth", action="store_true", help="time Unsloth's own trainer too; it needs a GPU")
    parser.add_argument("--memory-of", choices=list(TRAINERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        shapes = [_shape(text, options.completions) for text in options.shapes.split(",")]
    except ValueError as error:
        parser.error(f"--shapes {options.shapes}: {error}")
    sizes = options.sizes.split(",")
    unknown = [size for size in sizes if size not in MODELS]
    if unknown:
        parser.error(f"--sizes {','.join(unknown)}: there are {', '.join(MODELS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU; take --device cpu")
    dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    if options.memory_of:
        report_memory(options.memory_of, sizes[0], shapes[0], options.device, dtype)
        return
    if options.profile:
        report_profile(sizes[0], shapes[0], options.device, dtype, options.rounds)
        return
    rate = matmul_rate(options.device, dtype)
    print(f"{rate / 1e9:.0f} GFLOP/s in a large matrix product, {options.completions} completions a step", flush=True)
    kinds = ("shared", "compiled") if options.compile else ("stock", "shared")
    columns = [f"{kind}: gen + fwd + bwd" for kind in kinds] + ["ratio", "limit", f"memory {' / '.join(kinds)}"]
    print("| model | prompt x completion x G | " + " | ".join(columns) + " |\n|" + "---|" * 7)
    for size in sizes:
        for shape in shapes:
            seconds = measure(kinds, size, shape, options.device, dtype, options.rounds)
            memory = [peak_memory(kind, size, shape, options.device, dtype) for kind in kinds]
            cells = [_split(seconds[kind]) for kind in kinds]
            steps = [seconds[kind]["step"] for kind in kinds]
            limit = step_flops(size, shape) / rate
            name = " x ".join(map(str, shape[:3]))
            print(
                f"| {size} | {name} | {cells[0]} | {cells[1]} | {steps[0] / steps[1]:.3g} | {limit:.2f} s, "
                f"{steps[1] / limit:.1f} away | {memory[0]:.0f} / {memory[1]:.0f} MiB |",
                flush=True,
            )
            if options.unsloth:
                others = measure_unsloth(size, shape, options.device, dtype, options.rounds)
                print(
                    f"Unsloth, {size}, {name}: {_split(others)}, {others['step'] / steps[1]:.2g} x shared", flush=True
                )
            if options.compile:
                print(f"the first compiled step took {seconds['compiled']['first']:.0f} s", flush=True)


def _shape(text: str, completions: int) -> Shape:
    numbers = text.split("x")
    if len(numbers) != 3 or not all(number.isdigit() and int(number) for number in numbers):
        raise ValueError(f"{text} is not prompt x completion x group, as 400x60x8")
    prompt, completion, group = map(int, numbers)
    if completions % group:
        raise ValueError(f"--completions {completions} is no multiple of the group {group}")
    return prompt, completion, group, completions // group


def _split(seconds: dict[str, float]) -> str:
    parts = " + ".join(f"{seconds[part]:.2f}" for part in PARTS[:3])
    return f"{seconds['step']:.2f} s ({parts})"


if __name__ == "__main__":
    main()
