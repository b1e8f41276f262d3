"""The command `feasibility`: how much of the reward's distribution noise puts out of reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baselines.gflownet.dynamics import StickyNoise
from baselines.gflownet.toys import exact, feasibility
from baselines.gflownet.toys.task_training import TaskConfig, build_task
from preprocessing.command_line import parse_config


@dataclass(frozen=True, kw_only=True)
class FeasibilityConfig(TaskConfig):
    """Flags of `feasibility`."""

    stick: float = 0.25
    """Probability in [0, 1) that chance executes one of the allowed actions."""
    reward_exponent: float = 1.0
    """The reward is raised to this power."""
    reward_floor: float = 0.0
    """Rewards below this count as this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        StickyNoise(self.stick)


def run(flags: Sequence[str], program: str) -> None:
    """Print the report."""
    about = "Say how much of R/Z sticky noise puts out of reach."
    config = parse_config(FeasibilityConfig, flags, prog=program, description=about)
    graph = exact.enumerate_states(build_task(config), exponent=config.reward_exponent, floor=config.reward_floor)
    print(feasibility.report(feasibility.measure(graph, config.stick)))
