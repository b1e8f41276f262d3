"""One training step of a generator: its optimisers, and the rounds that its dynamics learn in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from baselines.building_blocks.settings import require_at_least
from baselines.gflownet.dynamics import ReplayBuffer
from baselines.gflownet.generator import StochasticDBGFlowNetGenerator
from baselines.gflownet.trajectories import Trajectories


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How flows and dynamics learn."""

    learning_rate: float = 1e-3
    """Step size of Adam for policies, flows and the context encoder."""
    z_learning_rate: float = 0.1
    """Step size of Adam for an explicit log Z."""
    final_rate: float = 0.01
    """The step sizes fall along a half cosine to this share of themselves, in (0, 1]; 1: they stay."""
    clip: float = 10.0
    """Largest norm of the gradient of flows and policies."""
    dynamics_learning_rate: float = 3e-3
    """Step size of Adam for the dynamics."""
    dynamics_clip: float = 10.0
    """Largest norm of the gradient of the dynamics."""
    dynamics_rounds: int = 1
    """Steps of the dynamics per step of the flows."""
    dynamics_batch: int = 256
    """Transitions per step of the dynamics where they come from a buffer."""
    buffer: int = 0
    """Transitions kept for the dynamics; 0: they learn on-policy, from the trajectories just sampled."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "z_learning_rate", "clip", "dynamics_learning_rate", "dynamics_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        require_at_least(self, 1, "dynamics_rounds", "dynamics_batch")
        if self.buffer < 0 or not 0 < self.final_rate <= 1:
            raise ValueError(
                f"buffer must be 0 or more and final_rate in (0, 1]; got {self.buffer} and {self.final_rate}"
            )


class Learner:
    """Optimisers of a generator and its dynamics, each with its own step size and clip.

    Attributes:
        generator: what learns.
        optimizers: "flows", and "dynamics" where they are learnt.
        buffer: of transitions, or None.
    """

    def __init__(self, generator: StochasticDBGFlowNetGenerator, config: LearnerConfig) -> None:
        self.generator, self.config = generator, config
        groups = [{"params": generator.flow_parameters(), "lr": config.learning_rate}]
        # A step size of its own: log Z may have far to go, where weights need small steps.
        if generator.log_z is not None:
            groups.append({"params": list(generator.log_z.parameters()), "lr": config.z_learning_rate})
        self.optimizers: dict[str, torch.optim.Optimizer] = {"flows": torch.optim.Adam(groups, fused=True)}
        self.buffer = None
        if generator.dynamics is not None:
            self.optimizers["dynamics"] = torch.optim.Adam(
                generator.dynamics.parameters(), lr=config.dynamics_learning_rate, fused=True
            )
            self.buffer = ReplayBuffer(config.buffer) if config.buffer else None
        self._rates = {name: [group["lr"] for group in o.param_groups] for name, o in self.optimizers.items()}

    @property
    def kept(self) -> dict[str, ReplayBuffer]:
        """What a checkpoint must hold besides networks and optimizers."""
        return {} if self.buffer is None else {"transitions": self.buffer}

    def step(self, batch: Trajectories, progress: float) -> dict[str, float]:
        """Learn from trajectories, dynamics first.

        Args:
            batch: trajectories as `generator.sample` makes them.
            progress: share of the training that is over, in [0, 1); sets the step sizes.

        Returns:
            loss, log_z, gradient norm, and loss and accuracy of the dynamics where they are learnt.
        """
        decay = self.config.final_rate + (1 - self.config.final_rate) * (1 + math.cos(math.pi * progress)) / 2
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * decay
        # The dynamics first: the balance then goes by what they have learnt of this very batch.
        measured = self._learn_dynamics(batch) if self.generator.dynamics is not None else {}
        loss, info = self.generator.get_loss(batch)
        norm = self._descend("flows", loss, self.config.clip)
        return {"loss": loss.item(), "log_z": info["log_z"].mean().item(), "gradient_norm": norm} | measured

    def _learn_dynamics(self, batch: Trajectories) -> dict[str, float]:
        taken = batch.mask
        # [B, T, ...] to [N, ...]: the steps that were taken, trajectory by trajectory.
        columns = [batch.states[:, :-1][taken], batch.intended[taken], batch.executed[taken]]
        if batch.thought is not None:
            shared = len(batch) // len(batch.thought)
            # Once per trajectory, then once per step of it, in the order in which the mask lays the steps out.
            columns.append(batch.thought.repeat_interleave(shared, dim=0).repeat_interleave(taken.sum(dim=1), dim=0))
        if self.buffer is not None:
            self.buffer.add(*columns)
        loss, accuracy = math.nan, math.nan
        for _ in range(self.config.dynamics_rounds):
            rows = columns if self.buffer is None else self.buffer.sample(self.config.dynamics_batch)
            cross_entropy, info = self.generator.get_dynamics_loss(*rows)
            self._descend("dynamics", cross_entropy, self.config.dynamics_clip)
            loss, accuracy = cross_entropy.item(), info["accuracy"].item()
        return {"dynamics_loss": loss, "dynamics_accuracy": accuracy}

    def _descend(self, name: str, loss: torch.Tensor, clip: float) -> float:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Parameters without a gradient are those that this balance does not use.
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        return float(norm)
