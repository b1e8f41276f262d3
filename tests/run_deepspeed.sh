#!/usr/bin/env bash
# The tests that need DeepSpeed, on the CPU, in an environment laid over the one of run_pipeline.sh; arguments go to
# pytest. On two cores about 5 minutes, the install included; DeepSpeed compiles, which needs a C++ compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(tests/overlay.sh deepspeed tests/requirements-deepspeed.txt)
exec env OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu "$python" -m pytest tests/multi_process/test_deepspeed.py "$@"
