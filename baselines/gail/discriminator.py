"""The discriminator: after each token of a path, the logit of its being real (1) and not generated (0).

It is a causal network of (context, prefix) and is trained on every prefix of every path by BCEWithLogitsLoss; the
environment asks it about the same prefixes, token by token, and rewards with -log(1 - D) = softplus(logit)
(Ho & Ermon 2016, equation 14, with the expert as 1).

Its gradient with respect to what it is shown (one-hot tokens and context) is kept small on the lines between real and
generated paths (Thanh-Tung et al. 2019, "Improving generalization and stability of generative adversarial networks").

Letters: B paths, T tokens, C numbers of context, V tokens there are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.stats import rankdata
from torch.nn import functional

from baselines.gail.demonstrations import TokenSequences
from baselines.gail.network import SequenceNetwork


def reward(logits: torch.Tensor) -> torch.Tensor:
    """-log(1 - D), positive, larger the more real a prefix looks."""
    # softplus and not -log(1 - sigmoid), which is infinite where the sigmoid rounds to 1.
    return functional.softplus(logits)


def prefix_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """[] mean binary cross-entropy of logits [B, T] over all prefixes, real and generated ones weighing alike."""
    loss = functional.binary_cross_entropy_with_logits
    return (loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake))) / 2


def gradient_penalty(
    network: SequenceNetwork, real: TokenSequences, fake: TokenSequences, mix: torch.Tensor
) -> torch.Tensor:
    """[] mean over paths of |d sum_t logit_t / d (one-hot tokens, context)|^2 / T between real and generated paths.

    Args:
        network: the discriminator.
        real: B real paths.
        fake: B generated ones.
        mix: [B] in [0, 1], the share of each real path.
    """
    width = network.features.embedding.num_embeddings
    share = mix[:, None, None]
    # Between two tokens there is nothing, but between their one-hot rows there is: [B, T, V + 1] weights.
    weights = share * functional.one_hot(real.tokens, width) + (1 - share) * functional.one_hot(fake.tokens, width)
    context = mix[:, None] * real.context + (1 - mix[:, None]) * fake.context
    shown = (weights.requires_grad_(), context.requires_grad_())
    logits = network(*shown)
    # The logits of a path depend on no other path, so the gradient of the sum holds that of each. The graph is kept, as
    # the penalty is itself differentiated by the weights.
    gradients = torch.autograd.grad(logits.sum(), shown, create_graph=True, allow_unused=True)
    squares = [g.flatten(1).square().sum(dim=1) for g in gradients if g is not None]
    # Pulled to 0 and not to 1: a discriminator with a small gradient cannot know single demonstrations by heart.
    return torch.stack(squares).sum(dim=0).mean() / weights.shape[1]


def update(
    network: SequenceNetwork,
    optimizer: torch.optim.Optimizer,
    real: TokenSequences,
    fake: TokenSequences,
    *,
    penalty_weight: float,
    random: torch.Generator,
) -> dict[str, float]:
    """One gradient step on B real and B generated paths; returns the losses and how often the sign was right."""
    logits_real, logits_fake = (network(paths.tokens, paths.context).squeeze(-1) for paths in (real, fake))
    loss = prefix_loss(logits_real, logits_fake)
    penalty = loss.new_zeros(())
    if penalty_weight:
        penalty = gradient_penalty(network, real, fake, torch.rand(len(real), generator=random))
    optimizer.zero_grad()
    (loss + penalty_weight * penalty).backward()
    optimizer.step()
    right = torch.cat([(logits_real > 0).flatten(), (logits_fake <= 0).flatten()])
    return {
        "discriminator_loss": loss.item(),
        "gradient_penalty": penalty.item(),
        "discriminator_accuracy": right.double().mean().item(),
    }


@torch.no_grad()
def last_logits(discriminator: SequenceNetwork, tokens: torch.Tensor, context: torch.Tensor) -> np.ndarray:
    """[N] the discriminator's logit after each whole path."""
    return discriminator(tokens, context)[:, -1, 0].double().numpy()


class Replay:
    """The last generated paths, as one tensor that a checkpoint can hold.

    Attributes:
        paths: [M, C + T] float32 context and tokens, oldest first, M up to `size`.
    """

    def __init__(self, size: int, context_dim: int, horizon: int) -> None:
        self.size = size
        self.context_dim = context_dim
        self.paths = torch.zeros(0, context_dim + horizon)

    def add(self, context: torch.Tensor, tokens: torch.Tensor) -> None:
        """Keep B more paths, and forget the oldest beyond `size`."""
        # One tensor, since a checkpoint holds tensors; float32 is exact for token numbers of this size.
        self.paths = torch.cat([self.paths, torch.cat([context, tokens.float()], dim=1)])[-self.size :]

    def state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {"paths": self.paths}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        self.paths = state["paths"]

    def draw(self, count: int, random: torch.Generator) -> TokenSequences:
        """Some of them, with replacement."""
        rows = self.paths[torch.randint(len(self.paths), (count,), generator=random)]
        tokens = rows[:, self.context_dim :].long()
        return TokenSequences(rows[:, : self.context_dim], tokens, torch.zeros(0))


def auc(real: np.ndarray, generated: np.ndarray) -> float:
    """Area under the ROC curve of scores: the chance that a real path scores above a generated one, ties half.

    0.5: they cannot be told apart; 1: always (Mann & Whitney 1947).
    """
    ranks = rankdata(np.concatenate([real, generated]))
    # The least sum of ranks that the real paths can have: 1 + 2 + ... Ties get the mean of their ranks, which counts
    # them half (Mann & Whitney).
    least = len(real) * (len(real) + 1) / 2
    return float((ranks[: len(real)].sum() - least) / (len(real) * len(generated)))


def f1(real: np.ndarray, generated: np.ndarray) -> float:
    """F1 of calling a path real where its logit is positive: 2 TP / (2 TP + FP + FN); 0 where none is called so."""
    true_positive, false_positive = int((real > 0).sum()), int((generated > 0).sum())
    return 2 * true_positive / (true_positive + false_positive + len(real))


def roc(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of generated and of real paths whose score is at least each threshold, from none to all."""
    # From infinity down, so that the curve begins at (0, 0).
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([real, generated]))[::-1]])
    return tuple((scores[None] >= thresholds[:, None]).mean(axis=1) for scores in (generated, real))  # type: ignore[return-value]
