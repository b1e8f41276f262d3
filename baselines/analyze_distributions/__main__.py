"""How far generated sequences are from real ones, with the noise of each number, and ten pictures.

    python -m baselines.analyze_distributions --real save/real_data.txt --generated save/final_samples.txt
    python -m baselines.analyze_distributions --run results/RUN --forecaster fhs

The first form takes two files of one sequence a line, values separated by spaces. The second takes what a comparison
left in a run's folder: realised daily log returns of the test windows against those that a forecaster sampled, both
over the daily volatility. grpo/evaluation/distributions/README.md says how to read what comes out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grpo.evaluation.distributions.analysis import SampleError, compare_distributions
from grpo.evaluation.distributions.plots import write_pictures
from grpo.evaluation.distributions.samples import RunFilesError, Samples, samples_of_files, samples_of_run
from preprocessing.command_line import parse_config
from preprocessing.errors import UserError
from preprocessing.files import AtomicFiles
from preprocessing.windows import WindowsError


@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """What to compare and where to write."""

    real: Path | None = None
    """File of real sequences, one a line, values separated by spaces."""
    generated: Path | None = None
    """File of generated sequences, as long as the real ones."""
    run: Path | None = None
    """Folder of a run that has compared forecasters; instead of the two files."""
    forecaster: str | None = None
    """A name on that run's leaderboard."""
    output_dir: Path = Path("analysis_results")
    """Folder for report.json, report.md and the pictures."""
    seed: int = 0
    """Of subsamples, replicates and folds."""

    def __post_init__(self) -> None:
        files, forecasts = (self.real, self.generated), (self.run, self.forecaster)
        if not (all(files) and not any(forecasts)) and not (all(forecasts) and not any(files)):
            raise ValueError("give either --real and --generated, or --run and --forecaster")


def read_samples(config: AnalysisConfig) -> Samples:
    """The two samples that the flags name."""
    if config.run and config.forecaster:
        return samples_of_run(config.run, config.forecaster)
    assert config.real
    assert config.generated
    return samples_of_files(config.real, config.generated)


def main(argv: Sequence[str] | None = None) -> int:
    """Read, measure, write and print; gives the exit code."""
    prog = "python -m baselines.analyze_distributions"
    config = parse_config(AnalysisConfig, argv, prog=prog, description=__doc__ or "")
    try:
        samples = read_samples(config)
        report = compare_distributions(samples.real, samples.generated, config.seed)
        text = f"{report.markdown()}\n{samples.origin}\n"
        with AtomicFiles() as files:
            files.open(config.output_dir / "report.json").write(report.json().encode())
            files.open(config.output_dir / "report.md").write(text.encode())
        pair = {"real": samples.real, "generated": samples.generated}
        write_pictures(pair, report, samples.unit, config.output_dir)
    except (UserError, RunFilesError, WindowsError, SampleError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    print(text)
    print(f"Pictures and report.json: {config.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
