"""Balance conditions: zero at solutions worked out by other means, and equal where algebra says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines.gflownet.generator import StochasticDBGFlowNetGenerator, StochasticKLGFlowNetGenerator
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.losses import (
    detailed_balance,
    entropy_ratio,
    expected_balance,
    stochastic_db,
    sub_trajectory_balance,
    trajectory_balance,
)
from baselines.gflownet.toys import exact
from baselines.gflownet.toys.hypergrid import Hypergrid
from baselines.gflownet.toys.tree import random_tree
from baselines.gflownet.trajectories import Trajectories
from tests.baselines.gflownet_tables import tree_tables


@pytest.fixture(autouse=True)
def doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


TREE = random_tree(num_tokens=3, num_steps=3, min_share=0.1, log_z=0.7, seed=4)
GRAPH = exact.enumerate_states(TREE)


def at_the_solution(balance: str, alpha: float, kind=StochasticDBGFlowNetGenerator, **settings):
    """A generator whose tables are the exact flows and policies of its condition."""
    if balance == "expected_balance":
        policy = exact.expected_policy(GRAPH, alpha)
    else:
        policy = exact.balanced_policy(GRAPH, 0.0 if balance == "detailed_balance" else alpha)
    assert policy.min() > -1e-12
    network = tree_tables(GRAPH, policy, exact.tree_log_flows(GRAPH), alpha)
    config = GeneratorConfig(balance=balance, stick=alpha, learn_dynamics=False, explore=0.3, **settings)
    return kind(TREE, config, network=network)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.29])
@pytest.mark.parametrize(
    "balance",
    ["stochastic_db", "expected_balance", "detailed_balance", "trajectory_balance", "sub_trajectory_balance"],
)
def test_the_loss_is_zero_at_the_solution_and_only_there(balance, alpha):
    generator = at_the_solution(balance, alpha)
    batch = generator.sample(200, exploring=True)
    loss, info = generator.get_loss(batch)
    assert loss.item() < 1e-24
    assert info["log_z"].tolist() == pytest.approx([0.7] * 200)
    with torch.no_grad():
        generator.network.policy[0, 0] += 0.1
    assert generator.get_loss(batch)[0].item() > 1e-5


@pytest.mark.parametrize("kl_share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("balance", ["stochastic_db", "expected_balance", "detailed_balance"])
def test_the_kl_loss_has_the_same_optimum(balance, kl_share):
    generator = at_the_solution(balance, 0.2, StochasticKLGFlowNetGenerator, gamma=0.5, kl_share=kl_share)
    batch = generator.sample(100, exploring=True)
    assert generator.get_loss(batch)[0].item() < 1e-12
    with torch.no_grad():
        generator.network.policy[0, 0] += 0.1
    assert generator.get_loss(batch)[0].item() > 1e-5


def test_the_kl_generator_at_gamma_one_and_share_zero_is_the_plain_one():
    settings = GeneratorConfig(stick=0.2, width=16, gamma=1.0, kl_share=0.0, explore=0.1)
    results = []
    for kind in (StochasticDBGFlowNetGenerator, StochasticKLGFlowNetGenerator):
        torch.manual_seed(3)
        generator = kind(TREE, settings)
        optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
        for _ in range(3):
            batch = generator.sample(20, exploring=True)
            loss, info = generator.get_loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        results.append((loss.item(), batch.executed, info, [p.detach() for p in generator.parameters()]))
    (loss, executed, _, parameters), (kl_loss, kl_executed, kl_info, kl_parameters) = results
    assert loss == kl_loss
    assert torch.equal(executed, kl_executed)
    assert kl_info["weights"].unique().tolist() == [1.0]
    assert all(torch.equal(one, other) for one, other in zip(parameters, kl_parameters, strict=True))


def test_residuals_by_hand():
    log_flows = torch.tensor([[3.0, 2.0, 0.5]])
    log_policy, log_dynamics = torch.tensor([[-1.0, -0.5]]), torch.tensor([[-0.25, -0.125]])
    log_backward = torch.tensor([[-0.5, -2.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    first, second = 3 - 1 - 0.25 - 2 + 0.5, 2 - 0.5 - 0.125 - 0.5 + 2  # .25 and 2.875
    found = stochastic_db.residuals(log_flows, log_policy, log_dynamics, log_backward)
    assert found.tolist() == [[first, second]]
    loss = stochastic_db.loss(log_flows, log_policy, log_dynamics, log_backward, mask)
    assert loss.item() == pytest.approx((first**2 + second**2) / 2)
    assert detailed_balance.residuals(log_flows, log_policy, log_backward).tolist() == [[0.5, 3.0]]
    forward = log_policy + log_dynamics
    whole = trajectory_balance.residuals(log_flows[:, 0], log_flows[:, 2], forward, log_backward, mask)
    assert whole.item() == pytest.approx(first + second)
    pieces = sub_trajectory_balance.loss(log_flows, forward, log_backward, mask, decay=0.5)
    # two pieces of one step weigh 1 each, the one of two steps .5
    assert pieces.item() == pytest.approx((first**2 + second**2 + 0.5 * (first + second) ** 2) / 2.5)
    expected = expected_balance.residuals(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[-1.0]]),
        torch.tensor([[[math.log(0.75), math.log(0.25)]]]),
        torch.tensor([[[math.log(4.0), math.log(8.0)]]]),
    )
    assert expected.item() == pytest.approx(1 - 1 - math.log(0.75 * 4 + 0.25 * 8))


def test_steps_that_were_not_taken_count_for_nothing():
    torch.manual_seed(1)
    flows, forward, backward = torch.randn(2, 4), torch.randn(2, 3), torch.randn(2, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    other_forward, other_backward = forward.clone(), backward.clone()
    other_forward[0, 2], other_backward[0, 2] = -math.inf, 7.0
    ended = flows.clone()
    ended[0, 3] = ended[0, 2]
    for loss in (
        lambda f, b: detailed_balance.loss(ended, f, b, mask),
        lambda f, b: trajectory_balance.loss(ended[:, 0], ended[:, -1], f, b, mask),
        lambda f, b: sub_trajectory_balance.loss(ended, f, b, mask, decay=0.9),
    ):
        assert loss(forward, backward).item() == pytest.approx(loss(other_forward, other_backward).item())
        leaf = other_forward.clone().requires_grad_()
        loss(leaf, other_backward).backward()
        assert leaf.grad is not None
        assert leaf.grad[0, 2] == 0
        assert torch.isfinite(leaf.grad).all()


def test_without_noise_stochastic_balance_is_detailed_balance():
    one = at_the_solution("stochastic_db", 0.0)
    other = at_the_solution("detailed_balance", 0.0)
    with torch.no_grad():
        for generator in (one, other):
            generator.network.policy += torch.linspace(0, 1, 3)
            generator.network.flow += 0.2
    batch = one.sample(30)
    assert one.get_loss(batch)[0].item() == other.get_loss(batch)[0].item() > 0.01


def test_no_gradient_reaches_the_dynamics_through_the_balance():
    law = torch.zeros(1, 1, 2, requires_grad=True)
    flows = torch.zeros(1, 2, requires_grad=True)
    step, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    loss = stochastic_db.loss(flows + 1, step, law[..., 0], step - 1, mask)
    (loss + expected_balance.loss(flows + 1, step, law, torch.zeros(1, 1, 2), mask)).backward()
    assert law.grad is None
    assert flows.grad is not None
    generator = StochasticDBGFlowNetGenerator(TREE, GeneratorConfig(stick=0.2, width=8))
    generator.get_loss(generator.sample(10))[0].backward()
    assert generator.dynamics is not None
    assert all(p.grad is None for p in generator.dynamics.parameters())
    assert all(p.grad is not None for p in generator.network.parameters())


# KL and entropy ratio


def test_the_kl_penalty_goes_on_along_its_tangent():
    values = torch.tensor([0.0, 1.0, -1.0, -10.0, -12.0], requires_grad=True)
    penalty = entropy_ratio.kl_penalty(values)
    slope = 1 - math.exp(10)
    by_hand = [0.0, math.exp(-1), math.e - 2, math.exp(10) - 11, math.exp(10) - 11 - 2 * slope]
    assert penalty.tolist() == pytest.approx(by_hand)
    penalty.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0, 1 - math.exp(-1), 1 - math.e, slope, slope])


def test_mixed_penalties_share_their_curvature_at_zero():
    small = torch.tensor([1e-3, -1e-3])
    for share in (0.0, 0.4, 1.0):
        assert entropy_ratio.mixed_penalty(small, share).tolist() == pytest.approx([1e-6, 1e-6], rel=1e-3)
    mixed = entropy_ratio.mixed_penalty(torch.tensor([2.0]), 0.25).item()
    assert mixed == pytest.approx(0.75 * 4 + 0.5 * (1 + math.exp(-2)))


def test_entropies_are_entropies():
    law = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]]).log()
    allowed = torch.tensor([[[True, True, False], [True, False, False], [True, True, True]]])
    found = entropy_ratio.normalised_entropy(law, allowed)
    assert found.tolist()[0] == pytest.approx([1.0, 0.0, 1.5 * math.log(2) / math.log(3)])


def test_weights_by_hand():
    entropy = torch.tensor([[0.0, 0.5, 1.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    # mean .5, gamma .5: raw 0, .5/.5 = 1, 1/.75 = 4/3; their mean is 7/9
    found = entropy_ratio.step_weights(entropy, mask, 0.5)[0, :3].tolist()
    assert found == pytest.approx([0.25, 9 / 7, 12 / 7])  # the first is cut to .25
    assert entropy_ratio.step_weights(entropy, mask, 1.0).tolist() == [[1.0] * 4]
    assert entropy_ratio.step_weights(torch.zeros(1, 4), mask, 0.5).tolist() == [[1.0] * 4]
    peaked = torch.zeros(1, 10)
    peaked[0, 0] = 1.0
    found = entropy_ratio.step_weights(peaked, torch.ones(1, 10, dtype=torch.bool), 0.1)
    assert found[0, 0] == 4.0


def test_quantiles_move_slowly_and_set_the_ratio():
    entropy = torch.linspace(0, 1, 11)[None]
    mask = torch.ones_like(entropy, dtype=torch.bool)
    first = entropy_ratio.updated_quantiles(torch.full((2,), torch.nan), entropy, mask, 0.75)
    assert first.tolist() == pytest.approx([0.9, 0.1])
    second = entropy_ratio.updated_quantiles(first, entropy / 2, mask, 0.75)
    assert second.tolist() == pytest.approx([0.75 * 0.9 + 0.25 * 0.45, 0.75 * 0.1 + 0.25 * 0.05])
    assert entropy_ratio.entropy_ratio(0.9, 0.1, 0.5) == pytest.approx(0.9 / 0.5)
    assert entropy_ratio.entropy_ratio(0.9, 0.0, 0.5) == pytest.approx(1 / 0.5)
    assert entropy_ratio.entropy_ratio(0.4, 0.4, 0.5) == pytest.approx(1.0)
    assert entropy_ratio.entropy_ratio(0.0, 0.0, 0.5) == 1.0


def test_the_kl_generator_flattens_what_it_collects():
    generator = at_the_solution("stochastic_db", 0.0, StochasticKLGFlowNetGenerator, gamma=0.5)
    batch = generator.sample(50, exploring=True)
    assert generator.flattening() == 1.0
    generator.get_loss(batch)
    high, low = generator.entropy_quantiles.tolist()
    assert generator.flattening() == pytest.approx(high / (0.5 * high + 0.5 * low))
    law = exact.tree_shares(GRAPH)[0]
    flat = generator.action_law(GRAPH.states[:1], None, temperature=2.0)[0].detach().numpy()
    np.testing.assert_allclose(flat, np.sqrt(law) / np.sqrt(law).sum(), rtol=1e-9)
    mixed = generator.action_law(GRAPH.states[:1], None, explore=0.3)[0].detach().numpy()
    np.testing.assert_allclose(mixed, 0.7 * law + 0.1, rtol=1e-9)


def test_the_info_holds_what_its_docstring_says():
    grid = Hypergrid(dimensions=2, side=4)
    generator = StochasticKLGFlowNetGenerator(grid, GeneratorConfig(stick=0.2, width=8, reward_exponent=2.0))
    batch = generator.sample(5)
    _, info = generator.get_loss(batch)
    steps, actions = int(batch.mask.sum(dim=1).max()), 3
    shapes = {
        "inp_x": (5, steps + 1, 3),
        "real_actions": (5, steps),
        "intended_actions": (5, steps),
        "mask": (5, steps),
        "pol_logits": (5, steps, actions),
        "pol_back_logits": (5, steps, actions * actions),
        "log_flows": (5, steps),
        "end_log_flow": (5,),
        "log_z": (5,),
        "log_dynamics": (5, steps),
        "entropy": (5, steps),
        "weights": (5, steps),
        "residuals": (5, steps),
    }
    assert {name: tuple(info[name].shape) for name in shapes} == shapes
    assert torch.equal(info["end_log_flow"], 2 * grid.log_reward(batch.ends))
    assert torch.equal(info["log_z"], info["log_flows"][:, 0])
    assert not info["log_dynamics"].requires_grad


def test_the_floor_of_the_reward_comes_before_its_exponent():
    generator = StochasticDBGFlowNetGenerator(
        TREE, GeneratorConfig(width=8, reward_floor=0.05, reward_exponent=3.0, stick=0.0)
    )
    ends = GRAPH.states[GRAPH.ends]
    steps = torch.zeros(len(ends), 3, dtype=torch.long)
    found = generator.log_rewards(Trajectories(ends[:, None], steps, steps, steps.bool()))
    by_hand = 3 * np.log(np.maximum(np.exp(GRAPH.log_rewards), 0.05))
    assert (np.exp(GRAPH.log_rewards) < 0.05).any()
    np.testing.assert_allclose(found, by_hand)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"balance": "flow"}, "balance must be one of"),
        ({"stick": 1.0}, "stick must be in"),
        ({"gamma": 0.0}, "gamma must be in"),
        ({"kl_share": 2.0}, "kl_share must be in"),
        ({"explore": 1.0}, "explore must be in"),
        ({"trunk": "cnn"}, "trunk must be"),
        ({"heads": 5}, "must divide thought_width"),
        ({"reward_exponent": 0.0}, "reward_exponent must be above 0"),
        ({"forward_looking": True, "explicit_z": True}, "forward_looking goes with"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**settings)


def test_conditions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="states with one parent"):
        StochasticDBGFlowNetGenerator(Hypergrid(dimensions=2, side=3), GeneratorConfig(balance="expected_balance"))
    with pytest.raises(ValueError, match="the KL generator weighs steps"):
        StochasticKLGFlowNetGenerator(TREE, GeneratorConfig(balance="trajectory_balance"))
    with pytest.raises(ValueError, match="use trunk mlp"):
        StochasticDBGFlowNetGenerator(Hypergrid(dimensions=2, side=3), GeneratorConfig(trunk="transformer"))
    generator = StochasticDBGFlowNetGenerator(TREE, GeneratorConfig(forward_looking=True, width=8, stick=0.0))
    batch = generator.sample(2)
    with pytest.raises(NotImplementedError, match="no forward-looking flows"):
        generator.get_loss(batch)
