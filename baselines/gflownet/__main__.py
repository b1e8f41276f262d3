"""Train a GFlowNet, sample from it, or ask what noise leaves possible.

    python -m baselines.gflownet train --task tree --output-dir DIR
    python -m baselines.gflownet train --task price_paths --stock sim:ou --output-dir DIR
    python -m baselines.gflownet sample --run DIR
    python -m baselines.gflownet feasibility --task tree --stick .25

train goes on where it was stopped if it is called again with the same settings. sample writes CSV to standard
output. feasibility says how much of the reward's distribution the noise puts out of reach. Each command explains its
flags with --help; `train --task price_paths --help` those of the forecaster.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from baselines.building_blocks.commands import run_command
from baselines.gflownet.standalone import feasibility, sample, train


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    commands = {"train": train.run, "sample": sample.run, "feasibility": feasibility.run}
    return run_command("python -m baselines.gflownet", str(__doc__), commands, argv)


if __name__ == "__main__":
    sys.exit(main())
