"""What stages 1 and 3 share: windows to a GRPO dataset, the trainer, validation, and the adapter that is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from transformers.integrations import get_available_reporting_integrations
from trl import GRPOConfig

from grpo.evaluation.harness import choose_windows
from grpo.language.config import PromptConfig
from grpo.language.prompts import style_of
from grpo.language.rewards import find_rewards
from grpo.language.scale import true_paths
from grpo.models.chat import check_chat, completion_length, load_chat_tokenizer, tokenize_prompts
from grpo.models.loading import load_generation_config, load_policy, save_adapter, training_arguments
from grpo.models.unsloth import require_reference
from grpo.runs.folder import RunPaths, has_val, publish_adapter, publish_for_others
from grpo.runs.processes import num_processes, rank
from grpo.runs.resume import StageRun
from grpo.runs.stages import stage_of
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import GenerateForecaster, LLMForecaster
from grpo.sampling.vllm_engine import engine_for, require_vllm
from grpo.training.config import GrpoConfig
from grpo.training.launcher import run_training, whole_model
from grpo.training.preflight import check_training
from grpo.training.record import stage_record
from grpo.training.task import TrainingTask
from grpo.training.trainer import RecordingGRPOTrainer, SharedPromptGRPOTrainer
from grpo.training.validation_guard import StageProgress, ValidationGuard
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically
from preprocessing.stock_windows import hold_out
from preprocessing.windows import WindowSet
from preprocessing.windows_reader import read_windows


def train_grpo(task: TrainingTask[GrpoConfig], stage: StageRun, paths: RunPaths) -> JsonObject:
    """Train one GRPO stage and leave the adapter that validation keeps at its place in `paths`.

    Args:
        task: what is trained.
        stage: folder, checkpoint to resume from, logger.
        paths: windows and adapters.

    Returns:
        Headline metrics for the manifest.
    """
    settings, prompt = task.settings, task.prompt
    # Before the adapter is made: PEFT draws its first weights from the global generator.
    set_seed(task.seed)
    rewards = find_rewards(list(settings.rewards), num_generations=settings.group_size)
    tokenizer = load_chat_tokenizer(task.spec, prompt)
    row = stage_of(stage.name)
    train, val = _read_train_and_val(task, stage, paths)
    dataset = grpo_dataset(train, prompt)
    form = style_of(prompt).form
    check_chat(tokenizer, load_generation_config(task.spec.base), form, train.horizon)
    length = completion_length(tokenizer, prompt, train.horizon)
    prompt_ids = tokenize_prompts(list(dataset["prompt"]), tokenizer)
    check_training(
        task, stage.folder.parent, prompt_ids=prompt_ids, completion_length=length, processes=num_processes()
    )
    # Before the model is loaded: as they are made, transformers sets up ZeRO-3, which shards every model made from then
    # on.
    arguments = trl_arguments(task, stage.folder, length)
    model, adapter = load_policy(task.spec, task.lora, max_seq_length=prompt.max_seq_length, seed=task.seed)
    with refused_settings(stage.name):
        trainer = make_trainer(
            task,
            model=model,
            reward_funcs=[reward.function for reward in rewards],
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=adapter,
            completions_dir=stage.folder / "completions",
            form=form,
            horizon=train.horizon,
        )
    # Only now can it be seen: the trainer makes the reference as it is built.
    if task.spec.backend == "unsloth" and task.spec.adapter is not None:
        require_reference(trainer.model, beta=settings.beta)
    scored = val.take(choose_windows(val.context, settings.eval_windows))
    guard = validation(trainer, tokenizer, task, scored, stage.folder)
    # It prints a dictionary for every step, through the progress bar.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(guard)
    trainer.add_callback(StageProgress(row.title))
    run_training(trainer, stage)
    if trainer.accelerator.is_main_process:
        write_atomically(stage.folder / "log_history.json", json.dumps(trainer.state.log_history, indent=1))
        target = paths.adapters[row.adapter]
        # Rank 0 writes; the others wait below, so that no process reports a stage done whose adapter is not there.
        publish_adapter(guard.kept_folder, target, stage_record(task, windows=train))
        publish_for_others(target, task.published, stage.logger)
        _warn_of_silence(trainer.state.log_history, stage)
    trainer.accelerator.wait_for_everyone()
    history = trainer.state.log_history
    return {"kept": guard.read_kept(), **{f"last_{key}": last_logged(history, key) for key in ("reward", "valid")}}


def _read_train_and_val(
    task: TrainingTask[GrpoConfig], stage: StageRun, paths: RunPaths
) -> tuple[WindowSet, WindowSet]:
    """Windows to train and to validate on; the last part of the former where there are none of the latter."""
    train = read_windows(paths.train_x, paths.train_y)
    if has_val(task.paths, paths):
        return train, read_windows(paths.val_x, paths.val_y)
    train, val = hold_out(train)
    first = str(val.context.origin.min())[:10]
    stage.logger.warning(f"no --val-x-path: the {len(val)} windows of {paths.train_x} from {first} on validate")
    return train, val


def _warn_of_silence(history: list[dict[str, float]], stage: StageRun) -> None:
    shares = [entry["valid"] for entry in history if "valid" in entry]
    if shares and not any(shares):
        stage.logger.warning(
            "%s: no step had a single valid answer, so nothing was learnt; the adapter says what it said before. "
            "completions/ holds the answers",
            stage.name,
        )


def make_trainer(task: TrainingTask[GrpoConfig], **arguments: Any) -> RecordingGRPOTrainer:
    """The trainer of the model's backend.

    Args:
        task: what is trained.
        **arguments: of RecordingGRPOTrainer.
    """
    if task.spec.backend == "unsloth":
        if rank() == 0:
            print("note: GRPO samples and shares prompts as Unsloth's own trainer does.")
        return RecordingGRPOTrainer(**arguments)
    engine = None
    if uses_engine(task.generation):
        engine = engine_for(
            task.spec,
            max_length=task.prompt.max_seq_length,
            lora_rank=task.lora.rank,
            generation=task.generation,
            seed=task.seed,
        )
    return SharedPromptGRPOTrainer(engine=engine, **arguments)


def grpo_dataset(windows: WindowSet, prompt: PromptConfig) -> Dataset:
    """Prompts with what the rewards need: window_id, truth [H] in the window's scale, volatility."""
    context = windows.context
    return Dataset.from_dict(
        {
            "prompt": style_of(prompt).render(context, windows.horizon),
            "window_id": list(range(len(windows))),
            "truth": true_paths(windows).tolist(),
            "volatility": context.feature("volatility").tolist(),
        }
    )


def trl_arguments(task: TrainingTask[GrpoConfig], folder: Path, length: int) -> GRPOConfig:
    """TRL's configuration: ours, then whatever `stageN.trl` sets.

    Raises:
        UserError: `stageN.trl` has a field that TRL does not know or a value that it refuses.
    """
    settings, server = task.settings, task.generation.vllm_server
    values: JsonObject = {
        "output_dir": str(folder / "checkpoints"),
        "report_to": ["tensorboard"],
        "max_steps": settings.steps,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup_steps,
        # TRL counts completions, not prompts.
        "per_device_train_batch_size": settings.prompts_per_step * settings.num_generations,
        "num_generations": settings.num_generations,
        "max_completion_length": length,
        # The full law: what is trained is what is sampled from in a forecast.
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "beta": settings.beta,
        "reward_weights": list(settings.rewards.values()),
        "scale_rewards": settings.scale_rewards,
        **training_arguments(task.spec.loading),
        "logging_steps": 1,
        "save_strategy": "steps",
        # Only the last: ValidationGuard asks for a checkpoint with each of its scores.
        "save_steps": settings.steps,
        "save_total_limit": 2,
        "disable_tqdm": True,
        # All LoRA weights take part in every loss, so the search would only cost time.
        "ddp_find_unused_parameters": False,
        "seed": task.seed,
        "data_seed": task.seed,
    }
    if server is not None:
        require_vllm()
        values |= {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": server}
    return build_trl_config(GRPOConfig, values, settings.trl, section=f"{task.stage}.trl")


def uses_engine(generation: GenerationConfig) -> bool:
    """Whether rollouts come from a vLLM in the training process (not from a server, which TRL talks to)."""
    return generation.backend == "vllm" and generation.vllm_server is None


def build_trl_config(config_class: Any, ours: JsonObject, given: JsonObject, *, section: str) -> Any:
    """Make a TRL config of our values and those that the user's section of the configuration gives.

    Raises:
        UserError: TRL does not know a field, or refuses a value.
    """
    unknown = sorted(set(given) - set(config_class.__dataclass_fields__))
    _check_reporting(given.get("report_to"), section)
    if unknown:
        raise UserError(f"{section}: {config_class.__name__} has no field {', '.join(unknown)}")
    with refused_settings(f"{section}: {config_class.__name__} refuses {given}"):
        return config_class(**ours | given)


def _check_reporting(asked: str | list[str] | None, section: str) -> None:
    """Refuse a tracker that is not installed, for which transformers has a bare RuntimeError."""
    names = [asked] if isinstance(asked, str) else asked or []
    here = get_available_reporting_integrations()
    missing = [name for name in names if name not in ("all", "none", *here)]
    if missing:
        raise UserError(
            f"{section}: report_to {missing[0]} is not installed; install it, or take {', '.join(here) or 'none'}"
        )


@contextmanager
def refused_settings(place: str) -> Iterator[None]:
    """Name the place where TRL or PEFT finds a setting that it cannot work with."""
    try:
        yield
    # It names its own place already.
    except UserError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{place}: {error}") from error


def validation(
    trainer: RecordingGRPOTrainer,
    tokenizer: PreTrainedTokenizerBase,
    task: TrainingTask[GrpoConfig],
    windows: WindowSet,
    folder: Path,
) -> ValidationGuard:
    """The callback that scores the trainer's policy and decides which adapter is kept."""

    def policy() -> LLMForecaster:
        model = trainer.accelerator.unwrap_model(trainer.model)
        forecaster = GenerateForecaster if task.spec.backend == "unsloth" else LLMForecaster
        # Without a progress bar of its own: the stage's is on screen.
        return forecaster("validation", model, tokenizer, task.prompt, task.generation, progress=False)

    def save(target: Path) -> None:
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), tokenizer, target, task.spec.base)

    callback = ValidationGuard(
        windows,
        policy,
        save,
        every=task.settings.eval_every,
        folder=folder,
        seed=task.seed,
        whole_model=lambda: whole_model(trainer),
    )
    callback.trainer = trainer
    return callback


def last_logged(history: list[dict[str, float]], key: str) -> float | None:
    """The last value of a key in TRL's log history."""
    values = [entry[key] for entry in history if key in entry]
    return values[-1] if values else None
