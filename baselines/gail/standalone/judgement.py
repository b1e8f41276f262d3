"""How good generated paths are, on demonstrations that no training has seen.

Letters: N demonstrations, H steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from baselines.gail.config import JUDGING, PretrainedConfig
from baselines.gail.demonstrations import Demonstrations, TokenSequences
from baselines.gail.discriminator import auc, f1, last_logits
from baselines.gail.network import SequenceNetwork
from baselines.gail.pretraining import draw_returns, iid_nll, markov_nll, validation_losses
from baselines.gail.tokens import RoundTrip
from baselines.gail.two_stages import FittedNetworks
from baselines.neural.seeds import number
from grpo.evaluation.distributions.analysis import DistributionReport, compare_distributions
from preprocessing.seeds import generator


@dataclass(frozen=True, eq=False)
class Judgement:
    """One policy's paths beside the real ones.

    Attributes:
        generated: [N, H] sampled scaled returns, one path per demonstration's context.
        generated_tokens: [N, H] int64.
        distributions: distances of the laws of real and generated scaled returns.
        nll: nats per token of the real paths.
        crps: see `baselines.gail.pretraining.validation_crps`.
        real_logits: [N] the discriminator's logit after each whole real path; None without a discriminator.
        generated_logits: [N] after each generated one.
    """

    generated: np.ndarray
    generated_tokens: np.ndarray
    distributions: DistributionReport
    nll: float
    crps: float
    real_logits: np.ndarray | None
    generated_logits: np.ndarray | None

    def numbers(self) -> dict[str, float]:
        """The headline, by name; AUC and F1 are best at 0.5 and 2/3 or below, see README.md."""
        numbers = {
            "nll": self.nll,
            "crps": self.crps,
            "kolmogorov_smirnov": self.distributions.measure("Kolmogorov-Smirnov").distance,
            "wasserstein": self.distributions.measure("Wasserstein-1").distance,
        }
        if self.real_logits is not None and self.generated_logits is not None:
            numbers["discriminator_auc"] = auc(self.real_logits, self.generated_logits)
            numbers["discriminator_f1"] = f1(self.real_logits, self.generated_logits)
        return numbers


def judge(
    network: SequenceNetwork, config: PretrainedConfig, fitted: FittedNetworks, test: Demonstrations, *, seed: int
) -> Judgement:
    """Sample one path per test demonstration and measure how it differs.

    Raises:
        SampleError: there are too few demonstrations to compare.
    """
    sequences = TokenSequences.encode(test, fitted.tokenizer)
    shape = (len(sequences), 1, sequences.tokens.shape[1], 2)
    uniforms = generator(number(seed, JUDGING)).random(shape)
    generated = draw_returns(network, fitted.tokenizer, config, sequences.context, uniforms)[:, 0]
    # Encoded again from the decoded returns: a draw stays within its bin, so these are the tokens that were sampled.
    tokens = fitted.tokenizer.encode(generated)
    losses = validation_losses(network, fitted.tokenizer, config, sequences)
    real_logits = generated_logits = None
    if fitted.imitation is not None:
        discriminator = fitted.imitation.discriminator
        real_logits = last_logits(discriminator, sequences.tokens, sequences.context)
        generated_logits = last_logits(discriminator, torch.from_numpy(tokens), sequences.context)
    return Judgement(
        generated=generated,
        generated_tokens=tokens,
        distributions=compare_distributions(sequences.returns.double().numpy(), generated, seed=seed),
        nll=losses["val_nll"],
        crps=losses["val_crps"],
        real_logits=real_logits,
        generated_logits=generated_logits,
    )


def simple_models(fitted: FittedNetworks, train: Demonstrations, test: Demonstrations) -> dict[str, float]:
    """Nats per token of the test paths under the training tokens' shares, and under those after each token."""
    tokenizer = fitted.tokenizer
    known, asked = (TokenSequences.encode(part, tokenizer).tokens for part in (train, test))
    return {
        "iid_nll": iid_nll(known, asked, tokenizer.num_tokens),
        "markov_nll": markov_nll(known, asked, tokenizer.num_tokens),
    }


def round_trips(fitted: FittedNetworks, parts: dict[str, Demonstrations]) -> dict[str, RoundTrip]:
    """What tokens lose of each part's returns."""
    return {name: fitted.tokenizer.round_trip(part.returns.double().numpy()) for name, part in parts.items()}
