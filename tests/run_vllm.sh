#!/usr/bin/env bash
# The tests that need vLLM, on vLLM's CPU build, in an environment laid over the one of run_pipeline.sh; arguments go
# to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(tests/overlay.sh vllm tests/requirements-vllm-cpu.txt)
# Two threads of vLLM and of the trainer would wait for each other on a small machine.
exec env OMP_NUM_THREADS=1 "$python" -m pytest -m vllm "$@"
