"""Training on the enumerable tasks, and what is measured on the way.

Letters: N states, A actions, T steps, S samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from baselines.building_blocks.settings import require_at_least
from baselines.building_blocks.tensor_files import SavedFileError, read_header
from baselines.gflownet.environment import Environment, SequenceEnvironment
from baselines.gflownet.generator import StochasticDBGFlowNetGenerator, StochasticKLGFlowNetGenerator
from baselines.gflownet.generator_config import GeneratorConfig
from baselines.gflownet.learner import Learner, LearnerConfig
from baselines.gflownet.toys import exact
from baselines.gflownet.toys.hypergrid import Hypergrid
from baselines.gflownet.toys.tfbind8 import motif_landscape, read_table, table_task
from baselines.gflownet.toys.tree import TableTask, random_tree
from baselines.gflownet.trajectories import Trajectories
from baselines.neural.training_run import Measured, Stage, TrainingRun
from preprocessing.files import JsonObject

CHECKPOINT = "training.safetensors"
NUM_SAMPLES, NUM_BEST = 2048, 100
"""Sequences drawn for diversity and mean reward, and how many of the best count."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Which task, and of what size."""

    task: Literal["tree", "hypergrid", "motifs", "tfbind8"] = "tree"
    """tree: random rewards with known flows; hypergrid; motifs: a synthetic landscape of 8-mers; tfbind8: the real
    table, which you must have (--table)."""
    tokens: int = 4
    """tree: tokens V."""
    length: int = 4
    """tree: tokens per sequence T."""
    min_share: float = 0.08
    """tree: least share of a child in its parent's flow, in [0, 1/V]."""
    log_total: float = 1.0
    """tree: log of the total reward."""
    dimensions: int = 2
    """hypergrid: coordinates."""
    side: int = 8
    """hypergrid: places per coordinate."""
    table: Path | None = None
    """tfbind8: tf_bind_8-y-0.npy of design-bench, or a CSV with the columns sequence and score."""
    table_sha256: str | None = None
    """tfbind8: checksum that the table must have; null: any, but a training keeps to the one it began with."""
    task_seed: int = 0
    """tree, motifs: seed of the random rewards."""

    def __post_init__(self) -> None:
        if self.task not in ("tree", "hypergrid", "motifs", "tfbind8"):
            raise ValueError(f"task must be tree, hypergrid, motifs or tfbind8; got '{self.task}'")
        require_at_least(self, 2, "tokens", "side")
        require_at_least(self, 1, "length", "dimensions")
        if not 0 <= self.min_share <= 1 / self.tokens:
            raise ValueError(f"min_share must lie in [0, 1/tokens]; got {self.min_share}")
        if self.task == "tfbind8" and self.table is None:
            raise ValueError("task tfbind8 needs --table: the scores are not shipped; or use --task motifs")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TaskConfig):
    """Flags of `train`."""

    output_dir: Path
    """Folder of checkpoint and curves; a second call with the same settings goes on."""
    generator: Literal["db", "kl"] = "db"
    """Plain squared residuals, or the KL and entropy-ratio weighting."""
    model: GeneratorConfig = field(default_factory=lambda: GeneratorConfig(explore=0.1))
    """Noise, reward, condition and networks."""
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(learning_rate=1e-2))
    """Step sizes of the optimizers, and how often the dynamics learn."""
    steps: int = 2000
    """Training steps in all."""
    batch: int = 128
    """Trajectories per step that the policy makes."""
    data_batch: int = 0
    """Trajectories per step from a fixed data set: sequences drawn evenly from the half with the lower rewards."""
    check_every: int = 200
    """Steps between two measurements, each followed by a checkpoint."""
    seed: int = 0
    """Seed of the first weights and of all that is sampled in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "steps", "batch", "check_every")
        if self.data_batch < 0 or (self.data_batch and self.task == "hypergrid"):
            raise ValueError("data_batch must be 0 or more, and 0 for the hypergrid, whose trajectories are not unique")
        if self.generator not in ("db", "kl"):
            raise ValueError(f"generator must be db or kl; got '{self.generator}'")


def build_task(config: TaskConfig) -> Environment:
    """The environment of a task.

    Raises:
        UserError: the table of tfbind8 cannot be used.
    """
    if config.task == "tree":
        return random_tree(
            num_tokens=config.tokens,
            num_steps=config.length,
            min_share=config.min_share,
            log_z=config.log_total,
            seed=config.task_seed,
        )
    if config.task == "hypergrid":
        return Hypergrid(dimensions=config.dimensions, side=config.side)
    if config.task == "motifs":
        return table_task("motifs", motif_landscape(config.task_seed))
    assert config.table is not None  # TaskConfig sees to it
    return table_task("tfbind8", read_table(config.table, config.table_sha256))


def build_generator(config: TrainConfig, environment: Environment) -> StochasticDBGFlowNetGenerator:
    """Networks from torch's global random numbers."""
    kinds = {"db": StochasticDBGFlowNetGenerator, "kl": StochasticKLGFlowNetGenerator}
    return kinds[config.generator](environment, config.model)


def as_trajectories(environment: SequenceEnvironment, tokens: torch.Tensor) -> Trajectories:
    """Sequences [B, T] as trajectories in which every intention came true."""
    states = [environment.initial(len(tokens))]
    for column in tokens.T:
        states.append(environment.step(states[-1], column))
    return Trajectories(torch.stack(states, dim=1), tokens, tokens, torch.ones_like(tokens, dtype=torch.bool))


def mean_hamming(rows: np.ndarray) -> float:
    """Mean over all pairs of rows [S, D] of the share of places in which they differ; nan of one row."""
    count = len(rows)
    if count < 2:
        return float("nan")
    same = 0
    for column in rows.T:
        _, numbers = np.unique(column, return_counts=True)
        same += int((numbers * (numbers - 1)).sum())
    return 1 - same / (count * (count - 1) * rows.shape[1])


def sample_quality(ends: torch.Tensor, log_rewards: torch.Tensor) -> dict[str, float]:
    """Of S sampled ends [S, D]: mean reward of the NUM_BEST best, how different those are, share of distinct ends."""
    best = log_rewards.topk(min(NUM_BEST, len(ends))).indices
    return {
        "top_100_reward": float(log_rewards[best].exp().mean()),
        "top_100_diversity": mean_hamming(ends[best].numpy()),
        "distinct": len(torch.unique(ends, dim=0)) / len(ends),
    }


def measure(generator: StochasticDBGFlowNetGenerator, graph: exact.StateGraph) -> dict[str, float]:
    """What is known of a generator: exact distances by enumeration, and the quality of samples."""
    generator.eval()
    executed = exact.executed_policy(graph, exact.learnt_policy(generator, graph), generator.config.stick)
    found = exact.terminal_distribution(graph, executed)
    drawn = generator.sample(NUM_SAMPLES)
    values = {
        "l1": exact.l1_distance(found, graph.target),
        "log_z_error": abs(float(generator.log_partition().detach()[0]) - graph.log_z),
        **sample_quality(drawn.ends, generator.environment.log_reward(drawn.ends)),
    }
    if generator.learns_dynamics:
        values["dynamics_error"] = exact.dynamics_error(generator, graph)
    generator.train()
    return values


class Training:
    """A training on a task whose every state is known.

    Attributes:
        generator: what learns.
        graph: all states of its task.
        state: how far it is.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.environment = build_task(config)
        model = config.model
        self.graph = exact.enumerate_states(self.environment, exponent=model.reward_exponent, floor=model.reward_floor)
        # Seed, then build: the first weights come from torch's global random numbers.
        torch.manual_seed(config.seed)
        self.generator = build_generator(config, self.environment)
        self.learner = Learner(self.generator, config.learner)
        self.data = self._data() if config.data_batch else None
        self.state = TrainingRun(
            config.output_dir / CHECKPOINT,
            # The rewards are part of the identity, as a table on the disk can change under the same name.
            settings(config) | {"rewards": float(self.graph.log_rewards.sum())},
            modules={"generator": self.generator},
            optimizers=self.learner.optimizers,
            kept=self.learner.kept,
        )

    def run(self) -> bool:
        """Go on to the end; measure and save every `check_every` steps. Tells whether anything was left to do.

        Raises:
            SavedFileError: the folder holds a training of other settings or rewards.
        """
        config = self.config
        self.state.resume()
        stage = Stage(
            name="training", steps=config.steps, look_every=config.check_every, step=self._step, look=self._look
        )
        worked = self.state.train([stage], title=f"train {config.task}")
        self.state.curve.write(config.output_dir, title=f"{config.task}: {config.model.balance}")
        return worked

    def _step(self, step: int) -> Measured:
        batch = self.generator.sample(self.config.batch, exploring=True)
        if self.data is not None:
            rows = torch.randint(len(self.data), (self.config.data_batch,))
            assert isinstance(self.environment, SequenceEnvironment)
            batch = batch.joined(as_trajectories(self.environment, self.data[rows]))
        return self.learner.step(batch, step / self.config.steps)

    def _look(self, step: int, recent: Sequence[Measured]) -> str:
        found = measure(self.generator, self.graph)
        self.state.curve.add("training", step, **recent[-1], **found)
        return f"L1 {found['l1']:.4f}"

    def _data(self) -> torch.Tensor:
        assert isinstance(self.environment, TableTask)  # TrainConfig sees to it
        rewards = self.graph.log_rewards
        ends = self.graph.states[self.graph.ends][:, 1:]
        return ends[torch.from_numpy(np.flatnonzero(rewards <= np.median(rewards)))]


def settings(config: TrainConfig) -> JsonObject:
    """The settings, without the folder."""
    plain = dataclasses.asdict(config)
    del plain["output_dir"]
    return plain


def read_config(folder: Path) -> TrainConfig:
    """The settings of the training in a folder.

    Raises:
        SavedFileError: there is none.
    """
    file = Path(folder) / CHECKPOINT
    header = read_header(file)
    try:
        plain = dict(header["progress"]["identity"])
        del plain["rewards"]
        table = plain.pop("table")
        model, learner = GeneratorConfig(**plain.pop("model")), LearnerConfig(**plain.pop("learner"))
        return TrainConfig(
            output_dir=Path(folder), model=model, learner=learner, table=None if table is None else Path(table), **plain
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SavedFileError(f"{file} is not of this training ({' '.join(str(error).split())})") from error


def spell(environment: Environment, ends: torch.Tensor, letters: str | None = None) -> list[str]:
    """Ends as text: tokens (or letters) of a sequence, coordinates of the grid."""
    rows = ends[:, 1:] if isinstance(environment, SequenceEnvironment) else ends[:, :-1]
    if letters is not None:
        return ["".join(letters[token] for token in row) for row in rows.tolist()]
    return [" ".join(map(str, row)) for row in rows.tolist()]
