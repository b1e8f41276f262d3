"""What the embedded model reaches on simulated stocks that its training never saw.

python -m grpo.embedded.measure --model_dir grpo/embedded/model
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo.evaluation.harness import choose_windows
from grpo.evaluation.metrics import score_windows, summarise
from grpo.evaluation.optimum import Optimum
from grpo.evaluation.protocol import forecaster_plugin
from grpo.language.config import PromptConfig
from grpo.sampling.config import GenerationConfig
from grpo.sampling.forecaster import LLMForecaster
from preprocessing.combined_preprocessor import DataConfig, split_windows
from preprocessing.command_line import parse_config
from preprocessing.files import write_atomically
from preprocessing.simulation import parse_simulated_stock

STOCKS = (
    "sim:ou?half_life=3&seed=101",
    "sim:ou?half_life=5&seed=102",
    "sim:ou?half_life=10&seed=103",
    "sim:gbm?seed=104",
    "sim:gbm?tail=4&seed=105",
    "sim:stochvol?seed=106",
    "sim:ar?seed=107",
)
WINDOWS, SAMPLES = 150, 64


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Which model is measured."""

    model_dir: Path = Path("grpo/embedded/model")
    """Folder of the model; its build.json gets the figures."""


def measure(forecaster: LLMForecaster) -> dict[str, dict[str, float]]:
    """Scores per simulated stock: CRPS relative to the random walk, skill where the optimum is known, coverage."""
    table = {}
    for name in STOCKS:
        splits, _ = split_windows({name: parse_simulated_stock(name).bars()}, DataConfig())
        windows = splits["test"].take(choose_windows(splits["test"].context, WINDOWS))
        plugin = forecaster_plugin("random_walk")
        walk = plugin.fit(
            plugin.Config(), splits["train"], splits["val"], horizon=windows.horizon, seed=0, out_dir=Path()
        )

        def score(judged, windows=windows) -> dict[str, float]:
            forecast = judged.predict(windows.context, horizon=windows.horizon, num_samples=SAMPLES, seed=0)
            return summarise(score_windows(forecast, windows))

        ours, reference = score(forecaster), score(walk)
        row = {
            "relative_crps": ours["crps"] / reference["crps"],
            "coverage_80": ours["coverage_80"],
            "valid": ours["valid"],
        }
        # Skill: the share reached of what the exact law gains on the random walk.
        if Optimum.knows(windows.context):
            gap = reference["crps"] - score(Optimum())["crps"]
            row["gap"] = gap / reference["crps"]
            row["skill"] = (reference["crps"] - ours["crps"]) / gap
        table[name] = {key: round(float(value), 4) for key, value in row.items()}
    return table


def main() -> None:
    """Measure, print and keep the figures in build.json."""
    config = parse_config(MeasureConfig, prog="python -m grpo.embedded.measure", description=__doc__ or "")
    forecaster = LLMForecaster(
        "embedded",
        AutoModelForCausalLM.from_pretrained(config.model_dir, dtype="float32").eval(),
        AutoTokenizer.from_pretrained(config.model_dir),
        PromptConfig(),
        GenerationConfig(),
    )
    report(forecaster, config.model_dir)


def report(forecaster: LLMForecaster, folder: Path) -> None:
    """Print the table and write it into the folder's build.json."""
    reached = measure(forecaster)
    print(f"{'simulated stock':32} {'CRPS / random walk':>18} {'skill':>7} {'coverage 80':>12} {'valid':>7}")
    for name, row in reached.items():
        # Where the optimum is hardly better than the random walk, skill divides noise by next to nothing.
        skill = row.get("skill", np.nan) if row.get("gap", 0) > 0.02 else np.nan
        print(f"{name:32} {row['relative_crps']:18.3f} {skill:7.2f} {row['coverage_80']:12.2f} {row['valid']:7.3f}")
    file = folder / "build.json"
    facts = json.loads(file.read_text())
    write_atomically(file, json.dumps(facts | {"reached": reached}, indent=2) + "\n")


if __name__ == "__main__":
    main()
