"""Push the adapters of a run to the Hugging Face Hub: `python -m grpo.hub push RUN --repo-id user/name`."""

from __future__ import annotations

import sys

from grpo.publishing.push import main
from grpo.runs.log import stage_entry

if __name__ == "__main__":
    sys.exit(stage_entry(main))
