"""Stage 3: GRPO goes on from the SFT adapter, with the SFT model as its KL reference.

    accelerate launch -m grpo.stages.stage3_train_grpo_from_sft --stock AAPL --sft-saved-lora DIR --train-x-path ...

`stage3.beta` weighs the KL to the SFT model; the adapter is continued, not stacked on another.
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
        config.stage3,
        stage,
        target=paths.grpo_lora_2nd,
        start_from=paths.sft_lora,
        published_as="grpo_lora_2nd",
        title="stage 3 GRPO",
    )


def main() -> None:
    """Run the stage."""
    config = parse_run_config(prog="python -m grpo.stages.stage3_train_grpo_from_sft", description=__doc__ or "")
    paths = resolve_paths(config)
    run_stage(
        "stage3",
        config,
        sections=grpo_sections(config, config.stage3),
        inputs={**grpo_inputs(paths), "sft_lora": paths.sft_lora},
        outputs={"adapter": paths.grpo_lora_2nd},
        body=lambda stage: train(config, stage),
    )
    push_after_stage(config, "grpo_lora_2nd")


if __name__ == "__main__":
    raise SystemExit(stage_entry(main))
