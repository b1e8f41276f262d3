"""Every training of the baselines, small: what the contract of all of them is tested on.

Each function trains in a folder, going on where an earlier call was cut short, and gives what came out of it: tensors
by name, and the learning curve as CSV. `changed` says what is another than by default, a setting or the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from baselines.decision_transformer.model import ModelConfig
from baselines.gail.config import GailConfig, PretrainedConfig
from baselines.gail.demonstrations import Demonstrations
from baselines.gail.two_stages import fit_networks
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.learner import LearnerConfig
from baselines.gflownet.toys.task_training import TrainConfig as TaskTrainConfig
from baselines.gflownet.toys.task_training import Training
from baselines.neural.checkpoints import read_tensors
from baselines.seqgan.standalone.train_and_sample import TrainConfig as TextTrainConfig
from baselines.seqgan.standalone.train_and_sample import train as train_on_text
from baselines.seqgan.toys.oracle import OracleBenchmark, Schedule
from baselines.trader.network_fitting import FitConfig, fit_network
from grpo.evaluation.protocol import forecaster_config, forecaster_plugin
from preprocessing.config import DataConfig
from preprocessing.sequence_files import write_sequences
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows
from preprocessing.windows import WindowSet
from tests.baselines.trader_toys import buys_low, splits

Changed = Literal["setting", "data"] | None
Outcome = tuple[dict[str, torch.Tensor], str]


@cache
def _windows(seed: int) -> dict[str, WindowSet]:
    stock = parse_simulated_stock(f"sim:ou?half_life=3&rows=500&seed={seed}").bars()
    return split_windows({"A": stock}, DataConfig(window=20, horizon=3))[0]


def _curve(folder: Path, name: str = "learning_curves", without: tuple[str, ...] = ()) -> str:
    return str(pd.read_csv(folder / f"{name}.csv").drop(columns=list(without)).to_csv(index=False))


def _forecaster(name: str, settings: dict[str, float | str], changed_setting: dict[str, float]) -> Callable:
    def train(folder: Path, changed: Changed = None) -> Outcome:
        windows = _windows(2 if changed == "data" else 1)
        config = forecaster_config(name, settings | (changed_setting if changed == "setting" else {}))
        plugin = forecaster_plugin(name)
        fitted = plugin.fit(config, windows["train"], windows["val"], horizon=3, seed=5, out_dir=folder)
        kept = folder.with_name(folder.name + "_fitted")
        fitted.save(kept)
        [file] = kept.iterdir()
        return read_tensors(file)[0], _curve(folder)

    return train


def seqgan_on_text(folder: Path, changed: Changed = None) -> Outcome:
    real = folder.with_name("real.txt")
    random = np.random.default_rng(1 if changed == "data" else 0)
    write_sequences(real, 50 + 3 * random.standard_normal((60, 6)))
    config = TextTrainConfig(
        real=real, output_dir=folder, hidden=4, batch_size=16, pretraining_epochs=2, discriminator_pretraining_sets=6,
        discriminator_sets=1, discriminator_set_batches=1, discriminator_epochs=1, adversarial_batches=12, rollouts=2,
        num_samples=20, learning_rate=2e-3 if changed == "setting" else 1e-3,
    )  # fmt: skip
    train_on_text(config)
    files = ("generator", "discriminator")
    found = {f"{name}.{key}": t for name in files for key, t in read_tensors(folder / f"{name}.safetensors")[0].items()}
    return found, _curve(folder)


def seqgan_on_tokens(folder: Path, changed: Changed = None) -> Outcome:
    schedule = Schedule(
        vocabulary=8, length=4, sequences=128, batch=32, mle_epochs=2, discriminator_refreshes=2, refreshes_per_round=1,
        discriminator_sequences=64, discriminator_epochs=1, rounds=3, rollouts=2, evaluated=50, evaluated_last=100,
        evaluate_every=2, oracle_seed=1 if changed == "data" else 0, keep=0.7 if changed == "setting" else 0.8,
    )  # fmt: skip
    benchmark = OracleBenchmark(schedule, folder)
    benchmark.run()
    networks = {"generator": benchmark.generator, "policy": benchmark.policy, "judge": benchmark.discriminator}
    found = {f"{name}.{key}": t for name, network in networks.items() for key, t in network.state_dict().items()}
    return found, _curve(folder, "oracle_nll", without=("seconds",))


def _demonstrations(seed: int) -> Demonstrations:
    random = torch.Generator().manual_seed(seed)
    returns = torch.randn(60, 4, generator=random)
    return Demonstrations(torch.randn(60, 2, generator=random), returns, np.ones(60), np.full(60, 100.0))


def _gail(config: PretrainedConfig) -> Callable:
    def train(folder: Path, changed: Changed = None) -> Outcome:
        used = dataclasses.replace(config, weight_decay=0.5) if changed == "setting" else config
        parts = _demonstrations(3 if changed == "data" else 1), _demonstrations(2)
        fitted = fit_networks(used, *parts, seed=0, folder=folder, title="test")
        fitted.discard_checkpoints()
        networks = {"pretrained": fitted.pretrained}
        if fitted.imitation is not None:
            imitation = fitted.imitation
            networks |= {"best": imitation.best, "last": imitation.last, "discriminator": imitation.discriminator}
        found = {f"{name}.{key}": t for name, network in networks.items() for key, t in network.state_dict().items()}
        return found, _curve(folder)

    return train


def gflownet_on_a_tree(folder: Path, changed: Changed = None) -> Outcome:
    config = TaskTrainConfig(
        output_dir=folder, task="tree", tokens=3, length=2, min_share=0.1, batch=16, steps=12, check_every=4,
        data_batch=4,
        generator="kl", model=GeneratorConfig(width=8, stick=0.2, gamma=0.5, kl_share=0.5, explicit_z=True),
        learner=LearnerConfig(buffer=500, dynamics_batch=64, learning_rate=1e-3 if changed == "setting" else 2e-2),
        task_seed=1 if changed == "data" else 0,
    )  # fmt: skip
    with torch.random.fork_rng():
        training = Training(config)
        training.run()
    return dict(training.generator.state_dict()), _curve(folder)


def decision_transformer_of_a_trader(folder: Path, changed: Changed = None) -> Outcome:
    model = ModelConfig(d_model=8, num_layers=1, num_heads=2, dropout=0.2, context=6)
    fit = FitConfig(epochs=4, batch_size=7, learning_rate=1e-2, warm_up=2, clip=2.0 if changed == "setting" else 1.0)
    data = splits(buys_low, train=20, bars=6, seed=4 if changed == "data" else 3)
    fitted = fit_network(model, fit, data, folder, title="tiny")
    return dict(fitted.network.state_dict()), _curve(folder)


_PRETRAINED = {
    "num_tokens": 5, "hidden_size": 8, "embedding_size": 4, "context_size": 4, "pretrain_steps": 20,
    "validate_every": 5,
}  # fmt: skip
LOOPS: dict[str, Callable[..., Outcome]] = {
    "seqgan": _forecaster(
        "seqgan",
        {"hidden": 4, "pretraining_steps": 6, "evaluate_every": 2, "discriminator_pretraining_sets": 10,
         "adversarial_batches": 4, "adversarial_every": 2, "rollouts": 2, "validation_windows": 8},
        {"l2": 0.3},
    ),
    "seqgan on text": seqgan_on_text,
    "seqgan on tokens": seqgan_on_tokens,
    "gail, pre-training": _gail(PretrainedConfig(**_PRETRAINED)),
    "gail": _gail(GailConfig(
        **_PRETRAINED, iterations=6, environments=16, batch=8, discriminator_steps=2, discriminator_size=8,
        validate_rounds=2, replay_size=40,
    )),
    "decision transformer": _forecaster(
        "decision_transformer",
        {"d_model": 8, "steps": 6, "evaluate_every": 2, "batch_size": 16, "validation_windows": 8, "warm_up": 2},
        {"weight_decay": 0.2},
    ),
    "decision transformer of a trader": decision_transformer_of_a_trader,
    "gflownet": _forecaster(
        "gflownet",
        {"steps": 6, "check_every": 2, "check_windows": 8, "width": 16, "thought_width": 8, "stick": 0.2,
         "learn_dynamics": True, "temperature": 1.0},
        {"explore": 0.2},
    ),
    "gflownet on a tree": gflownet_on_a_tree,
}  # fmt: skip
