"""The original SeqGAN on tokens (Yu et al. 2017, arXiv 1609.05473): networks, rollouts, policy gradient.

Letters: B sequences, T length, V vocabulary, H hidden units, N rollouts per prefix, R rows.

What is kept from the published program: the shapes and initial values of both networks, a start token that is token 0,
rewards that are the discriminator's probability of "real" without a baseline, a rollout policy whose embedding is
copied and whose other weights follow slowly. What differs: the loss is the mean over sequences and not their sum (Adam
takes no notice), and all rollouts of all prefixes run at once: the state of the LSTM after each prefix is computed once
and forked, where the published program ran each prefix of each rollout from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

START = 0
"""Token before the first."""
FILTERS = {1: 100, 2: 200, 3: 200, 4: 200, 5: 200, 6: 100, 7: 100, 8: 100, 9: 100, 10: 100, 15: 160, 20: 160}
"""Feature maps by filter width (table 4 of the paper, T = 20)."""
ROWS = 64
"""Rows of logits at a time: 64 x 5,000 float32 stay in the processor's cache."""

State = tuple[Tensor, Tensor]
"""Hidden and cell state, both [R, H]."""


class TokenLstm(nn.Module):
    """A distribution over sequences of tokens: embedding, LSTM, softmax.

    Args:
        vocabulary: V.
        embedding: width of the embedding.
        hidden: H.
        std: of the normal distribution that all parameters are drawn from: 1 for the oracle, .1 for a generator.
    """

    def __init__(self, vocabulary: int, *, embedding: int = 32, hidden: int = 32, std: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=std)
        second_bias = self.lstm.get_parameter("bias_hh_l0")
        nn.init.zeros_(second_bias).requires_grad_(False)  # a gate has one bias

    def forward(self, sequences: Tensor) -> Tensor:
        """[B, T, V] logits of each token given those before it."""
        return self.output(self.lstm(self.embedding(_shifted(sequences)))[0])

    def log_probs(self, sequences: Tensor) -> Tensor:
        """[B, T] log probability of each token given those before it."""
        return -F.cross_entropy(self(sequences).flatten(0, 1), sequences.flatten(), reduction="none").view_as(sequences)

    def read(self, tokens: Tensor, state: State) -> State:
        """State after one more token per row, [R]."""
        _, (hidden, cell) = self.lstm(self.embedding(tokens)[:, None], (state[0][None], state[1][None]))
        return hidden[0], cell[0]

    def draw(self, hidden: Tensor) -> Tensor:
        """[R] next tokens, by inversion of the distribution function: exact, and faster than `torch.multinomial`."""
        drawn = []
        # In parts, as the [R, V] probabilities of all rows would not stay in the cache.
        for rows in hidden.split(ROWS):
            cumulated = torch.softmax(self.output(rows), dim=1).cumsum(dim=1)
            # The level is scaled by the last sum, which rounding leaves a little off 1.
            level = torch.rand(len(rows), 1, device=hidden.device) * cumulated[:, -1:]
            drawn.append(torch.searchsorted(cumulated, level, right=True)[:, 0])
        return torch.cat(drawn).clamp_(max=self.output.out_features - 1)  # the level can be rounded up to the last

    def empty_state(self, rows: int) -> State:
        """State before the start token."""
        zeros = self.output.weight.new_zeros(rows, self.lstm.hidden_size)
        return zeros, zeros


@torch.no_grad()
def sample(model: TokenLstm, count: int, length: int) -> Tensor:
    """[count, length] sequences of a model; randomness is torch's own."""
    tokens = torch.full((count,), START, device=model.output.weight.device)
    state, sequences = model.empty_state(count), []
    for _ in range(length):
        state = model.read(tokens, state)
        tokens = model.draw(state[0])
        sequences.append(tokens)
    return torch.stack(sequences, dim=1)


@torch.no_grad()
def rollouts(policy: TokenLstm, sequences: Tensor, num: int) -> Tensor:
    """Sequences that keep a prefix and are completed by the policy.

    One Python step per token, whatever N and however many prefixes: at token t the prefixes of length 1 to t, forked
    from states that are computed once, go on together.

    Args:
        policy: draws what follows.
        sequences: [B, T].
        num: N completions of each prefix.

    Returns:
        [T - 1, N, B, T]; entry g keeps the first g + 1 tokens.
    """
    batch, length = sequences.shape
    rolled = sequences.expand(length - 1, num, batch, length).clone()
    # [T - 1, B, H] to [T - 1, N, B, H]: all rollouts of a prefix start from one state, which is computed once.
    hidden, cell = (states.expand(num, -1, -1, -1).transpose(0, 1).clone() for states in _states(policy, sequences))
    for t in range(1, length):
        # [t, N, B] rows: the prefixes that end before token t. Longer ones keep the tokens they were given.
        tokens = policy.draw(hidden[:t].flatten(0, 2))  # [t * N * B]
        rolled[:t, ..., t] = tokens.view(t, num, batch)
        if t + 1 < length:
            after = policy.read(tokens, (hidden[:t].flatten(0, 2), cell[:t].flatten(0, 2)))
            hidden[:t], cell[:t] = (states.view_as(hidden[:t]) for states in after)
    return rolled


@torch.no_grad()
def prefix_values(policy: TokenLstm, reward: Callable[[Tensor], Tensor], sequences: Tensor, num: int) -> Tensor:
    """[B, T] expected reward of each prefix (equation 4): the mean over N rollouts, the reward itself at the end.

    Args:
        policy: draws the rollouts.
        reward: [R] rewards of [R, T] whole sequences.
        sequences: [B, T].
        num: N.
    """
    batch, length = sequences.shape
    rolled = rollouts(policy, sequences, num)
    values = reward(rolled.flatten(0, 2)).view(length - 1, num, batch).mean(dim=1)
    return torch.cat([values, reward(sequences)[None]]).T


def policy_loss(log_probs: Tensor, values: Tensor) -> Tensor:
    """Scalar whose gradient is minus the policy gradient (equations 6 to 8).

    Args:
        log_probs: [B, T] of the tokens, by the generator that drew them.
        values: [B, T] expected reward of the prefix that ends with each token; a constant.
    """
    return -(log_probs * values.detach()).sum(dim=1).mean()


@torch.no_grad()
def follow(policy: TokenLstm, generator: TokenLstm, *, keep: float) -> None:
    """Move the rollout policy's weights to `keep` times their own and the rest the generator's; copy the embedding."""
    for own, new in zip(policy.parameters(), generator.parameters(), strict=True):
        own.lerp_(new, 1 - keep)
    # After the loop, which has moved the embedding too: the published program copies it whole.
    policy.embedding.load_state_dict(generator.embedding.state_dict())


class TokenDiscriminator(nn.Module):
    """CNN with max-pooling over time and a highway layer (appendix B of the paper); two logits, generated and real.

    Args:
        vocabulary: V.
        length: T; filters wider than that are left out.
        embedding: width of the embedding.
        filters: feature maps by filter width.
        dropout: share of features dropped in training.
        penalty: weight of half the squared norm of the last layer.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        embedding: int = 64,
        filters: Mapping[int, int] = FILTERS,
        dropout: float = 0.25,
        penalty: float = 0.2,
    ) -> None:
        super().__init__()
        self.widths = [width for width in filters if width <= length]
        features = sum(filters[width] for width in self.widths)
        self.embedding = nn.Embedding(vocabulary, embedding)
        convolutions = [nn.Linear(width * embedding, filters[width]) for width in self.widths]
        self.filters = nn.ModuleList(convolutions)
        self.highway = nn.Linear(features, features)
        self.gate = nn.Linear(features, features)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(features, 2)
        self.penalty = penalty
        nn.init.uniform_(self.embedding.weight, -1, 1)
        for layer in (*convolutions, self.output):
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
            nn.init.constant_(layer.bias, 0.1)
        for layer in (self.highway, self.gate):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, sequences: Tensor) -> Tensor:
        """[B, 2] logits."""
        embedded, pooled = self.embedding(sequences), []
        for width, layer in zip(self.widths, self.filters, strict=True):
            windows = embedded.unfold(1, width, 1).transpose(2, 3).flatten(2)  # [B, T - width + 1, width * embedding]
            pooled.append(layer(windows).amax(dim=1))
        features = torch.relu(torch.cat(pooled, dim=1))
        gate = torch.sigmoid(self.gate(features))
        return self.output(self.dropout(gate * torch.relu(self.highway(features)) + (1 - gate) * features))

    def loss(self, real: Tensor, generated: Tensor) -> Tensor:
        """Cross-entropy of telling [B, T] real from [B, T] generated sequences, and the penalty."""
        labels = torch.cat([real.new_ones(len(real)), real.new_zeros(len(generated))])
        entropy = F.cross_entropy(self(torch.cat([real, generated])).float(), labels)
        norm = self.output.weight.square().sum() + self.output.bias.square().sum()
        return entropy + self.penalty * norm / 2

    @torch.no_grad()
    def probability(self, sequences: Tensor) -> Tensor:
        """[R] probability that a sequence is real, without dropout."""
        training = self.training
        self.eval()
        # In float32 whatever autocast made of the layers: the softmax is the reward, and bfloat16 has three digits.
        logits = torch.cat([self(rows).float() for rows in sequences.split(4 * ROWS)])
        self.train(training)
        return torch.softmax(logits, dim=1)[:, 1]


def _shifted(sequences: Tensor) -> Tensor:
    """[B, T] what is read before each token: the start token, then all but the last."""
    return F.pad(sequences[:, :-1], (1, 0), value=START)


def _states(policy: TokenLstm, sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell state after the first 1, 2, ... T - 1 tokens, both [T - 1, B, H]."""
    state, states = policy.empty_state(len(sequences)), []
    for tokens in _shifted(sequences).T:
        state = policy.read(tokens, state)
        states.append(state)
    # Without the state after the start token alone: a rollout keeps at least one given token.
    hidden, cell = zip(*states[1:], strict=True)
    return torch.stack(hidden), torch.stack(cell)
