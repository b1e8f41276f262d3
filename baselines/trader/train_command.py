"""Train the Decision Transformer on a trader's bars, and the models that it has to be compared with.

    python -m baselines.decision_transformer train --data data/processed_trader_data.parquet --output-dir models

The output folder holds

    best.safetensors, last.safetensors     the weights with the lowest validation loss; what a killed training needs
    learning_curves.csv, .png              losses by epoch
    report.json, report.md                 accuracy on the test markets, beside models that know less (action_scores.py)
    bc/, bc_best_25/, bc_best_10/          the same of the clones, which know no returns to go

A call that was killed goes on where it stood and ends with the same bits; one that was done only reports again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from baselines.decision_transformer.model import ModelConfig
from baselines.trader.action_scores import (
    QUANTILES,
    as_json,
    as_markdown,
    best_markets,
    judge_all,
    market_totals,
    return_errors,
)
from baselines.trader.dataset import SPLITS, TraderDataset, load_dataset, load_fitted
from baselines.trader.network_fitting import FitConfig, FittedNetwork, fit_network
from preprocessing.command_line import parse_config
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically

DESCRIPTION = (
    "Train the Decision Transformer on a trader's bars, and the models without returns to go beside it; "
    "a call that was killed goes on where it stood."
)
CLONES = {"bc": 1.0, "bc_best_25": 0.25, "bc_best_10": 0.10}
"""Share of the training markets, best first, that each clone is trained on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(FitConfig):
    """The data, the folder, the network and how it is fitted."""

    data: Path
    """Parquet file that the command pipeline wrote."""
    output_dir: Path = Path("models")
    """Folder for checkpoints and report; a training of the same settings in it continues."""
    window: int = 128
    """Bars that are seen at once."""
    d_model: int = 128
    """Width of a token."""
    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads; they divide the width."""
    dropout: float = 0.1
    """Share of activations dropped in training, from 0 to below 1."""
    return_scale: float = 100.0
    """What a return to go is multiplied by: 100 makes shares of capital percent."""
    clones: bool = True
    """Whether the models without returns to go are trained too; together they take about as long as the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model(use_returns=True)

    def model(self, *, use_returns: bool) -> ModelConfig:
        """Size of the network.

        Raises:
            ValueError: a size is wrong.
        """
        return ModelConfig(
            d_model=self.d_model,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            dropout=self.dropout,
            context=self.window,
            return_scale=self.return_scale,
            use_returns=use_returns,
        )

    def fit(self) -> FitConfig:
        """How a network is fitted."""
        return FitConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(FitConfig)})


def train(config: TrainConfig) -> JsonObject:
    """Fit the network and its rivals, and write the report, which comes back.

    Raises:
        TraderDataError: the data cannot be used.
        UserError: a split is empty, or the loss was never finite.
        SavedFileError: the folder holds a training of other settings.
    """
    data = load_dataset(config.data, window=config.window)
    for split in SPLITS:
        if len(data[split]) == 0:
            raise UserError(f"{config.data} holds no {split} market; give the pipeline more markets")
    main = fit_network(
        config.model(use_returns=True),
        config.fit(),
        data,
        config.output_dir,
        title="decision_transformer",
        # With the weights goes what it takes to use them: scaling and targets, both from train.
        notes={"targets": target_returns(data["train"]), "data": load_fitted(config.data)},
    )
    fitted = {"decision_transformer": main} | (fit_clones(config, data) if config.clones else {})
    return _report(config, data, fitted)


def fit_clones(config: TrainConfig, data: Mapping[str, TraderDataset]) -> dict[str, FittedNetwork]:
    """Networks without returns to go, on all training markets and on the best of them; validated on all."""
    return {
        name: fit_network(
            config.model(use_returns=False),
            config.fit(),
            # Validated on all markets, as all rivals are; only what they learn from differs.
            {**data, "train": data["train"] if share == 1 else best_markets(data["train"], share)},
            config.output_dir / name,
            title=name,
        )
        for name, share in CLONES.items()
    }


def target_returns(train: TraderDataset) -> dict[str, float]:
    """Quantiles of the training markets' returns, to aim at: name such as 0.9 to return."""
    totals = list(market_totals(train).values())
    return {str(level): float(np.quantile(totals, level)) for level in QUANTILES}


def run(flags: Sequence[str], program: str) -> None:
    """The command `train`."""
    config = parse_config(TrainConfig, flags, prog=program, description=DESCRIPTION)
    train(config)
    print((config.output_dir / "report.md").read_text())
    print(f"written to {config.output_dir}")


def _report(config: TrainConfig, data: Mapping[str, TraderDataset], fitted: Mapping[str, FittedNetwork]) -> JsonObject:
    networks = {name: one.network for name, one in fitted.items()}
    main = networks.pop("decision_transformer")
    rows = judge_all(main, networks, data, seed=config.seed)
    errors = return_errors(main, data["test"])
    about = {
        "data": str(config.data),
        "windows": {split: len(data[split]) for split in SPLITS},
        "markets": {split: len(np.unique(data[split].market)) for split in SPLITS},
        "epochs": {name: f"best of {one.epochs}: {one.epoch + 1}" for name, one in fitted.items()},
        "settings": {name: str(value) for name, value in vars(config).items()},
    }
    report = as_json(rows, errors, about)
    write_atomically(config.output_dir / "report.json", json.dumps(report, indent=2) + "\n")
    write_atomically(config.output_dir / "report.md", as_markdown(rows, errors, about))
    return report
