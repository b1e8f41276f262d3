"""Stage 2's work: SFT data from a CSV file, TRL's trainer, and the adapter that it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from grpo.language.prompts import style_of
from grpo.models.chat import check_chat, load_chat_tokenizer, tokenize_answers, tokenize_prompts
from grpo.models.loading import load_generation_config, load_policy, save_adapter, training_arguments
from grpo.runs.folder import RunPaths, publish_adapter, publish_for_others
from grpo.runs.processes import num_processes
from grpo.runs.resume import StageRun
from grpo.runs.stages import stage_of
from grpo.training.config import SftConfig
from grpo.training.grpo import build_trl_config, last_logged, refused_settings
from grpo.training.launcher import run_training, whole_model
from grpo.training.preflight import check_training
from grpo.training.record import stage_record
from grpo.training.task import TrainingTask
from grpo.training.validation_guard import StageProgress
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically
from preprocessing.windows_reader import read_windows


def read_examples(file: Path) -> pd.DataFrame:
    """Columns `prompt` and `completion`, and whatever else the file has, as text.

    Raises:
        UserError: the file is no CSV, lacks a column, has no rows, a row of another length or an empty cell.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            header, *rows = [row for row in csv.reader(lines, strict=True) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable CSV file: {error}") from error
    for column in ("prompt", "completion"):
        if column not in header:
            raise UserError(f"{file} lacks the column '{column}'")
    if not rows:
        raise UserError(f"{file} has no rows below its header")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UserError(f"{file}: row {number} has {len(row)} cells, the header {len(header)}")
        for column in ("prompt", "completion"):
            if not row[header.index(column)].strip():
                raise UserError(f"{file}: row {number} has an empty '{column}'")
    # All text: pandas would read an answer of one number as a float, and write it back as another text.
    return pd.DataFrame(rows, columns=pd.Index(header), dtype=str)


def sft_dataset(examples: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Token ids of prompt and answer, and a mask of the answer and its end.

    They are put together here and not by the chat template: the prompt is the one that is asked everywhere, and the
    answer what is read everywhere. Templates of thinking models write a thought around what is to be taught, or cut it.
    """
    prompts = tokenize_prompts([[{"role": "user", "content": text}] for text in examples["prompt"]], tokenizer)
    answers = tokenize_answers(examples["completion"].tolist(), tokenizer)
    pairs = list(zip(prompts, answers, strict=True))
    return Dataset.from_dict(
        {
            "input_ids": [prompt + answer for prompt, answer in pairs],
            "completion_mask": [[0] * len(prompt) + [1] * len(answer) for prompt, answer in pairs],
        }
    )


def train_sft(task: TrainingTask[SftConfig], stage: StageRun, paths: RunPaths) -> JsonObject:
    """Train and leave the adapter at its place in `paths`; returns the headline metrics."""
    # Before the adapter is made, as in `grpo.training.grpo`.
    set_seed(task.seed)
    row = stage_of(stage.name)
    tokenizer = load_chat_tokenizer(task.spec, task.prompt)
    form, horizon = style_of(task.prompt).form, task.data.horizon
    check_chat(tokenizer, load_generation_config(task.spec.base), form, horizon)
    examples = read_examples(paths.sft_data)
    dataset = sft_dataset(examples, tokenizer)
    answered = [sum(mask) for mask in dataset["completion_mask"]]
    prompt_ids = [ids[:-answer] for ids, answer in zip(dataset["input_ids"], answered, strict=True)]
    check_training(
        task, stage.folder.parent, prompt_ids=prompt_ids, completion_length=max(answered), processes=num_processes()
    )
    # Before the model: from here on ZeRO-3 shards every model that is made.
    arguments = sft_arguments(task, stage.folder)
    model, adapter = load_policy(task.spec, task.lora, max_seq_length=task.prompt.max_seq_length, seed=task.seed)
    with refused_settings(stage.name):
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=adapter,
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StageProgress(row.title))
    run_training(trainer, stage)
    # Every process enters, since sharded weights are gathered together; rank 0 alone writes.
    with whole_model(trainer) as trained:
        if trainer.accelerator.is_main_process:
            save_adapter(trained, tokenizer, stage.folder / "last", task.spec.base)
    if trainer.accelerator.is_main_process:
        write_atomically(stage.folder / "log_history.json", json.dumps(trainer.state.log_history, indent=1))
        windows = read_windows(paths.train_x, paths.train_y) if paths.train_x.exists() else None
        target = paths.adapters[row.adapter]
        publish_adapter(stage.folder / "last", target, stage_record(task, windows=windows, examples=examples))
        publish_for_others(target, task.published, stage.logger)
    trainer.accelerator.wait_for_everyone()
    return {"last_loss": last_logged(trainer.state.log_history, "loss")}


def sft_arguments(task: TrainingTask[SftConfig], folder: Path) -> SFTConfig:
    """TRL's configuration: ours, then whatever `trl` sets."""
    values: JsonObject = {
        "output_dir": str(folder / "checkpoints"),
        "report_to": ["tensorboard"],
        "num_train_epochs": task.settings.epochs,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 5,
        "per_device_train_batch_size": task.settings.batch_size,
        "max_length": task.prompt.max_seq_length,
        "completion_only_loss": True,
        **training_arguments(task.spec.loading),
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 25,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "seed": task.seed,
        "data_seed": task.seed,
    }
    return build_trl_config(SFTConfig, values, task.settings.trl, section=f"{task.stage}.trl")
