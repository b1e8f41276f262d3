"""A model that FSDP2 shards over two processes samples and trains as the whole one does.

By PyTorch's own fully_shard: accelerate shards on GPUs alone.
"""

from __future__ import annotations

import pytest
import torch

from tests.multi_process.processes import run_together
from tests.multi_process.sharded import compare_with_the_whole


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    record = tmp_path_factory.mktemp("fsdp")
    outcome = run_together(2, record / "logs", compare_with_the_whole, 2, record)
    assert outcome.codes == [0, 0], "\n".join(outcome.texts)
    return [torch.load(record / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_samples_and_weights_are_those_of_the_whole_model(ranks):
    for found in ranks:
        samples, expected = found["samples"]
        assert torch.equal(samples, expected)
        weights, expected = found["weights"]
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert ranks[0]["samples"][0].shape[1] != ranks[1]["samples"][0].shape[1]


def test_after_sampling_each_process_holds_a_part(ranks):
    _, whole = ranks[0]["weights"]
    for name, value in whole.items():
        parts = [found["sharded"][name] for found in ranks]
        assert sum(part[0] for part in parts) == len(value)
        assert all(part[0] < len(value) for part in parts)


def test_gradients_through_the_shared_prompts_are_the_mean_over_the_processes(ranks):
    for found in ranks:
        gradients, expected = found["gradients"]
        assert gradients.keys() == expected.keys()
        assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2
        for name in expected:
            torch.testing.assert_close(gradients[name], expected[name], rtol=1e-4, atol=1e-6)
