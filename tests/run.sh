#!/usr/bin/env bash
# The tests, in the environment that run_pipeline.sh uses; arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/run_pipeline.sh" --install dev
cd "$root"
exec .venv/bin/python -m pytest "$@"
