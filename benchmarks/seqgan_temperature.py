"""What the temperature alone does to `seqgan_mle`, the likelihood model that the adversarial stage has to beat.

    .venv/bin/python benchmarks/seqgan_temperature.py
    .venv/bin/python benchmarks/seqgan_temperature.py --temperatures 0.5,1,2 --seeds 1

"Language GANs Falling Short" (Caccia et al. 2020) found that lowering the temperature of a likelihood model bought more
quality per diversity than adversarial training. Here the weights are those of one fit per seed; the temperature
multiplies the variance of each step. Mean and standard deviation over the seeds, each another path of the simulated
stock, on at most 200 test windows as in judge.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import pandas as pd

from baselines.seqgan.forecaster import SeqGanMle, SeqGanMleConfig
from baselines.statistical.naive import RandomWalk
from grpo.evaluation.harness import choose_windows, evaluate
from grpo.evaluation.markdown import markdown
from grpo.evaluation.metrics import summarise
from grpo.evaluation.optimum import Optimum
from preprocessing.config import DataConfig
from preprocessing.simulation import parse_simulated_stock
from preprocessing.stock_windows import split_windows

NUM_SAMPLES = 100
MAX_WINDOWS = 200


def sweep(stock: str, seed: int, temperatures: list[float]) -> pd.DataFrame:
    """One row per temperature: CRPS over the random walk's, skill, coverage and width of the 80 % interval."""
    name = f"{stock}&seed={seed}"
    data = DataConfig()
    splits = split_windows({name: parse_simulated_stock(name).bars()}, data)[0]
    test = splits["test"].take(choose_windows(splits["test"].context, MAX_WINDOWS))
    with tempfile.TemporaryDirectory() as folder:
        parts = {"horizon": data.horizon, "seed": seed, "out_dir": Path(folder)}
        walk = RandomWalk.fit(RandomWalk.Config(), splits["train"], splits["val"], **parts)
        fitted = SeqGanMle.fit(SeqGanMleConfig(), splits["train"], splits["val"], **parts)

    def summary(forecaster) -> dict[str, float]:
        return summarise(evaluate(forecaster, test, num_samples=NUM_SAMPLES, seed=seed).scores)

    reference, best = summary(walk)["crps"], summary(Optimum())["crps"]
    rows = []
    for temperature in temperatures:
        scores = summary(
            dataclasses.replace(fitted, config=dataclasses.replace(fitted.config, temperature=temperature))
        )
        rows.append(
            {
                "temperature": temperature,
                "skill": (reference - scores["crps"]) / (reference - best),
                "CRPS / random walk": scores["crps"] / reference,
                "coverage of the 80 % interval": scores["coverage_80"],
                "its width, %": scores["width_80"],
            }
        )
    return pd.DataFrame(rows).set_index("temperature")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", default="sim:ou?half_life=5", help="simulated, without a seed")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--temperatures", default="0.25,0.5,0.75,1,1.25,1.5")
    arguments = parser.parse_args()
    temperatures = [float(one) for one in arguments.temperatures.split(",")]
    tables = pd.concat([sweep(arguments.stock, int(seed), temperatures) for seed in arguments.seeds.split(",")])
    groups = tables.groupby(level="temperature")
    means, spreads = groups.mean(), groups.std()
    cells = {name: [f"{means.loc[t, name]:.3f} ± {spreads.loc[t, name]:.3f}" for t in means.index] for name in means}
    print(markdown({"temperature": [f"{temperature:g}" for temperature in means.index], **cells}))


if __name__ == "__main__":
    main()
