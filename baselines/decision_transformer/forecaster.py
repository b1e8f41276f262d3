"""The Decision Transformer as a forecaster of daily closes, with and without returns to go.

See `return_policy` for what stands for states, actions and returns to go where there is no trader.
`decision_transformer_bc` is the same network without returns to go (behaviour cloning, here plain maximum likelihood of
the next day's bin); the two differ in that alone.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from baselines.building_blocks.features import SCALE_FREE
from baselines.building_blocks.paths import require_horizon, require_validation
from baselines.building_blocks.settings import require_at_least, require_not_negative
from baselines.decision_transformer.model import ModelConfig
from baselines.decision_transformer.policy_fitting import PolicyConfig, PolicyTraining
from baselines.decision_transformer.return_policy import LEVELS, Bins, Days, PathSampler, ReturnPolicy, TargetReturn
from baselines.neural.early_stopping import scaled_crps
from baselines.neural.fitted import FittedFile, FittedForecaster
from baselines.neural.inputs import InputScaling
from grpo.evaluation.harness import choose_windows
from grpo.evaluation.identity import windows_hash
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import window_generators
from preprocessing.files import JsonObject
from preprocessing.windows import Context, WindowSet

VALIDATION_PATHS = 10_000
"""Paths of a look at the validation windows, all together: the fewer windows, the more for each."""
PATHS_AT_ONCE = 4000
"""Sample paths that are drawn together, small enough for the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class DecisionTransformerBcConfig(PolicyConfig):
    """The network without returns to go, and how it is fitted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Any window and horizon will do here: this only makes bad sizes fail when the config is made.
        _model(self, length=2, horizon=1, use_returns=False)


@dataclass(frozen=True, kw_only=True)
class DecisionTransformerConfig(PolicyConfig):
    """The network, its returns to go, and how it is fitted."""

    return_weight: float = 0.1
    """Weight of the squared error of the next return to go beside the cross-entropy."""
    return_bins: int = 20
    """Bins of the return over all days, of equal share on the training windows and their mirror images."""
    target_return: TargetReturn = "learnt"
    """Whence the return is drawn that a path aims at: `learnt` from what the window says of it, `train` from all
    training windows alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _model(self, length=2, horizon=1, use_returns=True)
        require_at_least(self, 2, "return_bins")
        require_not_negative(self, "return_weight")
        if self.target_return not in ("learnt", "train"):
            raise ValueError(f"target_return must be learnt or train; got '{self.target_return}'")


@dataclass(frozen=True, eq=False)
class DecisionTransformerForecaster(FittedForecaster):
    """A fitted return policy that draws paths.

    Attributes:
        config: what it was fitted with.
        horizon: days ahead that it was fitted for.
        length: closes of a window.
        scaling: of the windows.
        sampler: the policy and its bins.
    """

    name = "decision_transformer"
    Config: ClassVar[type] = DecisionTransformerConfig
    use_returns: ClassVar[bool] = True

    horizon: int
    length: int
    sampler: PathSampler

    @classmethod
    def fit(
        cls, config: PolicyConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Train, going on where a killed fit in `out_dir` stopped; learning curves are written there.

        Raises:
            UserError: there are no validation windows.
            SavedFileError: `out_dir` holds a killed fit of other windows, settings or seed.
        """
        require_validation(cls.name, val)
        length = train.context.past.shape[1]
        scaling = InputScaling.fit(train.context, config)
        daily = scaling.targets(train).double().numpy()
        bins = Bins.fit(daily, config.num_actions), Bins.fit(daily.sum(axis=1), _total_bins(config))
        days = Days(
            scaling.inputs(train.context),
            torch.from_numpy(daily).float(),
            torch.from_numpy(bins[0].label(daily)),
            torch.from_numpy(bins[1].label(daily.sum(axis=1))),
        )
        looked_at = val.take(choose_windows(val.context, config.validation_windows))
        # Few windows make a noisy CRPS, so they get more paths each.
        num_samples = max(32, VALIDATION_PATHS // len(looked_at))

        def fitted(policy: ReturnPolicy) -> Self:
            return cls(config, scaling, horizon, length, _sampler(policy, bins, config))

        # Seed, then build, then train, all within the fork: dropout draws from torch's global random numbers.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = ReturnPolicy(_model(config, length, horizon, cls.use_returns), _total_bins(config))
            training = PolicyTraining(
                policy,
                days,
                config,
                return_weight=getattr(config, "return_weight", 0.0),
                seed=seed,
                folder=out_dir,
                title=cls.name,
                validate=lambda policy: scaled_crps(fitted(policy), looked_at, num_samples=num_samples),
                windows={"training windows": windows_hash(train), "validation windows": windows_hash(looked_at)},
            )
            training.train()
        training.run.discard()
        return fitted(policy)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than it was fitted for.
        """
        require_horizon(self.name, fitted=self.horizon, asked=horizon)
        inputs, generators = self.scaling.inputs(context), window_generators(context, seed)
        # Numbers for all days even where fewer are asked for: a short forecast is then the begin of a long one.
        at_once, numbers = max(1, PATHS_AT_ONCE // num_samples), 2 + 2 * self.horizon
        daily = np.empty((len(context), num_samples, horizon))
        for first in range(0, len(context), at_once):
            rows = slice(first, first + at_once)
            uniforms = np.stack([generator.random((num_samples, numbers)) for generator in generators[rows]])
            daily[rows] = self.sampler.sample(inputs.take(rows), uniforms, days=horizon)
        return self.scaling.forecast(context, daily)

    def _tensors(self) -> tuple[dict[str, torch.Tensor], JsonObject]:
        tensors = {f"policy.{name}": tensor for name, tensor in self.sampler.policy.state_dict().items()}
        tensors["daily_bins"] = torch.from_numpy(self.sampler.daily_bins.quantiles)
        tensors["total_bins"] = torch.from_numpy(self.sampler.total_bins.quantiles)
        return tensors, {"horizon": self.horizon, "length": self.length}

    @classmethod
    def _from_file(cls, file: FittedFile) -> Self:
        config, horizon, length = file.config, file.header["horizon"], file.header["length"]
        counts = {"daily_bins": config.num_actions, "total_bins": _total_bins(config)}
        bins = [Bins(count, file.tensors[name].numpy()) for name, count in counts.items()]
        if any(len(one.quantiles) != LEVELS for one in bins):
            raise ValueError(f"bins of other than {LEVELS} quantiles")
        policy = ReturnPolicy(_model(config, length, horizon, cls.use_returns), _total_bins(config)).double()
        file.fill(policy, "policy.")
        return cls(config, file.scaling, horizon, length, _sampler(policy, (bins[0], bins[1]), config))


@dataclass(frozen=True, eq=False)
class DecisionTransformerBc(DecisionTransformerForecaster):
    """The same without returns to go."""

    name = "decision_transformer_bc"
    Config: ClassVar[type] = DecisionTransformerBcConfig
    use_returns: ClassVar[bool] = False


def _model(config: PolicyConfig, length: int, horizon: int, use_returns: bool) -> ModelConfig:
    """Size of the network for windows of `length` closes and `horizon` days."""
    return ModelConfig(
        d_model=config.d_model,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
        context=horizon,
        state_size=length + len(SCALE_FREE),  # L - 1 returns, the features, and the return since the origin
        num_actions=config.num_actions,
        # A sum of H days in units of a day spreads by the root of H; over it, the network sees numbers of size 1.
        return_scale=horizon**-0.5,
        use_returns=use_returns,
    )


def _total_bins(config: PolicyConfig) -> int:
    return config.return_bins if isinstance(config, DecisionTransformerConfig) else 1


def _sampler(policy: ReturnPolicy, bins: tuple[Bins, Bins], config: PolicyConfig) -> PathSampler:
    """Draws from a copy in double precision."""
    target = config.target_return if isinstance(config, DecisionTransformerConfig) else "train"
    frozen = copy.deepcopy(policy).double().eval().requires_grad_(False)
    return PathSampler(frozen, *bins, target)
