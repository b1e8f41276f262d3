"""A Markov chain of four states whose transitions are known, as tokens."""

from __future__ import annotations

import numpy as np
import torch

from baselines.gail.demonstrations import TokenSequences
from baselines.gail.network import NetworkSizes, SequenceNetwork, previous, sample_tokens
from baselines.gail.tokens import KNOTS, Tokenizer

TRANSITIONS = np.array([[0.7, 0.2, 0.1, 0.0], [0.0, 0.1, 0.8, 0.1], [0.1, 0.1, 0.1, 0.7], [0.5, 0.0, 0.25, 0.25]])
"""Row: state, column: the next. The first state is any of the four alike."""
STATES = len(TRANSITIONS)
TOKENIZER = Tokenizer(
    edges=np.arange(STATES - 1) + 0.5,
    means=np.arange(float(STATES)),
    knots=np.repeat(np.arange(float(STATES))[:, None], KNOTS + 1, axis=1),
)
"""Token k is the number k."""


def chains(count: int, length: int, seed: int) -> TokenSequences:
    """Independent sequences of the chain, without context."""
    rng = np.random.default_rng(seed)
    tokens = np.empty((count, length), dtype=np.int64)
    tokens[:, 0] = rng.integers(STATES, size=count)
    cumulated = TRANSITIONS.cumsum(axis=1)
    for step in range(1, length):
        tokens[:, step] = (cumulated[tokens[:, step - 1], :-1] <= rng.random((count, 1))).sum(axis=1)
    return as_sequences(torch.from_numpy(tokens))


def as_sequences(tokens: torch.Tensor) -> TokenSequences:
    """Tokens without context."""
    return TokenSequences(torch.zeros(len(tokens), 0), tokens, tokens.float())


def take(sequences: TokenSequences, rows: slice) -> TokenSequences:
    """Some of them."""
    return TokenSequences(sequences.context[rows], sequences.tokens[rows], sequences.returns[rows])


@torch.no_grad()
def transition_error(network: SequenceNetwork, length: int, *, paths: int = 512) -> float:
    """Mean over states of the L1 distance between the chain's next-state law and the network's.

    The network's law after a state is its mean over its own paths, wherever these are in that state.
    """
    uniforms = torch.from_numpy(np.random.default_rng(0).random((1, paths, length)))
    tokens = sample_tokens(network, torch.zeros(1, 0), uniforms)[0]
    laws = network(previous(tokens, STATES), torch.zeros(paths, 0)).softmax(dim=-1)[:, 1:].double()
    learnt = torch.stack([laws[tokens[:, :-1] == state].mean(dim=0) for state in range(STATES)])
    return float((learnt - torch.from_numpy(TRANSITIONS)).abs().sum(dim=1).mean())


def random_network(
    *, num_tokens: int = 5, context_dim: int = 3, outputs: int = 5, seed: int = 0, scale: float = 1.0
) -> SequenceNetwork:
    """A small network that says something, unlike an untrained one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = NetworkSizes(
            num_tokens=num_tokens, context_dim=context_dim, embedding_size=4, context_size=6, hidden_size=7
        )
        network = SequenceNetwork(sizes, outputs)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=scale)
    return network
