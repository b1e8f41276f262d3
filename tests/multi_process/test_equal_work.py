"""One process and several that share the same global batch compute the same loss, gradient and weights."""

from __future__ import annotations

import pytest
import torch

from tests.multi_process.processes import run_together
from tests.multi_process.recorded import PROMPTS, TENSOR, Recorded, assert_same_training, flags_of
from tests.multi_process.workers import recorded_stage
from tests.tiny_runs import GROUP

pytestmark = pytest.mark.slow
COUNTS = [1, 2, 4]


@pytest.fixture(scope="module", params=["stage1", "stage2"])
def by_count(request, prepared, tmp_path_factory) -> dict[int, Recorded]:
    stage, recorded = request.param, {}
    for count in COUNTS:
        run = prepared(tmp_path_factory.mktemp(stage) / str(count))
        flags = flags_of(stage, count)
        outcome = run_together(count, run.root / "logs", recorded_stage, run.root, stage, run.root / "record", flags)
        assert outcome.codes == [0] * count, "\n".join(outcome.texts)
        recorded[count] = Recorded(run, stage, count)
    return recorded


@pytest.mark.parametrize("count", COUNTS[1:])
def test_several_processes_compute_what_one_does(by_count, count):
    one, several = by_count[1], by_count[count]
    assert_same_training(several, one)
    for expected, found in zip(one.gradients[0], several.gradients[0], strict=True):
        assert expected.keys() == found.keys()
        assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], **TENSOR)


@pytest.mark.parametrize("count", COUNTS[1:])
def test_all_ranks_step_by_the_same_gradient(by_count, count):
    first, *others = by_count[count].gradients
    for other in others:
        for expected, found in zip(first, other, strict=True):
            assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("by_count", ["stage1"], indirect=True)
@pytest.mark.parametrize("count", COUNTS[1:])
def test_whole_groups_and_all_prompts_of_a_step_are_dealt_to_the_ranks(by_count, count):
    one, several = by_count[1].seen[0], by_count[count].seen
    for step, windows in enumerate(one["windows"]):
        dealt = [rank["windows"][step] for rank in several]
        for share in dealt:
            assert len(share) == PROMPTS // count * GROUP
            assert all(share.count(window) == GROUP for window in share)
        assert [window for share in dealt for window in share] == windows
    assert [rank["rewards"] for rank in several] == [one["rewards"]] * count  # gathered, in one order
