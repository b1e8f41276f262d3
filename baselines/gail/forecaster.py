"""GAIL as a forecaster, and the pre-trained token model alone.

A day's log return over the daily volatility at the origin is a token; the context is what
`baselines.neural.inputs` makes of a window. `gail_pretrained` stops after teacher forcing; `gail` goes on from the
same weights, with the same seed, so that the two differ by the imitation alone. Forecasting needs torch, not
stable-baselines3.

Letters: B windows, S samples, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from baselines.building_blocks.packages import import_optional
from baselines.building_blocks.paths import require_horizon, require_validation
from baselines.gail.config import GailConfig, PretrainedConfig
from baselines.gail.demonstrations import Demonstrations
from baselines.gail.network import SequenceNetwork
from baselines.gail.pretraining import draw_returns, network_sizes
from baselines.gail.tokens import Tokenizer
from baselines.gail.two_stages import fit_networks
from baselines.neural.fitted import FittedFile, FittedForecaster
from baselines.neural.inputs import InputScaling
from grpo.evaluation.harness import choose_windows
from grpo.evaluation.protocol import Forecast
from grpo.evaluation.sampling import window_generators
from preprocessing.files import JsonObject
from preprocessing.windows import Context, WindowSet


@dataclass(frozen=True, eq=False)
class GailPretrained(FittedForecaster):
    """The token model after teacher forcing.

    Attributes:
        config: what it was fitted with.
        horizon: days ahead that it was fitted for.
        scaling: of the windows.
        tokenizer: what the tokens stand for.
        network: the token model.
    """

    name: ClassVar[str] = "gail_pretrained"
    Config: ClassVar[type] = PretrainedConfig

    horizon: int
    tokenizer: Tokenizer
    network: SequenceNetwork

    @classmethod
    def fit(
        cls, config: PretrainedConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Train, going on where a killed fit in `out_dir` stopped; learning curves are written there.

        Raises:
            UserError: there are no validation windows.
            UserError: there are too few training windows for the tokens.
            SavedFileError: `out_dir` holds a killed fit of other windows, settings or seed.
        """
        require_validation(cls.name, val)
        scaling = InputScaling.fit(train.context, config)
        looked_at = val.take(choose_windows(val.context, max(1, config.validation_steps // val.horizon)))
        fitted = fit_networks(
            config,
            Demonstrations.of_windows(train, scaling),
            Demonstrations.of_windows(looked_at, scaling),
            seed=seed,
            folder=out_dir,
            title=cls.name,
        )
        fitted.discard_checkpoints()
        return cls(config, scaling, horizon, fitted.tokenizer, fitted.network)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths; a window's paths depend on seed, stock and origin alone, not on the batch.

        Raises:
            UserError: further ahead than it was fitted for.
        """
        require_horizon(self.name, fitted=self.horizon, asked=horizon)
        # Two numbers per token: which one, and where in its bin.
        uniforms = np.stack([rng.random((num_samples, horizon, 2)) for rng in window_generators(context, seed)])
        inputs = self.scaling.inputs(context).joined
        return self.scaling.forecast(context, draw_returns(self.network, self.tokenizer, self.config, inputs, uniforms))

    def _tensors(self) -> tuple[dict[str, torch.Tensor], JsonObject]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"tokens.{name}": tensor for name, tensor in self.tokenizer.state().items()}
        return tensors, {"horizon": self.horizon, "context_dim": self.network.context_dim}

    @classmethod
    def _from_file(cls, file: FittedFile) -> Self:
        tokenizer = Tokenizer.from_state({name: file.tensors[f"tokens.{name}"] for name in ("edges", "means", "knots")})
        sizes = network_sizes(file.config, tokenizer.num_tokens, file.header["context_dim"])
        network = SequenceNetwork(sizes, sizes.num_tokens)
        file.fill(network, "network.")
        return cls(file.config, file.scaling, file.header["horizon"], tokenizer, network)


@dataclass(frozen=True, eq=False)
class Gail(GailPretrained):
    """The token model after teacher forcing and imitation."""

    name: ClassVar[str] = "gail"
    Config: ClassVar[type] = GailConfig
    requires = ("sb3_contrib",)

    @classmethod
    def fit(
        cls, config: PretrainedConfig, train: WindowSet, val: WindowSet, *, horizon: int, seed: int, out_dir: Path
    ) -> Self:
        """Train both stages; see `GailPretrained.fit`.

        Raises:
            MissingPackageError: sb3-contrib is not installed.
        """
        # Before the long part: a missing package is to be missed now and not after teacher forcing.
        import_optional("sb3_contrib", needed_by=cls.name, install="grpo-forecast[gail]")
        return super().fit(config, train, val, horizon=horizon, seed=seed, out_dir=out_dir)
