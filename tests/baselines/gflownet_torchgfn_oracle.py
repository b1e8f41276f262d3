"""Losses of torchgfn 2.4.1 on a batch of hypergrid trajectories, as JSON.

    TORCHGFN_PYTHON tests/baselines/gflownet_torchgfn_oracle.py > tests/baselines/gflownet_torchgfn.json

Runs in an environment of its own (torchgfn needs numpy < 2) and imports nothing of this project. Policies and flows
are tables of random numbers, written out beside the trajectories and torchgfn's losses on them.
"""

import json
import sys

import torch
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import DBGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.gym import HyperGrid
from gfn.preprocessors import EnumPreprocessor
from gfn.samplers import Sampler
from gfn.utils.modules import Tabular

DIMENSIONS, SIDE, COUNT, LOG_Z, DECAY = 2, 8, 12, 0.3, 0.8


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    env = HyperGrid(ndim=DIMENSIONS, height=SIDE, validate_modes=False)
    states = EnumPreprocessor(env.get_states_indices)
    tables = {}
    for name, outputs in (("policy", DIMENSIONS + 1), ("backward", DIMENSIONS), ("flow", 1)):
        module = Tabular(SIDE**DIMENSIONS, outputs)
        module.table.data = torch.randn(SIDE**DIMENSIONS, outputs)
        tables[name] = module
    tables["policy"].table.data[:, -1] -= 2  # longer walks
    forward = DiscretePolicyEstimator(tables["policy"], env.n_actions, preprocessor=states)
    backward = DiscretePolicyEstimator(tables["backward"], env.n_actions, preprocessor=states, is_backward=True)
    flow = ScalarEstimator(tables["flow"], preprocessor=states)
    trajectories = Sampler(forward).sample_trajectories(env, n=COUNT, save_logprobs=False)

    db = DBGFlowNet(forward, backward, flow)
    tb = TBGFlowNet(forward, backward, init_logZ=LOG_Z)
    sub = SubTBGFlowNet(forward, backward, flow, weighting="geometric_within", lamda=DECAY)
    losses = {
        "detailed_balance": db.loss(env, db.to_training_samples(trajectories)),
        "trajectory_balance": tb.loss(env, trajectories),
        "sub_trajectory_balance": sub.loss(env, trajectories),
    }
    ends = trajectories.terminating_idx.tolist()  # number of actions, the exit included
    actions = trajectories.actions.tensor.squeeze(-1).T.tolist()
    json.dump(
        {
            "dimensions": DIMENSIONS,
            "side": SIDE,
            "log_z": LOG_Z,
            "piece_decay": DECAY,
            "policy": tables["policy"].table.tolist(),
            "backward": tables["backward"].table.tolist(),
            "flow": tables["flow"].table.squeeze(-1).tolist(),
            "actions": [row[:end] for row, end in zip(actions, ends, strict=True)],
            "log_rewards": trajectories.log_rewards.tolist(),
            "all_log_rewards": [
                env.log_reward(env.States(torch.tensor([[x, y]]))).item() for x in range(SIDE) for y in range(SIDE)
            ],
            "losses": {name: loss.item() for name, loss in losses.items()},
        },
        sys.stdout,
    )
    print()


if __name__ == "__main__":
    main()
