"""Paths of the files that single stages read and write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Files of single stages; null: the place in the run folder where the pipeline puts them."""

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
    grpo_lora_1st: Path | None = None
    """Adapter of stage 1 (folder)."""
    sft_lora: Path | None = None
    """Adapter of stage 2 (folder)."""
    grpo_lora_2nd: Path | None = None
    """Adapter of stage 3 (folder)."""
