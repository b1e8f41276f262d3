"""A forecaster whose paths are drawn by a stochastic GFlowNet; `price_paths` says what it learns and why.

Letters: B windows, L window length, S samples, H horizon, V bins, N training windows, M trajectories per window.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from baselines.building_blocks.features import SCALE_FREE
from baselines.building_blocks.paths import require_horizon, require_validation
from baselines.building_blocks.settings import require_at_least
from baselines.gflownet.generator import StochasticDBGFlowNetGenerator, StochasticKLGFlowNetGenerator
from baselines.gflownet.generator_config import STEPWISE, GeneratorConfig
from baselines.gflownet.learner import Learner, LearnerConfig
from baselines.gflownet.networks import ThoughtEncoder
from baselines.gflownet.price_paths import PathKernel, PricePaths, ReturnBins, fit_temperature
from baselines.neural.early_stopping import scaled_crps
from baselines.neural.fitted import FittedFile, FittedForecaster
from baselines.neural.inputs import InputScaling, WindowInputs
from baselines.neural.training_run import Measured, Stage, TrainingRun
from baselines.statistical.regression import Ridge, RidgeConfig
from grpo.evaluation.identity import windows_hash
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import window_generators
from preprocessing.files import JsonObject
from preprocessing.returns import VolatilityConfig
from preprocessing.windows import Context, WindowSet

FITTED_FILE = "gflownet.safetensors"
TRAINING_FILE = "training.safetensors"
# expected_balance is left out: it takes the logarithm of a mean of rewards, and of one path per window that is not the
# mean of their logarithms, which is what the forecast is derived from (`price_paths`)
BALANCES = ("stochastic_db", "detailed_balance", "trajectory_balance", "sub_trajectory_balance")
ROWS_AT_ONCE = 16_384
"""Paths that are walked together in a forecast."""


@dataclass(frozen=True, kw_only=True)
class GFlowNetConfig(VolatilityConfig):
    """Settings of the forecaster."""

    generator: Literal["db", "kl"] = "db"
    """Plain squared residuals, or the KL and entropy-ratio weighting."""
    balance: Literal["stochastic_db", "detailed_balance", "trajectory_balance", "sub_trajectory_balance"] = (
        "stochastic_db"
    )
    """The condition whose squared residual is the loss. detailed_balance does not see noise, so it goes with stick 0;
    the last two weigh whole trajectories, and go with generator db."""
    bins: int = 21
    """Equally likely bins of daily returns, the tokens."""
    stick: float = 0.0
    """Probability in [0, 1) that a day's return comes from any bin in place of the intended one."""
    learn_dynamics: bool = False
    """Whether the noise is learnt; false: its true law is used, which is known here."""
    temperature: float | None = None
    """Scale of the covariance of the reward, above 0; null: the one with the lowest CRPS on the validation windows."""
    trunk: Literal["mlp", "transformer"] = "mlp"
    """The network that reads the path so far: a perceptron, or a causal transformer."""
    width: int = 64
    """Units per layer."""
    layers: int = 2
    """Layers of the trunk."""
    heads: int = 4
    """Attention heads."""
    thought_width: int = 32
    """Units of the context encoder."""
    thought_layers: int = 1
    """Blocks of the context encoder."""
    gamma: float = 0.5
    """How strongly the KL generator weighs states by the entropy of the policy, in (0, 1]; 1: all states alike."""
    kl_share: float = 0.5
    """Share of the KL penalty in the KL generator's loss, in [0, 1]."""
    explore: float = 0.1
    """Share of uniformly drawn actions while training, in [0, 1)."""
    steps: int = 1500
    """Gradient steps at most."""
    windows_per_step: int = 32
    """Training windows per step."""
    paths_per_window: int = 8
    """Trajectories per window and step."""
    learning_rate: float = 2e-3
    """Step size of Adam at the start; it falls along a half cosine."""
    averaging: float = 0.99
    """Decay per step, in [0, 1), of the moving average of the weights, which is what is looked at and kept."""
    check_every: int = 100
    """Steps between two looks at the validation windows."""
    patience: int = 2
    """Looks without a better CRPS after which training stops."""
    check_windows: int = 256
    """Validation windows looked at, at most, evenly spread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(
            self, 1, "steps", "windows_per_step", "paths_per_window", "check_every", "patience", "check_windows"
        )
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be in [0, 1); got {self.averaging}")
        require_at_least(self, 2, "bins")
        if self.generator not in ("db", "kl"):
            raise ValueError(f"generator must be db or kl; got '{self.generator}'")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature must be above 0; got {self.temperature}")
        if self.balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(BALANCES)}; got '{self.balance}'")
        if self.balance == "detailed_balance" and self.stick > 0:
            raise ValueError(f"balance detailed_balance does not see noise: set stick 0; got {self.stick}")
        if self.generator == "kl" and self.balance not in STEPWISE:
            raise ValueError(f"generator kl weighs single steps, and balance {self.balance} has none: set generator db")
        self.for_generator()
        self.for_learner()

    def for_generator(self) -> GeneratorConfig:
        """What the generator is built with."""
        return GeneratorConfig(forward_looking=True, **_shared(self, GeneratorConfig))

    def for_learner(self) -> LearnerConfig:
        """What the optimisers are built with."""
        return LearnerConfig(**_shared(self, LearnerConfig))


def _shared(config: GFlowNetConfig, other: type[Any]) -> JsonObject:
    names = {field.name for field in dataclasses.fields(other)}
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name in names}


@dataclass(frozen=True, eq=False)
class GFlowNetForecaster(FittedForecaster):
    """Paths drawn token by token, given the window.

    Attributes:
        config: settings.
        scaling: of the window's features.
        generator: the networks, in double precision.
    """

    name = "gflownet"
    Config = GFlowNetConfig
    state_file = FITTED_FILE
    sees_context: ClassVar[bool] = True

    generator: StochasticDBGFlowNetGenerator

    @property
    def environment(self) -> PricePaths:
        """Bins and reward."""
        environment = self.generator.environment
        assert isinstance(environment, PricePaths)
        return environment

    @classmethod
    def fit(
        cls, config: GFlowNetConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Train on the training windows; keep the weights that forecast the validation windows best.

        A training that was stopped goes on where `out_dir` holds its last checkpoint.

        Raises:
            UserError: there are no validation windows.
            SavedFileError: `out_dir` holds a training with other settings or data.
        """
        require_validation(cls.name, val)
        scaling = InputScaling.fit(train.context, config)
        environment = price_paths(config, train, val, scaling, sees_context=cls.sees_context)
        # Seed, then build, then train, all within the fork: the caller's random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = build_generator(
                config, environment, window=train.context.past.shape[1] if cls.sees_context else 0
            )
            training = _Training(cls, config, scaling, generator, train, val, seed, Path(out_dir))
            training.train()
        return cls(config, scaling, generator.double().eval())

    def log_partition(self, context: Context) -> np.ndarray:
        """[B] log Z(c): about H log V for a window that says nothing of its future, and more the more it says."""
        with torch.no_grad():
            log_z = self.generator.log_partition(thoughts(self.scaling.inputs(context)) if self.sees_context else None)
        return np.broadcast_to(log_z.numpy(), len(context))

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than the training windows reach.
        """
        require_horizon(self.name, fitted=self.environment.num_steps, asked=horizon)
        # For all days even where fewer are asked for: a short forecast is then the begin of a long one.
        shape = (num_samples, self.environment.num_steps, 2)
        uniforms = np.stack([generator.random(shape) for generator in window_generators(context, seed)])
        inputs = self.scaling.inputs(context)
        at_once = max(1, ROWS_AT_ONCE // num_samples)
        daily = np.empty((len(context), num_samples, horizon))
        for first in range(0, len(context), at_once):
            rows = slice(first, first + at_once)
            daily[rows] = self._walk(inputs.take(rows), uniforms[rows], horizon)
        return self.scaling.forecast(context, daily)

    @torch.no_grad()
    def _walk(self, inputs: WindowInputs, uniforms: np.ndarray, horizon: int) -> np.ndarray:
        """[B, S, horizon] scaled daily returns by inversion of uniforms [B, S, H, 2]: bin, and place in the bin."""
        count, samples = uniforms.shape[:2]
        levels = torch.from_numpy(uniforms).flatten(0, 1)  # [B S, H, 2]
        encoded = self.generator.encode(thoughts(inputs) if self.sees_context else None, count * samples)
        states = self.environment.initial(count * samples)
        for day in range(horizon):
            # The noise is put into the law and not drawn: one uniform per day decides.
            law = self.generator.noise.executed_policy(
                self.generator.action_law(states, encoded), self.environment.allowed(states)
            )
            # Inversion without the last sum, which rounding may leave below 1.
            chosen = (levels[:, day, :1] >= law.cumsum(dim=-1)[:, :-1]).sum(dim=-1)
            states = self.environment.step(states, chosen)
        tokens = states[:, 1 : horizon + 1].numpy().reshape(count, samples, horizon)
        return self.environment.bins.decode(tokens, uniforms[:, :, :horizon, 1])

    def _tensors(self) -> tuple[dict[str, torch.Tensor], JsonObject]:
        kernel, encoder = self.environment.kernel, self.generator.thought
        tensors = {f"generator.{name}": tensor for name, tensor in self.generator.state_dict().items()}
        tensors["knots"] = torch.from_numpy(self.environment.bins.knots)
        tensors["covariance"] = torch.from_numpy(kernel.covariance)
        window = len(encoder.positions) if isinstance(encoder, ThoughtEncoder) else 0
        return tensors, {"variance": kernel.variance, "window": window}

    @classmethod
    def _from_file(cls, file: FittedFile) -> Self:
        kernel = PathKernel(file.tensors["covariance"].numpy(), file.header["variance"])
        environment = PricePaths(ReturnBins(file.tensors["knots"].numpy()), kernel)
        generator = build_generator(file.config, environment, window=file.header["window"]).double().eval()
        file.fill(generator, "generator.")
        return cls(file.config, file.scaling, generator)


class GFlowNetNoContext(GFlowNetForecaster):
    """The same without the window: one law of paths for all windows, in units of the volatility at the origin."""

    name = "gflownet_no_context"
    sees_context = False


def thoughts(inputs: WindowInputs) -> torch.Tensor:
    """[B, L, F + 1] the context: the features, then one return per position, oldest first."""
    count, length = inputs.returns.shape
    # [B, 1, F + 1]: the features come first, as the encoder is read off its first position; the return there is 0.
    features = torch.nn.functional.pad(inputs.features, (0, 1))[:, None]
    # [B, L, F + 1]: the returns, with zeros where the features would be.
    returns = torch.cat(
        [inputs.features.new_zeros(count, length, inputs.features.shape[1]), inputs.returns[..., None]], -1
    )
    return torch.cat([features, returns], dim=1)


def build_generator(config: GFlowNetConfig, environment: PricePaths, *, window: int) -> StochasticDBGFlowNetGenerator:
    """Networks from torch's global random numbers; `window` is L, or 0 for no context."""
    settings = config.for_generator()
    encoder = ThoughtEncoder(settings, window, features=len(SCALE_FREE) + 1) if window else None
    kinds = {"db": StochasticDBGFlowNetGenerator, "kl": StochasticKLGFlowNetGenerator}
    return kinds[config.generator](environment, settings, encoder)


def price_paths(
    config: GFlowNetConfig, train: WindowSet, val: WindowSet, scaling: InputScaling, *, sees_context: bool
) -> PricePaths:
    """Bins and reward. The covariance is that of a ridge regression's residuals, or of the returns themselves."""
    targets, val_targets = (scaling.targets(windows).double().numpy() for windows in (train, val))  # [N, H]
    if sees_context:
        volatility = {field.name: getattr(config, field.name) for field in dataclasses.fields(VolatilityConfig)}
        ridge = Ridge.fit(
            RidgeConfig(features=True, **volatility), train, val, horizon=train.horizon, seed=0, out_dir=Path()
        )
        # The ridge speaks of cumulative returns, the reward of single days.
        residuals = np.diff(ridge.residuals, axis=1, prepend=0.0)
        val_mean = np.diff(ridge.scaled_mean(val.context), axis=1, prepend=0.0)
    else:
        # The window says nothing here: what is left of a return is its distance from the mean.
        residuals, val_mean = targets - targets.mean(axis=0), targets.mean(axis=0)
    covariance = residuals.T @ residuals / len(residuals)
    temperature = config.temperature or fit_temperature(val_mean, val_targets, covariance)
    return PricePaths(ReturnBins.fit(targets, config.bins), PathKernel(temperature * covariance, float(targets.var())))


class _Training:
    """Sample, learn, look at the validation windows, keep the best of a moving average of the weights."""

    def __init__(
        self,
        plugin: type[GFlowNetForecaster],
        config: GFlowNetConfig,
        scaling: InputScaling,
        generator: StochasticDBGFlowNetGenerator,
        train: WindowSet,
        val: WindowSet,
        seed: int,
        out_dir: Path,
    ) -> None:
        self.plugin, self.config, self.scaling, self.generator = plugin, config, scaling, generator
        self.inputs = scaling.inputs(train.context)
        environment = generator.environment
        assert isinstance(environment, PricePaths)
        self.observed = torch.from_numpy(environment.kernel.whiten(scaling.targets(train).double().numpy()))
        kept = np.unique(np.linspace(0, len(val) - 1, min(config.check_windows, len(val))).astype(np.int64))
        self.val = val.take(kept)
        self.learner = Learner(generator, config.for_learner())
        self.average = copy.deepcopy(generator)
        self.out_dir = out_dir
        self.run = TrainingRun(
            out_dir / TRAINING_FILE,
            {
                "forecaster": plugin.name,
                **dataclasses.asdict(config),
                "seed": seed,
                "training windows": windows_hash(train),
                "validation windows": windows_hash(val),
            },
            modules={"generator": generator, "average": self.average},
            optimizers=self.learner.optimizers,
            patience=config.patience,
            kept=self.learner.kept,
        )

    def train(self) -> None:
        """Train to the end, from the last checkpoint where there is one, and put the best weights in place."""
        self.run.resume()
        stage = Stage(
            name="training",
            steps=self.config.steps,
            look_every=self.config.check_every,
            step=self._step,
            look=self._look,
        )
        self.run.train([stage], title=f"fit {self.plugin.name}")
        self.run.best.restore(self.generator)
        self.run.curve.write(self.out_dir, title=self.plugin.name)
        self.run.discard()

    def _step(self, step: int) -> Measured:
        rows = torch.randint(len(self.observed), (self.config.windows_per_step,))
        # [B M, H]: the paths of a window stand side by side, and share its context and the path that came.
        condition = self.observed[rows].repeat_interleave(self.config.paths_per_window, dim=0)
        thought = thoughts(self.inputs.take(rows)) if self.plugin.sees_context else None
        batch = self.generator.sample(len(condition), thought=thought, condition=condition, exploring=True)
        measured = self.learner.step(batch, step / self.config.steps)
        with torch.no_grad():
            # A shorter memory at first, or the average would keep the random first weights for hundreds of steps.
            decay = min(self.config.averaging, (1 + step) / (10 + step))
            for kept, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(weight, 1 - decay)
        return measured

    def _look(self, step: int, recent: Sequence[Measured]) -> str:
        # In float64, as the forecaster will be, so that the look judges what will be used.
        fitted = self.plugin(self.config, self.scaling, copy.deepcopy(self.average).double().eval())
        crps = scaled_crps(fitted, self.val)
        self.run.best.offer(crps, step, self.average)
        self.run.curve.add("training", step, **recent[-1], val_crps=crps)
        return f"CRPS {crps:.4f}"
