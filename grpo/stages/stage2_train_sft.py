"""Stage 2: supervised fine-tuning on the chosen samples, through the same chat template, loss on the answer alone.

    accelerate launch -m grpo.stages.stage2_train_sft --stock AAPL --sft-data-path FILE --grpo-saved-lora-1st DIR

Starts from stage 1's adapter (`stage2.start_from: stage1`) or from a fresh one on the base model (`base`).
"""

from __future__ import annotations

from pathlib import Path

from grpo.config import RunConfig, parse_run_config
from grpo.models.unsloth import activate
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import RunPaths, fetch_adapters, resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.processes import num_processes
from grpo.runs.resume import StageRun, run_stage
from grpo.runs.stages import stage_of
from grpo.stages.training_settings import sources_section, training_task, upload
from preprocessing.command_line import plain
from preprocessing.files import JsonObject

STAGE = stage_of("stage2")


def train(config: RunConfig, stage: StageRun, paths: RunPaths, start_from: Path | None) -> JsonObject:
    """Train; returns the headline metrics."""
    task = training_task(config, STAGE, start_from)
    activate(task.spec, sampler=task.generation.backend)
    # Only here, after Unsloth could patch torch and TRL, which a finished stage does not even need.
    from grpo.training.sft import train_sft

    return train_sft(task, stage, paths)


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog=f"python -m {STAGE.module}", description=__doc__ or "")
    before = [] if config.stage2.start_from == "base" else [stage_of(config.stage2.start_from).adapter]
    paths = fetch_adapters(resolve_paths(config.paths, config.run_folder, config.stock_slug), *before)
    start_from = paths.adapters[before[0]] if before else None
    # the adapter's record tells of the windows behind the SFT data, where they are at hand
    windows = ["train_x", "train_y"] if paths.train_x.exists() else []
    run_stage(
        STAGE.key,
        config.run_folder,
        seed=config.seed,
        sections={
            "model": config.model,
            "backend": config.backend,
            "seed": config.seed,
            "prompt": plain(config.prompt),
            "lora": plain(config.lora),
            "loading": plain(config.loading),
            "processes": num_processes(),
            "stage2": plain(config.stage2),
        }
        | sources_section(config.prompt),
        inputs=paths.named("sft_data", *windows, *before),
        outputs={"adapter": paths.adapters[STAGE.adapter]},
        body=lambda stage: train(config, stage, paths, start_from),
    )
    push_after_stage(upload(config, paths), STAGE.adapter)


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
