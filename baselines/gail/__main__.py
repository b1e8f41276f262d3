"""Imitate real paths by GAIL on tokens.

    python -m baselines.gail train                                       geometric Brownian motion
    python -m baselines.gail train --data AAPL.csv --out-dir gail_aapl   one stock; a folder: all of its stocks
    python -m baselines.gail train --data "sim:ou?half_life=5" --tune 20 search the settings, best ones to best.yaml
    python -m baselines.gail train --config gail_aapl/best.yaml ...      train with them

`train` writes into --out-dir (results/gail): metrics.json, distributions_{pretrained,gail}.{md,json}, tokens.png,
boxes.png, prices.png, roc.png, learning_curves.{csv,png}, networks.safetensors and settings.json. A training or search
that was killed goes on when it is called again. `train --help` explains the settings.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from baselines.building_blocks.packages import MissingPackageError, import_optional
from baselines.building_blocks.tensor_files import SavedFileError
from baselines.gail.standalone.train import GailError, TrainConfig, summary, train
from baselines.gail.standalone.tuning import BEST, tune
from baselines.gail.tokens import TokensError
from grpo.evaluation.distributions.analysis import SampleError
from preprocessing.bars import MarketDataError
from preprocessing.command_line import parse_config
from preprocessing.simulation import SimulationError

ERRORS = (GailError, TokensError, SampleError, SavedFileError, MissingPackageError, MarketDataError, SimulationError)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    command, *arguments = (sys.argv[1:] if argv is None else [*argv]) or ["--help"]
    prog = f"python -m baselines.gail {command}"
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command != "train":
        print(f"{prog}: error: '{command}' is no command; take train (see --help)", file=sys.stderr)
        return 2
    about = "Teacher forcing, then imitation against a discriminator; or a search of their settings."
    config = parse_config(TrainConfig, arguments, prog=prog, description=about)
    try:
        import_optional("sb3_contrib", needed_by="gail", install="grpo-forecast[gail]")
        run(config)
    except (*ERRORS, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(config: TrainConfig) -> None:
    """Search or train, and say what came out."""
    if config.tune:
        trials, loss = tune(config)
        print(f"{config.out_dir / BEST}: the best of {trials} trials, validation loss {loss:.4f}")
        return
    trained = train(config)
    print(summary(config.out_dir))
    print(f"\n{config.out_dir}: {'trained and written' if trained else 'this training is there and finished'}")


if __name__ == "__main__":
    sys.exit(main())
