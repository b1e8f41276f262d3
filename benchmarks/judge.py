"""The neural baselines beside the simple ones, over three seeds: a simulated stock, a real one, all of a folder.

    .venv/bin/python benchmarks/judge.py --data-dir DIR
    .venv/bin/python benchmarks/judge.py --data-dir DIR --settings OU --forecasters seqgan,seqgan_mle

The judge is `grpo.stages.compare_models` as it stands. Each seed of the simulated stock is another path; on real
stocks a seed is another training. Below each table stand the pairs that differ in one stage alone, with the
difference of their CRPS in percent of the random walk's and its p-value (Diebold-Mariano on the CRPS averaged per
date, paths and seeds). Finished parts are not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from grpo.evaluation.dates import average_by_date
from grpo.evaluation.markdown import markdown
from grpo.evaluation.significance import diebold_mariano

ROOT = Path(__file__).parents[1]
HORIZON = 10
SIMPLE = ("random_walk", "ridge", "fhs_drift")
PAIRS = (
    ("seqgan", "seqgan_mle"),
    ("gail", "gail_pretrained"),
    ("decision_transformer", "decision_transformer_bc"),
    ("gflownet", "gflownet_no_context"),
)
"""What a stage adds: with it, and without."""


@dataclass(frozen=True)
class Setting:
    """Which stocks, how many test windows, and whether a seed is another path or another training.

    Attributes:
        name: of the folder and of the table.
        stock: as compare_models takes it, without a seed.
        max_windows: test windows at most.
    """

    name: str
    stock: str
    max_windows: int

    @property
    def simulated(self) -> bool:
        return self.stock.startswith("sim:")


SETTINGS = {
    "OU": Setting("OU", "sim:ou?half_life=5", 200),
    "AAPL": Setting("AAPL", "AAPL", 200),
    "pooled": Setting("pooled", "all", 680),
}


def compare(setting: Setting, forecasters: list[str], folder: Path, data_dir: Path | None, seeds: int) -> pd.DataFrame:
    """rows.csv of a setting: one row per forecaster, seed and window."""
    parts = []
    for seed in range(1, seeds + 1) if setting.simulated else [0]:
        run_dir = folder / (f"{setting.name}_{seed}" if setting.simulated else setting.name)
        command = [sys.executable, "-m", "grpo.stages.compare_models", "--run-dir", str(run_dir)]
        command += ["--forecasters", ",".join(forecasters), "--max-windows", str(setting.max_windows)]
        if setting.simulated:
            command += ["--stock", f"{setting.stock}&seed={seed}", "--seed", str(seed)]
        else:
            command += ["--stock", setting.stock, "--seeds", str(seeds), "--data-dir", str(data_dir)]
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{run_dir.name}.log", "w") as log:
            if subprocess.call(command, stdout=log, stderr=log, cwd=ROOT):
                sys.exit(f"{setting.name} failed, see {log.name}")
        rows = pd.read_csv(run_dir / "model_comparison" / "rows.csv", parse_dates=["date"])
        parts.append(rows.assign(seed=seed) if setting.simulated else rows)
    return pd.concat(parts)


def by_seed(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean of a column: seeds down, forecasters across."""
    return rows.pivot_table(column, index="seed", columns="forecaster")


def table(rows: pd.DataFrame) -> str:
    """Markdown: mean and standard deviation over seeds, best first."""
    crps, mae, coverage = (by_seed(rows, column) for column in ("crps", "mae", "coverage_80"))
    relative, relative_mae = crps.div(crps["random_walk"], axis=0), mae.div(mae["random_walk"], axis=0)
    columns = {
        "CRPS / random walk": relative,
        "MAE / random walk": relative_mae,
        "coverage of the 80 % interval": coverage,
    }
    if "optimum" in crps:
        skill = (1 - relative).div(1 - relative["optimum"], axis=0)
        columns = {"skill": skill, **columns}
    names = [str(name) for name in relative.mean().sort_values().index]
    cells = {
        header: [f"{values[name].mean():.3f} ± {values[name].std():.3f}" for name in names]
        for header, values in columns.items()
    }
    return markdown({"forecaster": names, **cells})


def pair(rows: pd.DataFrame, first: str, second: str) -> str:
    """One line: how the CRPS of two forecasters differs, and how surely."""
    crps = rows.set_index(["forecaster", "seed", "stock", "date"])["crps"]
    difference = (crps[first] - crps[second]) / crps["random_walk"].mean() * 100
    seeds = difference.groupby("seed").mean()
    daily = average_by_date(difference.to_numpy(), difference.index.get_level_values("date").to_numpy())
    p_value = diebold_mariano(daily, horizon=HORIZON).p_value
    sure = f"p {p_value:.2f}" if p_value >= 0.01 else "p < 0.01"
    figures = f"{seeds.mean():+.2f} ± {seeds.std():.2f} % of the random walk's CRPS, {sure}"
    return f"* {first} minus {second}: {figures}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with one OHLCV CSV per stock")
    parser.add_argument("--settings", default="OU,AAPL,pooled", help="which of OU, AAPL and pooled")
    parser.add_argument("--forecasters", help="comma-separated; default: the pairs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("results/judge"), help="where the comparisons go")
    arguments = parser.parse_args()
    chosen = arguments.forecasters.split(",") if arguments.forecasters else list(np.ravel(PAIRS))
    settings = [SETTINGS[name] for name in arguments.settings.split(",")]
    if arguments.data_dir is None and not all(setting.simulated for setting in settings):
        parser.error("real stocks need --data-dir; without it only --settings OU runs")
    texts = []
    for setting in settings:
        rows = compare(setting, [*SIMPLE, *chosen], arguments.folder.resolve(), arguments.data_dir, arguments.seeds)
        pairs = [pair(rows, *names) for names in PAIRS if set(names) <= set(chosen)]
        texts.append("\n".join([f"## {setting.name}", "", table(rows), "", *pairs]))
        print(texts[-1], end="\n\n", flush=True)
    text = f"{datetime.date.today()}, {arguments.seeds} seeds\n\n" + "\n\n".join(texts) + "\n"
    (arguments.folder / "judge.md").write_text(text)


if __name__ == "__main__":
    main()
