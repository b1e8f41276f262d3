"""What is wrong and can be seen before training: all problems at once, one line each, before any weights are loaded.

The stages call `check_training` themselves, with the lengths of all their prompts. The command `grpo.preflight`, which
run_pipeline.sh calls first, asks `problems_of_run` about all stages before a run, with a few prompts or one in place of
all, and the port that the processes meet at.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

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
from grpo.runs.folder import stage_manifest
from grpo.sampling.config import GenerationConfig
from grpo.training.config import GrpoConfig, SftConfig
from grpo.training.task import AnyTask
from preprocessing.errors import UserError
from preprocessing.windows_reader import read_windows

CHECKPOINTS_KEPT = 3
"""Two by save_total_limit, and the next one that is being written."""
ADAPTERS_KEPT = 4
"""The kept one, the stage's, the published one, and one in the making."""
PROMPTS_MEASURED = 256
_GIB = 2**30

logger = logging.getLogger("grpo")


class PreflightError(UserError):
    """Training would fail; the message is the one problem, or how many the log names."""


def check_training(
    task: AnyTask, run: Path, *, prompt_ids: list[list[int]], completion_length: int, processes: int
) -> None:
    """Check all that a training stage needs before it loads weights.

    Args:
        task: what is to be trained.
        run: the run folder.
        prompt_ids: tokens of each training prompt.
        completion_length: tokens of the longest completion.
        processes: that train together.

    Raises:
        PreflightError: something is wrong; where there is more than one problem the log has a line for each.
    """
    # All are collected before any is raised: one start shows them all.
    problems = _machine_problems(task)
    try:
        check_lengths(prompt_ids, completion_length, task.prompt)
    except PromptTooLongError as error:
        problems.append(str(error))
    size = _size_or_problem(task, problems)
    longest = max(map(len, prompt_ids))
    problems += stage_problems(task, run, size, longest, completion_length, processes, len(prompt_ids))
    if len(problems) == 1:
        raise PreflightError(problems[0])
    for problem in problems:
        logger.error(problem)
    if problems:
        raise PreflightError(f"{task.stage}: {len(problems)} problems, named above; nothing was loaded")


def stage_problems(
    task: AnyTask,
    run: Path,
    size: ModelSize | None,
    prompt_length: int,
    completion_length: int,
    processes: int,
    windows: int | None,
) -> list[str]:
    """Batch, memory and disk of one stage; without a size the batch alone."""
    problems: list[str] = []
    if isinstance(task.settings, GrpoConfig):
        try:
            find_rewards(list(task.settings.rewards), num_generations=task.settings.group_size)
        except PluginError as error:
            return [f"{task.stage}: {error}"]
        problems += batch_problems(task.settings, task.stage, processes, windows)
        problems += rollout_problems(task.generation)
    # A model that cannot be read has been named as a problem already.
    if size is None:
        return problems
    problems += position_problems(task, prompt_length + completion_length)
    training, sampling = _batches(task, prompt_length, completion_length)
    return problems + memory_problems(task, size, training, sampling, processes) + disk_problems(run, size)


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
    # TRL splits the generation batch into equal shares in order, so a group stays whole if it divides the share.
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


def rollout_problems(generation: GenerationConfig) -> list[str]:
    """Settings by which rollouts would be sampled from another law than the one that is trained."""
    if generation.structured == "none":
        return []
    return [
        f"generation.structured {generation.structured}: GRPO trains the law that it samples from, and answers "
        "held to a form come from another; give it to sft_data_generation or compare_models alone"
    ]


def position_problems(task: AnyTask, longest: int) -> list[str]:
    """A prompt and its answer that take more tokens than the model has positions."""
    limit = position_limit(task.spec)
    if limit is None or longest <= limit or longest > task.prompt.max_seq_length:  # the last is said elsewhere
        return []
    return [
        f"a prompt and its answer take up to {longest} tokens, but --model {task.spec.base} has {limit} positions "
        f"(max_position_embeddings), which --prompt.max_seq_length {task.prompt.max_seq_length} does not change; "
        "shorten --data.window, or take another model"
    ]


def memory_problems(task: AnyTask, size: ModelSize, training: Batch, sampling: Batch, processes: int) -> list[str]:
    """Weights and adapter that do not fit are a problem; an estimate of the rest that does not fit is a warning.

    Where the launcher shares the weights out, each process is taken to hold its share alone.
    """
    free, needed = free_memory(processes), estimate(size, task.spec, training, sampling)
    shared_out = needed.fixed - needed.fixed // processes if splits_weights() else 0
    # Weights and adapter are exact, so too little room for them is certain; the rest is known within 40 % and only
    # warned of.
    if needed.fixed - shared_out > free:
        return [
            f"{task.stage}: {_shown(needed)} exceed the {free / _GIB:.1f} GiB that are free; take a smaller model, "
            "loading.quantization 4bit, or a larger device"
        ]
    if needed.total - shared_out > free:
        logger.warning(
            "%s: about %s may exceed the %.1f GiB that are free; should it fail, lower %s, or set "
            "loading.gradient_checkpointing true",
            task.stage,
            _shown(needed),
            free / _GIB,
            f"{task.stage}.batch_size"
            if isinstance(task.settings, SftConfig)
            else f"{task.stage}.prompts_per_step or generation.rows_per_batch",
        )
    return []


def disk_problems(run: Path, size: ModelSize) -> list[str]:
    """Checkpoints that would not fit on the disk."""
    # Weight and the two moments of AdamW, 4 bytes each; an adapter is the weight alone.
    checkpoint = 12 * size.lora
    needed = CHECKPOINTS_KEPT * checkpoint + ADAPTERS_KEPT * 4 * size.lora
    free = free_disk(run)
    if needed <= free:
        return []
    return [
        f"{run}: checkpoints and adapters take {needed / _GIB:.2f} GiB, but {free / _GIB:.2f} GiB are "
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


def _machine_problems(task: AnyTask) -> list[str]:
    problems = version_problems() + loading_problems(task.spec.loading)
    if task.spec.backend == "unsloth":
        problems += unsloth_problems(task.spec, sampler=task.generation.backend)
    if task.spec.loading.quantization == "4bit" and task.generation.backend == "vllm":
        problems.append(
            "loading.quantization 4bit: vLLM would sample from other weights; take generation.backend transformers"
        )
    if task.hub.repo_id is not None:
        try:
            require_pushable(task.hub, task.spec.base)
        except HubError as error:
            problems.append(str(error))
    return problems


def _size_or_problem(task: AnyTask, problems: list[str]) -> ModelSize | None:
    """The model's size; None, and one problem more, where its configuration cannot be read."""
    try:
        return model_size(task.spec, task.lora)
    except ModelError as error:
        problems.append(str(error))
    # Architectures name their widths freely; a missing estimate is no reason not to train.
    except AttributeError as error:
        logger.warning("memory is not estimated, since this architecture has no %s", error.name)
    return None


def _per_device(settings: GrpoConfig | SftConfig) -> int:
    own = (
        settings.batch_size if isinstance(settings, SftConfig) else settings.prompts_per_step * settings.num_generations
    )
    return settings.trl.get("per_device_train_batch_size", own)


def _batches(task: AnyTask, prompt: int, completion: int) -> tuple[Batch, Batch]:
    """What a stage trains on at once and what it samples at once."""
    settings = task.settings
    rows = _per_device(settings)
    lengths = {"prompt_length": prompt, "completion_length": completion}
    if isinstance(settings, SftConfig):
        # Every row has a prompt of its own, and the loss reads the logits of all tokens; nothing is sampled.
        whole = {"prompt_length": 0, "completion_length": prompt + completion}
        return Batch(prompts=rows, rows=rows, **whole), Batch(prompts=0, rows=0, **lengths)
    training = Batch(prompts=max(rows // settings.num_generations, 1), rows=rows, **lengths)
    accumulated = rows * settings.trl.get("gradient_accumulation_steps", 1)
    sampled = max(accumulated, task.generation.rows_per_batch)
    if task.generation.backend == "vllm":
        # vLLM keeps within generation.gpu_memory_utilization.
        sampled = 0
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


def problems_of_run(
    tasks: Sequence[AnyTask], run: Path, *, train: tuple[Path, Path], processes: int, port: int
) -> list[str]:
    """All problems of a run, whose windows need not be there yet; its finished stages need no room any more.

    Args:
        tasks: its training stages, of one model and one kind of prompt.
        run: its folder.
        train: the files of its training windows, X and Y.
        processes: that train together.
        port: at which they meet.
    """
    first = tasks[0]
    problems = _machine_problems(first) + port_problems(port, processes)
    completion = first.prompt.max_completion_length or (THOUGHT_TOKENS if style_of(first.prompt).form.thinks else 64)
    prompt = max(first.prompt.max_seq_length - completion, 1)
    others = len(problems)
    size = _size_or_problem(first, problems)
    if len(problems) == others:  # a model that is not there has no tokenizer either
        try:
            prompt, completion = _lengths(first, *train)
        except (ModelError, PromptTooLongError) as error:
            problems.append(str(error))
    for task in tasks:
        if not stage_manifest(run, task.stage).exists():
            found = stage_problems(task, run, size, prompt, completion, processes, None)
            problems += [problem for problem in found if problem not in problems]
    return problems


def _lengths(task: AnyTask, train_x: Path, train_y: Path) -> tuple[int, int]:
    """Tokens of the longest of some prompts and of an answer; the stages measure all prompts.

    Where there are no windows yet, one of `data.window` days with numbers of few digits stands for them.

    Raises:
        ModelError: the tokenizer cannot be loaded, or answers in its chat would not be read as they are meant.
        PromptTooLongError: they do not fit.
    """
    if train_x.exists() and train_y.exists():
        context = read_windows(train_x, train_y).context
        context = context.take(choose_windows(context, PROMPTS_MEASURED))
    else:
        context = fixed_context(task.data.window)
    horizon, style = task.data.horizon, style_of(task.prompt)
    tokenizer = load_chat_tokenizer(task.spec, task.prompt)
    prompts = tokenize_prompts(style.render(context, horizon), tokenizer)
    completion = completion_length(tokenizer, task.prompt, horizon)
    check_lengths(prompts, completion, task.prompt)
    check_chat(tokenizer, load_generation_config(task.spec.base), style.form, horizon)
    return max(map(len, prompts)), completion
