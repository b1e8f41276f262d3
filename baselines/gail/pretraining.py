"""Teacher forcing: the token model learns p(token_t | tokens before, context) by cross-entropy.

Its validation NLL stands beside what simpler models of the tokens reach there: the shares of the tokens (i.i.d.), and
the shares after each token (Markov chain), both counted on the training sequences with one added to every count.

Letters: N sequences, C numbers of context, T tokens, V tokens there are, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from baselines.gail.config import PRETRAINING, VALIDATION, PretrainedConfig
from baselines.gail.demonstrations import TokenSequences
from baselines.gail.network import NetworkSizes, SequenceNetwork, previous, sample_tokens
from baselines.gail.tokens import Tokenizer
from baselines.neural.learning_curves import LearningCurve
from baselines.neural.seeds import number, torch_generator
from baselines.neural.training_run import Measured, Stage, TrainingRun, mean_of
from grpo.evaluation.metrics import fair_crps
from preprocessing.seeds import generator

CHECKPOINT = "pretraining.safetensors"
VALIDATION_SAMPLES = 32


def network_sizes(config: PretrainedConfig, num_tokens: int, context_dim: int) -> NetworkSizes:
    """Sizes of the token model."""
    return NetworkSizes(
        num_tokens=num_tokens,
        context_dim=context_dim,
        embedding_size=config.embedding_size,
        context_size=config.context_size,
        hidden_size=config.hidden_size,
    )


def new_network(sizes: NetworkSizes, outputs: int, seed: int) -> SequenceNetwork:
    """A network with weights drawn from a seed; the caller's random numbers stay as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SequenceNetwork(sizes, outputs)


def token_nll(network: SequenceNetwork, sequences: TokenSequences) -> torch.Tensor:
    """[] mean negative log-likelihood per token, in nats."""
    vocabulary = network.head.out_features
    logits = network(previous(sequences.tokens, vocabulary), sequences.context)
    return functional.cross_entropy(logits.flatten(0, 1), sequences.tokens.flatten())


def iid_nll(train: torch.Tensor, val: torch.Tensor, num_tokens: int) -> float:
    """Nats per token of `val` [N, T] under the shares of the tokens in `train`."""
    # One is added to every count: a token that training never shows would cost infinitely many nats.
    counts = torch.bincount(train.flatten(), minlength=num_tokens).double() + 1
    return float(-(counts / counts.sum()).log()[val].mean())


def markov_nll(train: torch.Tensor, val: torch.Tensor, num_tokens: int) -> float:
    """Nats per token of `val` [N, T] under the shares in `train` after each token; the first token has its own."""
    probabilities = transition_shares(train, num_tokens)
    return float(-probabilities[previous(val, num_tokens), val].log().mean())


def transition_shares(tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[V + 1, V] share of each token after each other one, one added to every count; row V: at the start."""
    # Pairs (token before, token) as one number; row V stands for the start, which no token comes before.
    pairs = previous(tokens, num_tokens) * num_tokens + tokens
    counts = torch.bincount(pairs.flatten(), minlength=(num_tokens + 1) * num_tokens).double() + 1
    counts = counts.reshape(num_tokens + 1, num_tokens)
    return counts / counts.sum(dim=1, keepdim=True)


def draw_returns(
    network: SequenceNetwork,
    tokenizer: Tokenizer,
    config: PretrainedConfig,
    context: torch.Tensor,
    uniforms: np.ndarray,
) -> np.ndarray:
    """[B, S, T] sampled scaled returns.

    Args:
        network: the token model.
        tokenizer: what its tokens stand for.
        config: the decode rule.
        context: [B, C].
        uniforms: [B, S, T, 2] in [0, 1): which token, and where in its bin.
    """
    # [B, S, T, 2] uniforms: the first picks the token, the second the place within its bin.
    tokens = sample_tokens(network, context, torch.from_numpy(uniforms[..., 0])).numpy()
    return tokenizer.decode(tokens, uniforms[..., 1], config.decode)


def validation_crps(
    network: SequenceNetwork, tokenizer: Tokenizer, config: PretrainedConfig, sequences: TokenSequences
) -> float:
    """Mean CRPS of the scaled return since the start, each day over the square root of its number.

    This is `baselines.neural.early_stopping.scaled_crps` in log returns, for demonstrations of any kind. The same
    variates are drawn each time, so that two calls compare networks and not luck.
    """
    horizon = sequences.tokens.shape[1]
    # Seed 0 whatever the training's seed: all looks of all trainings see the same variates.
    rng = generator(number(0, VALIDATION))
    uniforms = rng.random((len(sequences), VALIDATION_SAMPLES, horizon, 2))
    paths = np.cumsum(draw_returns(network, tokenizer, config, sequences.context, uniforms), axis=-1)
    crps = fair_crps(paths, np.cumsum(sequences.returns.double().numpy(), axis=-1))
    # A walk's error grows by the root of the day, so each day counts alike.
    return float((crps / np.sqrt(np.arange(1, horizon + 1))).mean())


def validation_losses(
    network: SequenceNetwork, tokenizer: Tokenizer, config: PretrainedConfig, sequences: TokenSequences
) -> dict[str, float]:
    """`val_nll` and `val_crps`, of which `config.criterion` names the one that decides."""
    with torch.no_grad():
        nll = token_nll(network, sequences).item()
    return {"val_nll": nll, "val_crps": validation_crps(network, tokenizer, config, sequences)}


def pretrain(
    config: PretrainedConfig,
    tokenizer: Tokenizer,
    train: TokenSequences,
    val: TokenSequences,
    *,
    seed: int,
    folder: Path,
    identity: Mapping[str, object],
    curve: LearningCurve,
) -> SequenceNetwork:
    """Train until the validation loss stops falling, and return the best weights.

    Args:
        config: sizes and steps.
        tokenizer: what the tokens stand for.
        train: to learn from.
        val: to stop by.
        seed: of the weights and the batches.
        folder: of the checkpoint; a training that was cut short there goes on.
        identity: what the training depends on besides the config, as plain JSON.
        curve: gets a row per look at `val`.
    """
    sizes = network_sizes(config, tokenizer.num_tokens, train.context.shape[1])
    network = new_network(sizes, sizes.num_tokens, number(seed, PRETRAINING))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.pretrain_learning_rate, weight_decay=config.weight_decay
    )
    run = TrainingRun(
        folder / CHECKPOINT,
        identity,
        modules={"network": network},
        optimizers={"adam": optimizer},
        patience=config.patience,
        curve=curve,
    )
    simple = {
        "iid_nll": iid_nll(train.tokens, val.tokens, sizes.num_tokens),
        "markov_nll": markov_nll(train.tokens, val.tokens, sizes.num_tokens),
    }

    def look(step: int, recent: Sequence[Measured]) -> str:
        measured = validation_losses(network, tokenizer, config, val)
        run.best.offer(measured[f"val_{config.criterion}"], step, network)
        curve.add("pretraining", step, **measured, **mean_of(recent), **simple)
        return f"NLL {measured['val_nll']:.4f}"

    stage = Stage(
        name="pretraining",
        steps=config.pretrain_steps,
        look_every=config.validate_every,
        # untrained, the network forecasts a random walk, which may be the best there is
        begin=lambda: look(0, []),
        step=lambda step: {"train_nll": _step(network, optimizer, config, train, seed, step)},
        look=look,
    )
    with torch.random.fork_rng(devices=[]):  # a checkpoint brings torch's random numbers, which are the caller's
        run.resume()
        run.train([stage], title="teacher forcing")
    run.best.restore(network)
    return network


def _step(
    network: SequenceNetwork,
    optimizer: torch.optim.Optimizer,
    config: PretrainedConfig,
    train: TokenSequences,
    seed: int,
    step: int,
) -> float:
    """One gradient step; returns its loss."""
    size = min(config.pretrain_batch, len(train))
    # Drawn from (seed, step) and no running generator: a resumed training takes the batches of an unbroken one.
    rows = torch.randint(len(train), (size,), generator=torch_generator(seed, PRETRAINING, step))
    for group in optimizer.param_groups:
        group["lr"] = config.pretrain_learning_rate * (1 + math.cos(math.pi * step / config.pretrain_steps)) / 2
    loss = token_nll(network, train.take(rows))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss.item()
