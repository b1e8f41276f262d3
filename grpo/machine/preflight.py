"""What can be known before training to go wrong: all problems at once, one line each, before any weights are loaded.

    python -m grpo.preflight --config results/RUN/config.yaml --num-processes 4

The stages call `check_training` themselves, with the lengths of all their prompts. The command, which run_pipeline.sh
calls first, checks the settings of all stages before a run, with a few prompts or one in place of all, and the port
that the processes meet at.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from grpo.config import RunConfig, parse_run_config
from grpo.evaluation.harness import choose_windows
from grpo.evaluation.plugins import PluginError
from grpo.language.answers import THOUGHT_TOKENS
from grpo.language.prompts import style_of
from grpo.language.rewards import find_rewards
from grpo.machine.memory import Batch, MemoryEstimate, ModelSize, estimate, model_size
from grpo.models.adapters import ModelError, fixed_context
from grpo.models.chat import (
    PromptTooLongError,
    check_chat,
    check_lengths,
    completion_length,
    load_chat_tokenizer,
    tokenize_prompts,
)
from grpo.models.download import HubError
from grpo.models.hardware import (
    declared_packages,
    free_disk,
    free_memory,
    is_port_free,
    loading_problems,
    splits_weights,
)
from grpo.models.loading import load_generation_config, position_limit
from grpo.models.unsloth import unsloth_problems
from grpo.publishing.push import require_pushable
from grpo.runs.folder import resolve_paths, stage_manifest
from grpo.runs.processes import SHARDING
from grpo.runs.stages import ADAPTER_STAGES
from grpo.training.config import GrpoConfig, SftConfig
from preprocessing.errors import UserError
from preprocessing.windows import read_windows

CHECKPOINTS_KEPT = 3
"""Two by save_total_limit, and the next one that is being written."""
ADAPTERS_KEPT = 4
"""The kept one, the stage's, the published one, and one in the making."""
PROMPTS_MEASURED = 256
DEFAULT_PORT = 29500
"""Where `accelerate launch` lets processes meet unless it is told otherwise."""
_GIB = 2**30

logger = logging.getLogger("grpo")


class PreflightError(UserError):
    """Training would fail; the message is the one problem, or how many the log names."""


def check_training(
    config: RunConfig, stage: str, *, prompt_ids: list[list[int]], completion_length: int, processes: int
) -> None:
    """Check all that a training stage needs before it loads weights.

    Args:
        config: the run.
        stage: its key, as in `grpo.runs.stages`.
        prompt_ids: tokens of each training prompt.
        completion_length: tokens of the longest completion.
        processes: that train together.

    Raises:
        PreflightError: something is wrong; where there is more than one problem the log has a line for each.
    """
    problems = _machine_problems(config)
    try:
        check_lengths(prompt_ids, completion_length, config.prompt)
    except PromptTooLongError as error:
        problems.append(str(error))
    size = _size_or_problem(config, problems)
    longest = max(map(len, prompt_ids))
    problems += stage_problems(config, stage, size, longest, completion_length, processes, len(prompt_ids))
    if len(problems) == 1:
        raise PreflightError(problems[0])
    for problem in problems:
        logger.error(problem)
    if problems:
        raise PreflightError(f"{stage}: {len(problems)} problems, named above; nothing was loaded")


def stage_problems(
    config: RunConfig,
    stage: str,
    size: ModelSize | None,
    prompt_length: int,
    completion_length: int,
    processes: int,
    windows: int | None,
) -> list[str]:
    """Batch, memory and disk of one stage; without a size the batch alone."""
    settings: GrpoConfig | SftConfig = getattr(config, stage)
    problems: list[str] = []
    if isinstance(settings, GrpoConfig):
        try:
            find_rewards(list(settings.rewards), num_generations=settings.group_size)
        except PluginError as error:
            return [f"{stage}: {error}"]
        problems += batch_problems(settings, stage, processes, windows)
        problems += rollout_problems(config)
    if size is None:
        return problems
    problems += position_problems(config, prompt_length + completion_length)
    training, sampling = _batches(config, settings, prompt_length, completion_length)
    return problems + memory_problems(config, stage, size, training, sampling, processes) + disk_problems(config, size)


def batch_problems(settings: GrpoConfig, stage: str, processes: int, windows: int | None) -> list[str]:
    """Groups that do not fill a process's share of the generation batch, by TRL's rule and a stricter one.

    The generation batch is processes x per_device_train_batch_size x steps_per_generation, the last being
    gradient_accumulation_steps unless it is given. TRL wants num_generations to divide it, and would split a group
    over processes; a reward here depends on the rest of its group, so num_generations must divide the share of each.
    """
    trl, group = settings.trl, settings.group_size
    per_device = _per_device(settings)
    steps = trl.get("steps_per_generation")
    total = trl.get("generation_batch_size")
    if steps is not None and total is not None:
        return [f"{stage}.trl: give steps_per_generation or generation_batch_size, not both"]
    world = processes * per_device
    if total is None:
        total = world * (steps or trl.get("gradient_accumulation_steps", 1))
    elif total % world:
        unit = math.lcm(world, processes * group)
        return [
            f"{stage}.trl.generation_batch_size {total} is no multiple of {processes} process(es) x {per_device} rows; "
            f"take {_choices(_multiples(total, unit))}"
        ]
    rows = total // processes
    if rows % group:
        others = rows // per_device  # what per_device is multiplied by
        valid = _multiples(per_device, group // math.gcd(group, others))
        divisors = [number for number in range(3, rows + 1) if rows % number == 0]
        nearest = [n for n in divisors if n < group][-1:] + [n for n in divisors if n > group][:1]
        groups = f", or num_generations {_choices(nearest)}" if nearest else ""
        return [
            f"{stage}: num_generations {group} does not divide the {rows} completions of a process ({per_device} rows "
            f"x {others}); take per_device_train_batch_size {_choices(valid)}{groups}"
        ]
    prompts = total // group
    if windows is not None and windows < prompts:
        return [
            f"{stage}: a step takes {prompts} prompts, but there are {windows} training windows; lower "
            f"{stage}.prompts_per_step, or give a longer history"
        ]
    return []


def rollout_problems(config: RunConfig) -> list[str]:
    """A law of the rollouts other than the one that is trained."""
    if config.generation.structured == "none":
        return []
    return [
        f"generation.structured {config.generation.structured}: GRPO trains the law that it samples from, and answers "
        "held to a form come from another; give it to sft_data_generation or compare_models alone"
    ]


def position_problems(config: RunConfig, longest: int) -> list[str]:
    """A prompt and its answer that are longer than the model can tell apart."""
    limit = position_limit(config.spec())
    if limit is None or longest <= limit or longest > config.prompt.max_seq_length:  # the last is said elsewhere
        return []
    return [
        f"a prompt and its answer take up to {longest} tokens, but --model {config.model} has {limit} positions "
        f"(max_position_embeddings), which --prompt.max_seq_length {config.prompt.max_seq_length} does not change; "
        "shorten --data.window, or take another model"
    ]


def memory_problems(
    config: RunConfig, stage: str, size: ModelSize, training: Batch, sampling: Batch, processes: int
) -> list[str]:
    """Weights and adapter that do not fit are a problem; an estimate of the rest that does not fit is a warning.

    Where the launcher shares the weights out, each process is taken to hold its share alone.
    """
    free, needed = free_memory(processes), estimate(size, config.spec(), training, sampling)
    shared_out = needed.fixed - needed.fixed // processes if splits_weights() else 0
    if needed.fixed - shared_out > free:
        return [
            f"{stage}: {_shown(needed)} exceed the {free / _GIB:.1f} GiB that are free; take a smaller model, "
            "loading.quantization 4bit, or a larger device"
        ]
    if needed.total - shared_out > free:
        logger.warning(
            "%s: about %s may exceed the %.1f GiB that are free; should it fail, lower %s, or set "
            "loading.gradient_checkpointing true",
            stage,
            _shown(needed),
            free / _GIB,
            f"{stage}.batch_size"
            if isinstance(getattr(config, stage), SftConfig)
            else f"{stage}.prompts_per_step or generation.rows_per_batch",
        )
    return []


def disk_problems(config: RunConfig, size: ModelSize) -> list[str]:
    """Checkpoints that would not fit on the disk."""
    checkpoint = 12 * size.lora  # float32 weight and the two moments of AdamW
    needed = CHECKPOINTS_KEPT * checkpoint + ADAPTERS_KEPT * 4 * size.lora
    free = free_disk(config.run_folder)
    if needed <= free:
        return []
    return [
        f"{config.run_folder}: checkpoints and adapters take {needed / _GIB:.2f} GiB, but {free / _GIB:.2f} GiB are "
        "free; free space, or give another --run-dir"
    ]


def port_problems(port: int, processes: int) -> list[str]:
    """A port that several processes would meet at and that something else holds."""
    if processes == 1 or is_port_free(port):
        return []
    other = next((number for number in range(port + 1, port + 100) if is_port_free(number)), 0)
    return [f"port {port} is taken, at which the processes would meet; give --main_process_port {other}"]


def version_problems() -> list[str]:
    """Needed packages outside of their tested range."""
    return [
        f"{package.name} {package.installed or 'missing'}, tested is {package.tested}: run ./run_pipeline.sh --install"
        for package in declared_packages()[""]
        if not package.fits
    ]


def _machine_problems(config: RunConfig) -> list[str]:
    problems = version_problems() + loading_problems(config.loading)
    if config.backend == "unsloth":
        problems += unsloth_problems(config.spec(), sampler=config.generation.backend)
    if config.loading.quantization == "4bit" and config.generation.backend == "vllm":
        problems.append(
            "loading.quantization 4bit: vLLM would sample from other weights; take generation.backend transformers"
        )
    if config.hub.repo_id is not None:
        try:
            require_pushable(config)
        except HubError as error:
            problems.append(str(error))
    return problems


def _size_or_problem(config: RunConfig, problems: list[str]) -> ModelSize | None:
    """The model's size; None, and one problem more, where its configuration cannot be read."""
    try:
        return model_size(config.spec(), config.lora)
    except ModelError as error:
        problems.append(str(error))
    except AttributeError as error:
        logger.warning("memory is not estimated, since this architecture has no %s", error.name)
    return None


def _per_device(settings: GrpoConfig | SftConfig) -> int:
    own = (
        settings.batch_size if isinstance(settings, SftConfig) else settings.prompts_per_step * settings.num_generations
    )
    return settings.trl.get("per_device_train_batch_size", own)


def _batches(config: RunConfig, settings: GrpoConfig | SftConfig, prompt: int, completion: int) -> tuple[Batch, Batch]:
    """What a stage trains on at once and what it samples at once."""
    rows = _per_device(settings)
    lengths = {"prompt_length": prompt, "completion_length": completion}
    if isinstance(settings, SftConfig):
        # every row has a prompt of its own, and the loss reads the logits of all tokens
        whole = {"prompt_length": 0, "completion_length": prompt + completion}
        return Batch(prompts=rows, rows=rows, **whole), Batch(prompts=0, rows=0, **lengths)
    training = Batch(prompts=max(rows // settings.num_generations, 1), rows=rows, **lengths)
    accumulated = rows * settings.trl.get("gradient_accumulation_steps", 1)
    sampled = max(accumulated, config.generation.rows_per_batch)
    if config.generation.backend == "vllm":
        sampled = 0  # vLLM keeps within generation.gpu_memory_utilization
    return training, Batch(prompts=math.ceil(sampled / settings.num_generations), rows=sampled, **lengths)


def _multiples(near: int, unit: int) -> list[int]:
    """The multiples of a unit next to a number, below and above."""
    below = near // unit * unit
    return [value for value in (below, below + unit) if value > 0]


def _choices(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))


def _shown(needed: MemoryEstimate) -> str:
    parts = {"weights": needed.weights, "adapter": needed.adapter}
    parts |= {"activations": needed.activations, "sampling": needed.sampling}
    return f"{needed.total / _GIB:.1f} GiB ({', '.join(f'{name} {value / _GIB:.1f}' for name, value in parts.items())})"


def problems_of_run(config: RunConfig, processes: int, port: int) -> list[str]:
    """All problems of a run, whose windows need not be there yet; its finished stages need no room any more."""
    problems = _machine_problems(config) + port_problems(port, processes)
    completion = config.prompt.max_completion_length or (THOUGHT_TOKENS if style_of(config.prompt).form.thinks else 64)
    prompt = max(config.prompt.max_seq_length - completion, 1)
    others = len(problems)
    size = _size_or_problem(config, problems)
    if len(problems) == others:  # a model that is not there has no tokenizer either
        try:
            prompt, completion = _lengths(config)
        except (ModelError, PromptTooLongError) as error:
            problems.append(str(error))
    for stage in ADAPTER_STAGES:
        if stage_manifest(config.run_folder, stage.key).exists():
            continue
        found = stage_problems(config, stage.key, size, prompt, completion, processes, None)
        problems += [problem for problem in found if problem not in problems]
    return problems


def _lengths(config: RunConfig) -> tuple[int, int]:
    """Tokens of the longest of some prompts and of an answer; the stages measure all prompts.

    Where there are no windows yet, one of `data.window` days with numbers of few digits stands for them.

    Raises:
        ModelError: the tokenizer cannot be loaded, or answers in its chat would not be read as they are meant.
        PromptTooLongError: they do not fit.
    """
    paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
    if paths.train_x.exists() and paths.train_y.exists():
        context = read_windows(paths.train_x, paths.train_y).context
        context = context.take(choose_windows(context, PROMPTS_MEASURED))
    else:
        context = fixed_context(config.data.window)
    horizon, style = config.data.horizon, style_of(config.prompt)
    tokenizer = load_chat_tokenizer(config.spec(), config.prompt)
    prompts = tokenize_prompts(style.render(context, horizon), tokenizer)
    completion = completion_length(tokenizer, config.prompt, horizon)
    check_lengths(prompts, completion, config.prompt)
    check_chat(tokenizer, load_generation_config(config.model), style.form, horizon)
    return max(map(len, prompts)), completion


def _follow_launcher(file: Path) -> int:
    """Take over what a file of `accelerate launch` decides: whether weights are shared out; gives the port.

    Raises:
        PreflightError: it is not a YAML file of settings.
    """
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PreflightError(f"--accelerate-config {file} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(settings, dict):
        raise PreflightError(f"--accelerate-config {file} holds no settings")
    sharding = SHARDING.get(str(settings.get("distributed_type")))
    if sharding:
        os.environ[sharding] = "true"  # as the launcher will say it to the stages
    return int(settings.get("main_process_port") or DEFAULT_PORT)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the flags of a run, print every problem."""
    launch: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    launch.add_argument("--num-processes", "--num_processes", type=int, default=1)
    launch.add_argument("--main-process-port", "--main_process_port", type=int)
    launch.add_argument("--accelerate-config", "--accelerate_config", type=Path)
    own, flags = launch.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    config = parse_run_config(
        flags,
        prog="python -m grpo.preflight",
        description="Name what would go wrong in a run. Further flags: --num-processes N, --main-process-port PORT, "
        "--accelerate-config FILE.",
    )
    port = _follow_launcher(own.accelerate_config) if own.accelerate_config else DEFAULT_PORT
    problems = problems_of_run(config, own.num_processes, own.main_process_port or port)
    if len(problems) == 1:
        raise PreflightError(problems[0])
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise PreflightError(f"{len(problems)} problems, named above")
    print("no problem found")
