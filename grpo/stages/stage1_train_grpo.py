"""Stage 1: GRPO trains a fresh LoRA adapter on the base model.

    accelerate launch -m grpo.stages.stage1_train_grpo --stock AAPL --train-x-path X.csv --train-y-path Y.csv ...

For each prompt the model samples a group of paths; the energy reward compares them with the realised path and with
each other; the latest adapter that is not clearly worse on the validation split is kept in
stage1_grpo_training/adapter.
"""

from __future__ import annotations

from grpo.config import RunConfig, parse_run_config
from grpo.models.unsloth import activate
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import RunPaths, resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.resume import StageRun, run_stage
from grpo.runs.stages import stage_of
from grpo.stages.training_settings import grpo_inputs, grpo_sections, training_task, upload
from preprocessing.files import JsonObject

STAGE = stage_of("stage1")


def train(config: RunConfig, stage: StageRun, paths: RunPaths) -> JsonObject:
    """Train; returns the headline metrics."""
    task = training_task(config, STAGE)
    activate(task.spec, sampler=task.generation.backend)
    # Only here, after Unsloth could patch torch and TRL, which a finished stage does not even need.
    from grpo.training.grpo import train_grpo

    return train_grpo(task, stage, paths)


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog=f"python -m {STAGE.module}", description=__doc__ or "")
    paths = resolve_paths(config.paths, config.run_folder, config.stock_slug)
    run_stage(
        STAGE.key,
        config.run_folder,
        seed=config.seed,
        sections=grpo_sections(config, config.stage1),
        inputs=grpo_inputs(config.paths, paths),
        outputs={"adapter": paths.adapters[STAGE.adapter]},
        body=lambda stage: train(config, stage, paths),
    )
    push_after_stage(upload(config, paths), STAGE.adapter)


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
