"""Embedding, context encoding and LSTM: the one shape that token model, policy and discriminator have.

    inputs_t = [embedding(token_t), encoding(context)],  hidden_t = LSTM(hidden_{t-1}, inputs_t),  outputs = linear


Letters: B sequences, S samples, T tokens, C numbers of context, V tokens there are, K outputs, G gates (4 hidden).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

CHUNK = 8192
"""Sampled paths at a time: their states fit the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """Sizes of a network; token V is the one before the first."""

    num_tokens: int
    context_dim: int
    embedding_size: int
    context_size: int
    hidden_size: int


class TokenFeatures(nn.Module):
    """Embedded token beside the encoded context."""

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        # One more than there are tokens: row V is what is read before the first.
        self.embedding = nn.Embedding(sizes.num_tokens + 1, sizes.embedding_size)
        self.encoder = nn.Sequential()
        self.width = sizes.embedding_size
        if sizes.context_dim:
            self.encoder.append(nn.Linear(sizes.context_dim, sizes.context_size)).append(nn.Tanh())
            self.width += sizes.context_size

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[..., E] of token numbers [...], or of weights [..., V + 1] over the tokens."""
        # Weights over the tokens are for the gradient penalty, which needs points between one-hot rows.
        return tokens @ self.embedding.weight if tokens.is_floating_point() else self.embedding(tokens)

    def forward(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """[..., E + context size] of tokens [...] (or weights [..., V + 1]) and contexts [..., C]."""
        return torch.cat([self.embed(tokens), self.encoder(context)], dim=-1)


class SequenceNetwork(nn.Module):
    """K numbers after each token of a sequence, none of which knows a later token."""

    def __init__(self, sizes: NetworkSizes, outputs: int) -> None:
        super().__init__()
        self.context_dim = sizes.context_dim
        self.features = TokenFeatures(sizes)
        self.lstm = nn.LSTM(self.features.width, sizes.hidden_size, batch_first=True)
        self.head = nn.Linear(sizes.hidden_size, outputs)
        # untrained, a token model then says "all tokens alike", and a discriminator "as likely real as not"
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """[B, T, K] of tokens [B, T] (or weights [B, T, V + 1]) and contexts [B, C]."""
        # The context enters at every step and not as first state, since RecurrentPPO begins each episode from zeros.
        encoded = self.features.encoder(context)[:, None].expand(-1, tokens.shape[1], -1)
        return self.head(self.lstm(torch.cat([self.features.embed(tokens), encoded], dim=-1))[0])

    def step(
        self, features: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """[B, K] after one more token, given `features` [B, ...] of it, and the state to go on from."""
        hidden, reached = self.lstm(features[:, None], state)
        return self.head(hidden[:, 0]), reached


def previous(tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[B, T] what a token model is shown: token V, then all but the last token."""
    return functional.pad(tokens[:, :-1], (1, 0), value=num_tokens)


@torch.no_grad()
def sample_tokens(network: SequenceNetwork, context: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sequences from a token model, by inversion: token t is the first whose cumulated probability exceeds u_t.

    Runs in float64, whatever the network's type: a sequence then does not depend on the others in its batch.

    Args:
        network: of V outputs.
        context: [B, C].
        uniforms: [B, S, T] in [0, 1).

    Returns:
        [B, S, T] int64.
    """
    samples = uniforms.shape[1]
    rows = max(1, CHUNK // samples)
    weights = {name: tensor.detach().double() for name, tensor in network.state_dict().items()}
    encoded = _encode(network, context)
    width = network.features.embedding.embedding_dim
    into_gates = weights["lstm.weight_ih_l0"].T  # [E + context size, G]
    bias = weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
    # The part of the gates that token and context give is a matrix product that can be done once: [V + 1, G] for all
    # tokens, [B, G] for all contexts. A step then adds two rows in place of multiplying.
    by_token = weights["features.embedding.weight"] @ into_gates[:width] + bias  # [V + 1, G]
    by_context = encoded @ into_gates[width:]  # [B, G]
    parts = [
        _sample(weights, by_token, part.repeat_interleave(samples, dim=0), u.flatten(0, 1).double())
        for part, u in zip(by_context.split(rows), uniforms.split(rows), strict=True)
    ]
    return torch.cat(parts).reshape(uniforms.shape)


def _encode(network: SequenceNetwork, context: torch.Tensor) -> torch.Tensor:
    """[B, context size] the encoded context in float64."""
    return copy.deepcopy(network.features.encoder).double()(context.double())


def _sample(
    weights: dict[str, torch.Tensor], by_token: torch.Tensor, by_context: torch.Tensor, uniforms: torch.Tensor
) -> torch.Tensor:
    """[B S, T] tokens; the LSTM written out, so that token and context enter its gates by addition."""
    recurrent, head, bias = weights["lstm.weight_hh_l0"].T, weights["head.weight"].T, weights["head.bias"]
    hidden = uniforms.new_zeros(len(uniforms), recurrent.shape[0])
    # Shared with the hidden state, as both are zero and neither is changed in place.
    cell = hidden
    # Row V, the token before the first.
    token = torch.full((len(uniforms),), len(by_token) - 1)
    tokens = []
    for u in uniforms.T:
        gates = torch.addmm(by_context + by_token[token], hidden, recurrent)
        # torch's order of the gates.
        enter, forget, new, out = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        cumulated = torch.addmm(bias, hidden, head).softmax(dim=1).cumsum(dim=1)
        # Without the last sum, which rounding may leave below u: the last token is then the one that is taken.
        token = (cumulated[:, :-1] <= u[:, None]).sum(dim=1)
        tokens.append(token)
    return torch.stack(tokens, dim=1)
