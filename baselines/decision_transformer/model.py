"""The Decision Transformer: actions as the next token of (return to go, state, action) sequences.

Chen et al. 2021, https://arxiv.org/abs/2106.01345. Each bar is three tokens in this order,

    R_0 s_0 a_0  R_1 s_1 a_1  ...

behind a causal mask: the action a_t is read off the token of s_t and the next return to go R_(t+1) off the token of
a_t, so that no head sees what it predicts. Since R_(t+1) = R_t - r_t, the return head says what the bar earns, r_t,
and R_t is known.
Blocks normalise before attention and MLP (pre-LN); every token adds the embedding of its bar's position. Without
returns to go the same network is behaviour cloning: two tokens per bar and no return head.

Letters: B sequences, T bars, S state features, A actions, D width, K tokens per bar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.building_blocks.settings import require_at_least


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Size of the network."""

    d_model: int = 128
    """Width of a token."""
    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads; they divide the width."""
    dropout: float = 0.1
    """Share of activations dropped in training, from 0 to below 1."""
    context: int = 128
    """Bars that are seen at once."""
    state_size: int = 17
    """Numbers that describe a state."""
    num_actions: int = 5
    """Actions to choose from."""
    return_scale: float = 100.0
    """What a return to go is multiplied by: 100 makes log returns percent."""
    use_returns: bool = True
    """Whether the returns to go are tokens; without them this is behaviour cloning."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "d_model", "num_layers", "num_heads", "context", "state_size")
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads must divide d_model; got {self.num_heads} and {self.d_model}")
        require_at_least(self, 2, "num_actions")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1); got {self.dropout}")
        if not self.return_scale > 0:
            raise ValueError(f"return_scale must be above 0; got {self.return_scale}")

    @property
    def tokens_per_bar(self) -> int:
        """3 with returns to go, 2 without."""
        return 3 if self.use_returns else 2


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the heads say.

    Attributes:
        action_logits: [B, T, A] of the action of each bar.
        next_returns: [B, T] the return to go of the NEXT bar times `return_scale`; None without returns to go.
    """

    action_logits: Tensor
    next_returns: Tensor | None


class KeyValueCache:
    """Keys and values of the tokens so far, so that a further bar costs its own tokens alone.

    Attributes:
        bars: how many bars it holds.
    """

    def __init__(self, config: ModelConfig, batch: int, like: Tensor) -> None:
        heads, tokens = config.num_heads, config.tokens_per_bar * config.context
        # Room for a whole context at once: growing the store bar by bar would copy it at every bar.
        shape = (config.num_layers, 2, batch, heads, tokens, config.d_model // heads)
        self._store = torch.empty(shape, dtype=like.dtype, device=like.device)
        self._tokens = 0
        self.bars = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the newest tokens' [B, heads, n, d] and return those of all tokens."""
        end = self._tokens + keys.shape[2]
        self._store[layer, 0, :, :, self._tokens : end] = keys
        self._store[layer, 1, :, :, self._tokens : end] = values
        return self._store[layer, 0, :, :, :end], self._store[layer, 1, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Count the newest tokens as held; every layer has them now."""
        self._tokens += tokens
        self.bars += 1


class _Block(nn.Module):
    """Self-attention, then a two-layer MLP, each added to its input."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        width = config.d_model
        self.layer, self.heads, self.dropout = layer, config.num_heads, config.dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cache: KeyValueCache | None, newest: bool) -> Tensor:
        """[B, n, D] in; the same out, or with `newest` the last token alone.

        With a cache the n tokens follow those that it holds, and are added to it.
        """
        attended = self._attend(self.attention_norm(x), cache, newest)
        x = (x[:, -1:] if newest else x) + self._drop(self.attention_out(attended))
        return x + self._drop(self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x)))))

    def _attend(self, x: Tensor, cache: KeyValueCache | None, newest: bool) -> Tensor:
        batch, tokens, width = x.shape
        # [B, n, 3 D] to [B, n, 3, heads, d] to [3, B, heads, n, d].
        split = self.query_key_value(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # [B, heads, n, d] each
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        mask = None
        if newest:
            query = query[:, :, -1:]  # sees every token
        # The n newest tokens see all that the cache holds, and of themselves those up to their own: a triangle moved
        # right.
        elif tokens < key.shape[2]:
            mask = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=x.device).tril(key.shape[2] - tokens)
        # no dropout on the attention weights: with it, torch's fused kernels would have to lay them out in full
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None and not newest
        )
        # [B, heads, n, d] to [B, n, heads, d] to [B, n, D].
        return attended.transpose(1, 2).reshape(batch, -1, width)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class DecisionTransformer(nn.Module):
    """Causal transformer over returns to go, states and actions.

    Sequences start at position 0; bars that pad a short one come behind its last and need no mask: nothing looks
    ahead, so they change no valid position, and the loss leaves them out.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.return_encoder = nn.Linear(1, width) if config.use_returns else None
        self.state_encoder = nn.Linear(config.state_size, width)
        self.action_encoder = nn.Embedding(config.num_actions, width)
        self.position_encoder = nn.Embedding(config.context, width)
        self.input_norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(_Block(config, layer) for layer in range(config.num_layers))
        self.action_head = nn.Linear(width, config.num_actions)
        self.return_head = nn.Linear(width, 1) if config.use_returns else None
        self._initialise()

    def forward(self, states: Tensor, actions: Tensor, returns_to_go: Tensor | None = None) -> Predictions:
        """What the heads say at every bar.

        Args:
            states: [B, T, S].
            actions: [B, T] whole numbers from 0 to A - 1.
            returns_to_go: [B, T] not yet times `return_scale`; None where the network does not use them.

        Raises:
            ValueError: more bars than the context holds, or returns to go missing.
        """
        bars = states.shape[1]
        self._require(bars, returns_to_go)
        where = self.position_encoder.weight[:bars]
        # Three tokens per bar, in this order, and never one: joined, the token that the action is read off would hold
        # it. All three get the position of their bar.
        tokens = [self._encode_return(returns_to_go), self.state_encoder(states), self.action_encoder(actions)]
        stacked = torch.stack([token + where for token in tokens if token is not None], dim=2)  # [B, T, K, D]
        # [B, T K, D] back to [B, T, K, D].
        hidden = self._transform(stacked.flatten(1, 2), cache=None).unflatten(1, (bars, -1))
        next_returns = None
        if self.return_head is not None and returns_to_go is not None:
            # Read off the action's token, the first that knows what was done. The head says what the bar earned:
            # untrained it says nothing was, so that the next return to go begins as this one.
            earned = self.return_head(hidden[:, :, -1]).squeeze(-1)
            next_returns = self.config.return_scale * returns_to_go - earned
        # Read off the state's token, which has not seen the action.
        return Predictions(self.action_head(hidden[:, :, -2]), next_returns)

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty cache for `step`."""
        return KeyValueCache(self.config, batch, like=self.action_head.weight)

    def step(
        self,
        cache: KeyValueCache,
        state: Tensor,
        return_to_go: Tensor | None = None,
        previous_action: Tensor | None = None,
    ) -> Tensor:
        """Action logits of the next bar, given the bars in the cache; equal to those of `forward`.

        Args:
            cache: what `new_cache` made and former steps filled; this bar is added to it.
            state: [B, S] of this bar.
            return_to_go: [B] of this bar, not yet times `return_scale`.
            previous_action: [B] taken on the bar before; None on the first.

        Returns:
            [B, A].

        Raises:
            ValueError: the context is full, or something that the bar needs is missing.
        """
        bar = cache.bars
        self._require(bar + 1, return_to_go)
        if (bar > 0) != (previous_action is not None):
            raise ValueError("every bar but the first needs the action taken on the bar before")
        where = self.position_encoder.weight
        # The action of the bar before comes first: it was not known when that bar was read.
        tokens = [self.action_encoder(previous_action) + where[bar - 1]] if previous_action is not None else []
        encoded = self._encode_return(return_to_go)
        tokens += [encoded + where[bar]] if encoded is not None else []
        tokens.append(self.state_encoder(state) + where[bar])
        hidden = self._transform(torch.stack(tokens, dim=1), cache)
        # Only now: every layer has written its keys at the same place.
        cache.advance(len(tokens))
        return self.action_head(hidden[:, -1])

    def _encode_return(self, returns_to_go: Tensor | None) -> Tensor | None:
        if self.return_encoder is None or returns_to_go is None:
            return None
        return self.return_encoder(self.config.return_scale * returns_to_go.unsqueeze(-1))

    def _transform(self, tokens: Tensor, cache: KeyValueCache | None) -> Tensor:
        x = functional.dropout(self.input_norm(tokens), self.config.dropout, self.training)
        for block in self.blocks:
            # what a step is asked for is read off its last token, and above the last block nothing looks back
            x = block(x, cache, newest=cache is not None and block is self.blocks[-1])
        return self.output_norm(x)

    def _require(self, bars: int, returns_to_go: Tensor | None) -> None:
        if bars > self.config.context:
            raise ValueError(f"{bars} bars are more than the context of {self.config.context}")
        if self.config.use_returns and returns_to_go is None:
            raise ValueError("this network is conditioned on returns to go; give them")

    def _initialise(self) -> None:
        """Normal(0, .02) weights and zero biases, what is added to the residual stream scaled by its depth.

        The heads begin at zero: all actions alike, and no return earned.
        """
        residual: list[Tensor] = []
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
            if isinstance(module, _Block):
                residual.extend((module.attention_out.weight, module.mlp_out.weight))
        for weight in residual:
            # Smaller in deeper networks: each of the 2 L layers adds to the stream, whose variance would else grow with
            # L.
            nn.init.normal_(weight, std=0.02 / math.sqrt(2 * self.config.num_layers))
        for head in (self.action_head, self.return_head):
            if head is not None:
                nn.init.zeros_(head.weight)


def losses(
    predictions: Predictions, actions: Tensor, returns_to_go: Tensor | None, mask: Tensor, return_scale: float
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the actions and mean squared error of the next returns to go.

    Args:
        predictions: of B sequences.
        actions: [B, T] that were taken.
        returns_to_go: [B, T] not yet times `return_scale`; None: the second loss is 0.
        mask: [B, T] true where a bar is one, false where it pads.
        return_scale: of the network.

    Returns:
        Two scalars: nats per bar, and squared scaled returns per bar that has a next one.
    """
    entropy = functional.cross_entropy(predictions.action_logits[mask], actions[mask])
    if predictions.next_returns is None or returns_to_go is None:
        return entropy, torch.zeros_like(entropy)
    # A next return to go needs a next bar; at a market's end and in padding there is none.
    has_next = mask[:, :-1] & mask[:, 1:]
    error = predictions.next_returns[:, :-1] - return_scale * returns_to_go[:, 1:]
    # Windows of a single bar have no next one; the clamp makes their error 0 and not nan.
    return entropy, (error[has_next] ** 2).sum() / has_next.sum().clamp(min=1)
