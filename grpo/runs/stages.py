"""The stages of a run."""

from __future__ import annotations

STAGE_FOLDERS = {
    "preprocess": "data",
    "stage1": "stage1_grpo_training",
    "rejection": "sft_data_generation",
    "stage2": "stage2_sft_training",
    "stage3": "stage3_grpo_from_sft",
    "compare": "model_comparison",
}
STAGE_MODULES = {
    "preprocess": "grpo.stages.preprocess",
    "stage1": "grpo.stages.stage1_train_grpo",
    "rejection": "grpo.stages.sft_data_generation",
    "stage2": "grpo.stages.stage2_train_sft",
    "stage3": "grpo.stages.stage3_train_grpo_from_sft",
    "compare": "grpo.stages.compare_models",
}
