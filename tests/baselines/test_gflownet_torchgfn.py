"""The deterministic losses equal those of torchgfn 2.4.1 on the same trajectories, flows and policies.

The batch is a file made by gflownet_torchgfn_oracle.py; where the environment variable TORCHGFN_PYTHON names a Python
that has torchgfn, it is made anew and compared with the file as well.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
from baselines.gflownet.generator_config import Balance, GeneratorConfig
from baselines.gflownet.toys.exact import enumerate_states
from baselines.gflownet.toys.hypergrid import Hypergrid
from baselines.gflownet.trajectories import Trajectories
from tests.baselines.gflownet_tables import TableNetwork

HERE = Path(__file__).parent
FIXTURE, ORACLE = HERE / "gflownet_torchgfn.json", HERE / "gflownet_torchgfn_oracle.py"


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network_of(oracle: dict, grid: Hypergrid) -> TableNetwork:
    """Its tables by our states: a coordinate's backward logit stands at the pair (slot k, intended k)."""
    states = enumerate_states(grid).states
    rows = states[:, 0] * grid.side + states[:, 1]
    backward = torch.zeros(len(states), 3, 3)
    backward[:, 0, 0], backward[:, 1, 1] = torch.tensor(oracle["backward"])[rows].T
    policy, flow = torch.tensor(oracle["policy"])[rows], torch.tensor(oracle["flow"])[rows]
    return TableNetwork(states, policy, backward.flatten(1), flow)


def batch_of(oracle: dict, grid: Hypergrid) -> Trajectories:
    count = len(oracle["actions"])
    actions = torch.full((count, grid.num_steps), grid.dimensions)
    mask = torch.zeros(count, grid.num_steps, dtype=torch.bool)
    for row, taken in enumerate(oracle["actions"]):
        actions[row, : len(taken)] = torch.tensor(taken)
        mask[row, : len(taken)] = True
    states = [grid.initial(count)]
    for column in actions.T:
        states.append(grid.step(states[-1], column))
    return Trajectories(torch.stack(states, dim=1), actions, actions, mask)


def our_loss(oracle: dict, balance: Balance) -> float:
    grid = Hypergrid(dimensions=oracle["dimensions"], side=oracle["side"])
    config = GeneratorConfig(
        balance=balance, stick=0.0, piece_decay=oracle["piece_decay"], explicit_z=balance == "trajectory_balance"
    )
    generator = StochasticDBGFlowNetGenerator(grid, config, network=network_of(oracle, grid))
    if generator.log_z is not None:
        torch.nn.init.constant_(generator.log_z.bias, oracle["log_z"])
    return generator.get_loss(batch_of(oracle, grid))[0].item()


BALANCES: tuple[Balance, ...] = ("detailed_balance", "trajectory_balance", "sub_trajectory_balance")


@pytest.mark.parametrize("balance", BALANCES)
def test_losses_are_those_of_torchgfn(balance):
    oracle = json.loads(FIXTURE.read_text())
    assert our_loss(oracle, balance) == pytest.approx(oracle["losses"][balance], rel=1e-12)


def test_rewards_are_those_of_torchgfn():
    oracle = json.loads(FIXTURE.read_text())
    grid = Hypergrid(dimensions=2, side=oracle["side"])
    places = torch.cartesian_prod(torch.arange(grid.side), torch.arange(grid.side))
    ours = grid.log_reward(torch.nn.functional.pad(places, (0, 1), value=1))
    np.testing.assert_allclose(ours.numpy(), oracle["all_log_rewards"], rtol=1e-12)
    assert len(np.unique(ours.numpy().round(9))) == 3  # floor, wide and narrow all occur


@pytest.mark.skipif("TORCHGFN_PYTHON" not in os.environ, reason="TORCHGFN_PYTHON names no Python with torchgfn 2.4.1")
def test_the_file_is_what_torchgfn_says():
    command = [os.environ["TORCHGFN_PYTHON"], str(ORACLE)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    fresh = json.loads(shown)
    for balance in BALANCES:
        assert our_loss(fresh, balance) == pytest.approx(fresh["losses"][balance], rel=1e-12)
    assert fresh == json.loads(FIXTURE.read_text())
