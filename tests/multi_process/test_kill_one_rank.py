"""One of two processes dies: the other ends by itself, and the resumed run ends at the uninterrupted weights."""

from __future__ import annotations

import json
import signal

import pytest

from tests.multi_process.processes import run_together
from tests.multi_process.workers import killed_stage, run_stage, watched_stage
from tests.stages.test_kill_and_resume import assert_same_training, last_checkpoint

FLAGS = {"stage1": [], "stage2": ["--stage2.start_from", "base", "--stage2.batch_size", "4"]}


@pytest.fixture(scope="module", params=FLAGS)
def uninterrupted(request, prepared, tmp_path_factory):
    """A stage trained by two processes, its name, and what each of them wrote."""
    stage = request.param
    run = prepared(tmp_path_factory.mktemp(stage) / "whole")
    record = run.root / "record"
    outcome = run_together(2, run.root / "logs", watched_stage, run.root, stage, FLAGS[stage], record)
    assert outcome.codes == [0, 0], "\n".join(outcome.texts)
    return run, stage, [json.loads((record / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_rank_ends_the_other_and_the_run_resumes_to_the_same_weights(uninterrupted, prepared, tmp_path, victim):
    whole, stage, _ = uninterrupted
    run = prepared(tmp_path / "killed")
    step = 3
    outcome = run_together(2, tmp_path / "first", killed_stage, run.root, stage, FLAGS[stage], victim, step)
    survivor = 1 - victim
    assert outcome.codes[victim] == -signal.SIGKILL
    assert outcome.codes[survivor] == 1
    assert outcome.ended[survivor] < outcome.ended[victim] + 30
    assert "another process of this run ended" in outcome.texts[survivor]
    assert "Traceback" not in outcome.texts[survivor]
    assert last_checkpoint(run, stage).name == "checkpoint-2"
    assert not (run.place(stage) / "manifest.json").exists()
    outcome = run_together(2, tmp_path / "second", run_stage, run.root, stage, FLAGS[stage])
    assert outcome.codes == [0, 0], "\n".join(outcome.texts)
    assert json.loads((run.place(stage) / "manifest.json").read_text())["resumed_from"] == "checkpoint-2"
    assert_same_training(run, whole, stage)


@pytest.mark.slow
def test_rank_0_alone_writes(uninterrupted):
    _, _, (first, second) = uninterrupted
    # transformers keeps one random state per process in a checkpoint, each written by its own
    assert [path for path in second if not path.endswith("/rng_state_1.pth")] == []
    for name in (
        "manifest.json",
        "adapter_model.safetensors",
        "log_history.json",
        "optimizer.pt",
        "trainer_state.json",
    ):
        assert any(path.rpartition("/")[2].startswith((name, f".{name}")) for path in first), name
