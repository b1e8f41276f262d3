"""The command `sample`: ends of a task with their rewards, or quantiles of a stock's future, as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from baselines.building_blocks.tensor_files import SavedFileError, read_header
from baselines.gflownet.forecaster import FITTED_FILE, GFlowNetForecaster, GFlowNetNoContext
from baselines.gflownet.standalone.train import windows_of
from baselines.gflownet.toys.task_training import Training, read_config, spell
from baselines.gflownet.toys.tfbind8 import LETTERS
from preprocessing.command_line import parse_config
from preprocessing.config import DataConfig

LEVELS = (0.1, 0.5, 0.9)
"""Quantiles that are shown of price paths."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Flags of `sample`."""

    run: Path
    """Folder that `train` wrote."""
    num_samples: int = 10
    """How many ends, or price paths, are drawn."""
    seed: int = 0
    """Seed of what is drawn."""
    stock: str | None = None
    """price_paths: whose latest window is forecast."""
    data: DataConfig = field(default_factory=DataConfig)
    """price_paths: where the bars are."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1; got {self.num_samples}")


def run(flags: Sequence[str], program: str) -> None:
    """Draw from whatever was trained in the folder."""
    about = "Draw from what was trained, as CSV."
    aliases = {"data_dir": "data.data_dir"}
    config = parse_config(SampleConfig, flags, prog=program, description=about, aliases=aliases)
    if (config.run / FITTED_FILE).exists():
        sample_price_paths(config)
    else:
        sample_task(config)


def sample_task(config: SampleConfig) -> None:
    """Draw ends, with their rewards."""
    settings = read_config(config.run)
    with torch.random.fork_rng(devices=[]):
        training = Training(settings)
        training.state.resume()
        torch.manual_seed(config.seed)
        ends = training.generator.eval().sample(config.num_samples).ends
    letters = LETTERS if settings.task in ("motifs", "tfbind8") else None
    rewards = training.environment.log_reward(ends).exp().tolist()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["end", "reward"])
    writer.writerows(
        [text, f"{reward:.6g}"]
        for text, reward in zip(spell(training.environment, ends, letters), rewards, strict=True)
    )


def sample_price_paths(config: SampleConfig) -> None:
    """Draw paths of a stock's latest window, and show the mean and quantiles of each day.

    Raises:
        SavedFileError: no stock is named.
    """
    if config.stock is None:
        raise SavedFileError(f"{config.run} holds a forecaster of price paths; say whose future by --stock")
    header = read_header(config.run / FITTED_FILE)
    kinds = {plugin.name: plugin for plugin in (GFlowNetForecaster, GFlowNetNoContext)}
    fitted = kinds.get(str(header.get("forecaster")), GFlowNetForecaster).load(config.run)
    context = windows_of(config.stock, config.data)["full"].context
    context = context.take(np.array([len(context) - 1]))
    horizon = fitted.environment.num_steps
    paths = fitted.predict(context, horizon=horizon, num_samples=config.num_samples, seed=config.seed).samples[0]
    origin = np.datetime_as_string(context.origin[0], "D")
    log_z = fitted.log_partition(context)[0]
    print(f"origin {origin}, last close {context.last_price[0]:.6g}, log Z {log_z:.4f}", file=sys.stderr)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["day", "mean", *(f"quantile_{level:g}" for level in LEVELS)])
    for day, prices in enumerate(paths.T, start=1):
        numbers = [prices.mean(), *np.quantile(prices, LEVELS)]
        writer.writerow([day, *(f"{number:.6g}" for number in numbers)])
