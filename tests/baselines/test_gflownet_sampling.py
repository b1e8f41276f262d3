"""Sampling from a table of the policy is sampling from the policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.toys.exact import enumerate_states
from baselines.gflownet.toys.hypergrid import Hypergrid
from baselines.gflownet.toys.tree import TableTask


@pytest.fixture
def generator() -> StochasticDBGFlowNetGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(balance="detailed_balance", width=16, stick=0.0)
    return StochasticDBGFlowNetGenerator(Hypergrid(dimensions=3, side=3), config).double()


@pytest.mark.parametrize("explore", [0.0, 0.3])
@torch.no_grad()
def test_the_table_holds_the_policy_of_every_state(generator, explore):
    states = enumerate_states(generator.environment).states
    going = states[~generator.environment.ended(states)]
    assert len(going) == 27
    many = 100  # walks, so that a table pays
    law = generator._sampling_law(None, many, temperature=1.3, explore=explore)
    torch.testing.assert_close(law(going), generator.action_law(going, None, temperature=1.3, explore=explore))
    assert torch.equal(generator.environment.few_states()[generator.environment.row_of(going)], going)


def test_a_table_is_made_only_where_it_saves_work(generator, monkeypatch):
    asked = []
    policy = generator.network.policy_logits
    monkeypatch.setattr(
        generator.network, "policy_logits", lambda states, thought: asked.append(len(states)) or policy(states, thought)
    )
    generator.sample(100)
    assert asked == [27]
    asked.clear()
    generator.sample(2)  # 27 states are more than two walks of seven steps can visit
    assert set(asked) == {2}
    assert len(asked) > 1


def test_what_cannot_be_listed_says_so():
    tree = TableTask("tree", np.zeros(4), num_tokens=2, num_steps=2)
    assert tree.few_states() is None
    with pytest.raises(NotImplementedError, match="not listed"):
        tree.row_of(tree.initial(1))
