"""The table of stages: one row holds every name by which folders, flags, tables and the Hub know a stage.

A stage more is one row here and one file in grpo/stages. This module imports nothing of the project, so that every
room may read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run.

    Attributes:
        key: its name in logs, records and errors; its settings are the section of that name, where it has some.
        folder: its folder in the run folder.
        module: its command, `python -m MODULE`.
        title: stands over its output, at its progress bar and over its training curve.
        adapter: the adapter that it trains, a field of `paths` and the name under which it is published; empty where
            it trains none.
        forecaster: what tables call the language model with that adapter.
        learning_rate_factor: share of the default learning rate that it takes.
        settings_like: the stage whose settings it has too, where `RunConfig` has no section of its name.
    """

    key: str
    folder: str
    module: str
    title: str
    adapter: str = ""
    forecaster: str = ""
    learning_rate_factor: float = 1.0
    settings_like: str = ""

    @property
    def flag(self) -> str:
        """The short flag for the place of its adapter: `grpo_saved_lora_1st`."""
        return self.adapter.replace("lora", "saved_lora")

    @property
    def hub_suffix(self) -> str:
        """What its adapter's repository adds to `hub.repo_id`: `grpo-1st`."""
        return self.forecaster.replace("_", "-")


STAGES = (
    Stage(
        key="preprocess",
        folder="data",
        module="grpo.stages.preprocess",
        title="preprocess: prices to windows",
    ),
    Stage(
        key="stage1",
        folder="stage1_grpo_training",
        module="grpo.stages.stage1_train_grpo",
        title="stage 1: GRPO",
        adapter="grpo_lora_1st",
        forecaster="grpo_1st",
    ),
    Stage(
        key="rejection",
        folder="sft_data_generation",
        module="grpo.stages.sft_data_generation",
        title="rejection sampling: SFT data",
    ),
    Stage(
        key="stage2",
        folder="stage2_sft_training",
        module="grpo.stages.stage2_train_sft",
        title="stage 2: SFT",
        adapter="sft_lora",
        forecaster="sft",
    ),
    Stage(
        key="stage3",
        folder="stage3_grpo_from_sft",
        module="grpo.stages.stage3_train_grpo_from_sft",
        title="stage 3: GRPO from SFT",
        adapter="grpo_lora_2nd",
        forecaster="grpo_2nd",
        # it starts where stage 1 ended, so it takes smaller steps
        learning_rate_factor=0.5,
    ),
    Stage(
        key="compare",
        folder="model_comparison",
        module="grpo.stages.compare_models",
        title="compare: the table, and where the report lies",
    ),
)
"""In the order in which run_pipeline.sh runs them."""

ADAPTER_STAGES = tuple(stage for stage in STAGES if stage.adapter)
"""Those that train an adapter; they may run in several processes."""


def stage_of(key: str) -> Stage:
    """The row of that key.

    Raises:
        KeyError: there is none.
    """
    return {stage.key: stage for stage in STAGES}[key]
