from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from grpo.evaluation.trials import Trials, log_trials, read_trials


def test_a_trial_counts_once_however_often_it_is_run(tmp_path):
    file = tmp_path / "results" / "trials.jsonl"
    assert read_trials(file) == Trials(0, 0.0, 0)
    assert log_trials(file, {"key": "one", "sharpe": {"a": 0.5, "b": None}})
    assert not log_trials(file, {"key": "one", "sharpe": {"a": 0.9, "b": None}})
    assert log_trials(file, {"key": "two", "sharpe": {"a": 0.5, "c": -0.7}})
    assert len(file.read_text().splitlines()) == 2
    trials = read_trials(file)
    assert trials.num_trials == 3
    assert trials.sharpe_variance == pytest.approx(np.var([0.5, -0.7], ddof=1))


def test_a_line_cut_short_is_passed_by_and_spoils_no_other(tmp_path):
    file = tmp_path / "trials.jsonl"
    log_trials(file, {"key": "one", "sharpe": {"a": 0.5}})
    with file.open("a") as log:
        log.write('{"key": "two", "sha')
    log_trials(file, {"key": "three", "sharpe": {"b": 0.1}})
    trials = read_trials(file)
    assert (trials.num_trials, trials.unreadable) == (2, 1)
    with file.open("a") as log:
        log.write('[1]\n{"key": 1}\n\n')
    assert read_trials(file).unreadable == 3


def append(arguments: tuple[Path, int]) -> bool:
    file, number = arguments
    return log_trials(file, {"key": f"run {number % 20}", "sharpe": {str(number % 20): 1.0, "padding" * 3000: 0.0}})


def test_processes_that_write_at_once_lose_and_double_nothing(tmp_path):
    file = tmp_path / "trials.jsonl"
    with ProcessPoolExecutor(4) as pool:
        appended = list(pool.map(append, [(file, number) for number in range(40)]))
    assert sum(appended) == 20
    keys = [json.loads(line)["key"] for line in file.read_text().splitlines()]
    assert sorted(keys) == sorted(f"run {number}" for number in range(20))
    assert read_trials(file) == Trials(21, pytest.approx(np.var([1.0] * 20 + [0.0], ddof=1)), 0)
