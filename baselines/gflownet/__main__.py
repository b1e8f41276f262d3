"""Train a GFlowNet, sample from it, or ask what noise leaves possible.

    python -m baselines.gflownet train --task tree --out-dir DIR
    python -m baselines.gflownet train --task price_paths --stock sim:ou --out-dir DIR
    python -m baselines.gflownet sample --run DIR
    python -m baselines.gflownet feasibility --task tree --stick .25

train goes on where it was stopped if it is called again with the same settings. sample writes CSV to standard
output. feasibility says how much of the reward's distribution the noise puts out of reach. Each command explains its
flags with --help; `train --task price_paths --help` those of the forecaster.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from baselines.building_blocks.paths import HorizonError, NoValidationError
from baselines.building_blocks.tensor_files import SavedFileError
from baselines.gflownet.dynamics import StickyNoise
from baselines.gflownet.forecaster import FITTED_FILE, GFlowNetConfig, GFlowNetForecaster, GFlowNetNoContext
from baselines.gflownet.toys import exact, feasibility
from baselines.gflownet.toys.task_training import TaskConfig, TrainConfig, Training, build_task, read_config, spell
from baselines.gflownet.toys.tfbind8 import LETTERS, TableError
from baselines.neural.checkpoints import read_tensors
from preprocessing.command_line import parse_config
from preprocessing.config import DataConfig
from preprocessing.market_data import MarketDataError, load_stocks
from preprocessing.stock_windows import split_windows
from preprocessing.windows import WindowSet

PROG = "python -m baselines.gflownet"
LEVELS = (0.1, 0.5, 0.9)
"""Quantiles that `sample` shows of price paths."""
ERRORS = (
    SavedFileError, HorizonError, MarketDataError, NoValidationError, OSError, TableError, exact.TooManyStatesError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PricePathsConfig:
    """Flags of `train --task price_paths`."""

    out_dir: Path
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
    """Of networks and samples."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Flags of `sample`."""

    run: Path
    """Folder that `train` wrote."""
    num_samples: int = 10
    """Ends, or price paths, to draw."""
    seed: int = 0
    """Of the draws."""
    stock: str | None = None
    """price_paths: whose latest window is forecast."""
    data: DataConfig = field(default_factory=DataConfig)
    """price_paths: where the bars are."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1; got {self.num_samples}")


@dataclass(frozen=True, kw_only=True)
class FeasibilityConfig(TaskConfig):
    """Flags of `feasibility`."""

    stick: float = 0.25
    """Probability in [0, 1) that chance executes one of the allowed actions."""
    reward_exponent: float = 1.0
    """The reward is raised to this power."""
    reward_floor: float = 0.0
    """Rewards below this count as this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        StickyNoise(self.stick)


def train(config: TrainConfig) -> int:
    """Train on an enumerable task, then say how near it came."""
    with torch.random.fork_rng(devices=[]):
        training = Training(config)
        model = config.model
        found = feasibility.measure(training.graph, 0.0 if model.balance == "detailed_balance" else model.stick)
        if found.feasible is False:
            print(feasibility.report(found), file=sys.stderr)
        if not training.run():
            print(f"{config.out_dir} is trained: all of its {config.steps} steps are done")
    last = training.state.curve.rows[-1]
    dynamics = f", dynamics within {last['dynamics_error']:.4f}" if "dynamics_error" in last else ""
    print(f"L1 to R/Z {last['l1']:.4f}, log Z off by {last['log_z_error']:.4f}{dynamics}; {config.out_dir}")
    return 0


def train_price_paths(config: PricePathsConfig) -> int:
    """Fit the forecaster on the training windows of some stocks."""
    plugin = GFlowNetForecaster if config.context else GFlowNetNoContext
    if (config.out_dir / FITTED_FILE).exists():
        fitted = plugin.load(config.out_dir)
        if fitted.config != config.forecaster:
            raise SavedFileError(f"{config.out_dir} holds a forecaster of other settings; give another --out-dir")
        print(f"{config.out_dir} is trained")
        return 0
    splits = _windows(config.stock, config.data)
    fitted = plugin.fit(
        config.forecaster,
        splits["train"],
        splits["val"],
        horizon=config.data.horizon,
        seed=config.seed,
        out_dir=config.out_dir,
    )
    fitted.save(config.out_dir)
    print(f"trained on {len(splits['train'])} windows; {config.out_dir}")
    return 0


def sample(config: SampleConfig) -> int:
    """Draw ends with their rewards, or quantiles of the future of a stock's latest window."""
    if (config.run / FITTED_FILE).exists():
        return _sample_price_paths(config)
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
    return 0


def _sample_price_paths(config: SampleConfig) -> int:
    if config.stock is None:
        raise SavedFileError(f"{config.run} holds a forecaster of price paths; say whose future by --stock")
    header = read_tensors(config.run / FITTED_FILE)[1]
    kinds = {plugin.name: plugin for plugin in (GFlowNetForecaster, GFlowNetNoContext)}
    fitted = kinds.get(str(header.get("forecaster")), GFlowNetForecaster).load(config.run)
    context = _windows(config.stock, config.data)["full"].context
    context = context.take(np.array([len(context) - 1]))
    horizon = fitted.environment.num_steps
    paths = fitted.predict(context, horizon=horizon, num_samples=config.num_samples, seed=config.seed).samples[0]
    print(f"origin {np.datetime_as_string(context.origin[0], 'D')}, last close {context.last_price[0]:.6g}, "
          f"log Z {fitted.log_partition(context)[0]:.4f}", file=sys.stderr)  # fmt: skip
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["day", "mean", *(f"quantile_{level:g}" for level in LEVELS)])
    for day, prices in enumerate(paths.T, start=1):
        numbers = [prices.mean(), *np.quantile(prices, LEVELS)]
        writer.writerow([day, *(f"{number:.6g}" for number in numbers)])
    return 0


def ask_feasibility(config: FeasibilityConfig) -> int:
    """Print the report."""
    graph = exact.enumerate_states(build_task(config), exponent=config.reward_exponent, floor=config.reward_floor)
    print(feasibility.report(feasibility.measure(graph, config.stick)))
    return 0


def _windows(stock: str, data: DataConfig) -> dict[str, WindowSet]:
    bars, _ = load_stocks(stock, data)
    return split_windows(bars, data)[0]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    command, *arguments = (sys.argv[1:] if argv is None else [*argv]) or ["--help"]
    prog = f"{PROG} {command}"
    try:
        if command == "train" and "price_paths" in " ".join(arguments).replace("=", " ").split():
            about = "Fit the forecaster of price paths."
            aliases = {"data_dir": "data.data_dir"}
            return train_price_paths(
                parse_config(PricePathsConfig, arguments, prog=prog, description=about, aliases=aliases)
            )
        if command == "train":
            about = "Train on a task whose every state is enumerated (or --task price_paths: on stocks)."
            aliases = {"stick": "model.stick", "balance": "model.balance", "trunk": "model.trunk"}
            return train(parse_config(TrainConfig, arguments, prog=prog, description=about, aliases=aliases))
        if command == "sample":
            about = "Draw from what was trained, as CSV."
            aliases = {"data_dir": "data.data_dir"}
            return sample(parse_config(SampleConfig, arguments, prog=prog, description=about, aliases=aliases))
        if command == "feasibility":
            about = "Say how much of R/Z sticky noise puts out of reach."
            return ask_feasibility(parse_config(FeasibilityConfig, arguments, prog=prog, description=about))
    except ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    print(f"{prog}: error: '{command}' is no command; take train, sample or feasibility (see --help)", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
