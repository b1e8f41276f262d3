"""What is written beside a trained adapter: what it was trained on, and with which rewards and styles of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from grpo.language.config import PromptConfig
from grpo.language.prompts import style_of
from grpo.language.rewards import find_rewards
from grpo.models.adapters import RECORD_FILE, AdapterRecord, describe_adapter, read_record
from grpo.training.config import GrpoConfig
from grpo.training.task import AnyTask
from preprocessing.errors import UserError
from preprocessing.windows import WindowSet


def plugin_sources(prompt: PromptConfig, rewards: GrpoConfig | None = None) -> dict[str, str]:
    """Hash of the code of each prompt style and reward that is not this package's own, by name.

    Raises:
        PluginError: one of them is not there or not usable.
    """
    hashes = {str(prompt.style): style_of(prompt).source}
    if rewards is not None:
        found = find_rewards(list(rewards.rewards), num_generations=rewards.group_size)
        hashes |= {name: reward.source for name, reward in zip(rewards.rewards, found, strict=True)}
    return {name: source for name, source in hashes.items() if source is not None}


def stage_record(task: AnyTask, *, windows: WindowSet | None, examples: pd.DataFrame | None = None) -> AdapterRecord:
    """The record of the adapter that a stage has trained.

    Args:
        task: what was trained; the training of an adapter that it went on from counts too.
        windows: the run's training windows, if they are at hand.
        examples: the rows of the SFT data, which then say what was trained on.
    """
    rewards = task.settings if isinstance(task.settings, GrpoConfig) else None
    record = describe_adapter(
        task.spec.base,
        task.stage,
        stock=task.stock,
        prompt=task.prompt,
        data=task.data,
        seed=task.seed,
        windows=windows,
    )
    record = replace(
        record,
        rewards=dict(rewards.rewards) if rewards is not None else None,
        sources=plugin_sources(task.prompt, rewards),
    )
    if examples is not None:
        record = of_examples(record, examples, windows)
    start_from = task.spec.adapter
    if start_from is not None and (start_from / RECORD_FILE).is_file():
        record = with_earlier(record, read_record(start_from))
    return record


def of_examples(record: AdapterRecord, examples: pd.DataFrame, windows: WindowSet | None) -> AdapterRecord:
    """The record with the stocks and days of a file of examples, which need not be those of the run.

    A row's `date` is the last day that its prompt shows. Where the run's training windows hold all rows, the days of
    their futures are known; elsewhere the horizon is counted in weekdays.

    Args:
        record: whose stocks and days are replaced; its horizon counts.
        examples: columns `stock` and `date` if the file has them.
        windows: the run's training windows, if they are at hand.

    Raises:
        UserError: a date that is none.
    """
    if not {"stock", "date"} <= set(examples):
        return replace(record, stock="", training_windows=None, trained_from=None, trained_until=None)
    rows = examples[["stock", "date"]].drop_duplicates()
    try:
        days = pd.to_datetime(rows["date"]).to_numpy(dtype="datetime64[D]")
    except (ValueError, TypeError) as error:
        raise UserError(f"SFT data, column 'date': {' '.join(str(error).split())}") from error
    pairs = list(zip(rows["stock"], days, strict=True))
    ends = _ends(windows)
    own = all(pair in ends for pair in pairs)
    last = [ends[pair] for pair in pairs] if own else np.busday_offset(days, record.horizon, roll="forward")
    return replace(
        record,
        stock=record.stock if own else ",".join(sorted(set(rows["stock"]))),
        training_windows=len(pairs),
        trained_from=str(days.min()),
        trained_until=str(np.max(last)),
    )


def with_earlier(record: AdapterRecord, earlier: AdapterRecord) -> AdapterRecord:
    """The record of a training that went on from an adapter: what that one has seen, this one has seen too."""
    stocks = [record.stock] if record.stock == earlier.stock else [*_names(earlier), *_names(record)]
    first = [day for day in (record.trained_from, earlier.trained_from) if day]
    last = [day for day in (record.trained_until, earlier.trained_until) if day]
    counts = [count for count in (record.training_windows, earlier.training_windows) if count]
    return replace(
        record,
        stock=",".join(dict.fromkeys(stocks)),
        # The larger and not the sum, since the stages of a run train on the same windows.
        training_windows=max(counts, default=None),
        trained_from=min(first, default=None),
        trained_until=max(last, default=None),
        sources=earlier.sources | record.sources,
    )


def _names(record: AdapterRecord) -> Sequence[str]:
    return [name for name in record.stock.split(",") if name]


def _ends(windows: WindowSet | None) -> dict[tuple[str, np.datetime64], np.datetime64]:
    """Last day of the future of each window, by stock and origin."""
    if windows is None:
        return {}
    origins = windows.context.origin.astype("datetime64[D]")
    return dict(
        zip(
            zip(windows.context.item_id, origins, strict=True),
            windows.truth.dates[:, -1].astype("datetime64[D]"),
            strict=True,
        )
    )
