#!/usr/bin/env bash
# From nothing to a compared forecast: the table of contents of the pipeline.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$root/.venv"
python="$venv/bin/python"

usage() {
  cat <<'TEXT'
Usage: ./run_pipeline.sh [FLAGS]

Makes .venv and installs the package once, then runs: preprocess, stage 1 (GRPO), rejection sampling,
stage 2 (SFT), stage 3 (GRPO from SFT), compare. Without flags: the embedded model on a simulated stock, on the CPU.
A preflight comes first: versions, memory, disk, ports, batches and prompt lengths that cannot work stop it in seconds.

  ./run_pipeline.sh
  ./run_pipeline.sh --stock AAPL --data-dir DIR
  ./run_pipeline.sh --config configs/qwen2.5-7b.yaml --stock AAPL --cuda-devices 0,1,2,3
  ./run_pipeline.sh --resume results/RUN

  --resume DIR              go on with a run: finished stages are skipped, a broken one continues
  --cuda-devices 0,1,...    GPUs to use, one process each (default: one process on the first GPU, or on the CPU)
  --num-processes N         number of processes, in place of one per GPU of --cuda-devices; on a CPU too
  --accelerate-config FILE  how several processes work together (default: configs/accelerate/ddp.yaml), and their
                            number where no other flag says it
  --install [EXTRA,...]     only make .venv, with the extras of pyproject.toml (dev, vllm, unsloth, deepspeed)
  --help                    this text and every setting

Every other flag sets a field of the configuration and is kept in the run's config.yaml.
TEXT
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# A Python that pyproject.toml allows and that can make environments.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      "$candidate" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$candidate lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv) and run again"
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python from 3.11 to 3.13 on the PATH; install one and run again"
}

# Identifies an environment: where the checkout lies, what it asks for, and the extras.
stamp_of() {
  { printf '%s\n' "$root" "$1" && cat "$root/pyproject.toml" "$root/constraints.txt"; } | cksum
}

installed() {
  [[ -x $python && ! -e $venv/installing && -f $venv/installed-${1:-base} ]] &&
    [[ $(<"$venv/installed-${1:-base}") == "$(stamp_of "$1")" ]]
}

# Install the package with its locked dependencies; an install that was interrupted starts from an empty .venv.
install() {
  local extras=$1 base
  installed "$extras" && return
  if command -v flock >/dev/null; then # a second command that needs .venv waits for the first to make it
    exec 9>>"$root/.venv.lock" && flock 9
    installed "$extras" && return
  fi
  if [[ -e $venv/installing || ! -x $python ]]; then
    base=$(find_python)
    printf 'Making %s and installing the dependencies, a few minutes the first time ...\n' "$venv" >&2
    rm -rf "$venv" && mkdir "$venv" && touch "$venv/installing"
    "$base" -m venv "$venv"
  fi
  touch "$venv/installing"
  "$python" -m pip install --disable-pip-version-check -e "$root${extras:+[$extras]}" -c "$root/constraints.txt" >&2
  stamp_of "$extras" >"$venv/installed-${extras:-base}"
  rm "$venv/installing"
  exec 9>&-
}

# One process needs no launcher; several share the work as --accelerate-config says. A stage stops where another number
# started than GRPO_NUM_PROCESSES: accelerate starts a single process, without a word, for some files and flags.
launch() {
  if [[ $processes -eq 1 && -z $accelerate_config ]]; then
    "$python" -m "$@"
  else
    GRPO_NUM_PROCESSES=$processes "$python" -m accelerate.commands.accelerate_cli launch --num_processes "$processes" \
      --config_file "${accelerate_config:-$root/configs/accelerate/ddp.yaml}" -m "$@"
  fi
}

choose_devices() {
  local gpus
  gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
  if [[ -n ${cuda_devices:-} ]]; then
    [[ $gpus -eq $(count_items "$cuda_devices") ]] ||
      fail "--cuda-devices $cuda_devices: PyTorch sees $gpus of these; look at nvidia-smi and the driver's version"
  fi
  if [[ -z $processes && -n $cuda_devices ]]; then
    processes=$(count_items "$cuda_devices")
  elif [[ -z $processes && -n $accelerate_config ]]; then
    processes=$(sed -n 's/^num_processes: *\([0-9][0-9]*\).*/\1/p' "$accelerate_config")
  fi
  processes=${processes:-1}
  # accelerate would start several processes that do not know of each other, or pick another accelerator
  [[ $gpus -gt 0 ]] || export ACCELERATE_USE_CPU=true
  device=$(if [[ $gpus -gt 0 ]]; then echo GPU; else echo CPU; fi)
}

count_items() {
  tr ',' '\n' <<<"$1" | grep -c .
}

heading() {
  step=$1
  printf '\n[%s]\n' "$step" >&2
}

on_exit() {
  local code=$?
  if [[ $code -ne 0 && -n $step ]]; then
    printf '\nStopped in [%s]. Go on with:\n  %q --resume %q\n' "$step" "$0" "$run" >&2
  fi
}

run='' step='' resume='' cuda_devices='' processes='' accelerate_config=''
arguments=()
while [[ $# -gt 0 ]]; do
  case $1 in
  --resume=* | --cuda-devices=* | --cuda_devices=* | --num-processes=* | --num_processes=* | --accelerate-config=*)
    set -- "${1%%=*}" "${1#*=}" "${@:2}"
    continue
    ;;
  --resume | --cuda-devices | --cuda_devices | --num-processes | --num_processes | --accelerate-config)
    [[ $# -ge 2 && -n $2 && $2 != --* ]] || fail "$1 needs a value (see --help)"
    case $1 in
    --resume) resume=${2%/} ;;
    --cuda*) cuda_devices=$2 ;;
    --num*) processes=$2 ;;
    --accelerate*) accelerate_config=$2 ;;
    esac
    shift 2
    ;;
  --install)
    install "${2:-}"
    exit
    ;;
  -h | --help)
    usage
    if installed '' || installed dev; then
      printf '\nSettings:\n\n'
      exec "$python" -m grpo.runs start --help
    fi
    printf '\nThe list of settings follows here once .venv is made: ./run_pipeline.sh --install\n'
    exit
    ;;
  *)
    arguments+=("$1")
    shift
    ;;
  esac
done
[[ -z $resume || ${#arguments[@]} -eq 0 ]] ||
  fail "--resume takes the settings from $resume/config.yaml; leave out ${arguments[*]}, or start another run"
[[ $processes =~ ^([1-9][0-9]*)?$ ]] || fail "--num-processes must be a positive number; got $processes"
[[ -z $accelerate_config || -f $accelerate_config ]] || fail "--accelerate-config $accelerate_config: no such file"
[[ -z $cuda_devices ]] || export CUDA_VISIBLE_DEVICES=$cuda_devices

installed dev || install ''
if [[ -n $resume ]]; then
  run=$("$python" -m grpo.runs resume "$resume")
else
  run=$("$python" -m grpo.runs start ${arguments[@]+"${arguments[@]}"})
  if [[ ! -d $run ]]; then # --print_config answers with the configuration itself
    printf '%s\n' "$run"
    exit
  fi
fi
choose_devices
# glibc hands large buffers back to the kernel after every step and takes them again as zeroed pages, which is a
# quarter of the sampling time on a CPU; these bounds let it keep them.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
printf 'Run folder: %s (%s process(es) on the %s)\n' "$run" "$processes" "$device" >&2
# The folder wins over the config's own run_dir, so that a run that was moved resumes where it is now
settings=(--config "$run/config.yaml" --run-dir "$run")

preflight=("${settings[@]}" --num-processes "$processes")
[[ -z $accelerate_config ]] || preflight+=(--accelerate-config "$accelerate_config")
"$python" -m grpo.preflight "${preflight[@]}" >&2

# One stage a line of the table in grpo/runs/stages.py: prices to windows, stage 1 (GRPO), rejection sampling, stage 2
# (SFT), stage 3 (GRPO from SFT), comparison. Those that train share their work among the processes.
stages=$("$python" -m grpo.runs stages)
while IFS=$'\t' read -r module processes_it_takes title <&3; do
  heading "$title"
  if [[ $processes_it_takes == many ]]; then
    launch "$module" "${settings[@]}"
  else
    "$python" -m "$module" "${settings[@]}"
  fi
done 3<<<"$stages"
