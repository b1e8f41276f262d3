"""The trader's Decision Transformer, from trade files to a trained model.

    python -m baselines.decision_transformer simulate --output downloads/merged_trades --markets 60
    python -m baselines.decision_transformer download --bucket NAME --endpoint-url URL --output downloads/merged_trades
    python -m baselines.decision_transformer pipeline --data-dir downloads/merged_trades
    python -m baselines.decision_transformer train --data data/processed_trader_data.parquet --output-dir models

Each command explains its flags with --help.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "simulate": "baselines.trader.simulation:main",
    "download": "baselines.trader.download:main",
    "pipeline": "baselines.trader.pipeline:main",
    "train": "baselines.trader.train_command:main",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code."""
    command, *arguments = (sys.argv[1:] if argv is None else [*argv]) or ["--help"]
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command not in COMMANDS:
        named = f"'{command}' is no command; take {', '.join(COMMANDS)} (see --help)"
        print(f"python -m baselines.decision_transformer: error: {named}", file=sys.stderr)
        return 2
    module, function = COMMANDS[command].split(":")
    return getattr(importlib.import_module(module), function)(arguments)


if __name__ == "__main__":
    sys.exit(main())
