"""The trader's Decision Transformer, from trade files to a trained model.

    python -m baselines.decision_transformer simulate --output-dir downloads/merged_trades --markets 60
    python -m baselines.decision_transformer download --bucket NAME --endpoint-url URL
    python -m baselines.decision_transformer pipeline --data-dir downloads/merged_trades
    python -m baselines.decision_transformer train --data data/processed_trader_data.parquet --output-dir models

Each command explains its flags with --help.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial

from baselines.building_blocks.commands import run_command

COMMANDS = {"simulate": "simulation", "download": "download", "pipeline": "pipeline", "train": "train_command"}
"""Commands, and the modules of `baselines.trader` whose `run` they are; each is imported when it is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code."""
    commands = {name: partial(_run, module) for name, module in COMMANDS.items()}
    return run_command("python -m baselines.decision_transformer", str(__doc__), commands, argv)


def _run(module: str, flags: Sequence[str], program: str) -> None:
    importlib.import_module(f"baselines.trader.{module}").run(flags, program)


if __name__ == "__main__":
    sys.exit(main())
