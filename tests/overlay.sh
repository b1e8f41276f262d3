#!/usr/bin/env bash
# Lay an environment with further packages over the one of run_pipeline.sh, and print its Python:
#   tests/overlay.sh NAME REQUIREMENTS
# The packages come without their own dependencies, which would pull builds of torch and its kin that fit no CPU.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
over="$root/.venv-$1"
requirements=$2
"$root/run_pipeline.sh" --install dev >&2
python="$root/.venv/bin/python"
stamp=$(cat "$requirements" "$root/.venv/installed-dev" | cksum)
if [[ ! -f $over/installed || $(<"$over/installed") != "$stamp" ]]; then
  rm -rf "$over"
  "$python" -m venv "$over"
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$over/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
  "$over/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$requirements" >&2
  printf '%s' "$stamp" >"$over/installed"
fi
printf '%s\n' "$over/bin/python"
