"""Stage 1: GRPO trains a fresh LoRA adapter on the base model.

    accelerate launch -m grpo.stages.stage1_train_grpo --stock AAPL --train-x-path X.csv --train-y-path Y.csv ...

For each prompt the model samples a group of paths; the energy reward compares them with the realised path and with
each other; the latest adapter that is not clearly worse on the validation split is kept in
stage1_grpo_training/adapter.
"""

from __future__ import annotations

from typing import Any

from grpo.config import RunConfig, parse_run_config
from grpo.models.unsloth import activate
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.resume import StageRun, run_stage
from grpo.stages.training_settings import grpo_inputs, grpo_sections


def train(config: RunConfig, stage: StageRun) -> dict[str, Any]:
    """Train; returns the headline metrics."""
    activate(config.spec(), sampler=config.generation.backend)
    from grpo.training.grpo import train_grpo  # brings torch and TRL, which a finished stage does not need

    paths = resolve_paths(config)
    return train_grpo(
        config,
        config.stage1,
        stage,
        target=paths.grpo_lora_1st,
        start_from=None,
        published_as="grpo_lora_1st",
        title="stage 1 GRPO",
    )


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog="python -m grpo.stages.stage1_train_grpo", description=__doc__ or "")
    paths = resolve_paths(config)
    run_stage(
        "stage1",
        config,
        sections=grpo_sections(config, config.stage1),
        inputs=grpo_inputs(paths),
        outputs={"adapter": paths.grpo_lora_1st},
        body=lambda stage: train(config, stage),
    )
    push_after_stage(config, "grpo_lora_1st")


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
