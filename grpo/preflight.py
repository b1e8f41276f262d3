"""What would go wrong in a run, before it does: `python -m grpo.preflight --help`."""

from __future__ import annotations

import sys

from grpo.machine.preflight import main
from grpo.runs.log import stage_entry

if __name__ == "__main__":
    sys.exit(stage_entry(main))
