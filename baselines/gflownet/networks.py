"""Networks: trunks that read states, the encoder of the context ("thought"), and the heads on top.

Forward policy, backward policy and flow have a head each. The first state goes through the same trunk as every other,
so F(s0) and the first action are learnt.

Letters: B trajectories, N states, T steps, D integers of a state, A actions, K parent slots, W width, C context
positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from baselines.building_blocks.settings import require_at_least
from baselines.gflownet.environment import Environment


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the networks."""

    trunk: Literal["mlp", "transformer"] = "mlp"
    """What reads a state: a multi-layer perceptron on its features, or a causal transformer on its tokens."""
    width: int = 128
    """Units per layer."""
    layers: int = 2
    """Hidden layers of the perceptron, or blocks of the transformer."""
    heads: int = 4
    """Attention heads, a divisor of the widths of the transformers."""
    thought_width: int = 32
    """Units of the context encoder; used where there is a context."""
    thought_layers: int = 1
    """Blocks of the context encoder."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "width", "layers", "heads", "thought_width", "thought_layers")
        if self.trunk not in ("mlp", "transformer"):
            raise ValueError(f"trunk must be mlp or transformer; got '{self.trunk}'")
        if self.thought_width % self.heads or (self.trunk == "transformer" and self.width % self.heads):
            raise ValueError(
                f"heads ({self.heads}) must divide thought_width ({self.thought_width}), "
                f"and width ({self.width}) where the trunk is a transformer"
            )


@dataclass(frozen=True, eq=False)
class Flows:
    """What the heads say of states [*, D].

    Attributes:
        policy_logits: [*, A].
        backward_logits: [*, K A] of (slot, intended action) pairs by which the state may have been entered.
        log_flow: [*].
    """

    policy_logits: torch.Tensor
    backward_logits: torch.Tensor
    log_flow: torch.Tensor


class MlpTrunk(nn.Module):
    """Features of the state and the encoded context, concatenated, through hidden layers."""

    def __init__(self, environment: Environment, config: NetworkConfig, thought_width: int) -> None:
        super().__init__()
        self.environment = environment
        sizes = [environment.num_features + thought_width, *[config.width] * config.layers]
        self.layers = nn.Sequential(*(layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())))

    def forward(self, states: torch.Tensor, thought: torch.Tensor | None) -> torch.Tensor:
        """[*, W] for states [*, D]."""
        features = self.environment.encode(states).to(next(self.parameters()).dtype)
        return self.layers(features if thought is None else torch.cat([features, thought], dim=-1))

    def along(self, states: torch.Tensor, thought: torch.Tensor | None) -> torch.Tensor:
        """[B, T + 1, W] for the states of trajectories [B, T + 1, D] and a context [B, *] each."""
        return self(states, None if thought is None else thought[:, None].expand(*states.shape[:2], -1))


class CausalTransformerTrunk(nn.Module):
    """Token embeddings under a causal mask: position t has read the tokens up to t, which is state t.

    The encoded context is concatenated with what the transformer says of a state.
    """

    def __init__(self, environment: Environment, config: NetworkConfig, thought_width: int) -> None:
        super().__init__()
        if environment.vocabulary is None:
            raise ValueError(f"states of {environment.name} are no sequences of tokens; use trunk mlp")
        self.tokens = nn.Embedding(environment.vocabulary, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(environment.num_steps + 1, config.width))
        self.blocks = nn.TransformerEncoder(
            _block(config.width, config.heads),
            config.layers,
            norm=nn.LayerNorm(config.width),
            # Nested tensors do not go with `norm_first`, and torch warns where they are not declined.
            enable_nested_tensor=False,
        )
        self.join = nn.Sequential(nn.Linear(config.width + thought_width, config.width), nn.GELU())
        self.padding = environment.vocabulary - 1

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        """[N, D, W] of token rows [N, D]; a position sees itself and what is before it."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        # In the type of the weights, which are float64 once fitted; the mask is made in float32.
        mask = mask.to(self.positions.dtype)
        return self.blocks(self.tokens(tokens) + self.positions, mask=mask, is_causal=True)

    def forward(self, states: torch.Tensor, thought: torch.Tensor | None) -> torch.Tensor:
        """[*, W] for states [*, D]."""
        rows = states.reshape(-1, states.shape[-1])
        # The state is what has been read at its last token; padding behind it is not looked at, as the mask is causal.
        last = (rows != self.padding).sum(dim=-1) - 1
        read = self._read(rows)[torch.arange(len(rows), device=rows.device), last]
        read = read.reshape(*states.shape[:-1], -1)
        return self.join(read if thought is None else torch.cat([read, thought], dim=-1))

    def along(self, states: torch.Tensor, thought: torch.Tensor | None) -> torch.Tensor:
        """[B, T + 1, W] of trajectories [B, T + 1, D] in one pass: the last state holds all tokens."""
        # Under the causal mask position t has read what state t holds, so the end alone gives all T + 1 states.
        read = self._read(states[:, -1])  # D = T + 1
        if thought is not None:
            read = torch.cat([read, thought[:, None].expand(*read.shape[:2], -1)], dim=-1)
        return self.join(read)


class ThoughtEncoder(nn.Module):
    """The context as one vector: self-attention over its positions, read off the first.

    A context is tokens [B, C], or feature vectors [B, C, F] that go through a linear layer; positions are learnt.
    """

    def __init__(
        self, config: NetworkConfig, positions: int, *, features: int | None = None, vocabulary: int | None = None
    ) -> None:
        super().__init__()
        if (features is None) == (vocabulary is None):
            raise ValueError("a context is either tokens (vocabulary) or feature vectors (features)")
        width = config.thought_width
        self.width = width
        self.embed = nn.Linear(features, width) if features is not None else nn.Embedding(vocabulary or 0, width)
        self.positions = nn.Parameter(0.02 * torch.randn(positions, width))
        # no norm at the end: the size of what was put in passes, where a norm would leave its direction
        self.blocks = nn.TransformerEncoder(
            _block(width, config.heads), config.thought_layers, enable_nested_tensor=False
        )

    def forward(self, thought: torch.Tensor) -> torch.Tensor:
        """[B, W] of contexts [B, C] or [B, C, F]."""
        if thought.is_floating_point():
            thought = thought.to(self.positions.dtype)
        # Read off the first position, which after attention knows all others.
        return self.blocks(self.embed(thought) + self.positions)[:, 0]


class FlowNetwork(nn.Module):
    """Trunk and heads.

    Attributes:
        thought: encoder of the context, or None.
    """

    def __init__(self, environment: Environment, config: NetworkConfig, thought: ThoughtEncoder | None = None) -> None:
        super().__init__()
        self.thought = thought
        extra = 0 if thought is None else thought.width
        trunk = {"mlp": MlpTrunk, "transformer": CausalTransformerTrunk}[config.trunk]
        self.trunk = trunk(environment, config, extra)
        self.policy = nn.Linear(config.width, environment.num_actions)
        # A head of its own: one softmax for both policies, as in published code, forces P_B to follow pi.
        self.backward_policy = nn.Linear(config.width, environment.num_slots * environment.num_actions)
        self.flow = nn.Linear(config.width, 1)

    def policy_logits(self, states: torch.Tensor, thought: torch.Tensor | None = None) -> torch.Tensor:
        """[*, A] of states [*, D] with an encoded context [*, W] each, without the other heads."""
        return self.policy(self.trunk(states, thought))

    def forward(self, states: torch.Tensor, thought: torch.Tensor | None = None) -> Flows:
        """Of states [*, D] with an encoded context [*, W] each."""
        return self._heads(self.trunk(states, thought))

    def along(self, states: torch.Tensor, thought: torch.Tensor | None = None) -> Flows:
        """Of the states of trajectories [B, T + 1, D] with an encoded context [B, W] each."""
        return self._heads(self.trunk.along(states, thought))

    def _heads(self, hidden: torch.Tensor) -> Flows:
        return Flows(self.policy(hidden), self.backward_policy(hidden), self.flow(hidden).squeeze(-1))


def _block(width: int, heads: int) -> nn.TransformerEncoderLayer:
    # No dropout: trajectories must be drawn from the very policy that the loss sees.
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
