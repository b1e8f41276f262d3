"""Environments, enumeration and feasibility against independent computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from baselines.gflownet.dynamics import ForwardDynamics, ReplayBuffer, StickyNoise
from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.networks import CausalTransformerTrunk, NetworkConfig, ThoughtEncoder
from baselines.gflownet.toys import exact, feasibility
from baselines.gflownet.toys.hypergrid import Hypergrid
from baselines.gflownet.toys.tree import TableTask, random_tree


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def skewed_tree() -> TableTask:
    """Two tokens, two steps: R = 1, 3 | 6, 10."""
    return TableTask("tree", np.log([1.0, 3.0, 6.0, 10.0]), 2, 2)


# Enumeration


def test_a_tree_is_enumerated_with_its_flows():
    graph = exact.enumerate_states(skewed_tree())
    assert len(graph.states) == 1 + 2 + 4
    assert graph.log_z == pytest.approx(np.log(20))
    np.testing.assert_allclose(np.exp(exact.tree_log_flows(graph)), [20, 4, 16, 1, 3, 6, 10])
    np.testing.assert_allclose(exact.tree_shares(graph)[:3], [[0.2, 0.8], [0.25, 0.75], [0.375, 0.625]])


def test_the_terminal_distribution_is_a_product_along_each_path():
    task = random_tree(num_tokens=3, num_steps=3, min_share=0.0, log_z=0.0, seed=1)
    graph = exact.enumerate_states(task)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=len(graph.states))
    alpha = 0.3
    found = exact.terminal_distribution(graph, exact.executed_policy(graph, policy, alpha))
    rows = {tuple(state): row for row, state in enumerate(graph.states.tolist())}
    for end, probability in zip(graph.ends, found, strict=True):
        state, product = graph.states[end].tolist(), 1.0
        for step in range(3):
            prefix = (*state[: step + 1], *[4] * (3 - step))
            product *= (1 - alpha) * policy[rows[prefix], state[step + 1]] + alpha / 3
        assert probability == pytest.approx(product)
    assert found.sum() == pytest.approx(1)


def test_sampled_ends_have_the_enumerated_distribution():
    for task in (skewed_tree(), Hypergrid(dimensions=2, side=3)):
        graph = exact.enumerate_states(task)
        generator = StochasticDBGFlowNetGenerator(task, GeneratorConfig(width=8, stick=0.4))
        law = exact.executed_policy(graph, exact.learnt_policy(generator, graph), 0.4)
        expected = exact.terminal_distribution(graph, law)
        count = 40_000
        ends = generator.sample(count).ends
        rows = {tuple(state): row for row, state in enumerate(graph.states[graph.ends].tolist())}
        drawn = np.bincount([rows[tuple(end)] for end in ends.tolist()], minlength=len(expected))
        spread = np.sqrt(count * expected * (1 - expected))
        assert np.all(np.abs(drawn - count * expected) < 4.5 * spread)


def test_the_grid_has_as_many_ends_as_places_and_is_no_tree():
    grid = Hypergrid(dimensions=2, side=4)
    graph = exact.enumerate_states(grid)
    assert len(graph.ends) == 16
    assert len(graph.states) == 32
    assert not feasibility.is_tree(graph)
    assert feasibility.is_tree(exact.enumerate_states(skewed_tree()))
    # a uniform choice among the allowed: (0, 0) stops with 1/3, (1, 0) is reached with 1/3 and stops with 1/3
    uniform = exact.executed_policy(graph, np.zeros(graph.children.shape), 1.0)
    found = exact.terminal_distribution(graph, uniform)
    ends = graph.states[graph.ends].tolist()
    assert found[ends.index([0, 0, 1])] == pytest.approx(1 / 3)
    assert found[ends.index([1, 0, 1])] == pytest.approx(1 / 9)
    assert found[ends.index([1, 1, 1])] == pytest.approx(2 / 27)


def test_too_large_an_environment_is_refused():
    with pytest.raises(exact.UserError, match="hypergrid has more than"):
        exact.enumerate_states(Hypergrid(dimensions=4, side=30))


def test_random_trees_keep_their_least_share():
    task = random_tree(num_tokens=4, num_steps=3, min_share=0.1, log_z=2.0, seed=5)
    graph = exact.enumerate_states(task)
    shares = exact.tree_shares(graph)[graph.allowed]
    assert shares.min() >= 0.1 - 1e-9
    assert shares.max() > 0.4
    assert graph.log_z == pytest.approx(2.0)
    with pytest.raises(ValueError, match="min_share"):
        random_tree(num_tokens=4, num_steps=3, min_share=0.3, log_z=0.0, seed=0)


# Feasibility


def test_the_balanced_policy_reaches_the_target_exactly():
    task = random_tree(num_tokens=3, num_steps=3, min_share=0.12, log_z=0.0, seed=2)
    graph = exact.enumerate_states(task)
    alpha = 0.36
    policy = exact.balanced_policy(graph, alpha)
    assert policy[graph.allowed].min() >= 0
    found = exact.terminal_distribution(graph, exact.executed_policy(graph, policy, alpha))
    assert exact.l1_distance(found, graph.target) < 1e-12


def test_the_limit_is_where_the_policy_turns_negative():
    graph = exact.enumerate_states(skewed_tree())
    limit = feasibility.measure(graph, 0.1).limit
    assert limit == pytest.approx(0.4)  # the least share is .2 of two children
    assert exact.balanced_policy(graph, 0.399)[graph.allowed].min() > 0
    assert exact.balanced_policy(graph, 0.401)[graph.allowed].min() < 0
    assert feasibility.measure(graph, 0.399).feasible
    assert feasibility.measure(graph, 0.401).feasible is False


def test_what_is_out_of_reach_by_hand():
    graph = exact.enumerate_states(skewed_tree())
    found = feasibility.measure(graph, 0.45)  # every child gets at least .225; only the first step is short, by .025
    assert found.short_states == 1
    assert found.short_flow == pytest.approx(1.0)
    assert found.least_l1 == pytest.approx(2 * 0.025)
    assert found.nearest_kl_l1 == pytest.approx(2 * 0.025)
    assert "INFEASIBLE" in feasibility.report(found)
    assert "2.5% of the flow is unreachable" in feasibility.report(found)
    assert "feasible: some policy reaches R/Z exactly" in feasibility.report(feasibility.measure(graph, 0.2))


def test_flow_through_short_states_counts_each_path_once():
    graph = exact.enumerate_states(skewed_tree())
    found = feasibility.measure(graph, 0.55)  # bound .275: the first step (.2) and the left child (.25) are short
    assert found.short_states == 2
    assert found.short_flow == pytest.approx(1.0)
    lower = TableTask("tree", np.log([1.0, 9.0, 6.0, 4.0]), 2, 2)
    found = feasibility.measure(exact.enumerate_states(lower), 0.3)  # bound .15: the left child's .1 alone
    assert found.short_states == 1
    assert found.short_flow == pytest.approx(0.5)


def test_no_random_policy_beats_the_least_distance_and_the_nearest_kl():
    graph = exact.enumerate_states(random_tree(num_tokens=3, num_steps=2, min_share=0.02, log_z=0.0, seed=7))
    alpha = 0.5
    found = feasibility.measure(graph, alpha)
    nearest = exact.terminal_distribution(graph, feasibility.nearest_kl(graph, alpha))
    divergence = (graph.target * np.log(graph.target / nearest)).sum()
    assert 0 < found.least_l1 <= found.nearest_kl_l1 + 1e-12
    generator = np.random.default_rng(0)
    base = np.maximum(exact.balanced_policy(graph, alpha), 0)
    base /= np.maximum(base.sum(axis=1, keepdims=True), 1e-9)
    for trial in range(300):
        noise = generator.dirichlet(np.ones(3), size=len(graph.states))
        policy = base + (trial / 300) ** 2 * (noise - base)
        law = exact.terminal_distribution(graph, exact.executed_policy(graph, policy, alpha))
        if law.sum() < 1 - 1e-9:
            continue
        assert exact.l1_distance(law, graph.target) >= found.least_l1 - 1e-9
        assert (graph.target * np.log(graph.target / law)).sum() >= divergence - 1e-9


def test_the_optimum_of_expected_balance_is_the_target_smoothed_twice():
    task, alpha = random_tree(num_tokens=3, num_steps=2, min_share=0.0, log_z=0.0, seed=3), 0.4
    graph = exact.enumerate_states(task)
    law = exact.executed_policy(graph, exact.expected_policy(graph, alpha), alpha)
    shares = exact.tree_shares(graph)
    np.testing.assert_allclose(law[graph.allowed], (0.36 * shares + 0.64 / 3)[graph.allowed])


def test_a_graph_that_is_no_tree_is_judged_by_the_linear_programme():
    graph = exact.enumerate_states(Hypergrid(dimensions=2, side=3))
    assert feasibility.measure(graph, 0.0).feasible
    strong = feasibility.measure(graph, 0.9)
    assert strong.feasible is False
    assert strong.limit is None
    uniform = exact.terminal_distribution(graph, exact.executed_policy(graph, np.zeros(graph.children.shape), 1.0))
    assert 0 < strong.least_l1 < exact.l1_distance(uniform, graph.target)


# Environments and noise


def test_sticky_noise_has_its_law():
    noise, allowed = StickyNoise(0.3), torch.tensor([[True, True, False, True]])
    law = noise.log_probabilities(torch.tensor([1]), allowed).exp()[0]
    assert law.tolist() == pytest.approx([0.1, 0.8, 0.0, 0.1])
    executed = noise.execute(torch.ones(60_000, dtype=torch.long), allowed.expand(60_000, -1))
    shares = torch.bincount(executed, minlength=4) / 60_000
    assert shares.tolist() == pytest.approx([0.1, 0.8, 0.0, 0.1], abs=0.006)
    policy = noise.executed_policy(torch.tensor([[0.5, 0.25, 0.0, 0.25]]), allowed)[0]
    assert policy.tolist() == pytest.approx([0.45, 0.275, 0.0, 0.275])


@pytest.mark.parametrize("noise", [False, True])
def test_backward_pairs_are_those_that_could_have_led_there(noise):
    for task in (random_tree(num_tokens=3, num_steps=2, min_share=0, log_z=0, seed=0), Hypergrid(dimensions=2, side=3)):
        graph = exact.enumerate_states(task)
        possible = set()
        for parent, executed in zip(*np.nonzero(graph.allowed), strict=True):
            for intended in np.flatnonzero(graph.allowed[parent]) if noise else [executed]:
                slot = int(task.slots(torch.tensor(executed)))
                possible.add((graph.children[parent, executed], slot, int(intended)))
        entered = graph.states[1:]
        found = task.backward_allowed(entered, noise=noise).numpy()
        assert {(row + 1, slot, action) for row, slot, action in zip(*np.nonzero(found), strict=True)} == possible


def test_the_empty_sequence_is_a_state_of_its_own():
    task = random_tree(num_tokens=3, num_steps=2, min_share=0, log_z=0, seed=0)
    start = task.initial(1)
    assert start.tolist() == [[3, 4, 4]]
    assert task.step(start, torch.tensor([2])).tolist() == [[3, 2, 4]]
    codes = {tuple(row) for row in task.encode(exact.enumerate_states(task).states).tolist()}
    assert len(codes) == 1 + 3 + 9
    generator = StochasticDBGFlowNetGenerator(task, GeneratorConfig(width=8, stick=0.0))
    batch = generator.sample(50)
    loss, _ = generator.get_loss(batch)
    loss.backward()
    # the first column of features is "no token yet" of the first place: only the start has it
    gradient = generator.network.trunk.layers[0].weight.grad
    assert gradient[:, 3].abs().max() > 0


def test_the_transformer_reads_a_trajectory_as_it_reads_each_state():
    task = random_tree(num_tokens=3, num_steps=4, min_share=0, log_z=0, seed=0)
    trunk = CausalTransformerTrunk(task, NetworkConfig(trunk="transformer", width=16, heads=2), 4).eval()
    path = StochasticDBGFlowNetGenerator(task, GeneratorConfig(width=8)).sample(6).states
    thought = torch.randn(6, 4)
    apart = trunk(path, thought[:, None].expand(-1, 5, -1))
    torch.testing.assert_close(trunk.along(path, thought), apart, rtol=1e-5, atol=1e-6)
    other = path.clone()
    other[:, -1, 3] = (other[:, -1, 3] + 1) % 3  # a later token changes nothing before it
    torch.testing.assert_close(trunk.along(other, thought)[:, :3], apart[:, :3], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(trunk.along(other, thought)[:, 3], apart[:, 3])


@pytest.mark.parametrize("kind", [{"vocabulary": 5}, {"features": 3}])
def test_the_context_reaches_policy_flow_and_dynamics(kind):
    task = random_tree(num_tokens=3, num_steps=2, min_share=0, log_z=0, seed=0)
    config = GeneratorConfig(width=16, thought_width=8, heads=2, stick=0.2)
    generator = StochasticDBGFlowNetGenerator(task, config, ThoughtEncoder(config, 6, **kind))
    contexts = torch.randint(5, (2, 6)) if "vocabulary" in kind else torch.randn(2, 6, 3)
    batch = generator.sample(8, thought=contexts)  # four trajectories share a context
    loss, info = generator.get_loss(batch)
    loss.backward()
    assert torch.equal(info["inp_x_thought"], contexts)
    assert info["log_z"][:4].unique().numel() == 1
    assert info["log_z"].unique().numel() == 2
    assert generator.thought.positions.grad.abs().max() > 0
    encoded = generator.encode(contexts, 2)
    swapped = torch.cat([encoded[1:], encoded[:1]])
    start = task.initial(2)
    law, other = generator.action_law(start, encoded), generator.action_law(start, swapped)
    assert not torch.allclose(law, other)
    torch.testing.assert_close(law, torch.flip(other, [0]))
    intended = torch.zeros(2, dtype=torch.long)
    assert not torch.allclose(
        generator.dynamics(start, intended, encoded), generator.dynamics(start, intended, swapped)
    )
    order = contexts.flip(1)
    assert not torch.allclose(generator.encode(order, 2), encoded)  # positions are told apart


def test_dynamics_put_nothing_on_what_is_not_allowed():
    grid = Hypergrid(dimensions=2, side=2)
    states = torch.tensor([[1, 0, 0]])
    law = ForwardDynamics(grid, 8)(states, torch.tensor([1])).exp()[0]
    assert law[0] == 0
    assert law.sum().item() == pytest.approx(1)


def test_the_buffer_is_a_ring():
    buffer = ReplayBuffer(5)
    for first in (0, 3, 6):
        rows = torch.arange(first, first + 3)
        buffer.add(rows[:, None], rows)
    assert len(buffer) == 5
    states, numbers = buffer.sample(500)
    assert set(numbers.tolist()) == {4, 5, 6, 7, 8}
    assert torch.equal(states[:, 0], numbers)
    again = ReplayBuffer(5)
    again.restore(buffer.state())
    again.add(torch.tensor([[9]]), torch.tensor([9]))
    assert set(again.sample(500)[1].tolist()) == {5, 6, 7, 8, 9}
    many = ReplayBuffer(4)
    many.add(torch.arange(10))
    assert set(many.sample(200)[0].tolist()) == {6, 7, 8, 9}
    growing = ReplayBuffer(3000)
    growing.add(torch.arange(1000))
    growing.add(torch.arange(1000, 2500))
    assert sorted(growing.state()["0"].tolist()) == list(range(2500))


def test_the_reward_of_the_grid_by_hand():
    grid = Hypergrid(dimensions=2, side=8)  # |x/7 - .5|: .5, .357, .214, .071, ... 1 is in the ring, 0 in the corner
    places = list(itertools.product(range(8), range(8)))
    rewards = grid.log_reward(torch.tensor([[x, y, 1] for x, y in places])).exp()
    by_hand = [
        0.1 + 0.5 * (x in (0, 1, 6, 7) and y in (0, 1, 6, 7)) + 2 * (x in (1, 6) and y in (1, 6)) for x, y in places
    ]
    np.testing.assert_allclose(rewards, by_hand)
