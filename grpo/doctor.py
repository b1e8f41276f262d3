"""What this machine can run, and what it lacks: `python -m grpo.doctor --help`."""

from __future__ import annotations

import sys

from grpo.machine.doctor import main

if __name__ == "__main__":
    sys.exit(main())
