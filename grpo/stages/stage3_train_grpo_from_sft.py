"""Stage 3: GRPO goes on from the SFT adapter, with the SFT model as its KL reference.

    accelerate launch -m grpo.stages.stage3_train_grpo_from_sft --stock AAPL --sft-saved-lora DIR --train-x-path ...

`stage3.beta` weighs the KL to the SFT model; the adapter is continued, not stacked on another.
"""

from __future__ import annotations

from grpo.config import RunConfig, parse_run_config
from grpo.models.unsloth import activate
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import RunPaths, fetch_adapters, resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.resume import StageRun, run_stage
from grpo.runs.stages import stage_of
from grpo.stages.training_settings import grpo_inputs, grpo_sections, training_task, upload
from preprocessing.files import JsonObject

STAGE, BEFORE = stage_of("stage3"), stage_of("stage2")


def train(config: RunConfig, stage: StageRun, paths: RunPaths) -> JsonObject:
    """Train; returns the headline metrics."""
    task = training_task(config, STAGE, paths.adapters[BEFORE.adapter])
    activate(task.spec, sampler=task.generation.backend)
    # Only here, after Unsloth could patch torch and TRL, which a finished stage does not even need.
    from grpo.training.grpo import train_grpo

    return train_grpo(task, stage, paths)


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog=f"python -m {STAGE.module}", description=__doc__ or "")
    paths = fetch_adapters(resolve_paths(config.paths, config.run_folder, config.stock_slug), BEFORE.adapter)
    run_stage(
        STAGE.key,
        config.run_folder,
        seed=config.seed,
        sections=grpo_sections(config, config.stage3),
        inputs=grpo_inputs(config.paths, paths) | paths.named(BEFORE.adapter),
        outputs={"adapter": paths.adapters[STAGE.adapter]},
        body=lambda stage: train(config, stage, paths),
    )
    push_after_stage(upload(config, paths), STAGE.adapter)


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
