"""The discrete SeqGAN on the synthetic oracle: oracle NLL by maximum likelihood and after adversarial training.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/seqgan_oracle.py --quick
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/seqgan_oracle.py --folder results/seqgan_oracle

Without further flags the schedule is the published one (120 epochs, 50 x 3 epochs of the discriminator, 200 rounds
with 5 x 3 more each), which is about 20 hours of one CPU core, nearly all of it the discriminator's. `--quick` takes a
vocabulary of 100 and seconds. A run that was killed or that reached `--minutes` goes on when called again;
`oracle_nll.csv` in its folder has a row for every point measured so far. The table takes the last round, not the best.

MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 in the environment keep glibc from giving memory
back after every step: maximum likelihood runs about a third faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import torch

from baselines.building_blocks.tensor_files import SavedFileError
from baselines.seqgan.toys.oracle import (
    ADVERSARIAL,
    MLE,
    OracleBenchmark,
    Schedule,
    negative_log_likelihood,
    uniform_negative_log_likelihood,
)
from grpo.evaluation.markdown import markdown

PUBLISHED = {"uniform": 10.310, MLE: 9.038, ADVERSARIAL: 8.736}
"""Table 1 of the paper, T = 20; with the parameters of the published program's own oracle."""
QUICK = Schedule(
    vocabulary=100,
    sequences=1000,
    mle_epochs=10,
    discriminator_refreshes=2,
    refreshes_per_round=1,
    discriminator_sequences=128,
    discriminator_epochs=1,
    rounds=4,
    rollouts=4,
    evaluated=500,
    evaluated_last=1000,
)


def report(benchmark: OracleBenchmark) -> str:
    """Markdown: negative log-likelihood per token, beside the published figures."""
    schedule = benchmark.schedule
    with torch.random.fork_rng():
        torch.manual_seed(0)
        uniform = uniform_negative_log_likelihood(benchmark.oracle, length=schedule.length)
    entropy, error = negative_log_likelihood(benchmark.oracle, benchmark.fresh)
    lines = [
        f"V {schedule.vocabulary}, T {schedule.length}, {schedule.sequences} sequences of the oracle, "
        f"step {benchmark.done} of {benchmark.steps}, {benchmark.seconds / 60:.1f} minutes",
        "",
    ]
    own = f"{entropy:.3f} ± {error:.3f}"
    rows = [("uniform tokens", f"{uniform:.3f}", f"{math.log(schedule.vocabulary):.3f}", f"{PUBLISHED['uniform']:.3f}")]
    for stage, title in ((MLE, "maximum likelihood, epoch"), (ADVERSARIAL, "SeqGAN, round")):
        row = _last(benchmark, stage)
        if row:
            found = [f"{row[name]:.3f} ± {row[f'{name}_error']:.3f}" for name in ("oracle", "data")]
            rows.append((f"{title} {row['step']}", *found, f"{PUBLISHED[stage]:.3f}"))
    rows.append(("the oracle itself", own, own, ""))
    headers = ("generator", "oracle NLL", "NLL of fresh data", "published oracle NLL")
    lines.append(markdown(dict(zip(headers, zip(*rows, strict=True), strict=True))))
    rounds = [row for row in benchmark.training.curve.rows if row["phase"] == ADVERSARIAL]
    if len(rounds) > 1:
        each = (rounds[-1]["seconds"] - rounds[0]["seconds"]) / (rounds[-1]["step"] - rounds[0]["step"])
        lines += ["", f"{each:.1f} seconds per adversarial round; ± is one standard error over sequences."]
    return "\n".join(lines)


def _last(benchmark: OracleBenchmark, stage: str) -> dict[str, Any] | None:
    return next((row for row in reversed(benchmark.training.curve.rows) if row["phase"] == stage), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/seqgan_oracle"), help="checkpoint and curve")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many; call again to go on")
    parser.add_argument("--quick", action="store_true", help="a small vocabulary and a short schedule")
    for field in dataclasses.fields(Schedule):
        flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        if kind is bool:
            parser.add_argument(flag, action="store_true", default=None)
        else:
            parser.add_argument(flag, type=kind, help=f"published: {field.default}")
    arguments = parser.parse_args()
    names = [field.name for field in dataclasses.fields(Schedule)]
    chosen = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    schedule = dataclasses.replace(QUICK if arguments.quick else Schedule(), **chosen)
    folder = arguments.folder / "quick" if arguments.quick else arguments.folder
    try:
        benchmark = OracleBenchmark(schedule, folder)
    except SavedFileError as error:
        sys.exit(f"benchmarks/seqgan_oracle.py: error: {error}")
    benchmark.run(minutes=arguments.minutes)
    text = report(benchmark)
    (folder / "report.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
