"""The discriminator: convolutions of several widths over a sequence, the largest of each, a highway, one logit.

The network of the original (Kim 2014 with a highway layer, Srivastava et al. 2015) on one number per step. A context
window is constant over the steps: what a convolution makes of its channels is one number per filter, the same at
every step, and is added after the maximum, which is the same and cheaper.

Letters: N sequences, T steps, C context inputs, M filters of all widths.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from baselines.seqgan.generator import ContextEncoder
from baselines.seqgan.settings import FILTERS

_CONTEXT_HIDDEN = 32
_HIGHWAY_BIAS = -2.0
"""The highway's gate is nearly shut at first: features pass unchanged."""


class Discriminator(nn.Module):
    """One logit per sequence, high where it looks real.

    Args:
        num_steps: T; filters wider than this are left out.
        context_size: C; 0 for none.
        dropout_keep: share of the features that a training step keeps.
    """

    def __init__(self, *, num_steps: int, context_size: int, dropout_keep: float) -> None:
        super().__init__()
        self.widths = [width for width in FILTERS if width <= num_steps]
        self.features = features = sum(FILTERS[width] for width in self.widths)
        self.filters = nn.ModuleList(nn.Linear(width, FILTERS[width]) for width in self.widths)
        self.encoder = ContextEncoder(context_size, _CONTEXT_HIDDEN, features) if context_size else None
        self.transform, self.gate = nn.Linear(features, features), nn.Linear(features, features)
        nn.init.constant_(self.gate.bias, _HIGHWAY_BIAS)
        self.dropout = nn.Dropout(1 - dropout_keep)
        self.output = nn.Linear(features, 1)

    def encode(self, context: torch.Tensor) -> torch.Tensor:
        """[N, M] what each filter adds for a context [N, C]; zeros without one."""
        return context.new_zeros(len(context), self.features) if self.encoder is None else self.encoder(context)

    def forward(self, values: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """[N] logits of sequences [N, T] given contexts [N, C]."""
        return self.logits(values, self.encode(context))

    def logits(self, values: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """[N] logits of sequences [N, T] given encoded contexts [N, M]."""
        # unfold gives [N, T - width + 1, width]: a linear layer on it is the convolution, the maximum runs over the
        # places.
        found = [
            layer(values.unfold(1, width, 1)).amax(dim=1)  # [N, T - width + 1, number] to [N, number]
            for width, layer in zip(self.widths, self.filters, strict=True)
        ]
        # What a convolution makes of a constant context is the same at every step, so it can wait until after the
        # maximum.
        features = functional.relu(torch.cat(found, dim=1) + encoded)  # [N, M]
        gate = torch.sigmoid(self.gate(features))
        features = gate * functional.relu(self.transform(features)) + (1 - gate) * features
        return self.output(self.dropout(features)).squeeze(1)

    def loss(
        self, real: torch.Tensor, generated: torch.Tensor, encoded: torch.Tensor, *, l2: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of telling real from generated, plus the penalty on the last layer; and the accuracy.

        Args:
            real: [N, T].
            generated: [N, T], of the same contexts.
            encoded: [N, M] those contexts, encoded.
            l2: weight of half the squared weights and bias of the last layer.
        """
        # Real and generated rows have the same contexts in the same order: one encoding serves both.
        logits = self.logits(torch.cat([real, generated]), encoded.repeat(2, 1))
        is_real = torch.cat([torch.ones_like(logits[: len(real)]), torch.zeros_like(logits[len(real) :])])
        # As in the original, the penalty is on the last layer alone, its bias included.
        squares = self.output.weight.square().sum() + self.output.bias.square().sum()
        loss = functional.binary_cross_entropy_with_logits(logits, is_real) + l2 * squares / 2
        return loss, ((logits > 0) == (is_real > 0)).float().mean()
