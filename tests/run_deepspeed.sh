#!/usr/bin/env bash
# The tests that need DeepSpeed, on the CPU, in an environment laid over the one of run_pipeline.sh; arguments go to
# pytest. On two cores about 5 minutes, the install included; DeepSpeed compiles, which needs a C++ compiler.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
over="$root/.venv-deepspeed"
"$root/run_pipeline.sh" --install dev
python="$root/.venv/bin/python"
stamp=$(cat "$root/tests/requirements-deepspeed.txt" "$root/.venv/installed-dev" | cksum)
if [[ ! -f $over/installed || $(<"$over/installed") != "$stamp" ]]; then
  rm -rf "$over"
  "$python" -m venv "$over"
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$over/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
  "$over/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$root/tests/requirements-deepspeed.txt" >&2
  printf '%s' "$stamp" >"$over/installed"
fi
cd "$root"
exec env OMP_NUM_THREADS=1 DS_ACCELERATOR=cpu "$over/bin/python" -m pytest tests/multi_process/test_deepspeed.py "$@"
