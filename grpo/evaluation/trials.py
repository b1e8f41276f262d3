"""Every comparison on this machine, one line each: how many forecasters were tried before one looked good.

A Sharpe ratio that is the best of many means less than the same ratio of a single trial. The log counts the trials, so
that `trading.deflated_sharpe` can tell. It lies beside the runs (results_dir/trials.jsonl) and is never sent anywhere.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocessing.files import JsonObject

TRIALS_FILE = "trials.jsonl"


@dataclass(frozen=True)
class Trials:
    """What was tried so far.

    Attributes:
        num_trials: different forecasters on different windows, those without a Sharpe ratio included.
        sharpe_variance: variance of their annual Sharpe ratios; 0 with fewer than two.
        unreadable: lines of the log that hold no record, such as one that a kill cut short.
    """

    num_trials: int
    sharpe_variance: float
    unreadable: int


def log_trials(file: Path, record: Mapping[str, object]) -> bool:
    """Append one comparison to the log, unless a line with the same `key` is there; whether it was appended.

    Several processes may write at the same time: the file is locked while it is read and written.

    Args:
        file: the log; its folder is made.
        record: plain JSON values with at least `key` (of the whole comparison) and `sharpe`: the annual Sharpe ratio
            or None of each forecaster, by a key of forecaster and windows.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # closing the file unlocks it
        log.seek(0)
        lines = log.read()
        if any(former.get("key") == record["key"] for former in _records(lines.splitlines())):
            return False
        cut_short = "\n" if lines and not lines.endswith("\n") else ""  # a kill may have left half a line
        log.write(f"{cut_short}{json.dumps(record, allow_nan=False)}\n")
        log.flush()
    return True


def read_trials(file: Path) -> Trials:
    """Count the trials of a log; a file that is not there holds none."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    records = _records(lines)
    sharpe: dict[str, float | None] = {}
    for record in records:
        # the same forecaster, rule and windows again are the same trial, not a second one
        sharpe |= record["sharpe"]
    ratios = [ratio for ratio in sharpe.values() if ratio is not None]
    return Trials(
        num_trials=len(sharpe),
        sharpe_variance=float(np.var(ratios, ddof=1)) if len(ratios) > 1 else 0.0,
        unreadable=len([line for line in lines if line.strip()]) - len(records),
    )


def _records(lines: Sequence[str]) -> list[JsonObject]:
    """The lines that are records; a line cut short by a kill is none."""
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "key" in record and isinstance(record.get("sharpe"), dict):
            found.append(record)
    return found
