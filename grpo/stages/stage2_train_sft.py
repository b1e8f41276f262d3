"""Stage 2: supervised fine-tuning on the chosen samples, through the same chat template, loss on the answer alone.

    accelerate launch -m grpo.stages.stage2_train_sft --stock AAPL --sft-data-path FILE --grpo-saved-lora-1st DIR

Starts from stage 1's adapter (`stage2.start_from: stage1`) or from a fresh one on the base model (`base`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo.config import RunConfig, parse_run_config
from grpo.models.unsloth import activate
from grpo.publishing.push import push_after_stage
from grpo.runs.folder import resolve_paths
from grpo.runs.log import stage_entry
from grpo.runs.processes import num_processes
from grpo.runs.resume import StageRun, run_stage
from preprocessing.command_line import plain


def train(config: RunConfig, stage: StageRun, start_from: Path | None) -> dict[str, Any]:
    """Train; returns the headline metrics."""
    activate(config.spec(), sampler=config.generation.backend)
    from grpo.training.sft import train_sft  # brings torch and TRL, which a finished stage does not need

    return train_sft(config, stage, start_from)


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog="python -m grpo.stages.stage2_train_sft", description=__doc__ or "")
    paths = resolve_paths(config)
    start_from = paths.grpo_lora_1st if config.stage2.start_from == "stage1" else None
    inputs = {"sft_data": paths.sft_data} | ({"grpo_lora_1st": start_from} if start_from else {})
    run_stage(
        "stage2",
        config,
        sections={
            "model": config.model,
            "backend": config.backend,
            "seed": config.seed,
            "prompt": plain(config.prompt),
            "lora": plain(config.lora),
            "loading": plain(config.loading),
            "processes": num_processes(),
            "stage2": plain(config.stage2),
        },
        inputs=inputs,
        outputs={"adapter": paths.sft_lora},
        body=lambda stage: train(config, stage, start_from),
    )
    push_after_stage(config, "sft_lora")


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
