"""Imitate real paths by GAIL on tokens.

    python -m baselines.gail train                                          geometric Brownian motion
    python -m baselines.gail train --data AAPL.csv --output-dir gail_aapl   one stock; a folder: all of its stocks
    python -m baselines.gail train --data "sim:ou?half_life=5" --tune 20    search the settings, best ones to best.yaml
    python -m baselines.gail train --config gail_aapl/best.yaml ...         train with them

`train` writes into --output-dir (results/gail): metrics.json, distributions_{pretrained,gail}.{md,json}, tokens.png,
boxes.png, prices.png, roc.png, learning_curves.{csv,png}, networks.safetensors and settings.json. A training or search
that was killed goes on when it is called again. `train --help` explains the settings.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from baselines.building_blocks.commands import run_command
from baselines.building_blocks.packages import import_optional
from preprocessing.command_line import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    return run_command("python -m baselines.gail", str(__doc__), {"train": train}, argv)


def train(flags: Sequence[str], program: str) -> None:
    """Search or train, and say what came out."""
    import_optional("sb3_contrib", needed_by="gail", install="grpo-forecast[gail]")
    from baselines.gail.standalone.train import TrainConfig, summary
    from baselines.gail.standalone.train import train as train_and_judge
    from baselines.gail.standalone.tuning import BEST, tune

    about = "Teacher forcing, then imitation against a discriminator; or a search of their settings."
    config = parse_config(TrainConfig, flags, prog=program, description=about)
    if config.tune:
        trials, loss = tune(config)
        print(f"{config.output_dir / BEST}: the best of {trials} trials, validation loss {loss:.4f}")
        return
    trained = train_and_judge(config)
    print(summary(config.output_dir))
    print(f"\n{config.output_dir}: {'trained and written' if trained else 'this training is there and finished'}")


if __name__ == "__main__":
    sys.exit(main())
