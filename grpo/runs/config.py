"""Paths of the files that single stages read and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grpo.runs.stages import ADAPTER_STAGES
from preprocessing.command_line import with_fields


@dataclass(frozen=True, kw_only=True)
@with_fields(
    {stage.adapter: ("Path | None", None, f"Adapter of {stage.title} (folder or Hub id).") for stage in ADAPTER_STAGES}
)
class PathsConfig:
    """Files of single stages; null: the place in the run folder where the pipeline puts them.

    Besides the files below, one field for the adapter of each stage: grpo_lora_1st, ...
    """

    train_x: Path | None = None
    """Training windows, X (CSV)."""
    train_y: Path | None = None
    """Training windows, Y (CSV)."""
    val_x: Path | None = None
    """Validation windows, X (CSV)."""
    val_y: Path | None = None
    """Validation windows, Y (CSV)."""
    test_x: Path | None = None
    """Test windows, X (CSV)."""
    test_y: Path | None = None
    """Test windows, Y (CSV)."""
    full_x: Path | None = None
    """Windows of the whole span, X (CSV); walk-forward folds are cut from them."""
    full_y: Path | None = None
    """Windows of the whole span, Y (CSV)."""
    sft_data: Path | None = None
    """SFT data, {STOCK}_sft_training_data.csv."""
