"""Training outside of a comparison: demonstrations from a simulation, a file or a folder, to a folder of results."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from baselines.gail.config import GailConfig
from baselines.gail.demonstrations import Demonstrations
from baselines.gail.standalone.gbm import GbmConfig, simulate_gbm
from baselines.gail.standalone.judgement import judge, round_trips, simple_models
from baselines.gail.standalone.plots import draw_all
from baselines.gail.two_stages import FittedNetworks, fit_networks
from baselines.neural.checkpoints import write_tensors
from baselines.neural.inputs import InputScaling
from grpo.evaluation.markdown import markdown
from preprocessing.config import DataConfig
from preprocessing.errors import UserError
from preprocessing.files import JsonObject, write_atomically
from preprocessing.market_data import load_stocks
from preprocessing.returns import VolatilityConfig
from preprocessing.simulation import is_simulated
from preprocessing.stock_windows import split_windows

GBM = "gbm"
SETTINGS_FILE, WEIGHTS_FILE, METRICS_FILE = "settings.json", "networks.safetensors", "metrics.json"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Flags of `train`."""

    data: str = GBM
    """`gbm`: simulated paths as --gbm describes them, without context. A CSV of bars, a folder of them, or
    `sim:PROCESS?...`: windows of stocks, each with its past as context."""
    output_dir: Path = Path("results/gail")
    """Folder of the results."""
    seed: int = 0
    """Seed of every random choice."""
    tune: int = 0
    """Search this many settings for the lowest validation loss, instead of training once; 0: train."""
    window: int = 30
    """Days of context, for windows of stocks."""
    horizon: int = 10
    """Days to imitate, for windows of stocks."""
    gbm: GbmConfig = field(default_factory=GbmConfig)
    gail: GailConfig = field(default_factory=GailConfig)

    def __post_init__(self) -> None:
        if self.seed < 0 or self.tune < 0:
            raise ValueError(f"seed and tune must be 0 or more; got {self.seed} and {self.tune}")
        DataConfig(window=self.window, horizon=self.horizon)  # the same rules

    def plain(self) -> JsonObject:
        """What the result depends on, as plain JSON."""
        settings = dataclasses.asdict(self)
        for name in ("output_dir", "tune"):
            del settings[name]
        return json.loads(json.dumps(settings))


def load_demonstrations(config: TrainConfig) -> dict[str, Demonstrations]:
    """Train, val and test.

    Raises:
        UserError: `data` names nothing that is there.
        MarketDataError, SimulationError: it cannot be read, or gives too few windows.
    """
    if config.data == GBM:
        return simulate_gbm(config.gbm, config.seed)
    path = Path(config.data)
    if is_simulated(config.data):
        stock, folder = config.data, None
    elif path.is_dir():
        stock, folder = "all", path
    elif path.is_file():
        stock, folder = path.stem, path.parent
    else:
        raise UserError(f"--data {config.data} is neither gbm, nor sim:PROCESS, nor a CSV file or folder that exists")
    settings = DataConfig(data_dir=folder, window=config.window, horizon=config.horizon)
    splits = split_windows(load_stocks(stock, settings)[0], settings)[0]
    volatility = VolatilityConfig(decay=config.gail.decay, recent_weight=config.gail.recent_weight)
    scaling = InputScaling.fit(splits["train"].context, volatility)
    return {name: Demonstrations.of_windows(splits[name], scaling) for name in ("train", "val", "test")}


def spread_evenly(demonstrations: Demonstrations, most: int) -> Demonstrations:
    """At most so many of them, evenly spaced."""
    count = min(len(demonstrations), max(1, most))
    return demonstrations.take((np.arange(count) * len(demonstrations)) // count)


def train(config: TrainConfig) -> bool:
    """Train, judge, and write all results; False where that was done before.

    Raises:
        UserError: the folder holds results of other settings, or `data` is not there.
    """
    folder = config.output_dir
    if _is_done(config):
        return False
    parts = load_demonstrations(config)
    # The settings first: a folder that holds them refuses a training with others, even one that was killed.
    write_atomically(folder / SETTINGS_FILE, json.dumps(config.plain(), indent=2) + "\n")
    horizon = parts["train"].returns.shape[1]
    looked_at = spread_evenly(parts["val"], config.gail.validation_steps // horizon)
    began = time.perf_counter()
    fitted = fit_networks(config.gail, parts["train"], looked_at, seed=config.seed, folder=folder, title="GAIL")
    write_results(config, fitted, parts, time.perf_counter() - began)
    # Only after the results are written: until then the checkpoints are what a killed call goes on from.
    fitted.discard_checkpoints()
    return True


def write_results(
    config: TrainConfig, fitted: FittedNetworks, parts: dict[str, Demonstrations], seconds: float
) -> None:
    """Judge on the test demonstrations and write weights, pictures and numbers, the numbers last."""
    folder, test = config.output_dir, parts["test"]
    assert fitted.imitation is not None
    networks = {"pretrained": fitted.pretrained, "gail": fitted.imitation.best}
    judged = {n: judge(network, config.gail, fitted, test, seed=config.seed) for n, network in networks.items()}
    kept = {**networks, "discriminator": fitted.imitation.discriminator}
    tensors = {f"{n}.{key}": t for n, network in kept.items() for key, t in network.state_dict().items()}
    tensors |= {f"tokens.{name}": tensor for name, tensor in fitted.tokenizer.state().items()}
    write_tensors(folder / WEIGHTS_FILE, tensors, config.plain())
    tokens = fitted.tokenizer.encode(test.returns.numpy())
    draw_all(folder, test, tokens, fitted.tokenizer.num_tokens, judged)
    for name, judgement in judged.items():
        write_atomically(folder / f"distributions_{name}.md", judgement.distributions.markdown())
        write_atomically(folder / f"distributions_{name}.json", judgement.distributions.json())
    metrics = {
        "demonstrations": {name: len(part) for name, part in parts.items()},
        "tokens": fitted.tokenizer.num_tokens,
        "round_trip": {name: dataclasses.asdict(trip) for name, trip in round_trips(fitted, parts).items()},
        "simple": simple_models(fitted, parts["train"], test),
        **{name: judgement.numbers() for name, judgement in judged.items()},
        "fit_seconds": round(seconds, 1),
    }
    # Last, as it says that the folder is finished (`_is_done`).
    write_atomically(folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")


def summary(folder: Path) -> str:
    """A table of the metrics in a folder of results."""
    metrics = json.loads((folder / METRICS_FILE).read_text())
    columns = {stage: [f"{metrics[stage][name]:.4f}" for name in metrics["gail"]] for stage in ("pretrained", "gail")}
    lines = [markdown({"test measure": list(metrics["gail"]), **columns})]
    simple, trip = metrics["simple"], metrics["round_trip"]["test"]
    lines.append(f"\nnats per token: i.i.d. {simple['iid_nll']:.4f}, Markov chain {simple['markov_nll']:.4f}")
    lines.append(f"tokens lose {trip['rmse']:.1%} of a return (root mean square); {trip['outside']:.2%} lie outside")
    return "\n".join(lines)


def _is_done(config: TrainConfig) -> bool:
    """Whether the folder holds finished results of these settings.

    Raises:
        UserError: it holds results of others.
    """
    settings = config.output_dir / SETTINGS_FILE
    if not settings.exists():
        return False
    if json.loads(settings.read_text()) != config.plain():
        raise UserError(f"{config.output_dir} holds a training with other settings; give another --output-dir")
    return (config.output_dir / METRICS_FILE).exists()
