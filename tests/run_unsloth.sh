#!/usr/bin/env bash
# The tests that need Unsloth, on its own CPU backend where there is no GPU, in an environment laid over the one of
# run_pipeline.sh; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(tests/overlay.sh unsloth tests/requirements-unsloth-cpu.txt)
exec env OMP_NUM_THREADS=1 "$python" -m pytest -k unsloth \
  tests/models/test_unsloth.py tests/stages/test_llm_stages.py tests/training/test_grpo_step.py "$@"
