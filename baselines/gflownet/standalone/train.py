"""The command `train`: on a task whose every state is enumerated, or the forecaster on the windows of stocks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import yaml

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.gflownet.forecaster import FITTED_FILE, GFlowNetConfig, GFlowNetForecaster, GFlowNetNoContext
from baselines.gflownet.toys import feasibility
from baselines.gflownet.toys.task_training import TrainConfig, Training
from preprocessing.command_line import parse_config
from preprocessing.config import DataConfig
from preprocessing.market_data import load_stocks
from preprocessing.stock_windows import split_windows
from preprocessing.windows import WindowSet


@dataclass(frozen=True, kw_only=True)
class PricePathsConfig:
    """Flags of `train --task price_paths`."""

    output_dir: Path
    """Folder of the fitted forecaster, its checkpoint and its curves."""
    stock: str
    """A stock, several with commas between, all, or a simulated one as sim:ou."""
    task: Literal["price_paths"] = "price_paths"
    """Paths of returns, rewarded by their distance to the path that came."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where the bars are and how they become windows."""
    forecaster: GFlowNetConfig = field(default_factory=GFlowNetConfig)
    """Settings of the forecaster."""
    context: bool = True
    """Whether paths are conditioned on the window; false: gflownet_no_context."""
    seed: int = 0
    """Seed of the first weights and of all that is sampled in training."""


def run(flags: Sequence[str], program: str) -> None:
    """Train on the task that the flags name."""
    if task_named_by(flags) == "price_paths":
        about = "Fit the forecaster of price paths."
        aliases = {"data_dir": "data.data_dir"}
        train_price_paths(parse_config(PricePathsConfig, flags, prog=program, description=about, aliases=aliases))
        return
    about = "Train on a task whose every state is enumerated (or --task price_paths: on stocks)."
    aliases = {"stick": "model.stick", "balance": "model.balance", "trunk": "model.trunk"}
    train_on_task(parse_config(TrainConfig, flags, prog=program, description=about, aliases=aliases))


def task_named_by(flags: Sequence[str]) -> str | None:
    """The value of --task, or else of `task` in the file of --config; None where neither is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--task")
    parser.add_argument("--config", type=Path)
    try:
        known, _ = parser.parse_known_args(list(flags))
        settings = yaml.safe_load(known.config.read_text()) if known.config and not known.task else None
    except (argparse.ArgumentError, OSError, ValueError, yaml.YAMLError):
        return None  # the parser of all flags will say what is wrong
    return known.task or (settings.get("task") if isinstance(settings, dict) else None)


def train_on_task(config: TrainConfig) -> None:
    """Train on an enumerable task, then say how near it came."""
    with torch.random.fork_rng(devices=[]):
        training = Training(config)
        model = config.model
        found = feasibility.measure(training.graph, 0.0 if model.balance == "detailed_balance" else model.stick)
        if found.feasible is False:
            print(feasibility.report(found), file=sys.stderr)
        if not training.run():
            print(f"{config.output_dir} is trained: all of its {config.steps} steps are done")
    last = training.state.curve.rows[-1]
    dynamics = f", dynamics within {last['dynamics_error']:.4f}" if "dynamics_error" in last else ""
    print(f"L1 to R/Z {last['l1']:.4f}, log Z off by {last['log_z_error']:.4f}{dynamics}; {config.output_dir}")


def train_price_paths(config: PricePathsConfig) -> None:
    """Fit the forecaster on the training windows of some stocks.

    Raises:
        SavedFileError: the folder holds a forecaster of other settings.
    """
    plugin = GFlowNetForecaster if config.context else GFlowNetNoContext
    if (config.output_dir / FITTED_FILE).exists():
        fitted = plugin.load(config.output_dir)
        if fitted.config != config.forecaster:
            raise SavedFileError(f"{config.output_dir} holds a forecaster of other settings; give another --output-dir")
        print(f"{config.output_dir} is trained")
        return
    splits = windows_of(config.stock, config.data)
    fitted = plugin.fit(
        config.forecaster,
        splits["train"],
        splits["val"],
        horizon=config.data.horizon,
        seed=config.seed,
        out_dir=config.output_dir,
    )
    fitted.save(config.output_dir)
    print(f"trained on {len(splits['train'])} windows; {config.output_dir}")


def windows_of(stock: str, data: DataConfig) -> dict[str, WindowSet]:
    """Windows by split, and all of them as "full"."""
    bars, _ = load_stocks(stock, data)
    return split_windows(bars, data)[0]
