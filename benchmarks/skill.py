"""The whole pipeline over several seeds: mean and spread of every forecaster's scores.

    .venv/bin/python benchmarks/skill.py --seeds 1,2,3
    .venv/bin/python benchmarks/skill.py --stock AAPL --seeds 1,2,3 -- --data-dir DIR

A simulated stock gets another path with each seed, so the spread holds both the path's and the training's luck.
Finished runs are not repeated; everything after `--` goes to run_pipeline.sh.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from grpo.evaluation.markdown import markdown

ROOT = Path(__file__).parents[1]


def run(stock: str, seed: int, folder: Path, flags: list[str], threads: int) -> pd.DataFrame:
    """One pipeline run; returns its leaderboard."""
    run_dir = folder / f"seed_{seed}"
    if stock.startswith("sim:"):
        stock += ("&" if "?" in stock else "?") + f"seed={seed}"
    if (run_dir / "config.yaml").exists():
        arguments = ["--resume", str(run_dir)]
    else:
        arguments = ["--stock", stock, "--seed", str(seed), "--run-dir", str(run_dir)]
        arguments += ["--models-dir", str(run_dir / "models"), *flags]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"seed_{seed}.log", "w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        code = subprocess.call([ROOT / "run_pipeline.sh", *arguments], stdout=log, stderr=log, env=environment)
    if code:
        sys.exit(f"seed {seed} failed, see {log.name}")
    return pd.read_csv(run_dir / "model_comparison" / "leaderboard.csv").assign(seed=seed)


def table(boards: pd.DataFrame) -> str:
    """Markdown: mean and standard deviation over seeds."""
    groups = {str(name): group for name, group in boards.groupby("forecaster")}
    names = sorted(groups, key=lambda name: groups[name]["rel_crps"].mean())

    def cell(name: str, column: str) -> str:
        values = groups[name][column].dropna()
        if values.empty:
            return ""
        return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")

    columns = {
        "skill": "skill",
        "rel. CRPS": "rel_crps",
        "rel. MAE": "rel_mae",
        "coverage 80": "coverage_80",
        "valid": "valid",
    }
    cells = {header: [cell(name, column) for name in names] for header, column in columns.items()}
    return markdown({"forecaster": names, **cells})


def main() -> None:
    own, flags = (sys.argv[1:], []) if "--" not in sys.argv else _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", default="sim:ou?half_life=5", help="as run_pipeline.sh takes it, without a seed")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    parser.add_argument("--folder", type=Path, default=Path("results/skill"), help="where the runs go")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args(own)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        boards = pd.concat(pool.map(lambda seed: run(arguments.stock, seed, arguments.folder, flags, threads), seeds))
    boards.to_csv(arguments.folder / "leaderboards.csv", index=False)
    text = table(boards)
    (arguments.folder / "skill.md").write_text(text + "\n")
    print(text)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


if __name__ == "__main__":
    main()
